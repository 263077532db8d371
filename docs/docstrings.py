"""For mkdocstrings: lines such as `path: its file.` in a docstring become a list of parameters or fields."""

from __future__ import annotations

import re

import griffe

# A name, or several, then a colon and text. Code, lists and quoted values are none.
_FIELD = re.compile(r"^(?P<names>[a-z_]\w*(, [a-z_]\w*)*|`[\w./]+`): (?P<text>\S.*)$")


class FieldLists(griffe.Extension):
    """Rewrites the docstrings of every object that is loaded."""

    def on_object(self, *, obj: griffe.Object, **_kwargs: object) -> None:
        """Called for each module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = "\n\n".join(map(_as_list, obj.docstring.value.split("\n\n")))


def _as_list(paragraph: str) -> str:
    """A paragraph as a Markdown list, if its first line is a field. Indented lines belong to the field above."""
    lines = paragraph.split("\n")
    if not _FIELD.match(lines[0]):
        return paragraph
    result = []
    for line in lines:
        field = _FIELD.match(line)
        if field is None:
            result.append(f"  {line.strip()}")
            continue
        names = field["names"] if field["names"].startswith("`") else f"`{field['names'].replace(', ', '`, `')}`"
        result.append(f"- {names}: {field['text']}")
    return "\n".join(result)
