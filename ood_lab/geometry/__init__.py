"""Equations of points: the sphere, neighbours, clusters, Gaussians. Functions of tensors alone."""
