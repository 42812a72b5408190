"""Draw docs/pictures/image_sets.png: sixteen images of every embedded or generated set.

python docs/contact_sheet.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ood_lab.config.groups import groups
from ood_lab.config.image_sets import image_set_config
from ood_lab.reader.layout import layouts_of
from ood_lab.task.build import build

COLUMNS, SIDE, GAP, LABEL = 16, 48, 4, 170


def main() -> None:
    nodes = {name: image_set_config(name, "unused") for name in groups()["dataset"]}
    embedded = {n: node for n, node in nodes.items() if not layouts_of(node) and n != "stored"}
    height = len(embedded) * (SIDE + GAP) + GAP
    sheet = Image.new("RGB", (LABEL + COLUMNS * (SIDE + GAP) + GAP, height), "white")
    font = ImageFont.load_default(15)
    for row, (name, node) in enumerate(embedded.items()):
        top = GAP + row * (SIDE + GAP)
        ImageDraw.Draw(sheet).text((GAP * 2, top + SIDE // 2), name, fill="black", font=font, anchor="lm")
        listing = build(node | ({"count": 200} if "count" in node else {})).listing("ood")
        for column, index in enumerate(np.linspace(0, len(listing) - 1, COLUMNS).astype(int)):
            image = listing.image(int(index)).resize((SIDE, SIDE), Image.Resampling.NEAREST)
            sheet.paste(image, (LABEL + column * (SIDE + GAP), top))
    path = Path(__file__).with_name("pictures") / "image_sets.png"
    path.parent.mkdir(exist_ok=True)
    sheet.save(path, optimize=True)


if __name__ == "__main__":
    main()
