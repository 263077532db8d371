"""README and docs say what is so: links lead somewhere, commands have these options, examples run, the site builds."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from cisi_runtime.architecture import PRESETS
from cisi_runtime.backends.graph import read_graph
from cisi_runtime.backends.ort import OnnxRuntimeBackend
from cisi_runtime.backends.registry import SHIPPED_GRAPH
from cisi_runtime.building.trtexec import trtexec_line
from cisi_runtime.contract import Contract
from cisi_runtime.engines.options import BuildOptions
from cisi_runtime.inpainting.single_pass import SinglePassInpainter
from cisi_runtime.parity.golden import golden_path
from cisi_runtime.pictures.masks import centre_hole
from cisi_runtime.pictures.reading import read_mask, read_picture
from tests.support.networks import PHOTOS, ROOT, provenance, roughen

PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MAKEFILE = (ROOT / "Makefile").read_text()
# Names that look like commands: the distribution, a model of Triton's, objects of Kubernetes.
NO_COMMANDS = {"cisi-net", "cisi-photo", "cisi-ray", "cisi-storage"}
# Programs of others in examples, and why their lines are not checked here.
NOT_CHECKED = {
    "base64": "encodes a file",
    "cat": "joins files",
    "cd": "changes the folder",
    "curl": "asks a service that does not run; tests/runtime/serve and tests/runtime/triton do",
    "docker": "no Docker engine runs here; test_dockerfile checks the file",
    "hf": "asks the Hugging Face Hub; its client brings the program",
    "kubectl": "no Kubernetes runs here; tests/deploy checks the manifests",
    "git": "needs the address of a repository",
    "mkdocs": "test_the_site_builds runs it",
    "mypy": "lint runs it",
    "printf": "writes text",
    "pre-commit": "not part of the environment",
    "pytest": "runs this",
    "ruff": "lint runs it",
    "split": "cuts a file",
    "tail": "cuts a file",
    "torchrun": "starts several processes; tests/train/test_processes.py does",
    "trtexec": "NVIDIA's program; test_the_line_for_trtexec_is_ours compares the line",
}


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block.

    page: its file. line: where it begins.
    language: as the fence names it. text: what is inside.
    reason: why it is not run, from the comment above it; None: it runs.
    """

    page: Path
    line: int
    language: str
    text: str
    reason: str | None

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    fence = re.compile(
        r"(?:^<!-- not run:(?P<reason>.*?)-->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
    )
    text = page.read_text()
    return [
        Block(page, text[: match.start()].count("\n") + 1, match["language"], match["text"], match["reason"])
        for match in fence.finditer(text)
    ]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Of the headings, as GitHub and Python-Markdown both make them."""
    titles = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", title.lower()).strip()) for title in titles}


def command_lines(block: Block) -> list[list[str]]:
    """The commands of a shell block as words, without redirections and what sets variables."""
    commands = []
    for line in block.text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
        lexer.whitespace_split = True
        words: list[str] = []
        skip_next = False
        for word in [*lexer, ";"]:
            if skip_next:
                skip_next = False
            elif set(word) <= set("<>"):
                skip_next = True
            elif set(word) <= set("|&;"):
                commands.append(words)
                words = []
            elif words or not re.match(r"[A-Z_]+=", word):
                words.append(word)
    return [words for words in commands if words]


SHELL = [(block, words) for block in BLOCKS if block.language == "sh" for words in command_lines(block)]
# `- run: COMMAND` in examples of workflows.
SHELL += [
    (block, words)
    for block in BLOCKS
    if block.language == "yaml"
    for line in re.findall(r"run: (.*)", block.text)
    for words in command_lines(dataclasses.replace(block, text=line))
]


def test_links_lead_somewhere() -> None:
    count = 0
    for page in PAGES:
        for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
            count += 1
            if link.startswith("https://"):
                continue
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), f"{page.name}: {link}"
            assert target.is_relative_to(ROOT), f"{page.name}: {link}"
            if anchor:
                assert anchor in anchors(target), f"{page.name}: {link}"
    assert count > 50


def test_files_that_are_named_exist() -> None:
    named = re.compile(r"`((?:runtime|train|export|calibration|tests|benchmarks|docs|\.github)/[\w./-]*)`")
    for page in PAGES:
        for path in named.findall(prose(page)):
            assert (ROOT / path).exists(), f"{page.name}: {path}"
    files = [*re.findall(r"\bcisi_\w+/\w+(?:/\w+)*\.py", (ROOT / "docs/architecture.md").read_text())]
    assert files
    for path in files:
        assert list(ROOT.glob(f"*/{path}")), path
    for path in re.findall(r" {2,}((?:\w+/)+\w+\.py)", (ROOT / "docs/architecture.md").read_text()):
        assert (ROOT / "runtime/cisi_runtime" / path).exists() or list(ROOT.glob(f"*/{path}")), path


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


@pytest.mark.parametrize("target", ["demo", "test", "check"])
def test_the_make_targets_of_the_readme_exist(target: str) -> None:
    assert f"make {target}" in (ROOT / "README.md").read_text()
    assert re.search(rf"^{target}: .*\$\(INSTALLED\)", MAKEFILE, re.MULTILINE)


def test_every_block_says_what_it_is() -> None:
    for block in BLOCKS:
        assert block.language in {"sh", "python", "yaml", "json", "text"}, block.name
        assert block.reason is None or block.reason.strip(), block.name
    fences = sum(page.read_text().count("\n```") for page in PAGES)
    assert fences == 2 * len(BLOCKS)


@functools.cache
def click_command(module: str, attribute: str | None = None) -> click.Command:
    loaded = importlib.import_module(module)
    if attribute is not None:
        command = getattr(loaded, attribute)
        assert isinstance(command, click.Command)
        return command
    (command,) = {id(c): c for c in vars(loaded).values() if isinstance(c, click.Command)}.values()
    return command


def check_click(command: click.Command, arguments: list[str]) -> None:
    """Parse a command line without running it: options, types, choices and what is required."""
    try:
        command.make_context(command.name or "command", arguments).close()
    except click.exceptions.Exit as end:  # --help, --version
        if end.exit_code:
            raise


def check_command(words: list[str]) -> None:
    program = Path(words[0]).name if words[0].startswith(".venv/bin/") else words[0]
    arguments = words[1:]
    if program == "cisi" or program.startswith("cisi-"):
        assert program in PROJECT["scripts"], f"{program} is no command"
        points = PROJECT["entry-points"]["cisi.commands"]
        if program != "cisi":
            check_click(click_command(*points[program.removeprefix("cisi-")].split(":")), arguments)
        elif arguments and arguments[0] in points:
            check_click(click_command(*points[arguments[0]].split(":")), arguments[1:])
        else:
            check_click(click_command("cisi_runtime.cli.group", "cisi"), arguments)
    elif program == "make":
        for target in arguments:
            assert "=" in target or re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), f"make has no {target}"
    elif program in ("python", "python3"):
        assert arguments[0] == "-m", words
        module = arguments[1]
        assert importlib.util.find_spec(module), f"there is no module {module}"
        if module != "benchmarks.object_removal":
            attribute = "train" if module == "cisi_train.cli_train" else None
            check_click(click_command(module, attribute), arguments[2:])
        else:
            assert not arguments[2:]
    elif program == "pip":
        assert arguments[0] == "install", words
        for extras in re.findall(r"\[([\w,]+)\]", " ".join(arguments)):
            assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"]), words
    else:
        assert program in NOT_CHECKED, f"{program}: check it, or say in NOT_CHECKED why not"


@pytest.mark.parametrize(("block", "words"), SHELL, ids=[f"{b.name} {' '.join(w)[:60]}" for b, w in SHELL])
def test_commands_are_ours_and_have_these_options(block: Block, words: list[str]) -> None:
    try:
        check_command(words)
    except click.ClickException as error:
        pytest.fail(f"{block.name}: {' '.join(words)}: {error.format_message()}")


def test_commands_in_prose_exist() -> None:
    for page in PAGES:
        if page.name == "CHANGELOG.md":
            continue
        for name in re.findall(r"(?<![\w/.@-])cisi-[a-z]+(?![\w-])", page.read_text()):
            assert name in {*PROJECT["scripts"], *NO_COMMANDS}, f"{page.name}: {name}"


def test_reasons_are_given_and_needed() -> None:
    assert all(NOT_CHECKED.values())
    programs = {Path(words[0]).name for _, words in SHELL}
    prose_only = {"mkdocs"}
    assert set(NOT_CHECKED) - prose_only <= programs


def test_the_line_for_trtexec_is_ours() -> None:
    (shown,) = [words for _, words in SHELL if words[0] == "trtexec"]
    graph = read_graph(SHIPPED_GRAPH)
    options = BuildOptions("tensorrt", ())
    line = trtexec_line(Path("best.fp16.onnx"), Path("best.fp16.engine"), options, graph.contract, is_free=True)
    assert shown == shlex.split(line)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny one of its own: the shared one comes with four exports, which no example needs."""
    import torch

    from cisi_train.checkpoint import save_checkpoint
    from cisi_train.network import Generator

    torch.manual_seed(11)
    generator = Generator(PRESETS["tiny"])
    roughen(generator)
    with torch.no_grad():
        generator.decoder.to_rgb.weight.mul_(0.5)
    path = tmp_path_factory.mktemp("docs") / "best.pt"
    save_checkpoint(path, Contract(PRESETS["tiny"], provenance()), generator.state_dict(), configuration={})
    return path


