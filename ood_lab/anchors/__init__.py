"""Text anchors: what `task=anchors` makes, a vector for the name of each ID class."""
