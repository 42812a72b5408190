"""The head with one class more: who sees K outputs, and where the last one goes."""

from __future__ import annotations

import torch

from ood_lab.head.absent_class import AbsentClass
from ood_lab.parts import Rows
from tests.views import dot

WIDTH, C, ROWS = 6, 3, 5


def head(projects: bool = False) -> AbsentClass:
    return AbsentClass(WIDTH, projects, projection_dim=4)


def given() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    shapes = ((ROWS, WIDTH), (C + 1, WIDTH), (C + 1,))
    features, weight, bias = (torch.randn(shape, generator=draw, dtype=torch.float64) for shape in shapes)
    return features, weight, bias


def naive() -> list[list[float]]:
    """All K + 1 outputs."""
    features, weight, bias = (x.tolist() for x in given())
    return [[dot(row, w) + b for w, b in zip(weight, bias, strict=True)] for row in features]


def test_detectors_are_given_the_logits_of_the_classes_and_the_last_output_beside_them() -> None:
    outputs = torch.tensor(naive(), dtype=torch.float64)
    seen = head().tested(given()[0], outputs)
    assert set(seen) == {"logits", "absent"} == {"logits", *AbsentClass.gives}
    assert seen["logits"].tolist() == [row[:C] for row in naive()]
    assert seen["absent"].tolist() == [row[C:] for row in naive()]
    assert seen["absent"].shape == (ROWS, 1)


def test_terms_are_given_all_outputs_as_logits_and_the_last_of_them_beside() -> None:
    outputs = torch.tensor(naive(), dtype=torch.float64).requires_grad_()
    seen = head().trained(given()[0], outputs)
    assert set(seen) == {"logits", "absent"} == {"logits", *AbsentClass.adds}
    assert seen["logits"].tolist() == naive()
    assert seen["absent"].tolist() == [row[C:] for row in naive()]
    (slope,) = torch.autograd.grad(seen["absent"].sum(), outputs)
    assert slope.tolist() == [[0.0] * C + [1.0]] * ROWS


def test_of_all_outputs_those_of_the_classes_are_told_apart_for_each_term() -> None:
    outputs = torch.tensor(naive(), dtype=torch.float64)
    rows = Rows(**head().trained(given()[0], outputs)).of_classes(C)
    for seen in (rows, rows.only(("logits",), "a term")):
        assert seen.logits.tolist() == naive()
        assert seen.class_logits.tolist() == [row[:C] for row in naive()]
    assert Rows(logits=outputs).class_logits.tolist() == naive()


def test_what_detectors_are_given_is_trained_by_a_term_that_reads_it() -> None:
    assert AbsentClass.trained_through == (("absent", "absent"), ("absent", "targets"))


def test_accuracy_is_of_the_classes_even_where_the_absent_one_is_largest() -> None:
    outputs = torch.tensor([[1.0, 3.0, 2.0, 9.0], [4.0, 3.0, 2.0, -9.0]])
    assert AbsentClass.EXTRA == 1
    assert AbsentClass.class_logits(outputs).argmax(1).tolist() == [1, 0]
    assert AbsentClass.class_logits(outputs).shape == (2, C)


def test_the_classifier_gives_the_logits_that_detectors_are_given() -> None:
    features, weight, bias = given()
    found = AbsentClass.classifier({"backbone.fc.weight": weight, "backbone.fc.bias": bias})
    assert (found.weight.shape, found.bias.shape) == ((C, WIDTH), (C,))
    expected = torch.tensor([row[:C] for row in naive()], dtype=torch.float64)
    torch.testing.assert_close(features @ found.weight.T + found.bias, expected, atol=1e-12, rtol=0)


def test_its_projector_is_the_linear_heads() -> None:
    assert list(head().parameters()) == []
    z = head(projects=True).project(given()[0].float())
    torch.testing.assert_close(z.norm(dim=1), torch.ones(ROWS))
