"""Images that two sets share, by their decoded pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from ood_lab.images.pixels import Pixels
from ood_lab.progress import track

CHUNK = 1_000  # images read at a time


def digests(pixels: Pixels, name: str) -> Iterator[bytes]:
    """A digest of each image's pixels and size, in order; equal for equal images."""
    steps = -(-len(pixels) // CHUNK)
    for chunk in track(pixels.chunks(CHUNK), f"compare images of {name}", steps):
        for image in chunk.numpy():
            yield hashlib.blake2b(image.tobytes(), digest_size=16, salt=b"%d" % image.shape[-1]).digest()
