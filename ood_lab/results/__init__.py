"""Rows of results, the tables made of them, and the report."""
