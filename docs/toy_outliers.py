"""Draw docs/pictures/toy_outliers.png: adversarial outliers in the plane while training (AOE, Figure 1).

A network learns three classes, and outliers by Outlier Exposure on points that one step of the gradient's sign
has moved down its energy. The paper describes neither its set nor its stages. Colours: the energy; white: the threshold
that 95 % of ID points pass; grey points move along the arrows to the black ones, on which the network is trained.

python docs/toy_outliers.py
"""

from __future__ import annotations

from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F

from ood_lab.figure.base import picture, tidy
from ood_lab.loss.energy import energy
from ood_lab.loss.outlier_exposure import outlier_exposure

EPSILON, ROWS, EXTENT, SHOWN = 0.6, 128, 5.0, 60
STAGES = (60, 300, 2000)  # steps
LINE = torch.linspace(-EXTENT, EXTENT, 201)
GRID = torch.cartesian_prod(LINE, LINE)
CENTRES = 2.0 * torch.tensor([[0.0, 1.0], [-0.87, -0.5], [0.87, -0.5]])
COLOURS = ("#0072B2", "#56B4E9", "#009E73")


def id_points(count: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    labels = torch.randint(3, (count,), generator=draw)
    return CENTRES[labels] + 0.4 * torch.randn(count, 2, generator=draw), labels


def outliers(count: int, draw: torch.Generator) -> Tensor:
    return (2 * torch.rand(count, 2, generator=draw) - 1) * EXTENT


def moved(net: nn.Module, points: Tensor) -> Tensor:
    """x - epsilon sign(dE/dx) (AOE, Eq. 7)."""
    x = points.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(energy(net(x)).sum(), x)
    return points - EPSILON * gradient.sign()


def trained(attacks: bool) -> list[tuple[int, nn.Module]]:
    """The network after each stage, on outliers as they are drawn or moved."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3))
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    draw, stages = torch.Generator().manual_seed(1), []
    for step in range(1, max(STAGES) + 1):
        (x, labels), away = id_points(ROWS, draw), outliers(ROWS, draw)
        away = moved(net, away) if attacks else away
        loss = F.cross_entropy(net(x), labels) + 0.5 * outlier_exposure(net(away))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step in STAGES:
            copy = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3))
            copy.load_state_dict(net.state_dict())
            stages.append((step, copy))
    return stages


def panel(axes: Axes, net: nn.Module, title: str, attacks: bool) -> None:
    draw = torch.Generator().manual_seed(2)
    (x, labels), away = id_points(400, draw), outliers(SHOWN, draw)
    with torch.no_grad():
        landscape = energy(net(GRID)).view(len(LINE), len(LINE)).T
        threshold = float(energy(net(x)).quantile(0.95))
        inside = float((energy(net(GRID)) < threshold).float().mean())
    shown = axes.contourf(LINE, LINE, landscape, levels=24, cmap="magma", alpha=0.85)
    axes.contour(LINE, LINE, landscape, levels=[threshold], colors="white", linewidths=1.6)
    for label, colour in enumerate(COLOURS):
        axes.scatter(*x[labels == label].T, s=5, color=colour, lw=0)
    if attacks:
        after = moved(net, away)
        steps = after - away
        axes.quiver(*away.T, *steps.T, angles="xy", scale_units="xy", scale=1, color="0.85", width=0.003)
        axes.scatter(*away.T, s=5, color="0.7", lw=0)
        away = after
    axes.scatter(*away.T, s=9, color="black", lw=0)
    axes.set_xlim(-EXTENT, EXTENT)
    axes.set_ylim(-EXTENT, EXTENT)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(f"{title}: {100 * inside:.0f} % of the square pass as ID", fontsize=9)
    tidy(axes)
    shown.set_rasterized(True)


def main() -> None:
    figure = Figure(figsize=(10.5, 7.2), layout="constrained")
    grid = figure.subplots(2, len(STAGES))
    for row, (attacks, name) in enumerate(((False, "OE"), (True, "AOE"))):
        for axes, (step, net) in zip(grid[row], trained(attacks), strict=True):
            panel(axes, net, f"{name}, step {step}", attacks)
    target = Path(__file__).parent / "pictures" / "toy_outliers.png"
    target.write_bytes(picture(figure))


if __name__ == "__main__":
    main()
