"""Pixels: squares from pictures, the decoded cache, generated pictures."""
