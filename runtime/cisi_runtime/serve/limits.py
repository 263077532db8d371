"""What the service takes and how long it takes it for. Beyond each limit it says so."""

from __future__ import annotations

import dataclasses

# Bytes of a request: an uncompressed RGBA file of the largest photograph, its mask, and the form around them.
_BYTES_PER_PIXEL = 5
_FORM_BYTES = 1 << 20
# Requests whose bytes are held at a time, of the largest size, and the least there is for all of them together.
_HELD_REQUESTS, _LEAST_HELD_BYTES = 4, 512 << 20


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits that are options of `cisi-serve`; the rest follows from them or is fixed.

    max_megapixels: of a photograph.
    queue_megapixels: of all photographs that wait or are being worked on.
    deadline_s: from the last byte of a request to its answer.
    grace_s: from SIGTERM until what is still running is given up.

    header_s: for a connection to send the head of its first request.
    chunk_s: for the next piece of a body. body_s: for all of it. send_s: for a client to take an answer.
    connections: open at a time.
    session_bytes, session_s: of photographs kept for further masks, and for how long after their last use.
    network_pixels: of the arrays of one KServe request.
    """

    max_megapixels: float = 40.0
    queue_megapixels: float = 128.0
    deadline_s: float = 60.0
    grace_s: float = 30.0
    header_s: float = 10.0
    chunk_s: float = 15.0
    body_s: float = 300.0
    send_s: float = 120.0
    connections: int = 1024
    session_bytes: int = 512 << 20
    session_s: float = 1800.0
    network_pixels: int = 1 << 20

    @property
    def max_pixels(self) -> int:
        """Of a photograph."""
        return round(self.max_megapixels * 1e6)

    @property
    def max_bytes(self) -> int:
        """Of a request's body."""
        return _BYTES_PER_PIXEL * self.max_pixels + _FORM_BYTES

    @property
    def held_bytes(self) -> int:
        """Of all bodies that are being received or waited for, together."""
        return max(_LEAST_HELD_BYTES, _HELD_REQUESTS * self.max_bytes)
