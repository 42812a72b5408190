"""Outliers of a latent space: what `task=outliers` makes, points that a diffusion model decodes."""
