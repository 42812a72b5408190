"""From a trained network to numbers: one pass over each set, every detector from it, metrics."""
