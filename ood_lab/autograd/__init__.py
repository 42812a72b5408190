"""Layers whose second derivatives are cheap."""
