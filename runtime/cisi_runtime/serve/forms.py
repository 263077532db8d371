"""Fields of a form, as options of `cisi-run`."""

from __future__ import annotations

import dataclasses

from cisi_runtime.batch.photograph import EncodedPicture, HoleOptions, PhotographOptions
from cisi_runtime.pictures.writing import FORMATS
from cisi_runtime.serve.limits import Limits
from cisi_runtime.serve.photograph_process import InpaintTask
from cisi_runtime.serve.refusals import RefusalError
from cisi_runtime.serve.uploads import Form

_TRUE, _FALSE = ("true", "1"), ("false", "0")
# Names of formats in forms, and Pillow's.
_FORMAT_NAMES = {name.lower(): name for name in FORMATS} | {"jpg": "JPEG", "tif": "TIFF"}
_OPTIONS = ("mask_from_alpha", "invert_mask", "dilate", "detail", "format")


@dataclasses.dataclass(frozen=True)
class InpaintFields:
    """What a form asks for; each field has its name. format: Pillow's name; None: that of the photograph."""

    mask: EncodedPicture | None
    options: PhotographOptions
    detail: bool
    format: str | None

    def task(self, image: EncodedPicture) -> InpaintTask:
        """The same for a photograph."""
        return InpaintTask(image, self.mask, self.options, self.detail, self.format)


def read_fields(form: Form, limits: Limits, *, files: tuple[str, ...]) -> InpaintFields:
    """files: names of the files that the form may have, the first of them required.

    Raises RefusalError (422) that lists every fault.
    """
    faults = [f"{name}: expected as a text, not as a file" for name in form.files if name in _OPTIONS]
    faults += [f"{name}: expected as a file" for name in form.texts if name in files]
    known = (*files, *_OPTIONS)
    unknown = [name for name in (*form.files, *form.texts) if name not in known]
    faults += [f"{name[:40]!r}: unknown, expected {', '.join(known)}" for name in unknown]
    texts = form.texts
    from_alpha = _boolean(texts, "mask_from_alpha", False, faults)
    invert = _boolean(texts, "invert_mask", False, faults)
    detail = _boolean(texts, "detail", True, faults)
    dilate = _pixels(texts, "dilate", faults)
    file_format = texts.get("format")
    if file_format is not None and file_format.lower() not in _FORMAT_NAMES:
        faults.append(f"format: {file_format!r}, expected one of {', '.join(_FORMAT_NAMES)}")
    for name in files[:1]:
        if name != "mask" and name not in form.files and name not in form.texts:
            faults.append(f"{name}: is missing, expected a picture file")
    has_mask = "mask" in form.files
    if has_mask == from_alpha and "mask" not in form.texts:
        faults.append("expected a file mask, or mask_from_alpha=true, and not both")
    if faults:
        raise RefusalError(422, "wrong-field", "; ".join(faults))
    return InpaintFields(
        form.files.get("mask"),
        PhotographOptions(HoleOptions(invert, dilate), limits.max_pixels),
        detail,
        None if file_format is None else _FORMAT_NAMES[file_format.lower()],
    )


def _boolean(texts: dict[str, str], name: str, default: bool, faults: list[str]) -> bool:
    value = texts.get(name)
    if value is None:
        return default
    if value.lower() not in (*_TRUE, *_FALSE):
        faults.append(f"{name}: {value[:40]!r}, expected true or false")
    return value.lower() in _TRUE


def _pixels(texts: dict[str, str], name: str, faults: list[str]) -> int:
    value = texts.get(name, "0")
    if not (value.isascii() and value.isdecimal() and len(value) < 7):
        faults.append(f"{name}: {value[:40]!r}, expected a whole number of pixels from 0 on")
        return 0
    return int(value)
