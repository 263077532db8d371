"""Each planted fault is found by the comparison that is there for it."""

from pathlib import Path

import onnx
import pytest

from cisi_train.checkpoint import load_checkpoint
from tests.support.planted_faults import FAULTS, Fault, Lab

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared_exports")]


@pytest.fixture(scope="module")
def lab(tiny_checkpoint_path: Path, tiny_graphs: dict[tuple[str, str, str], Path]) -> Lab:
    graphs = [onnx.load(tiny_graphs[key]) for key in (("float32", "cpu", "uint8"), ("float16", "tensorrt", "uint8"))]
    return Lab(load_checkpoint(tiny_checkpoint_path), *graphs)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "-"))
def test_it_is_found(lab: Lab, fault: Fault) -> None:
    assert fault.comparison in fault.found_by(lab)


def test_nothing_is_found_where_nothing_is_wrong(lab: Lab) -> None:
    for subject in (lab.network(), lab.float32, lab.float16):
        assert lab.failed_comparisons(subject) == set()
    assert lab.short.failed_comparisons(lab.short.float32) == set()
    assert lab.loud.failed_comparisons(lab.loud.float16) == set()


def test_there_are_enough_of_them() -> None:
    assert len({fault.name for fault in FAULTS}) >= 15
    assert len({fault.comparison for fault in FAULTS}) == 6
