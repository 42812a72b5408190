"""Terms on outliers, one file each."""
