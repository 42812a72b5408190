"""Training objectives, one file each; a file shows the paper's loss on one screen."""
