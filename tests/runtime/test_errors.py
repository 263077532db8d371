import pytest

from cisi_runtime.errors import CisiError, PictureError, error_prefix


def test_a_message_is_one_printable_line() -> None:
    assert str(PictureError("写真.png: größer\nthan\tthat")) == "写真.png: größer than that"
    forged = PictureError("a\x1b[2J\0.png: \udcff \u202e")
    assert str(forged) == r"a\x1b[2J\x00.png: \udcff \u202e"
    with pytest.raises(PictureError) as caught, error_prefix("--mask"):
        raise forged
    assert str(caught.value) == rf"--mask: {forged}"
    assert str(CisiError()) == ""
