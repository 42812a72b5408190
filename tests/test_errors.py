"""The errors a user meets."""

from __future__ import annotations

import pickle

from ood_lab.errors import NotDefinedError, RunError


def test_a_missing_method_is_named_also_when_a_worker_process_sends_it() -> None:
    error = NotDefinedError([], "draw")
    assert isinstance(error, NotImplementedError)
    assert str(error) == "list must define draw(); see docs/adding.md"
    sent = pickle.loads(pickle.dumps(error))
    assert isinstance(sent, RunError)
    assert str(sent) == str(error)
