"""Many cases in one test."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

Test = Callable[..., None]


def each(names: str | tuple[str, ...], cases: Iterable[Any] | Callable[[], Iterable[Any]]) -> Callable[[Test], Test]:
    """What `pytest.mark.parametrize` would run as a test for each case, as one test; the case that fails is named.

    The fixture `tmp_path` is a folder of its own for each case, and what `monkeypatch` sets is undone after each; other
    fixtures are shared. Cases that take time to find are given as a function.
    """
    keys = tuple(name.strip() for name in names.split(",")) if isinstance(names, str) else names

    def decorate(test: Test) -> Test:
        parameters = inspect.signature(test).parameters

        @functools.wraps(test)
        def run(**fixtures: Any) -> None:
            found = cases() if callable(cases) else cases
            for number, case in enumerate(found):
                row = case if len(keys) > 1 else (case,)
                values = dict(zip(keys, row, strict=True))
                try:
                    _one(test, number, fixtures, values)
                except BaseException as error:
                    error.add_note(f"case {number}: {values!r}")
                    raise

        run.__signature__ = inspect.Signature([p for name, p in parameters.items() if name not in keys])  # type: ignore[attr-defined]
        return run

    return decorate


def _one(test: Test, number: int, fixtures: dict[str, Any], values: dict[str, Any]) -> None:
    own = dict(fixtures)
    if "tmp_path" in own:
        own["tmp_path"] = own["tmp_path"] / f"case{number}"
        own["tmp_path"].mkdir()
    if "monkeypatch" not in own:
        test(**own, **values)
        return
    with own["monkeypatch"].context() as own["monkeypatch"]:
        test(**own, **values)
