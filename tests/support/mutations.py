"""Files damaged at random: any bytes, and with knowledge of PNG, JPEG, ZIP, JSON and ONNX, so that the damage gets
behind checksums and lengths."""

from __future__ import annotations

import io
import json
import random
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

_PNG, _JPEG, _ZIP = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"PK\x03\x04"
_CONTRACT = b'{"architecture"'
_NUMBERS = (0, 1, 2, 7, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 62)
_VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        3,
        2**31,
        2**63,
        10**30,
        1.0,
        16.0,
        0.5,
        -1e308,
        "",
        "x",
        "\0",
        "\x1b[2J",
        "é\ud7ff",
    ),
    *("1", "cpu", "float32", "../../x", "9" * 5000, [], {}, [[]], {"a": 1}, [0] * 50, [None] * 3),
)


def mutate(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """The file with one to four kinds of damage. others: files of the same kind, to take pieces from."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        aware = _aware(data)
        damage = aware if aware is not None and rng.random() < 0.7 else damage_bytes
        data = damage(data, others, rng)
    return data


def _aware(data: bytes) -> Callable[[bytes, list[bytes], random.Random], bytes] | None:
    if data.startswith(_PNG):
        return _damage_png
    if data.startswith(_JPEG):
        return _damage_jpeg
    if data.startswith(_ZIP):
        return _damage_zip
    if data.lstrip().startswith(b"{"):
        return _damage_json
    return _damage_onnx if _CONTRACT in data else None


def damage_bytes(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """Bits, runs, numbers, pieces and the end. Half of the damage is among the first 512 bytes."""
    changed = bytearray(data)
    size = len(changed)
    end = size if rng.random() < 0.5 else min(size, 512)
    at = rng.randrange(end) if end else 0
    length = min(rng.choice((1, 2, 4, 16, 256, 4096)), size - at)
    kind = rng.randrange(8)
    if kind == 0:
        for _ in range(rng.choice((1, 1, 2, 8))):
            if end:
                changed[rng.randrange(end)] ^= 1 << rng.randrange(8)
    elif kind == 1:
        changed[at : at + length] = rng.choice((bytes(length), b"\xff" * length, rng.randbytes(length)))
    elif kind == 2:
        del changed[at:]
    elif kind == 3:
        del changed[at : at + length]
    elif kind == 4:
        changed[at:at] = rng.choice((bytes(length), rng.randbytes(length), bytes(changed[at : at + length])))
    elif kind == 5:
        other = rng.choice(others)
        start = rng.randrange(len(other)) if other else 0
        changed[at : at + length] = other[start : start + length]
    else:
        form = rng.choice(("B", "<H", ">H", "<I", ">I", "<Q", ">Q"))
        number = rng.choice(_NUMBERS) & ((1 << 8 * struct.calcsize(form)) - 1)
        changed[at : at + struct.calcsize(form)] = struct.pack(form, number)
    return bytes(changed)


def _shuffled(parts: list[bytes], rng: random.Random, change: Callable[[bytes], bytes]) -> list[bytes]:
    """One part changed, dropped, repeated or moved."""
    if not parts:
        return parts
    at = rng.randrange(len(parts))
    kind = rng.choice(("change", "change", "change", "drop", "repeat", "move"))
    if kind == "change":
        parts[at] = change(parts[at])
    elif kind == "drop":
        del parts[at]
    elif kind == "repeat":
        parts[at:at] = [parts[at]] * rng.choice((1, 1, 50))
    else:
        parts.insert(rng.randrange(len(parts)), parts.pop(at))
    return parts


def _damage_png(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    chunks: list[bytes] = []
    at = len(_PNG)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        chunks.append(data[at + 4 : at + 8 + length])
        at += 12 + length

    def change(chunk: bytes) -> bytes:
        name, body = chunk[:4], chunk[4:]
        if name == b"IDAT" and rng.random() < 0.5:
            return name + zlib.compress(damage_bytes(_inflated(body), [body], rng), 1)
        if rng.random() < 0.1:
            return rng.choice((b"tRNS", b"PLTE", b"iCCP", b"eXIf", b"iTXt", b"zTXt", b"acTL", b"gAMA", b"IHDR")) + body
        return name + damage_bytes(body, [body, *others], rng)

    changed = _shuffled(chunks, rng, change)
    return _PNG + b"".join(
        struct.pack(">I", max(0, len(chunk) - 4)) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in changed
    )


def _inflated(body: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(body, 1 << 20)
    except zlib.error:
        return body


def _damage_jpeg(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    segments: list[bytes] = []
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        length = 2 + struct.unpack_from(">H", data, at + 2)[0]
        segments.append(data[at : at + length])
        at += length
    tail = data[at:]

    def change(segment: bytes) -> bytes:
        body = damage_bytes(segment[4:], [segment], rng)[:65_000]
        marker = (
            bytes((0xFF, rng.choice((0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xFE, 0xC0, 0xC2))))
            if rng.random() < 0.1
            else segment[:2]
        )
        return marker + struct.pack(">H", len(body) + 2) + body

    if rng.random() < 0.2:
        tail = damage_bytes(tail, others, rng)
    return data[:2] + b"".join(_shuffled(segments, rng, change)) + tail


def _damage_zip(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """Change inside a member, and make the archive anew."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(member.filename, member.compress_type, archive.read(member)) for member in archive.infolist()]
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, ValueError, OSError, EOFError):
        return damage_bytes(data, others, rng)  # RuntimeError: earlier damage says that a member is encrypted
    if not members:
        return data
    pickles = [number for number, member in enumerate(members) if member[0].endswith(("data.pkl", "header.npy"))]
    at = rng.choice(pickles) if pickles and rng.random() < 0.6 else rng.randrange(len(members))
    name, compression, content = members[at]
    kind = rng.randrange(10)
    if kind == 0:
        del members[at]
    elif kind == 1:
        members.append(members[at])
    elif kind == 2:
        members[at] = (name, zipfile.ZIP_DEFLATED, content)
    elif kind == 3 and _CONTRACT in content:
        members[at] = (name, compression, _with_contract(content, rng))
    else:
        members[at] = (name, compression, damage_bytes(content, [content], rng))
    target = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(target, "w") as archive:
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, compression, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return target.getvalue()


