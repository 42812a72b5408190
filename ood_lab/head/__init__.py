"""Heads: what turns features into logits and projections, and what detectors may ask for at test time."""
