"""How much is let in, and what is forgotten first."""

from __future__ import annotations

import contextlib
import time

import pytest

from cisi_runtime.batch.photograph import EncodedPicture
from cisi_runtime.pictures.reading import PictureHead
from cisi_runtime.serve.admission import Admission, ByteBudget
from cisi_runtime.serve.limits import Limits
from cisi_runtime.serve.refusals import RefusalError
from cisi_runtime.serve.session_store import SessionStore

HEAD = PictureHead(4, 3, "PNG")


def test_the_queue_is_full_by_pixels() -> None:
    admission = Admission(10.0, 2, 60.0)
    with contextlib.ExitStack() as waiting:
        for _ in range(4):
            waiting.enter_context(admission.admit(0.01))  # counts as one megapixel
        waiting.enter_context(admission.admit(6.0))
        assert (admission.requests, admission.megapixels) == (5, 10.0)
        with pytest.raises(RefusalError, match="5 requests with 10 megapixels are waiting") as refused:
            waiting.enter_context(admission.admit(0.5))
        assert (refused.value.status, refused.value.reason) == (429, "queue-full")
        admission.took(1.0, 3.0)
        with pytest.raises(RefusalError) as refused:
            waiting.enter_context(admission.admit(4.0))
        assert refused.value.retry_after_s == 6.0  # four megapixels too many, two workers
    assert (admission.requests, admission.megapixels) == (0, 0.0)
    # One is always let in, however large.
    with admission.admit(50.0), pytest.raises(RefusalError), admission.admit(0.1):
        pass
    assert admission.requests == 0


def test_the_queue_is_full_by_the_time_it_takes() -> None:
    admission = Admission(1000.0, 2, 60.0)
    admission.took(2.0, 8.0)  # four seconds a megapixel, with two workers: two
    with contextlib.ExitStack() as waiting:
        for _ in range(8):  # the eighth finds seven before it, fourteen of the fifteen seconds that are allowed
            waiting.enter_context(admission.admit(1.0))
        with pytest.raises(RefusalError) as refused:
            waiting.enter_context(admission.admit(1.0))
        assert refused.value.retry_after_s == 1.0  # the sixteenth second
        for _ in range(200):
            admission.took(1.0, 0.5)  # it has become quicker
        waiting.enter_context(admission.admit(1.0))


def test_bytes_of_all_requests_are_bounded_together() -> None:
    budget = ByteBudget(100)
    budget.take(60)
    with pytest.raises(RefusalError, match="fill the 100 bytes"):
        budget.take(41)
    budget.take(40)
    budget.give_back(60)
    budget.take(60)


def test_limits_follow_from_the_options() -> None:
    limits = Limits(max_megapixels=10.0)
    assert limits.max_pixels == 10_000_000
    assert limits.max_bytes == 5 * 10_000_000 + (1 << 20)
    assert limits.held_bytes == 512 << 20
    assert Limits(max_megapixels=100.0).held_bytes == 4 * Limits(max_megapixels=100.0).max_bytes


def test_the_photograph_that_was_not_used_for_longest_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    store = SessionStore(100, 60.0)
    first, second = (store.add(EncodedPicture(bytes(40), name), HEAD) for name in "ab")
    assert len(first) > 20
    assert first != second
    now = 10.0
    assert store.get(first).image.name == "a"
    third = store.add(EncodedPicture(bytes(40), "c"), HEAD)
    assert (len(store), store.bytes) == (2, 80)
    with pytest.raises(RefusalError, match="upload it again"):
        store.get(second)
    now = 65.0
    store.get(third)
    now = 71.0  # the first was used at 10
    with pytest.raises(RefusalError, match="upload it again"):
        store.get(first)
    store.remove(third)
    store.remove(third)
    assert (len(store), store.bytes) == (0, 0)
    with pytest.raises(RefusalError, match="101 bytes, expected at most 100"):
        store.add(EncodedPicture(bytes(101), "d"), HEAD)