def _with_contract(pickled: bytes, rng: random.Random) -> bytes:
    """The JSON within a pickle changed, and its length before it."""
    at = pickled.index(_CONTRACT)
    (length,) = struct.unpack_from("<I", pickled, at - 4)
    text = _damage_json(pickled[at : at + length], [], rng)
    return pickled[: at - 4] + struct.pack("<I", len(text)) + text + pickled[at + length :]


def _damage_json(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        return damage_bytes(data, others or [data], rng)
    kind = rng.randrange(12)
    if kind == 0:
        return rng.choice(
            (b"\xef\xbb\xbf" + data, data.decode().encode("utf-16"), data + b"\0", b"[" * 50_000, data + data)
        )
    places: list[tuple[Any, Any]] = []
    pending = [values]
    while pending:
        value = pending.pop()
        inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, item in inner:
            places.append((value, key))
            pending.append(item)
    if not places:
        return data
    parent, key = rng.choice(places)
    if kind < 8:
        parent[key] = rng.choice(_VALUES)
    elif kind == 8:
        del parent[key]
    elif kind == 9 and isinstance(parent, dict):
        parent[rng.choice(("", "x", "\0", "revision", "dim", key.upper()))] = parent.pop(key)
    else:
        deep: Any = parent[key]
        for _ in range(rng.choice((1, 200))):
            deep = [deep] if kind == 10 else {"x": deep}
        parent[key] = deep
    text = json.dumps(values).encode()
    return (
        text.replace(b"9" * 5000, b"1" + b"0" * 5000) if rng.random() < 0.9 else text.replace(b"{", b'{"x":1,"x":2,', 1)
    )


def _damage_onnx(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_from_string(data)
    except (DecodeError, ValueError):
        return damage_bytes(data, others, rng)
    graph, kind = model.graph, rng.randrange(6)
    if kind == 0 and model.metadata_props:
        entry = rng.choice(model.metadata_props)
        value: str | bytes = entry.value  # bytes, where they are no UTF-8 any more
        text = value if isinstance(value, bytes) else value.encode()
        entry.value = _damage_json(text, [], rng).decode(errors="replace")
    elif kind == 1 and graph.node:
        node = rng.choice(graph.node)
        node.op_type = rng.choice(("Identity", "Conv", "Loop", "If", "Reshape", "Gather", "Missing", "ConstantOfShape"))
    elif kind == 2 and graph.initializer:
        tensor = rng.choice(graph.initializer)
        tensor.dims[:] = [rng.choice((0, 1, 3, -1, 2**31, 2**62)) for _ in tensor.dims]
    elif kind == 3 and graph.node:
        names = rng.choice((rng.choice(graph.node).input, rng.choice(graph.node).output))
        if names:
            names[rng.randrange(len(names))] = rng.choice(("", "image", "x", rng.choice(graph.node).output[0]))
    elif kind == 4 and graph.input:
        shape = rng.choice(graph.input).type.tensor_type.shape
        if shape.dim:
            rng.choice(shape.dim).dim_value = rng.choice((0, 1, 3, -1, 2**62))
    elif graph.initializer:
        tensor = rng.choice(graph.initializer)
        tensor.raw_data = damage_bytes(tensor.raw_data, [tensor.raw_data], rng)
        tensor.data_type = rng.choice((1, 2, 3, 7, 10, 11, 16, 99, tensor.data_type))
    return bytes(model.SerializeToString())
