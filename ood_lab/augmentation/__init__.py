"""Batched, per-sample augmentation of uint8 images on whatever device they are, with a generator of its own."""
