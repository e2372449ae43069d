"""Damage to bytes, drawn from a seed: flips and cuts; archives that are wrong inside."""

import io
import json
import math
import random
import struct
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

from tests.faults.mutations import PATHS, TEXTS, json_text

__all__ = ["binary", "message", "safetensors", "zipped"]


def binary(data: bytes, draw: random.Random) -> bytes:
    """Bytes cut short, flipped, moved, repeated, or written over."""
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 8))):
        at = draw.randrange(len(changed) + 1)
        length = min(draw.choice((1, 2, 8, 64, 4096)), len(changed) - at)
        match draw.choice(("cut", "flip", "flip", "flip", "huge", "noise", "gone", "more", "move")):
            case "cut":
                del changed[at:]
            case "flip" if at < len(changed):
                changed[at] ^= 1 << draw.randrange(8)
            case "huge":
                number = draw.choice((0, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1))
                changed[at : at + 8] = struct.pack("<Q", number)[: len(changed[at : at + 8])]
            case "noise":
                changed[at : at + length] = draw.randbytes(length)
            case "gone":
                del changed[at : at + length]
            case "more":
                changed[at:at] = draw.choice((bytes(length), draw.randbytes(17), b"\xff" * 9))
            case "move":
                other = draw.randrange(len(changed) + 1)
                changed[at:at] = changed[other : other + length]
    return bytes(changed)


def zipped(data: bytes, draw: random.Random) -> bytes:
    """A zip, whole again, whose entries were renamed, dropped, doubled or changed."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = [[entry.filename, archive.read(entry), 0, 0] for entry in archive.infolist()]
    for _ in range(draw.choice((1, 1, 2))):
        if not entries:
            break
        entry = draw.choice(entries)
        match draw.choice(("bytes", "bytes", "name", "drop", "twice", "deflate", "link", "empty")):
            case "bytes":
                entry[1] = binary(entry[1], draw)
            case "name":
                prefix = entry[0].partition("/")[0]
                entry[0] = draw.choice((*(p for p in PATHS if p), f"{prefix}/../x", entry[0] * 2))
            case "drop":
                entries.remove(entry)
            case "twice":
                entries.append([entry[0], binary(entry[1], draw), 0, 0])
            case "deflate":
                entry[2] = zipfile.ZIP_DEFLATED
            case "link":
                entry[3] = draw.choice((0o120777 << 16, 0o040755 << 16, 0x10))
            case "empty":
                entry[1] = b""
    packed = io.BytesIO()
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(packed, "w") as archive:
        for name, content, kind, attributes in entries:
            info = zipfile.ZipInfo(name)
            info.external_attr = attributes
            archive.writestr(info, content, compress_type=kind)
    return packed.getvalue()


def safetensors(data: bytes, draw: random.Random) -> bytes:
    """A safetensors file whose header lies."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json_text(json.loads(data[8 : 8 + length]), draw)
    said = draw.choice((len(header), len(header), len(header), 2**62, 0, len(header) * 2))
    return struct.pack("<Q", said) + header + data[8 + length :]


# -- protobuf -------------------------------------------------------------------------------


def message(parse: Callable[[bytes], Any], data: bytes, draw: random.Random) -> bytes:
    """A protobuf message with fields that were changed, dropped or doubled, anywhere in it."""
    root = parse(data)
    for _ in range(draw.choice((1, 1, 2, 3))):
        nodes = [root]
        for node in nodes:
            for field, value in node.ListFields():
                if field.message_type is not None:
                    nodes += list(value) if _repeats(field) else [value]
        node = draw.choice(nodes)
        fields = node.ListFields() if draw.random() < 0.8 else [(f, None) for f in _all(node)]
        if fields:
            _change_field(node, draw.choice(fields)[0], draw)
    return bytes(root.SerializePartialToString())


def _all(node: Any) -> list[Any]:
    return list(node.DESCRIPTOR.fields)


def _repeats(field: Any) -> bool:
    return bool(field.is_repeated)


def _change_field(node: Any, field: Any, draw: random.Random) -> None:
    if _repeats(field):
        values = getattr(node, field.name)
        kind = draw.choice(("drop", "twice", "change", "clear"))
        if kind == "clear":
            node.ClearField(field.name)
        elif kind == "drop" and len(values):
            del values[draw.randrange(len(values))]
        elif kind == "twice" and len(values):
            values.append(draw.choice(list(values)))
        elif field.message_type is not None:
            values.add()
        elif len(values):
            values[draw.randrange(len(values))] = _scalar(field, draw)
        else:
            values.append(_scalar(field, draw))
    elif field.message_type is not None:
        if node.HasField(field.name) and draw.random() < 0.5:
            node.ClearField(field.name)
        else:
            getattr(node, field.name).SetInParent()
    elif draw.random() < 0.15:
        node.ClearField(field.name)
    else:
        setattr(node, field.name, _scalar(field, draw))


def _scalar(field: Any, draw: random.Random) -> Any:
    kind = field.cpp_type
    if kind == field.CPPTYPE_STRING:
        text = draw.choice((*TEXTS, "population", "c0", "v0", "top1"))
        if field.type == field.TYPE_BYTES:
            return draw.choice((b"", draw.randbytes(40), text.encode("utf-8", "replace")))
        return text.encode("utf-8", "replace").decode()
    if kind in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return draw.choice((0.0, math.nan, math.inf, -1e30, 1e-40))
    if kind == field.CPPTYPE_ENUM:
        return draw.choice(field.enum_type.values).number
    if kind == field.CPPTYPE_BOOL:
        return draw.random() < 0.5
    wide = kind in (field.CPPTYPE_INT64, field.CPPTYPE_UINT64)
    signed = kind in (field.CPPTYPE_INT32, field.CPPTYPE_INT64)
    most = 2 ** (63 if wide and signed else 64 if wide else 31) - 1
    return draw.choice((0, 1, 2, 7, 1000, 2**20, 2**31 - 1, most, -1 if signed else most))
