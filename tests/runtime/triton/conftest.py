"""A Triton that runs here, or the reason why none does."""

from __future__ import annotations

import pytest

from tests.support.triton_server import Installation, find_triton


@pytest.fixture(scope="session")
def triton_installation() -> Installation:
    found = find_triton()
    if isinstance(found, str):
        pytest.skip(found)
    return found
