"""Bars on a terminal, lines elsewhere."""

import io
import sys

import pytest

from cisi_runtime.console import tell
from cisi_runtime.progress_on_stderr import counted, phases_on_stderr


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Called in a test itself: pytest exchanges stderr after its fixtures were made."""
    made = Terminal()
    monkeypatch.setattr(sys, "stderr", made)
    return made


def test_elsewhere_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(counted([3, 4], "looking at pictures", "image")) == [3, 4]
    assert list(counted([5], "packing", "image")) == [5]
    captured = capsys.readouterr()
    assert captured.err.splitlines() == ["looking at pictures: 2 images", "packing: 1 image"]
    assert captured.out == ""


def test_a_terminal_has_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch)
    assert list(counted([3, 4], "looking at pictures", "image")) == [3, 4]
    text = screen.getvalue()
    assert "looking at pictures: 100%" in text
    assert "2/2" in text
    assert "? image/s" in text


def test_phases_in_their_order(capsys: pytest.CaptureFixture[str]) -> None:
    with phases_on_stderr() as show:
        show("exporting", 0, 1)
        for case in range(3):
            show("comparing", case, 2)
        show("exporting", 0, 1)
    assert capsys.readouterr().err.splitlines() == ["exporting", "comparing, 2 cases", "exporting"]


def test_phases_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch)
    with phases_on_stderr() as show:
        show("exporting", 0, 1)
        for case in range(3):
            show("comparing", case, 2)
        show("weights", 0, 1)
        tell("done")
    text = screen.getvalue()
    assert text.startswith("exporting\n\r")
    assert "comparing: 100%" in text
    assert text.endswith("\nweights\ndone\n")


def test_a_phase_that_fails_leaves_no_bar_open(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch)

    def fail() -> None:
        with phases_on_stderr() as show:
            show("comparing", 1, 2)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert screen.getvalue().endswith("\n")
