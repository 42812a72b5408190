"""Mixing ID images with pictures of another set, behind the augmentation, one file each."""
