"""Decoders: what `task=decode` makes, images that a diffusion model draws for outliers of a latent space."""