@pytest.fixture
def workplace(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the examples name, in which they run."""
    image = read_picture(PHOTOS / "beetle.jpg").rgb[:200, :280]
    hole = np.zeros(image.shape[:2], dtype=np.bool_)
    hole[40:140, 60:190] = centre_hole(100, 130)
    Image.fromarray(image).save(tmp_path / "photo.jpg")
    Image.fromarray(hole.astype(np.uint8) * np.uint8(255)).save(tmp_path / "mask.png")
    np.save(tmp_path / "photo.npy", image)
    np.save(tmp_path / "hole.npy", hole)
    for name, source in (
        ("best.onnx", SHIPPED_GRAPH),
        ("best.golden.npz", golden_path(SHIPPED_GRAPH)),
        ("best.pt", checkpoint),
        ("small.onnx", SHIPPED_GRAPH),
    ):
        (tmp_path / name).write_bytes(source.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


PYTHON = [block for block in BLOCKS if block.language == "python"]
STANDALONE = [block for block in PYTHON if "onnxruntime.InferenceSession" in block.text]
RUN = [block for block in PYTHON if block.reason is None and block not in STANDALONE]


@pytest.mark.parametrize("block", RUN, ids=[block.name for block in RUN])
def test_examples_run(block: Block, workplace: Path) -> None:
    assert workplace == Path.cwd()
    exec(compile(block.text, block.name, "exec"), {"__name__": "example"})


@pytest.mark.parametrize("block", [b for b in PYTHON if b.reason is not None], ids=lambda block: block.name)
def test_examples_that_do_not_run_name_what_exists(block: Block) -> None:
    compile(block.text, block.name, "exec")
    for module, names in re.findall(r"^from (cisi_[\w.]+) import (.*)$", block.text, re.MULTILINE):
        for name in names.split(", "):
            assert hasattr(importlib.import_module(module), name), f"{block.name}: {module} has no {name}"
    assert block.reason
    for path in re.findall(r"tests/[\w/]+\.py", block.reason):
        assert (ROOT / path).is_file(), block.name


def test_the_graph_needs_numpy_and_onnxruntime_alone(workplace: Path) -> None:
    (block,) = STANDALONE
    assert len(block.text.strip().splitlines()) <= 20
    image, hole = photograph_with_hole()
    np.save(workplace / "photo.npy", image)
    np.save(workplace / "hole.npy", hole)
    program = f"{block.text}\nimport sys\nassert not [name for name in sys.modules if name.startswith('cisi_r')]\n"
    subprocess.run([sys.executable, "-c", program], cwd=workplace, check=True)
    with OnnxRuntimeBackend(SHIPPED_GRAPH) as backend:
        ours = SinglePassInpainter(backend)(image, hole)
    assert np.array_equal(np.load(workplace / "completed.npy"), ours)


def photograph_with_hole() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    image = read_picture(PHOTOS / "beetle.jpg").rgb
    return image, read_mask(PHOTOS / "beetle.mask.png", image.shape[:2])


def test_the_site_builds(tmp_path: Path) -> None:
    for module in ("mkdocs", "material", "mkdocstrings", "griffe"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"needs {module}: pip install '.[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > len(list((ROOT / "docs").rglob("*.md")))
    # Nothing is loaded from elsewhere.
    for page in pages:
        assert not re.search(r'<(?:script|link|img)[^>]+(?:src|href)="https?://', page.read_text()), page
