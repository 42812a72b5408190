"""K-means on the device of its points, seeded; nothing of it waits for a GPU.

Shape letters: N points, D dimensions, K clusters, S points among which the first centres are sought.
"""

from __future__ import annotations

import torch
from torch import Tensor

SEEDED_AMONG = 6  # times K points are looked at for the first centres; more makes no better clusters, and takes longer
TRIALS = 3  # points drawn for each first centre, of which the best is kept


def kmeans(points_ND: Tensor, clusters: int, generator: torch.Generator, iterations: int = 10) -> Tensor:
    """The cluster of each point [N], from 0 to K - 1; a cluster may be empty where points are alike.

    Greedy k-means++ (Arthur & Vassilvitskii 2007) on a random part of the points, then Lloyd's iterations on all of
    them; a cluster that loses all its points goes to the point that is worst off.

    Args:
        clusters: at most N of them are made.
        generator: on the device of the points.
        iterations: at most; on the CPU it stops as soon as no point moves, which changes nothing.
    """
    count = len(points_ND)
    clusters = min(clusters, count)
    centres_KD = first_centres(points_ND, clusters, generator)
    numbers = torch.arange(clusters, device=points_ND.device)
    closeness_N, labels_N = _nearest(points_ND, centres_KD)
    for _ in range(iterations):
        member_KN = (labels_N == numbers[:, None]).to(points_ND.dtype)
        sizes_K = member_KN.sum(1)
        empty_K = sizes_K == 0
        means_KD = member_KN @ points_ND / sizes_K.clamp_min(1)[:, None]
        # Closeness is x c - |c|^2 / 2, so that the squared distance is |x|^2 - 2 closeness.
        distance_N = points_ND.square().sum(1) - 2 * closeness_N
        farthest_K = distance_N.topk(clusters).indices[(empty_K.cumsum(0) - 1).clamp_min(0)]
        centres_KD = torch.where(empty_K[:, None], points_ND[farthest_K], means_KD)
        closeness_N, moved_N = _nearest(points_ND, centres_KD)
        settled = points_ND.device.type == "cpu" and torch.equal(moved_N, labels_N)
        labels_N = moved_N
        if settled:
            break
    return labels_N


def first_centres(points_ND: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """K of the points that lie far apart [K, D]: each is the best of a few, drawn by their squared distance."""
    count = min(len(points_ND), SEEDED_AMONG * clusters)
    device = points_ND.device
    sought_S = torch.randperm(len(points_ND), generator=generator, device=device)[:count]
    among_SD = points_ND[sought_S]
    squares_S = among_SD.square().sum(1)
    distance_SS = torch.addmm(squares_S + squares_S[:, None], among_SD, among_SD.T, alpha=-2).clamp_min_(0)
    draws_KT = torch.rand(clusters, TRIALS, generator=generator, device=device, dtype=points_ND.dtype)
    chosen = [torch.zeros(1, dtype=torch.int64, device=device)]
    nearest_S = distance_SS[0]
    for draws_T in draws_KT[1:]:
        total_S = nearest_S.cumsum(0)
        tried_T = torch.searchsorted(total_S, draws_T * total_S[-1], right=True).clamp_max_(count - 1)
        left_TS = torch.minimum(nearest_S, distance_SS[tried_T])
        # As a tensor of one entry, since an index without dimensions would be fetched from the device.
        best = left_TS.sum(1).argmin(0, keepdim=True)
        nearest_S = left_TS[best].view(-1)
        chosen.append(tried_T[best])
    return among_SD[torch.cat(chosen)]


def _nearest(points_ND: Tensor, centres_KD: Tensor) -> tuple[Tensor, Tensor]:
    """x c - |c|^2 / 2 of the nearest centre, and its number; of several the first."""
    found = torch.addmm(-centres_KD.square().sum(1) / 2, points_ND, centres_KD.T).max(1)
    return found.values, found.indices


def inertia(points_ND: Tensor, labels_N: Tensor) -> Tensor:
    """The sum of squared distances to the means of the clusters."""
    member_KN = (labels_N == torch.arange(int(labels_N.max()) + 1, device=labels_N.device)[:, None]).to(points_ND.dtype)
    means_KD = member_KN @ points_ND / member_KN.sum(1).clamp_min(1)[:, None]
    return (points_ND - means_KD[labels_N]).square().sum()


def kmeans_faiss(points_ND: Tensor, clusters: int, generator: torch.Generator, iterations: int = 10) -> Tensor:
    """The same by faiss on the CPU: faster for a few hundred points, with first centres drawn at random."""
    import faiss

    clusters = min(clusters, len(points_ND))
    seed = int(torch.randint(2**31 - 1, (), generator=generator, device=generator.device))
    points = points_ND.float().cpu().contiguous().numpy()
    faiss.omp_set_num_threads(torch.get_num_threads())
    found = faiss.Kmeans(
        points.shape[1], clusters, niter=iterations, seed=seed, min_points_per_centroid=1,
        max_points_per_centroid=len(points),
    )  # fmt: skip
    found.train(points)
    _, labels = found.index.search(points, 1)
    return torch.from_numpy(labels[:, 0]).to(points_ND.device)
