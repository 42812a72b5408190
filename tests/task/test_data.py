"""task=data: what is there, what is missing and how to get it; downloads from a server on loopback."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ood_lab.__main__ import main
from ood_lab.config.image_sets import ImageSetUse, image_set_config
from ood_lab.errors import RunError
from ood_lab.task import data
from ood_lab.task.data import download, state
from tests.cases import each
from tests.trees import plant

CIFAR = ["task=data", "dataset=cifar10", "method=ce"]


def use(name: str, root: Path, expected: int | None = None, role: str = "far", **changes: Any) -> ImageSetUse:
    return ImageSetUse(role, name, image_set_config(name, str(root)) | changes, expected)


def test_an_empty_folder_lists_every_set_as_missing_with_how_to_get_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*CIFAR, "protocol=hamos", f"paths.data={tmp_path}"]) == 0
    shown = capsys.readouterr().out
    for name in ("cifar10", "cifar100", "tiny_imagenet", "mnist", "svhn", "textures", "places365", "lsun"):
        assert f"- {name}: missing" in shown
    assert "gdown 1lI1j0_fDDvjIt9JlWAw09X8ks-yrR_H1" in shown
    assert list(tmp_path.iterdir()) == []


def test_the_embedded_protocol_needs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["task=data", "action=verify", f"paths.data={tmp_path}"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("present") == 4
    assert "missing" not in shown


@each(("expected", "told"), [(4, "present"), (None, "present"), (5, "wrong count")])
def test_a_set_is_counted(expected: int | None, told: str, tmp_path: Path) -> None:
    plant(image_set_config("ninco", str(tmp_path)), "folder", ["a", "b"])
    found = state(use("ninco", tmp_path, expected), thorough=False)
    assert found.state == told
    assert found.where == "ninco (folder)"
    assert found.count == ("4 of 5" if expected == 5 else "4")
    assert bool(found.remedy) == (told != "present")


def test_verify_finds_an_altered_file_and_one_that_is_no_image(tmp_path: Path) -> None:
    node = image_set_config("svhn", str(tmp_path))
    plant(node, "torchvision", [str(i) for i in range(10)])
    assert state(use("svhn", tmp_path), thorough=False).state == "present"
    altered = state(use("svhn", tmp_path), thorough=True)
    assert altered.state == "wrong checksum"
    assert "eb5a983be6a315427106f1b164d9cef3 belongs" in altered.remedy
    right = "md5:" + hashlib.md5((tmp_path / "test_32x32.mat").read_bytes()).hexdigest()
    assert state(use("svhn", tmp_path, checksums={"test_32x32.mat": right}), thorough=True).state == "present"

    plant(image_set_config("ninco", str(tmp_path)), "folder", ["a", "b"])
    (tmp_path / "ninco/a/0001.png").write_bytes(b"no image")
    assert state(use("ninco", tmp_path), thorough=False).state == "present"
    broken = state(use("ninco", tmp_path), thorough=True)
    assert broken.state == "unreadable"
    assert "ninco/a/0001.png" in broken.remedy


def test_verify_ends_with_code_1_where_something_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ["task=data", "task.action=verify", "protocol.far=[svhn]", f"paths.data={tmp_path}"]
    assert main(overrides) == 1
    assert "1 of 3 not as they should be: svhn" in capsys.readouterr().err


def test_all_splits_of_an_id_set_are_decoded(tmp_path: Path) -> None:
    plant(image_set_config("cifar10", str(tmp_path)), "folder", [f"class{i}" for i in range(10)])
    (tmp_path / "cifar10/train/class3/0007.png").write_bytes(b"no image")
    found = state(use("cifar10", tmp_path, role="id"), thorough=True)
    assert found.state == "unreadable"
    assert "train/class3/0007.png" in found.remedy


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address of a server on loopback, and the folder that it serves."""
    served = tmp_path / "served"
    served.mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=str(served))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", served
    server.shutdown()


def packed(served: Path, root: Path, name: str = "set.tar.gz") -> dict[str, Any]:
    """An archive with the small NINCO of `root`, and how it would be described."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.add(root / "NINCO", "NINCO")
    (served / name).write_bytes(buffer.getvalue())
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    return {"file": name, "checksum": f"sha256:{digest}", "unpack": ".", "expect": "NINCO/NINCO_OOD_classes"}


def left(root: Path) -> list[str]:
    """What lies in a folder but locks, which stay."""
    return [path.name for path in root.iterdir() if ".lock" not in path.name]


def test_a_download_is_checked_unpacked_and_not_got_again(
    tmp_path: Path, site: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, served = site
    plant(image_set_config("ninco", str(tmp_path / "origin")), "archive", ["a", "b"])
    file = {**packed(served, tmp_path / "origin"), "url": f"{address}/set.tar.gz"}
    root = tmp_path / "data"
    root.mkdir()
    download([file], root)
    assert state(use("ninco", root, 4), thorough=True).state == "present"
    assert left(root) == ["NINCO"], "the archive is gone once it is unpacked"
    monkeypatch.setattr(data, "fetch", lambda *_: pytest.fail("got again"))
    download([file], root)


def test_a_changed_archive_is_refused_and_leaves_nothing(tmp_path: Path, site: tuple[str, Path]) -> None:
    address, served = site
    plant(image_set_config("ninco", str(tmp_path / "origin")), "archive", ["a"])
    file = {**packed(served, tmp_path / "origin"), "url": f"{address}/set.tar.gz"}
    (served / "set.tar.gz").write_bytes(b"something else")
    root = tmp_path / "data"
    root.mkdir()
    with pytest.raises(RunError, match="checksum"):
        download([file], root)
    assert left(root) == []


def test_missing_weights_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = [
        "init=torchvision_resnet50",
        "backbone=resnet50_imagenet",
        "dataset=imagenet1k",
        f"paths.data={tmp_path}",
    ]
    assert main(["task=data", "method=hamos", *overrides]) == 0
    shown = capsys.readouterr().out
    assert "torchvision_resnet50: missing weights/resnet50-0676ba61.pth" in shown


def test_a_list_with_a_wrong_line_is_unreadable_with_file_and_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    node = image_set_config("cifar10", str(tmp_path))
    plant(node, "openood", [f"class{i}" for i in range(10)])
    bad = tmp_path / "benchmark_imglist/cifar10/test_cifar10.txt"
    bad.write_text("\n" + bad.read_text() + "some set/class0/x.png -1\n")
    assert main([*CIFAR, "protocol.near=[]", "protocol.far=[photos]", f"paths.data={tmp_path}"]) == 0
    shown = capsys.readouterr().out
    assert "unreadable" in shown
    assert "test_cifar10.txt, line 22: label -1" in shown


def test_what_lies_there_and_is_not_read_is_counted_and_named(tmp_path: Path) -> None:
    plant(image_set_config("ninco", str(tmp_path)), "folder", ["a", "b"])
    folder = tmp_path / "ninco/a"
    for name in ("x.gif", "y.gif", "z.jp2", "notes.txt"):
        (folder / name).touch()
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    found = state(use("ninco", tmp_path), thorough=False)
    assert (found.state, found.count) == ("present", "4")
    assert "2 .gif, 1 .jp2 not read; convert to one of .png" in found.remedy
    assert "broken link" in found.remedy
    assert "gone.png" in found.remedy
