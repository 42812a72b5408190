"""Producers: what `task=synthesize` makes, shard by shard."""
