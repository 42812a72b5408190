"""The head of anchors: logits and embeddings against loops, which sets are refused, and how low its loss can be."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from ood_lab.errors import RunError
from ood_lab.head.anchors import Anchors
from ood_lab.reader.shards import MANIFEST, Manifest, Shard
from tests.cases import each
from tests.views import dot, normal, normalise

WIDTH, C, D, ROWS = 5, 4, 7, 6


def anchors() -> Tensor:
    return (F.normalize(normal(C, D, seed=1), dim=1) * torch.linspace(0.3, 2, C, dtype=torch.float64)[:, None]).float()


def stored(folder: Path, name: str = "anchors", parts: int = 1, values: Tensor | None = None) -> Path:
    """A set in `parts` files, with its manifest."""
    folder.mkdir(exist_ok=True)
    shards = []
    for number, rows in enumerate((anchors() if values is None else values).chunk(parts)):
        file = f"{number:05d}.safetensors"
        save_file({name: rows.contiguous()}, folder / file)
        shards.append(Shard(file, len(rows), (folder / file).stat().st_size, ""))
    (folder / MANIFEST).write_text(Manifest("key", tuple(shards), None, {}).text())
    return folder


def head(folder: Path | None, classes: int = C, **options: Any) -> Anchors:
    torch.manual_seed(0)
    return Anchors(
        WIDTH, False, classes, **{"projection_dim": 3, "embedding_dim": D, **options}, needs={"anchors": folder}
    )


def embeddings(made: Anchors, features: Tensor) -> list[list[float]]:
    weight, bias = made.embed.weight.tolist(), made.embed.bias.tolist()
    return [[dot(w, row) + b for w, b in zip(weight, bias, strict=True)] for row in features.tolist()]


@each(("temperature", "norm", "parts"), [(0.1, "unit", 1), (1.0, "unit", 3), (0.1, "as_is", 1), (0.7, "as_is", 2)])
def test_logits_are_products_of_the_embeddings_direction_with_the_anchors(
    temperature: float, norm: str, parts: int, tmp_path: Path
) -> None:
    made = head(stored(tmp_path, parts=parts), temperature=temperature, anchors_norm=norm)
    features = normal(ROWS, WIDTH).float()
    compared = [normalise(row) if norm == "unit" else row for row in anchors().tolist()]
    expected = [[dot(normalise(h), a) / temperature for a in compared] for h in embeddings(made, features)]
    found = made.outputs(features, torch.full((ROWS, C), torch.nan))
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-5, rtol=1e-5)


def test_cosines_over_a_tenth_are_the_default(tmp_path: Path) -> None:
    features = normal(ROWS, WIDTH).float()
    found, expected = (
        head(stored(tmp_path), **options).outputs(features, features)
        for options in ({}, {"temperature": 0.1, "anchors_norm": "unit"})
    )
    assert torch.equal(found, expected)
    assert found.abs().max() <= 10


def test_detectors_are_given_the_embedding_as_it_is(tmp_path: Path) -> None:
    made, features, outputs = head(stored(tmp_path)), 3 * normal(ROWS, WIDTH).float(), torch.ones(ROWS, C)
    seen = made.tested(features, outputs)
    assert set(seen) == {"logits", *Anchors.gives} == {"logits", "embedding"}
    assert seen["logits"] is outputs
    torch.testing.assert_close(seen["embedding"], torch.tensor(embeddings(made, features)), atol=1e-5, rtol=1e-5)


def test_logits_are_in_float32_where_a_network_runs_in_bfloat16(tmp_path: Path) -> None:
    made, features = head(stored(tmp_path)), normal(ROWS, WIDTH).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = made.outputs(features.bfloat16(), features)
    assert found.dtype == torch.float32


def test_the_layer_is_trained_and_the_anchors_are_not(tmp_path: Path) -> None:
    made, features = head(stored(tmp_path)), normal(ROWS, WIDTH).float()
    assert {name for name, _ in made.named_parameters()} == {"embed.weight", "embed.bias"}
    assert {Anchors.owner(name) for name, _ in made.named_parameters()} == {"logits"}
    F.cross_entropy(made.outputs(features, features), torch.arange(ROWS) % C).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in made.parameters())
    assert torch.equal(made.anchors, anchors())


def test_anchors_are_among_the_weights(tmp_path: Path) -> None:
    trained, features = head(stored(tmp_path)), normal(ROWS, WIDTH).float()
    loaded = head(None)
    assert torch.equal(loaded.anchors, torch.zeros(C, D))
    loaded.load_state_dict(trained.state_dict())
    assert torch.equal(loaded.anchors, anchors())
    assert torch.equal(loaded.outputs(features, features), trained.outputs(features, features))


def test_weights_replace_anchors_that_were_read_and_leave_their_file(tmp_path: Path) -> None:
    made, other = head(stored(tmp_path)), 2 * anchors()
    made.load_state_dict({**made.state_dict(), "anchors": other})
    assert torch.equal(made.anchors, other)
    assert torch.equal(head(tmp_path).anchors, anchors())


@each(
    ("classes", "dim", "message"),
    [
        (C + 1, D, rf"holds {C} anchors of {D} numbers; expected {C + 1}, one for each class, of {D} "),
        (C - 1, D, rf"holds {C} anchors of {D} numbers; expected {C - 1}, one for each class, of {D} "),
        (C, D + 2, rf"holds {C} anchors of {D} numbers; expected {C}, .* of {D + 2} \(head\.embedding_dim\)"),
    ],
)
def test_anchors_of_other_numbers_are_refused(classes: int, dim: int, message: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=message):
        head(stored(tmp_path), classes, embedding_dim=dim)


def test_a_set_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="'anchors'"):
        head(stored(tmp_path / "images", "images"))
    with pytest.raises(RunError, match="is not there"):
        head(tmp_path / "nothing")


def floors(classes: int, temperature: float) -> tuple[float, float]:
    """With orthonormal anchors: the loss of an embedding on its anchor, and the lowest there is.

    The logits of the others sum to b and that of the own class is a, with a^2 + b^2 / (C - 1) <= 1 / t^2, and a - b /
    (C - 1) is largest for an embedding that points away from them, too: sqrt(C / (C - 1)) / t.
    """
    on, lowest = 1 / temperature, math.sqrt(classes / (classes - 1)) / temperature
    first, second = (math.log(1 + (classes - 1) * math.exp(-gap)) for gap in (on, lowest))
    return first, second


def orthonormal(classes: int, folder: Path, temperature: float) -> Anchors:
    """A head whose embeddings are its features, and whose anchors are orthonormal."""
    basis = torch.linalg.qr(normal(classes, classes)).Q.float()
    made = Anchors(
        classes, False, classes, projection_dim=3, embedding_dim=classes, temperature=temperature, anchors_norm="as_is",
        needs={"anchors": stored(folder, values=basis)},
    ).double()  # fmt: skip
    with torch.no_grad():
        made.embed.weight.copy_(torch.eye(classes))
        made.embed.bias.zero_()
        made.anchors.copy_(torch.linalg.qr(normal(classes, classes)).Q)
    return made


def loss(made: Anchors, h: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(made.outputs(h, h), labels)


@each(("classes", "temperature", "on_anchor"), [(100, 1.0, 3.6219), (10, 1.0, 1.4612), (100, 0.1, 0.0044845)])
def test_the_loss_has_a_floor(classes: int, temperature: float, on_anchor: float, tmp_path: Path) -> None:
    made, labels = orthonormal(classes, tmp_path, temperature), torch.arange(classes)
    expected, lowest = floors(classes, temperature)
    assert expected == pytest.approx(on_anchor, rel=1e-3)
    assert loss(made, 7 * made.anchors, labels).item() == pytest.approx(expected, abs=1e-9)
    away = made.anchors - made.anchors.mean(0)
    assert loss(made, away, labels).item() == pytest.approx(lowest, abs=1e-9)
    assert lowest < expected


def test_no_training_of_an_embedding_goes_below_the_floor(tmp_path: Path) -> None:
    classes = 100
    made, labels = orthonormal(classes, tmp_path, 1.0), torch.arange(classes)
    _, lowest = floors(classes, 1.0)
    h = normal(classes, classes, seed=4).requires_grad_()
    optimizer = torch.optim.Adam([h], lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        value = loss(made, h, labels)
        assert value.item() > lowest - 1e-9
        value.backward()
        optimizer.step()
    assert loss(made, h, labels).item() == pytest.approx(lowest, abs=2e-3)
