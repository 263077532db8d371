"""A table of photographs in place of folders."""

import csv
import json
import sys
from pathlib import Path

import pytest

from cisi_runtime.batch.manifest import plan_manifest
from cisi_runtime.batch.plan import Plan
from cisi_runtime.cli.run import main
from cisi_runtime.errors import CisiError, DataError, OutputError, StorageError
from tests.conftest import RunMain
from tests.support.folder_runs import cisi_run, photographs

HEAD = "image,mask,output\n"


def write_parquet(path: Path, rows: list[dict[str, str | None]]) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def planned(plan: Plan) -> list[tuple[str, str | None, str]]:
    with plan:
        return [(str(job.image), job.mask and str(job.mask), str(job.output)) for job in plan.jobs()]


def test_names_are_those_of_the_tables_folder(tmp_path: Path) -> None:
    table = tmp_path / "below" / "files.csv"
    table.parent.mkdir()
    out = tmp_path / "out"
    table.write_text(
        "\ufefflabel,output,mask,image\r\n"  # as a spreadsheet writes it
        f'x,a.png,m/a.png,"with, comma.jpg"\r\nx,{out}/b/b.png,s3://masks/b.png,/absolute/b.jpg\r\n',
        encoding="utf-8",
    )
    assert planned(plan_manifest(table, None, out)) == [
        (f"{table.parent}/with, comma.jpg", f"{table.parent}/m/a.png", f"{out}/a.png"),
        ("/absolute/b.jpg", "s3://masks/b.png", f"{out}/b/b.png"),
    ]
    # What is transparent needs no mask.
    table.write_text("image,output\na.png,a.png\n")
    assert planned(plan_manifest(table, None, out, from_alpha=True)) == [
        (f"{table.parent}/a.png", None, f"{out}/a.png")
    ]
    # Without a column for masks one mask serves all; with it, it serves those that have none.
    table.write_text("image,mask,output\na.jpg,,a.jpg\nb.jpg,b.png,b.jpg\n")
    masks = [mask for _, mask, _ in planned(plan_manifest(table, tmp_path / "one.png", out))]
    assert masks == [f"{tmp_path}/one.png", f"{table.parent}/b.png"]


