"""One linear layer from features to the logits of the classes."""

from __future__ import annotations

from ood_lab.head.base import Head


class Linear(Head):
    """logits = W f + b."""
