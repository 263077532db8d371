"""The suite must catch lies: each planted fault is found by the rung that is there for it."""

from pathlib import Path

import pytest

from cisi_train.checkpoint import load_checkpoint
from tests.export.planted_faults import FAULTS, Fault, Lab


@pytest.fixture(scope="module")
def lab(tiny_checkpoint_path: Path) -> Lab:
    return Lab(load_checkpoint(tiny_checkpoint_path))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "-"))
def test_it_is_found(lab: Lab, fault: Fault) -> None:
    assert fault.rung in fault.found_by(lab)


def test_nothing_is_found_where_nothing_is_wrong(lab: Lab) -> None:
    for subject in (lab.network(), lab.float32, lab.float16):
        assert lab.rungs_that_fail(subject) == set()
    assert lab.loud.rungs_that_fail(lab.loud.float16) == set()


def test_there_are_enough_of_them() -> None:
    assert len({fault.name for fault in FAULTS}) >= 15
    assert len({fault.rung for fault in FAULTS}) == 6
