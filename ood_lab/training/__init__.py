"""What training reads and writes: batches, checkpoints, weights to start from."""
