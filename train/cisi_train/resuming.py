"""What `cisi-train --resume` takes from the run that it goes on with: its options, unless they are named anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cisi_runtime.errors import CheckpointError
from cisi_runtime.strict_json import read_json
from cisi_train.recipe import BEFORE_CHOICE, RECIPE_OPTIONS

# What the run began with and keeps, by click's names. `TrainingState.resume` compares these with the checkpoint too,
# but only after every photograph has been looked at.
_KEPT = (
    *("preset", "experiment", "batch", "size", "seed", "zoom", "permute_colours", "l1_first", "no_perceptual", "bf16"),
    *("recipe", *RECIPE_OPTIONS),
    *("categories", "data_name", "data_licence"),
)
# Options that say how this part of a run starts. The rest is the run's.
_OF_THE_START = ("out", "resume", "init")
# Options of this call alone.
_OF_THE_CALL = ("quiet", "verbose", "as_json", "dry_run")


def saved_options(out: Path) -> dict[str, Any]:
    """The options that a run left in `options.json`, by the names of click's parameters. Empty where there is no such
    file; then they must be named again. Raises CheckpointError for a damaged file."""
    path = out / "options.json"
    try:
        saved = read_json(path, str(path), CheckpointError)
    except FileNotFoundError:
        return {}
    wrong = [name for name, value in saved.items() if not _is_option(value)]
    if wrong:
        raise CheckpointError(f"{path}: {wrong[0]!r} is no value of an option, expected the file that cisi-train wrote")
    saved = BEFORE_CHOICE | saved
    values = {name: value for name, value in saved.items() if value is not None and name not in _OF_THE_START}
    values["no_perceptual"] = not values.pop("perceptual", True)
    categories = values.get("categories") or []
    values["categories"] = ",".join(map(str, categories)) if isinstance(categories, list) else categories
    return values | {"categories": values["categories"] or None}


def _is_option(value: object) -> bool:
    """Whether click can take it as the value of an option: no object, no list of lists, no text that no path has."""
    items = value if isinstance(value, list) else [value]
    return all(not isinstance(item, dict | list) and "\0" not in str(item) for item in items)


def read_saved_options(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    """For click, on the eager options --out and --resume: once both are known, what the run had is the default of every
    other option."""
    known = {**context.params, parameter.name: value}
    if known.get("resume") and known.get("out") is not None:
        context.default_map = saved_options(known["out"])
    return value


def is_named(context: click.Context, name: str) -> bool:
    """Whether an option stands on the command line."""
    return context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


def refuse_changes(context: click.Context) -> None:
    """Raise UsageError for options on the command line that would make it another run."""
    saved = context.default_map
    if not saved:
        return
    changed = [
        f"{parameter.opts[0]} was {_shown(saved.get(parameter.name))}, now {_shown(context.params[parameter.name])}"
        for parameter in context.command.params
        if parameter.name in _KEPT
        and is_named(context, parameter.name)
        and (saved.get(parameter.name) or None) != (context.params[parameter.name] or None)
    ]
    if changed:
        last = context.params["out"] / "last.pt"
        raise click.UsageError(
            f"--resume cannot change what the run began with: {', '.join(changed)}; another run can start from its "
            f"weights: --init {last}"
        )


def changed_options(context: click.Context) -> list[str]:
    """A line for each option that is named anew with another value. Steps, minutes and rate are not among them:
    `TrainingState.resume` compares those with the checkpoint."""
    lines = []
    for parameter in context.command.params:
        name = parameter.name or ""
        before, now = (context.default_map or {}).get(name), context.params.get(name)
        is_told_elsewhere = name in (*_OF_THE_START, *_OF_THE_CALL, "steps", "minutes", "lr")
        if is_told_elsewhere or not context.default_map or not is_named(context, name):
            continue
        if str(before) != str(now.absolute() if isinstance(now, Path) else now):
            lines.append(f"{parameter.opts[0]} was {_shown(before)}, now {_shown(now)}")
    return lines


def _shown(value: object) -> str:
    return "not given" if value in (None, False) else "given" if value is True else str(value)
