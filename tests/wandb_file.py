"""Reading back what Weights & Biases has written offline: blocks of records as in LevelDB's log, each a protobuf."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2 as protobuf

BLOCK, HEADER = 32_768, 7  # bytes; the file begins with a header as long as a record's
WHOLE, LAST = 1, 4  # kinds of parts


def records(path: Path) -> Iterator[Any]:
    """Every record of a `.wandb` file."""
    data, place, parts = path.read_bytes(), HEADER, b""
    while place + HEADER <= len(data):
        if BLOCK - place % BLOCK < HEADER:
            place += BLOCK - place % BLOCK
            continue
        _, size, kind = struct.unpack("<IHB", data[place : place + HEADER])
        parts += data[place + HEADER : place + HEADER + size]
        place += HEADER + size
        if kind in (WHOLE, LAST):
            record = protobuf.Record()
            record.ParseFromString(parts)
            yield record
            parts = b""


def read_back(path: Path) -> tuple[Any, dict[str, Any]]:
    """The run that a `.wandb` file is of, and its summary."""
    run: Any = None
    summary: dict[str, Any] = {}
    for record in records(path):
        if record.WhichOneof("record_type") == "run":
            run = record.run
        for item in record.summary.update:
            summary[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
    return run, summary
