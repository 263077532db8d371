"""The graph in a folder, or in a model repository on the Hugging Face Hub.

https://huggingface.co/docs/huggingface_hub/guides/download
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

from cisi_runtime.errors import HubError
from cisi_runtime.parity.golden import golden_path

_REPOSITORY = re.compile(r"\w[\w.-]*/[\w.-]+", re.ASCII)
_TOKEN = "hf auth login, or HF_TOKEN"


def find_graph(name: Path | str, file: str | None = None, revision: str | None = None) -> Path:
    """The graph of a folder, or of a repository `owner/name`, which is fetched into the cache of `huggingface_hub`.

    name: a folder goes before a repository of the same name.
    file: the path of a graph (`.onnx`) below it. None: the only graph at its top.
    revision: branch, tag or commit of a repository; None for its main branch.

    Fetches the graph and its golden file and nothing else, both of one commit. A cached file is not fetched again.
    Where the Hub cannot be reached, the cached commit of the revision is used.

    Raises HubError for everything that is missing, refused or interrupted, and for a choice between several graphs.
    """
    if file is not None and (PurePosixPath(file).suffix != ".onnx" or not _is_below(file)):
        raise HubError(f"{name}: file {file!r}: expected the path of an .onnx file below its top")
    # Those of `Path` raise for what cannot be a path at all, as a name that is too long.
    if os.path.isdir(name):  # noqa: PTH112
        if revision is not None:
            raise HubError(f"{name}: is a folder, which has no revisions, expected none and not {revision!r}")
        return _in_folder(Path(name), file)
    if os.path.isfile(name):  # noqa: PTH113
        raise HubError(f"{name}: is a file, expected a folder or a repository; Inpainter({str(name)!r}) opens it")
    if isinstance(name, Path) or not _REPOSITORY.fullmatch(name):
        raise HubError(f"{name}: no such folder, and no repository of the Hugging Face Hub, expected owner/name")
    return _fetched(name, file, revision)


def _is_below(file: str) -> bool:
    path = PurePosixPath(file)
    return not path.is_absolute() and ".." not in path.parts


def _in_folder(folder: Path, file: str | None) -> Path:
    try:
        names = {path.name for path in folder.iterdir() if path.is_file()}
        if file is not None and (folder / file).is_file():
            names.add(file)
    except OSError as error:
        raise HubError(f"{folder}: cannot be read: {error.strerror or error}") from error
    return folder / _chosen(str(folder), names, file)


def _chosen(where: str, names: Collection[str], file: str | None) -> str:
    """names: paths of files from the top."""
    graphs = sorted(name for name in names if name.endswith(".onnx") and "/" not in name)
    if file is not None:
        if file not in names:
            raise HubError(f"{where}: holds no {file}, expected one of: {', '.join(graphs) or 'no graph at its top'}")
        return file
    if not graphs:
        raise HubError(f"{where}: holds no graph at its top, expected an .onnx file written by cisi-export")
    if len(graphs) > 1:
        raise HubError(f"{where}: holds several graphs, expected file= with one of: {', '.join(graphs)}")
    return graphs[0]


def _fetched(repository: str, file: str | None, revision: str | None) -> Path:
    try:
        from huggingface_hub import HfApi, get_cached_repo_tree
        from huggingface_hub.errors import CachedRepoTreeNotFoundError
    except ImportError as error:
        raise HubError(f"{repository}: needs huggingface_hub 1.33 or newer: pip install 'cisi-net[hub]'") from error
    api = HfApi(library_name="cisi-net")
    with _errors_of(repository, revision):
        # All that follows is of this commit, also when somebody pushes meanwhile.
        commit = api.resolve_revision(repository, revision=revision)
        try:
            names = {entry.path for entry in get_cached_repo_tree(repository, revision=commit)}
        except CachedRepoTreeNotFoundError:
            names = set(api.list_repo_files(repository, revision=commit.resolved))
    graph = _chosen(repository, names, file)
    wanted = [graph, golden_path(Path(graph)).as_posix()]
    with _errors_of(repository, revision):
        patterns = [glob.escape(name) for name in wanted if name in names]
        return Path(api.snapshot_download(repository, revision=commit, allow_patterns=patterns)) / graph


@contextlib.contextmanager
def _errors_of(repository: str, revision: str | None) -> Iterator[None]:
    """Whatever the library raises as HubError. The errors of its HTTP client differ between its versions 1 and 2."""
    try:
        yield
    except Exception as error:
        raise HubError(f"{repository}: {_explained(repository, revision, error)}") from error


def _explained(repository: str, revision: str | None, error: Exception) -> str:
    from huggingface_hub import constants, errors

    not_cached = isinstance(
        error,
        errors.LocalEntryNotFoundError | errors.RevisionResolutionError | errors.OfflineModeIsEnabled,
    )
    # The library looks into the cache first and keeps why it had to.
    cause = error.__cause__ if not_cached and error.__cause__ is not None else error
    status = cause.response.status_code if isinstance(cause, errors.HfHubHTTPError) else None
    if isinstance(cause, errors.GatedRepoError):
        page = f"{constants.ENDPOINT}/{repository}"
        return f"its owner decides who may read it, expected access asked for at {page} and a token: {_TOKEN}"
    if isinstance(cause, errors.RepositoryNotFoundError):
        return f"no such model repository, or one that is private, expected a token that may read it: {_TOKEN}"
    if isinstance(cause, errors.RevisionNotFoundError):
        return f"has no revision {revision!r}, expected a branch, a tag or a commit of it"
    if isinstance(cause, errors.HFValidationError):
        return f"no name of a repository, expected owner/name: {_line(cause)}"
    if status in (401, 403):
        return f"access denied ({status}), expected a token that may read it: {_TOKEN}"
    if not_cached:
        at = "it" if revision is None else f"revision {revision!r}"
        offline = (
            "HF_HUB_OFFLINE is set" if constants.is_offline_mode() else f"{constants.ENDPOINT} says: {_line(cause)}"
        )
        return f"expected {at} complete in the cache {constants.HF_HUB_CACHE}, because {offline}"
    return f"could not be fetched, and no part of it is used: {_line(cause)}"


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
