"""What a run has to do: found in any order, however many photographs there are."""

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cisi_runtime.batch import folder as folder_module
from cisi_runtime.batch.folder import plan_folder
from cisi_runtime.errors import OutputError
from cisi_runtime.storage.addresses import Address, Url
from tests.support.shared import TIMEOUT_S

PHOTOS, MASKS, OUT = (Url("s3", name) for name in ("photos", "masks", "out"))
# Names that sort differently with and without their suffix, or by folder.
STEMS = ("a", "a-b", "a.b", "a.b.c", "a/b", "a.k/c", "a0", "b/a", "ä", "a b")


def listed(monkeypatch: pytest.MonkeyPatch, names: dict[str, list[str]], page: int) -> None:
    """Folders of a store with these names, in pages."""

    def find(folder: Address) -> Iterator[list[str]]:
        found = names.get(str(folder).partition("://")[2], [])
        for start in range(0, len(found), page):
            yield found[start : start + page]

    monkeypatch.setattr(folder_module, "find_names", find)
    monkeypatch.setattr(folder_module, "is_folder", lambda address: address in (PHOTOS, MASKS))
    monkeypatch.setattr(folder_module, "make_writable_folder", lambda _: None)


@given(
    photographs=st.sets(st.sampled_from(STEMS), min_size=1),
    masks=st.sets(st.tuples(st.sampled_from(STEMS), st.sampled_from([".png", ".mask.png", ".webp"]))),
    results=st.sets(st.sampled_from(STEMS)),
    page=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_every_photograph_is_to_do_or_there_or_refused(
    photographs: set[str], masks: set[tuple[str, str]], results: set[str], page: int, seed: int
) -> None:
    shuffle = random.Random(seed)
    names = {
        "photos": [f"{stem}.jpg" for stem in photographs],
        "masks": [stem + ending for stem, ending in masks],
        "out": [f"{stem}.jpg" for stem in results],
    }
    for found in names.values():
        found.sort()
        shuffle.shuffle(found)
    of_each = {stem: [m + ending for m, ending in masks if m == stem] for stem in photographs}
    with pytest.MonkeyPatch.context() as monkeypatch:
        listed(monkeypatch, names, page)
        with plan_folder(PHOTOS, MASKS, OUT) as plan:
            jobs = {job.image: job for job in plan.jobs()}
            refused = {job.image: reason for job, reason in plan.refusals()}
            assert plan.pending == len(jobs)
            assert plan.existing == len(photographs) - len(jobs) - len(refused)
    for stem in photographs:
        image = PHOTOS / f"{stem}.jpg"
        if len(of_each[stem]) != 1:
            assert "expected one mask of this name in s3://masks, found " in refused[image]
            assert all(name in refused[image] for name in of_each[stem])
        elif stem in results:
            assert image not in {**jobs, **refused}
        else:
            assert jobs[image].mask == MASKS / of_each[stem][0]
            assert jobs[image].output == OUT / f"{stem}.jpg"


def test_results_among_originals_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_module, "is_folder", lambda address: not address.suffix)
    monkeypatch.setattr(folder_module, "make_writable_folder", lambda _: None)
    names = {"b/x": ["1.jpg", "x/1.jpg", "m/2.jpg"], "b/m": ["1.png", "x/1.png", "m/2.png"], "b": []}
    monkeypatch.setattr(folder_module, "find_names", lambda folder: iter([names[folder.path]]))
    with plan_folder(Url("s3", "b/x"), Url("s3", "b/m"), Url("s3", "b"), overwrite=True) as plan:
        assert [str(job.output) for job in plan.jobs()] == ["s3://b/1.jpg"]
        refused = dict(plan.refusals())
    assert sorted(str(job.output) for job in refused) == ["s3://b/m/2.jpg", "s3://b/x/1.jpg"]
    assert all("an original is kept" in reason for reason in refused.values())
    with pytest.raises(OutputError, match="is the folder of the photographs"):
        plan_folder(Url("s3", "b/x"), None, Url("s3", "b/x"))


MANY = """
import sys
from pathlib import Path
from cisi_runtime.batch import folder
from cisi_runtime.storage.addresses import Url
number = int(sys.argv[1])
def pages(address):
    for start in range(0, number, 1000):
        yield [f"{start // 1000:06}/{name:03}.jpg" for name in range(1000)]
folder.find_names = pages
folder.is_folder = lambda address: False
folder.make_writable_folder = lambda address: None
with folder.plan_folder(Url("s3", "photos"), Url("s3", "mask.png"), Url("s3", "out"), overwrite=True) as plan:
    jobs = plan.jobs()
    for _ in range(1000):
        last = next(jobs)
    # Of this program alone: ru_maxrss begins with what its parent had.
    peak_kb = Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]
    print(plan.pending, last.image, int(peak_kb) // 1024)
"""


@pytest.mark.slow
def test_three_million_names_take_little_memory(tmp_path: Path) -> None:
    command = [sys.executable, "-c", MANY, "3000000"]
    result = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=TIMEOUT_S, env={"SQLITE_TMPDIR": str(tmp_path)}
    )
    pending, last, peak_mb = result.stdout.split()
    assert (int(pending), last) == (3_000_000, "s3://photos/000000/999.jpg")
    # Measured: 105 MB for ten million, and 104 for one. In a list the names alone would be 0.2 GB more.
    assert int(peak_mb) < 155
