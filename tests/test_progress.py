"""Progress: silent on short work, a line now and then in a log, a bar on a terminal."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from ood_lab import progress
from ood_lab.progress import Meter, clock, track
from tests.cases import each


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def hand(monkeypatch: pytest.MonkeyPatch) -> Clock:
    hand = Clock()
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=hand.monotonic))
    return hand


@each(
    ("seconds", "text"),
    [(0, "0:00"), (0.4, "0:00"), (9, "0:09"), (59.4, "0:59"), (59.6, "1:00"), (61, "1:01"), (3599, "59:59"),
     (3599.6, "1:00:00"), (3661, "1:01:01"), (360_000, "100:00:00")],
)  # fmt: skip
def test_a_clock_shows_minutes_and_seconds_and_hours_where_there_are_any(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_short_work_says_nothing(hand: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Meter("score", 10) as meter:
        for _ in range(10):
            hand.now += 0.19
            meter.advance()
    assert meter.done == 10
    assert capsys.readouterr() == ("", "")


def test_a_log_gets_a_line_every_15_seconds_with_the_time_left(hand: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Meter("train", 40) as meter:
        for step in range(8):
            hand.now += 4
            meter.advance(note=f"loss {step}")
    assert capsys.readouterr().out.splitlines() == [
        "train  4/40  2:24 left  loss 3",
        "train  8/40  2:08 left  loss 7",
    ]


def test_the_time_left_goes_down_while_no_step_ends(hand: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    meter = Meter("runs", 6)
    for second in range(1, 241):
        hand.now += 1
        meter.advance(2 if second == 90 else 0)
    assert capsys.readouterr().out.splitlines() == [
        "runs  0/6",
        "runs  0/6",
        "runs  2/6  2:57 left",
        "runs  2/6  1:56 left",
        "runs  2/6  0:55 left",
    ]
    hand.now += 61
    meter.advance(0)
    assert capsys.readouterr().out == "runs  2/6\n"  # longer than the others took


def test_what_was_done_before_does_not_speed_up_the_estimate(hand: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    meter = Meter("train", 100, done=90)
    hand.now += 20
    meter.advance(2)
    assert capsys.readouterr().out == "train  92/100  1:20 left\n"


def test_a_terminal_gets_a_bar_only_after_two_seconds(hand: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(progress, "stdout", Console(file=screen, force_terminal=True, width=120))
    monkeypatch.setattr(progress.sys, "stdout", SimpleNamespace(isatty=lambda: True, write=lambda _: 0))
    with Meter("extract", 3) as meter:
        hand.now += 1.9
        meter.advance()
        assert screen.getvalue() == ""
        hand.now += 0.2
        meter.advance(note="here")
        meter.advance()
    assert "extract" in screen.getvalue()
    assert "3/3" in screen.getvalue()


def test_track_yields_everything_in_order_and_counts_it(hand: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    seen = []
    for item in track(iter("abc"), "read", 3):
        seen.append(item)
        hand.now += 16
    assert seen == ["a", "b", "c"]
    assert capsys.readouterr().out.splitlines()[-1].startswith("read  3/3  0:00 left")


def test_track_takes_the_total_from_the_items(hand: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in track([1, 2], "read"):
        hand.now += 16
    assert capsys.readouterr().out.splitlines()[0].startswith("read  1/2")
