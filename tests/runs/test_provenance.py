"""Provenance names the checkout's commit and marks files that differ from it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ood_lab.runs import provenance


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    done = subprocess.run(["git", "-C", str(folder), *identity, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_commit_is_that_of_the_checkout_with_a_mark_for_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "file").write_text("one")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-qm", "one")
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path / "ood_lab")
    assert provenance.commit.__wrapped__() == git(tmp_path, "rev-parse", "--short=8", "HEAD")
    (tmp_path / "file").write_text("two")
    assert provenance.commit.__wrapped__().endswith("+")


def test_outside_a_checkout_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path / "ood_lab")
    assert provenance.commit.__wrapped__() is None
