"""Networks that make images, and their training: `task=train_generator generator=NAME`."""
