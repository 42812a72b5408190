"""Further terms of the objective, one file each."""
