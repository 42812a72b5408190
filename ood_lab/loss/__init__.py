"""Loss terms as pure functions, one family a file."""
