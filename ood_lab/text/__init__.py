"""Class names as text: their words, tokens and embeddings in a CLIP text encoder."""
