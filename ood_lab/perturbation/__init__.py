"""What is done to outlier images within a step, one file each."""
