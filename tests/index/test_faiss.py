"""faiss gives the distances that the other engine gives."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from ood_lab.index import build_index
from ood_lab.scorer import build_scorer
from tests.cases import each
from tests.scorer.case import TEST, TRAIN


@each("k", [1, 5, 300])
def test_both_engines_agree(k: int) -> None:
    draw = torch.Generator().manual_seed(0)
    bank, queries = (F.normalize(torch.randn(n, 24, generator=draw), dim=1) for n in (200, 30))
    torch_engine, faiss_engine = (build_index(bank, name).kth_distance(queries, k) for name in ("torch", "faiss"))
    torch.testing.assert_close(faiss_engine, torch_engine, rtol=1e-6, atol=1e-7)


def test_the_detector_takes_the_engine_by_name() -> None:
    scores = {name: build_scorer("knn", k=3, index=name).fit(TRAIN).score(TEST) for name in ("torch", "faiss")}
    torch.testing.assert_close(scores["faiss"], scores["torch"], rtol=1e-6, atol=1e-7)
