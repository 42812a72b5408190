"""Small files in the real layout of any image set, written by the tests that read them."""

from __future__ import annotations

import pickle
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat

from ood_lab.reader.layout import layouts_of

Pixels = list[np.ndarray]  # each [H, W, 3]
Written = tuple[Pixels, list[int]]


def pixels(count: int, side: int = 32, seed: int = 0) -> np.ndarray:
    """Random uint8 images [N, S, S, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def plant(node: dict[str, Any], layout: str, classes: list[str], per_class: int = 2) -> dict[str, Written]:
    """Write every split of a layout below the set's root; gives for each its images and labels, in listing order."""
    root = Path(node["root"])
    out = {}
    for split, source in layouts_of(node)[layout].items():
        kind = next(iter(source))
        images = pixels(len(classes) * per_class, seed=zlib.crc32(repr(source).encode()))
        labels = [i // per_class for i in range(len(images))]
        out[split] = WRITERS[kind](root, source, images, labels, classes)
    return out


def _folder(root: Path, source: dict, images: np.ndarray, labels: list[int], classes: list[str]) -> Written:
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = root / source["folder"] / classes[label] / f"{i:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return list(images), labels


def _list(root: Path, source: dict, images: np.ndarray, labels: list[int], classes: list[str]) -> Written:
    lines = []
    order = np.random.default_rng(7).permutation(len(images))  # lists aren't sorted
    for i in order:
        name = f"some set/{classes[labels[i]]}/{source['list'].replace('/', '_')}_{i:04d}.png"
        path = root / source["images"] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[i]).save(path)
        lines.append(f"{name} {labels[i]}")
    file = root / source["list"]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes("\r\n".join(lines).encode() + b"\r\n")  # some copies of OpenOOD's lists have both line ends
    return [images[i] for i in order], [labels[i] for i in order]


def _batches(root: Path, source: dict, images: np.ndarray, labels: list[int], classes: list[str]) -> Written:
    fine = "100" in source["classes"]
    for part, rows in zip(
        source["batches"], np.array_split(np.arange(len(images)), len(source["batches"])), strict=True
    ):
        data = images[rows].transpose(0, 3, 1, 2).reshape(len(rows), -1)
        path = root / part
        path.parent.mkdir(parents=True, exist_ok=True)
        named = {"data": data, "fine_labels" if fine else "labels": [labels[i] for i in rows]}
        path.write_bytes(pickle.dumps(named, protocol=2))
    meta = {"fine_label_names" if fine else "label_names": classes}
    (root / source["classes"]).write_bytes(pickle.dumps(meta, protocol=2))
    return list(images), labels


def _idx(root: Path, source: dict, images: np.ndarray, labels: list[int], classes: list[str]) -> Written:
    grey = images[:, 2:30, 2:30, 0]
    for (images_name, labels_name), rows in zip(
        source["idx"], np.array_split(np.arange(len(images)), len(source["idx"])), strict=True
    ):
        (root / images_name).parent.mkdir(parents=True, exist_ok=True)
        head = struct.pack(">IIII", 2051, len(rows), 28, 28)
        (root / images_name).write_bytes(head + grey[rows].tobytes())
        (root / labels_name).write_bytes(struct.pack(">II", 2049, len(rows)) + bytes(labels[i] for i in rows))
    return [np.repeat(g[:, :, None], 3, 2) for g in grey], labels


def _mat(root: Path, source: dict, images: np.ndarray, labels: list[int], classes: list[str]) -> Written:
    path = root / source["mat"]
    path.parent.mkdir(parents=True, exist_ok=True)
    digits = np.array([label or 10 for label in labels], np.uint8)[:, None]
    savemat(path, {"X": images.transpose(1, 2, 3, 0), "y": digits}, do_compression=True)
    return list(images), labels


def _npy(root: Path, source: dict, images: np.ndarray, labels: list[int], classes: list[str]) -> Written:
    np.save(root / source["npy"], images)
    return list(images), [-1] * len(images)


def _npz(root: Path, source: dict, images: np.ndarray, labels: list[int], classes: list[str]) -> Written:
    """As BigGAN's public code writes its samples: channels first, with the classes they were asked for."""
    path = root / source["npz"]
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **{source["key"]: images.transpose(0, 3, 1, 2), "y": np.array(labels)})
    return list(images), [-1] * len(images)


WRITERS = {"folder": _folder, "list": _list, "batches": _batches, "idx": _idx, "mat": _mat, "npy": _npy, "npz": _npz}