def test_parquet_says_the_same(tmp_path: Path) -> None:
    rows: list[dict[str, str | None]] = [
        {"image": f"{number}.jpg", "mask": None if number == 7 else f"{number}.png", "output": f"{number}.jpg"}
        for number in range(2500)
    ]
    write_parquet(tmp_path / "files.parquet", rows)
    with (tmp_path / "files.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["image", "mask", "output"])
        writer.writeheader()
        writer.writerows(rows)
    mask = tmp_path / "one.png"
    first = planned(plan_manifest(tmp_path / "files.parquet", mask, tmp_path / "out"))
    assert len(first) == 2500
    assert first == planned(plan_manifest(tmp_path / "files.csv", mask, tmp_path / "out"))


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("", DataError, "has no photographs"),
        (HEAD, DataError, "has no photographs"),
        (
            "photo,mask,output\na.jpg,a.png,a.jpg\n",
            DataError,
            "row 1 has no image, expected columns image, mask, output",
        ),
        (f"{HEAD}a.jpg,a.png,a.jpg\nb.jpg,,b.jpg\n", DataError, "row 2 has no mask"),
        (f"{HEAD}a.jpg,a.png,x.jpg\nb.jpg,b.png,x.jpg\n", DataError, "the output x.jpg is there twice"),
        (f"{HEAD}a.jpg,a.png,../a.jpg\n", OutputError, "output '../a.jpg', expected a name below"),
        (f"{HEAD}a.jpg,a.png,a\0.jpg\n", OutputError, r"output 'a\\x00.jpg', expected a name below"),
        (f"image,{HEAD}a.jpg,b.jpg,b.png,b.jpg\n", DataError, "has the column image twice, expected it once"),
        (f"{HEAD}a.jpg,a.png,.d/a.jpg\n", OutputError, "without hidden parts"),
        (f"{HEAD}a.jpg,a.png,/elsewhere/a.jpg\n", OutputError, "output /elsewhere/a.jpg does not lie in"),
        (f"{HEAD}a.jpg,a.png,a.xyz\n", OutputError, "unknown picture format '.xyz'"),
        (f"{HEAD}a.jpg,ftp://x/a.png,a.jpg\n", StorageError, "unknown protocol 'ftp'"),
        (f"{HEAD}out/b.jpg,a.png,b.jpg\n", OutputError, "is an original of"),
        (f"{HEAD}a.jpg,out/b.png,b.png\n", OutputError, "is an original of"),
        (f'{HEAD}"a.jpg,a.png,a.jpg\n', DataError, "is not a CSV table"),
    ],
)
def test_tables_that_are_wrong(tmp_path: Path, text: str, error: type[CisiError], words: str) -> None:
    table = tmp_path / "files.csv"
    table.write_text(text)
    with pytest.raises(error, match=words) as raised:
        plan_manifest(table, None, tmp_path / "out").close()
    assert str(table) in str(raised.value) or "ftp://" in str(raised.value)


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    for name, words in (("files.txt", "ends with .csv or .parquet"), ("files.csv", "no such file")):
        with pytest.raises(DataError, match=words):
            plan_manifest(tmp_path / name, None, tmp_path / "out")
    (tmp_path / "a.csv").write_bytes(b"image,mask,output\n\xff\xfe,,\n")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="is not a CSV table in UTF-8"):
        plan_manifest(tmp_path / "a.csv", None, tmp_path / "out")
    with pytest.raises(DataError, match="is not a Parquet table"):
        plan_manifest(tmp_path / "a.parquet", None, tmp_path / "out")
    # A damaged text, and a damaged name of a column.
    for damaged in ((b"photograph", b"\xff" * 10), (b"output", b"\xff" * 6)):
        write_parquet(tmp_path / "c.parquet", [{"image": "photograph", "mask": "a.png", "output": "a.jpg"}])
        (tmp_path / "c.parquet").write_bytes((tmp_path / "c.parquet").read_bytes().replace(*damaged))
        with pytest.raises(DataError, match="c.parquet: is not a Parquet table"):
            plan_manifest(tmp_path / "c.parquet", None, tmp_path / "out")
    # Its directory is whole, its pages are not.
    write_parquet(tmp_path / "b.parquet", [{"image": "a.jpg", "mask": "a.png", "output": "a.jpg"}])
    data = (tmp_path / "b.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(data[:4] + b"\xff" * 60 + data[64:])
    with pytest.raises(DataError, match="is not a Parquet table: "):
        plan_manifest(tmp_path / "b.parquet", None, tmp_path / "out")


def test_a_run_by_a_table(tmp_path: Path, tiny_graph: Path) -> None:
    photographs(tmp_path, 3)
    table, out = tmp_path / "files.csv", tmp_path / "out"
    names = ("0", "1", "below/2", "gone")
    table.write_text(HEAD + "".join(f"photos/{name}.png,masks/{name}.png,new/{name}.png\n" for name in names))
    result = cisi_run("--manifest", table, "-o", out, "--model", tiny_graph, "--threads", 1)
    assert result.returncode == 1
    assert "3 written, 0 there already, 1 failed" in result.stdout
    (failure,) = map(json.loads, (out / "failures.jsonl").read_text().splitlines())
    assert failure["output"] == str(out / "new" / "gone.png")
    assert "no such file" in failure["reason"]
    folders = (tmp_path / "photos", "--mask", tmp_path / "masks", "-o", tmp_path / "reference")
    assert cisi_run(*folders, "--model", tiny_graph).returncode == 0
    for name in names[:3]:
        assert (out / "new" / f"{name}.png").read_bytes() == (tmp_path / "reference" / f"{name}.png").read_bytes()
    # Again, without the one that is gone: nothing is left to do, and the list of failures goes.
    table.write_text(HEAD + "".join(f"photos/{name}.png,masks/{name}.png,new/{name}.png\n" for name in names[:3]))
    again = cisi_run("--manifest", table, "-o", out, "--model", tiny_graph)
    assert "0 written, 3 there already, 0 failed" in again.stdout
    assert not (out / "failures.jsonl").exists()


def test_options_that_exclude_a_table(tmp_path: Path, run_main: RunMain) -> None:
    (tmp_path / "files.csv").write_text(HEAD)
    for arguments, words in (
        (("photos", "--manifest", tmp_path / "files.csv", "-o", "out"), "expected IMAGE or --manifest, and not both"),
        (("-o", "out"), "expected IMAGE or --manifest"),
        (("--manifest", tmp_path / "files.csv", "-o", "-"), "expected a folder as --output"),
        (("--manifest", tmp_path / "files.csv", "-o", "out", "--watch"), "--watch is for a folder of this machine"),
        (("--manifest", "-", "-o", "out"), "standard input is for one photograph"),
    ):
        status, _, errors = run_main(main, *arguments)
        assert status == 2, errors
        assert words in errors


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, run_main: RunMain, monkeypatch: pytest.MonkeyPatch) -> None:
    write_parquet(tmp_path / "files.parquet", [{"image": "a.jpg", "mask": "a.png", "output": "a.jpg"}])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    status, _, errors = run_main(main, "--manifest", tmp_path / "files.parquet", "-o", tmp_path / "out")
    assert status == 1
    assert "needs pyarrow: pip install 'cisi-net[parquet]'" in errors
