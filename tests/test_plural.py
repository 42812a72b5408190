"""Counts read as a native writer would put them."""

from ood_lab.plural import counted


def test_one_is_singular_and_thousands_are_parted() -> None:
    counts = [counted(1, "run"), counted(0, "run"), counted(2000, "image"), counted(1, "class"), counted(3, "class")]
    assert counts == ["1 run", "0 runs", "2,000 images", "1 class", "3 classes"]
    assert [counted(2, noun) for noun in ("box", "epoch", "batch")] == ["2 boxes", "2 epochs", "2 batches"]
