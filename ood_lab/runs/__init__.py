"""Runs on the disk: their folders, what identifies them, what is outstanding, what they depend on."""
