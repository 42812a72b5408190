"""Image sets: each reads a whole set into uint8 tensors; used as ID, or as OOD by being named in a protocol."""
