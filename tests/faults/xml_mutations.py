"""Damage to XML, drawn from a seed: attributes, numbers and elements of a graph that is none."""

import random
import re

from tests.faults.mutations import TEXTS

__all__ = ["xml_text"]

_ATTRIBUTE = re.compile(rb'(\w+)="([^"<>&]*)"')
_NUMBER = re.compile(rb"(?<=[>\", ])-?\d+(?=[<\", ])")
_ELEMENT = re.compile(rb"[ \t]*<(layer|port|edge|input|data)\b.*?(/>|</\1>)[ \t]*\n", re.DOTALL)
_NUMBERS = (b"0", b"-1", b"1", b"3", b"65536", b"2147483648", b"9223372036854775807", b"1e9", b"")
_BOMB = (
    b'<!DOCTYPE net [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;">'
    b'<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;"><!ENTITY x SYSTEM "file:///etc/passwd">]>\n'
)


def xml_text(data: bytes, draw: random.Random) -> bytes:
    """XML whose attributes, numbers and elements were changed, dropped, doubled or exchanged."""
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        kind = draw.choice(("number", "number", "number", "attribute", "swap", "drop", "twice"))
        match draw.choice((kind, kind, kind, kind, kind, "deep", "bomb")):
            case "number":
                data = _replaced(data, _NUMBER, draw.choice(_NUMBERS), draw)
            case "attribute":
                text = draw.choice(TEXTS).encode("utf-8", "surrogatepass").replace(b'"', b"")
                data = _replaced(data, re.compile(rb'(?<=")[^"<>&]*(?=")'), text, draw)
            case "swap":
                data = _swapped(data, draw)
            case "drop":
                data = _replaced(data, _ELEMENT, b"", draw)
            case "twice":
                found = list(_ELEMENT.finditer(data))
                if found:
                    each = draw.choice(found)
                    data = data[: each.end()] + each.group() + data[each.end() :]
            case "deep":
                data = data.replace(b"<layers>", b"<layers>" + b"<layer>" * 20_000, 1)
            case "bomb":
                head, _, rest = data.partition(b"?>")
                data = head + b"?>" + _BOMB + rest.replace(b'"images"', b'"&c;&x;"', 1)
    return data


def _replaced(data: bytes, what: "re.Pattern[bytes]", by: bytes, draw: random.Random) -> bytes:
    found = list(what.finditer(data))
    if not found:
        return data
    each = draw.choice(found)
    return data[: each.start()] + by + data[each.end() :]


def _swapped(data: bytes, draw: random.Random) -> bytes:
    """Two attributes of the same name with each other's values."""
    found = list(_ATTRIBUTE.finditer(data))
    if len(found) < 2:
        return data
    one = draw.choice(found)
    other = draw.choice([each for each in found if each.group(1) == one.group(1)])
    first, second = sorted((one, other), key=lambda each: each.start())
    if first.start() == second.start():
        return data
    middle = data[first.end() : second.start()]
    return data[: first.start()] + second.group() + middle + first.group() + data[second.end() :]
