"""Network families; each returns penultimate features and logits."""
