"""What commands say: as loud as asked, in words or as JSON, with colours on a terminal alone."""

import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path

import click
import pytest

from cisi_runtime import console
from cisi_runtime.cli import run
from cisi_runtime.cli.command import command
from cisi_runtime.cli.run_many import _bar
from cisi_runtime.errors import OutputError
from cisi_runtime.progress_on_stderr import shows_bars
from tests.support.commands import run_in_process
from tests.support.networks import PHOTOS

COMMANDS = {point.name: point for point in entry_points(group="cisi.commands")}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def loudness(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test begins with what a process begins with."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    before = vars(console.LOUDNESS).copy()
    yield
    for name, value in before.items():
        setattr(console.LOUDNESS, name, value)


@command(summary="Speak.", verbose="More.")
def speak() -> None:
    """Say one thing of each kind."""
    console.say("result")
    console.say_json({"result": 1})
    console.tell("note")
    console.tell_more("detail")
    console.tell_always("fault")
    console.warn("care")


@pytest.mark.parametrize(
    ("options", "out", "err"),
    [
        ([], ["result"], ["note", "fault", "warning: care"]),
        (["-v"], ["result"], ["note", "detail", "fault", "warning: care"]),
        (["-q"], [], ["fault", "warning: care"]),
        (["--json"], ['{"result": 1}'], ["note", "fault", "warning: care"]),
        (["--quiet", "--json"], ['{"result": 1}'], ["fault", "warning: care"]),
    ],
)
def test_as_loud_as_asked(
    options: list[str], out: list[str], err: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    speak.main(options, standalone_mode=False)
    said = capsys.readouterr()
    assert said.out.splitlines() == out
    assert said.err.splitlines() == err


def test_quiet_and_verbose_exclude_each_other() -> None:
    with pytest.raises(click.UsageError, match="--quiet and --verbose exclude each other"):
        speak.main(["-q", "-v"], standalone_mode=False)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_the_common_options(name: str) -> None:
    made = COMMANDS[name].load()
    options = {option for parameter in made.params for option in parameter.opts}
    assert {"-q", "--quiet", "-v", "--verbose", "--version"} <= options
    assert ("--json" in options) == (name != "serve")
    assert made.context_settings["help_option_names"] == ["-h", "--help"]


def test_verdicts_have_colours_on_a_terminal_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = "one  pass\ntwo  FAIL\nparity: 2 comparisons, 1 FAIL\nparity: 2 comparisons, all pass\npass it on"
    console.say(lines)
    assert capsys.readouterr().out == lines + "\n"
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    console.say(lines)
    green, red, end = "\x1b[32m", "\x1b[31m", "\x1b[0m"
    assert screen.getvalue().splitlines() == [
        f"one  {green}pass{end}",
        f"two  {red}FAIL{end}",
        f"parity: 2 comparisons, {red}1 FAIL{end}",
        f"parity: 2 comparisons, {green}all pass{end}",
        "pass it on",
    ]
    for name, value in (("NO_COLOR", "1"), ("TERM", "dumb")):
        plain = Terminal()
        monkeypatch.setattr(sys, "stdout", plain)
        with monkeypatch.context() as only:
            only.setenv(name, value)
            console.say(lines)
        assert plain.getvalue() == lines + "\n"


def test_json_has_no_numbers_that_json_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    console.LOUDNESS.as_json = True
    console.say_json({"psnr": float("inf"), "all": [1.5, (float("nan"), {"ssim": -float("inf")})], "text": "é"})
    assert json.loads(capsys.readouterr().out) == {"psnr": None, "all": [1.5, [None, {"ssim": None}]], "text": "é"}


def full_disk() -> io.TextIOWrapper:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full: run it on Linux")
    return open("/dev/full", "w")  # noqa: PTH123 (closed by the test)


def closed_pipe() -> io.TextIOWrapper:
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


@pytest.mark.parametrize(("stdout", "reason"), [(full_disk, "No space left on device"), (closed_pipe, "Broken pipe")])
def test_a_result_that_nobody_gets_is_an_error(
    stdout: Callable[[], io.TextIOWrapper], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for as_json, say in ((False, lambda: console.say("result")), (True, lambda: console.say_json({}))):
        stream = stdout()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", stream)
            patch.setattr(console.LOUDNESS, "as_json", as_json)
            with pytest.raises(OutputError, match=f"standard output: cannot be written: {reason}"):
                say()
        stream.close()  # as at the end of a process: what is left must not fail again


@pytest.mark.parametrize(("stdout", "reason"), [(full_disk, "No space left on device"), (closed_pipe, "Broken pipe")])
def test_a_picture_that_nobody_gets_is_an_error(
    stdout: Callable[[], io.TextIOWrapper],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    tiny_graph: Path,
) -> None:
    def main() -> None:
        with stdout() as stream, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", stream)
            run.main()

    photo = (PHOTOS / "yurt.jpg", "--mask", PHOTOS / "yurt.mask.png", "--model", tiny_graph, "--no-detail")
    result = run_in_process(main, *photo, "-o", "-", "--quiet")
    assert result.returncode == 1
    assert result.stderr == f"cisi-run: error: --output: standard output: cannot be written: {reason}\n"


def test_closed_streams_get_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """As `>&-` and `2>&-` leave them. Notes must not go to stdout instead, where a picture may go."""
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", None)
        console.tell("note")
        console.warn("care")
        assert list(_bar(iter([]), 1)) == []
        assert not shows_bars()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        console.say("result")
    assert capsys.readouterr() == ("", "")
