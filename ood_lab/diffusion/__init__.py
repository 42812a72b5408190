"""A diffusion model of pixels that is conditioned on text anchors."""
