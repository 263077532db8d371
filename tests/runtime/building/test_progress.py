"""What a build shows on stderr."""

import pytest

from cisi_runtime.building.progress import progress_bar
from cisi_runtime.console import LOUDNESS


@pytest.mark.parametrize(("quiet", "expected"), [(False, "building the engine\n"), (True, "")])
def test_without_a_terminal_there_is_a_line_and_no_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], quiet: bool, expected: str
) -> None:
    monkeypatch.setattr(LOUDNESS, "quiet", quiet)
    with progress_bar() as show:
        show("phase", 1, 3)
        show("phase", 3, 3)
    assert capsys.readouterr().err == expected
