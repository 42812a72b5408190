"""Many runs on any engine: what is missing, needed runs first, whatever dies is repeated once."""
