"""Files on the disk: written whole, locked, fingerprinted; artifacts and shards; archives and downloads."""
