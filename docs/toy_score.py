"""Draw docs/pictures/toy_score.png: a score in the plane without and with GReg's penalty (GReg, Figure 1a).

Two equal networks learn three classes, and points of a ring as outliers. White: the threshold. Two OOD points have the
same score in the first panel, and moves of very different length make them pass as ID. Arrows: the shortest such move;
circles: the local radius, which estimates its length to first order.

python docs/toy_score.py
"""

from __future__ import annotations

from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from torch import Tensor, nn
from torch.nn import functional as F

from ood_lab.evaluation.radius import gradient_norms, local_radius
from ood_lab.figure.base import OUTLIER_COLOUR, picture, tidy
from ood_lab.loss.energy import energy, energy_margin
from ood_lab.loss.gradient_penalty import gradient_penalty
from ood_lab.types import Batch

M_IN, M_OUT, STEPS, ROWS, EXTENT = -8.0, -2.0, 1500, 128, 5.0
LINE = torch.linspace(-EXTENT, EXTENT, 241)
GRID = torch.cartesian_prod(LINE, LINE)
CENTRES = 2.0 * torch.tensor([[0.0, 1.0], [-0.87, -0.5], [0.87, -0.5]])


def id_points(count: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    labels = torch.randint(3, (count,), generator=draw)
    return CENTRES[labels] + 0.4 * torch.randn(count, 2, generator=draw), labels


def ring(count: int, draw: torch.Generator) -> Tensor:
    directions = F.normalize(torch.randn(count, 2, generator=draw), dim=1)
    return directions * (3.6 + 1.4 * torch.rand(count, 1, generator=draw))


def trained(penalty: float) -> nn.Module:
    """A network that minimises cross-entropy + 0.1 energy margins + penalty x the norm of the score's gradient."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3))
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    draw = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        (x, labels), outliers = id_points(ROWS, draw), ring(ROWS, draw).requires_grad_()
        logits, of_id, of_outliers = net(x.requires_grad_()), energy(net(x)), energy(net(outliers))
        loss = F.cross_entropy(logits, labels) + 0.1 * energy_margin(of_id, of_outliers, M_IN, M_OUT)
        if penalty:
            loss = loss + penalty * gradient_penalty(of_id, x, of_outliers, outliers, M_IN, M_OUT)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net


def radii(net: nn.Module, points: Tensor, threshold: float) -> Tensor:
    norms = gradient_norms([Batch(points, torch.zeros(len(points), dtype=torch.int64))], lambda x: energy(net(x)))
    return local_radius(energy(net(points)).detach(), norms, threshold, ood=True)


def pair(net: nn.Module, points: Tensor, threshold: float) -> Tensor:
    """Two neighbours in the order of scores whose distances from the threshold differ most [2, 2]."""
    points = points[energy(net(points)).argsort()]
    moves = (nearest_passing(net, points, threshold) - points).norm(dim=1)
    place = int((moves[1:] / moves[:-1]).log().abs().argmax())
    return points[place : place + 2]


def nearest_passing(net: nn.Module, points: Tensor, threshold: float) -> Tensor:
    """Of each point the nearest one of the grid that passes as ID [N, 2]."""
    passing = GRID[energy(net(GRID)) <= threshold]
    return passing[torch.cdist(points, passing).argmin(1)]


def panel(axes: Axes, net: nn.Module, points: Tensor, threshold: float, seen: Tensor) -> None:
    surface = energy(net(GRID)).detach().view(len(LINE), -1).T
    axes.contourf(LINE, LINE, surface, levels=24, cmap="cividis", alpha=0.85)
    axes.contour(LINE, LINE, surface, levels=[threshold], colors="white", linestyles="solid", linewidths=1.8)
    axes.scatter(*seen.T, s=4, color="white", lw=0)
    ends, found = nearest_passing(net, points, threshold).tolist(), radii(net, points, threshold).tolist()
    for number, (point, end, radius) in enumerate(zip(points.tolist(), ends, found, strict=True), 1):
        axes.scatter(*point, s=26, color=OUTLIER_COLOUR, zorder=3)
        axes.annotate("", end, point, arrowprops={"arrowstyle": "->", "color": OUTLIER_COLOUR})
        axes.add_patch(Circle(point, radius, fill=False, color=OUTLIER_COLOUR, lw=1.2, ls="--"))
        axes.annotate(f"$x_{number}$", point, (5, 6), textcoords="offset points")
    axes.set(xlim=(-EXTENT, EXTENT), ylim=(-EXTENT, EXTENT), aspect="equal", xticks=[], yticks=[])
    tidy(axes)


def main() -> None:
    draw = torch.Generator().manual_seed(2)
    (seen, _), outliers = id_points(1000, draw), ring(1000, draw)
    figure = Figure(figsize=(10, 5.3), layout="constrained")
    chosen: Tensor | None = None
    for axes, penalty in zip(figure.subplots(1, 2), (0.0, 0.3), strict=True):
        net = trained(penalty)
        threshold = float(energy(net(seen)).detach().quantile(0.95))
        chosen = pair(net, outliers, threshold) if chosen is None else chosen
        panel(axes, net, chosen, threshold, seen[:300])
        moves = (nearest_passing(net, outliers, threshold) - outliers).norm(dim=1)
        medians = f"median distance {moves.median():.2f}, estimate {radii(net, outliers, threshold).median():.2f}"
        axes.set_title(f"{f'penalty {penalty:g}' if penalty else 'no penalty'}: {medians}", fontsize=9)
    path = Path(__file__).with_name("pictures") / "toy_score.png"
    path.write_bytes(picture(figure))


if __name__ == "__main__":
    main()
