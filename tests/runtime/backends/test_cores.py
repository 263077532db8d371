"""The CPU limit of a container, in both versions of Linux's control groups."""

from pathlib import Path

import pytest

from cisi_runtime.backends import cores


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("os.sched_getaffinity", lambda _process: set(range(64)), raising=False)
    monkeypatch.setattr(cores, "_limit", None)
    monkeypatch.setattr(cores, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(cores, "_OWN_CGROUPS", tmp_path / "own")
    return tmp_path / "cgroup"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),  # docker run --cpus 2
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),  # 1.5, rounded up
        ("0::/\n", {"cpu.max": "5000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {}, None),
        # Without a namespace of its own, below the pod that has the limit.
        ("0::/pod/one\n", {"pod/one/cpu.max": "max 100000\n", "pod/cpu.max": "300000 100000\n"}, 3),
        ("0::/pod/one\n", {"pod/one/cpu.max": "400000 100000\n", "pod/cpu.max": "300000 100000\n"}, 3),
        # Version 1, whose path may be that of the host.
        (
            "4:memory:/x\n3:cpu,cpuacct:/x\n",
            {"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"},
            2,
        ),
        ("3:cpuacct,cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ("3:cpuset:/\n", {"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        # More than the machine has.
        ("0::/\n", {"cpu.max": "9900000 100000\n"}, 99),
    ],
)
def test_the_limit_of_a_container(groups: Path, own: str, files: dict[str, str], expected: int | None) -> None:
    write(groups.with_name("own"), own)
    for name, text in files.items():
        write(groups / name, text)
    assert cores.container_cores() == expected
    assert cores.available_cores() == min(64, expected or 64)
    cores.limit_cores(1)
    assert cores.available_cores() == 1


@pytest.mark.usefixtures("groups")
def test_no_control_groups() -> None:
    assert cores.container_cores() is None
    assert cores.available_cores() == 64
