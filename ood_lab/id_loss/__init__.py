"""Terms on ID data, one file each."""
