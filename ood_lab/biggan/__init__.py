"""BigGAN at 32x32: its networks, and images of a trained generator."""
