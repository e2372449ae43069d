"""Damage to text, drawn from a seed: files that are well-formed and wrong.

A structured text is a tree of ``Pairs`` (objects, whose keys may repeat), lists and scalars;
``Raw`` stands for a token that no writer would write, such as ``NaN``.
"""

import json
import math
import random
from typing import Any

__all__ = [
    "PATHS",
    "TEXTS",
    "Pairs",
    "Raw",
    "csv_text",
    "json_text",
    "toml_text",
    "toml_text_of",
    "tree_of",
    "yaml_text",
]


class Pairs(list[list[Any]]):
    """An object: ``[key, value]`` in order."""


class Raw(str):
    """Text that is written as it is."""


PATHS = (
    "../outside",
    "/etc/passwd",
    "a/../../b",
    "..\\outside",
    "C:\\outside",
    "\\\\host\\share",
    "file:///etc/passwd",
    "name\0.json",
    "CON",
    ".",
    "..",
    "",
    "\u202ename",
)
TEXTS = (
    *PATHS,
    "x" * 70_000,
    "\x1b[2J\x07",
    "a\nb",
    "\ud7ff\ufffe\U0010ffff",
    "é" * 300,
    "%s%n{0}$(id)`id`;id",
    "nan",
    "-1",
    "1e999",
    "true",
)
NUMBERS = (
    0,
    -1,
    1,
    0.5,
    -0.0,
    2**31,
    2**63,
    2**64 + 1,
    10**30,
    10**400,
    1e-320,
    1e308,
    -1e308,
    Raw("1e999"),
    Raw("-1e999"),
    Raw("9" * 5000),
    Raw("0." + "1" * 2000),
)
CONSTANTS = (Raw("NaN"), Raw("Infinity"), Raw("-Infinity"), Raw("nan"), Raw("inf"))


# -- trees ----------------------------------------------------------------------------------


def tree_of(value: Any) -> Any:
    """A JSON-able value as a tree that can be damaged."""
    if isinstance(value, dict):
        return Pairs([str(key), tree_of(item)] for key, item in value.items())
    if isinstance(value, list | tuple):
        return [tree_of(item) for item in value]
    return value


def _places(node: Any) -> list[tuple[Any, int]]:
    """(container, index) of everything in a tree."""
    found = []
    stack = [node]
    while stack:
        each = stack.pop()
        if isinstance(each, list):
            for index, item in enumerate(each):
                found.append((each, index))
                stack.append(item[1] if isinstance(each, Pairs) else item)
    return found


def _get(place: tuple[Any, int]) -> Any:
    container, index = place
    return container[index][1] if isinstance(container, Pairs) else container[index]


def _set(place: tuple[Any, int], value: Any) -> None:
    container, index = place
    if isinstance(container, Pairs):
        container[index][1] = value
    else:
        container[index] = value


def _deep(draw: random.Random) -> Any:
    depth = draw.choice((3, 60, 400, 20_000))
    opened, closed = draw.choice((("[", "]"), ('{"a":', "}")))
    return Raw(opened * depth + ("1" if "{" in opened else "") + closed * depth)


def _odd(draw: random.Random) -> Any:
    return draw.choice(
        (
            lambda: draw.choice((None, True, False)),
            lambda: draw.choice(NUMBERS),
            lambda: draw.choice(CONSTANTS),
            lambda: draw.choice(TEXTS),
            lambda: draw.choice(([], Pairs(), [None], Pairs([["a", 1]]), [[]])),
            lambda: _deep(draw),
        )
    )()


def _retyped(value: Any, draw: random.Random) -> Any:
    if isinstance(value, bool) or value is None:
        return draw.choice((str(value).lower(), int(bool(value)), [value]))
    if isinstance(value, int | float):
        other = value + 0.5 if abs(value) < 1e300 else -value
        return draw.choice((repr(value), [value], bool(value), other, None))
    if isinstance(value, str):
        return draw.choice((0, [value], Pairs([[value, 1]]), None, list(value[:50])))
    if isinstance(value, Pairs):
        return draw.choice(([item for _, item in value], [list(pair) for pair in value], "{}"))
    return draw.choice((Pairs([str(i), item] for i, item in enumerate(value)), "[]", 1))


def _near(value: Any, draw: random.Random) -> Any:
    """Something of the same type."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        factor = draw.choice((-1, 0, 2, 10, 1000, 1e9, 1e-9))
        changed = value * factor
        return int(changed) if isinstance(value, int) and abs(changed) < 1e300 else changed
    if isinstance(value, str):
        cut = draw.randrange(len(value) + 1)
        inside = draw.choice(("\0", "\n", "é", "\u202e", " ", "/", value, "1"))
        return draw.choice((value[:cut] + inside + value[cut:], value[:cut], value.upper()))
    if isinstance(value, Pairs | list):
        return type(value)(reversed(value))
    return not value


_KINDS = (
    *("odd",) * 3,
    *("near", "type") * 2,
    *("drop", "twice", "name", "new", "swap", "many", "root", "schema"),
)
_SCHEMAS = ("other/1", "x/99999999999", None, 1, "latency-table/2", "device/2")


def _damaged_once(root: Any, draw: random.Random) -> Any:
    places = _places(root)
    if not places:
        return _odd(draw)
    place = draw.choice(places)
    container, index = place
    match draw.choice(_KINDS):
        case "odd":
            _set(place, _odd(draw))
        case "near":
            _set(place, _near(_get(place), draw))
        case "type":
            _set(place, _retyped(_get(place), draw))
        case "drop":
            del container[index]
        case "twice":
            again = container[index]
            if isinstance(container, Pairs):
                again = [again[0], draw.choice((again[1], _odd(draw)))]
            container.insert(draw.choice((0, index, len(container))), again)
        case "name" if isinstance(container, Pairs):
            container[index] = [str(_near(container[index][0], draw)), container[index][1]]
        case "new" if isinstance(container, Pairs):
            container.append([draw.choice(("extra", "__class__", *TEXTS)), _odd(draw)])
        case "swap":
            other = draw.choice(places)
            mine, theirs = _get(place), _get(other)
            if not (_holds(mine, other[0]) or _holds(theirs, container)):
                _set(place, theirs)
                _set(other, mine)
        case "many" if isinstance(_get(place), list):
            _set(place, type(_get(place))(list(_get(place)) * draw.choice((2, 50, 3000))))
        case "schema":
            for each in places:
                if isinstance(each[0], Pairs) and each[0][each[1]][0] == "schema":
                    _set(each, draw.choice(_SCHEMAS))
        case "root":
            wrapped = (_odd(draw), [root], Pairs([["a", root]]))
            return draw.choice(wrapped)
    return root


def _holds(node: Any, inner: Any) -> bool:
    """Whether one tree holds another; a swap would tie it into a knot."""
    if node is inner:
        return True
    if not isinstance(node, list):
        return False
    return any(_holds(item[1] if isinstance(node, Pairs) else item, inner) for item in node)


def _damaged(value: Any, draw: random.Random) -> Any:
    root = tree_of(value)
    for _ in range(draw.choice((1, 1, 1, 1, 2, 4))):
        root = _damaged_once(root, draw)
    return root


def _json(node: Any) -> str:
    if isinstance(node, Raw):
        return str(node)
    if isinstance(node, Pairs):
        return "{" + ", ".join(f"{json.dumps(k)}: {_json(v)}" for k, v in node) + "}"
    if isinstance(node, list):
        return "[" + ", ".join(_json(item) for item in node) + "]"
    return json.dumps(node)


def json_text(value: Any, draw: random.Random) -> bytes:
    """JSON of a damaged tree."""
    return _json(_damaged(value, draw)).encode("utf-8", "surrogatepass")


def _toml(node: Any) -> str:
    if isinstance(node, Raw):
        return str(node)
    if isinstance(node, Pairs):
        return "{" + ", ".join(f"{_quoted(k)} = {_toml(v)}" for k, v in node) + "}"
    if isinstance(node, list):
        return "[" + ", ".join(_toml(item) for item in node) + "]"
    if isinstance(node, float) and not math.isfinite(node):
        return repr(node)
    return _quoted(node) if isinstance(node, str) else json.dumps(node)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def toml_text(value: dict[str, Any], draw: random.Random) -> bytes:
    """TOML of a damaged tree; tables are written inside lines."""
    root = _damaged(value, draw)
    if not isinstance(root, Pairs):
        return _toml(root).encode("utf-8", "surrogatepass")
    lines = [f"{_quoted(name)} = {_toml(item)}" for name, item in root]
    return "\n".join(lines).encode("utf-8", "surrogatepass")


YAML_ODD = (
    "&a 1",
    "*a",
    "!!python/object/apply:os.system ['true']",
    "!!float 1",
    "[1, 2]",
    "{a: 1}",
    "|",
    "'1'",
    "1_000",
    "0x10",
    "1:30",
    ".nan",
    ".inf",
    "~",
    "",
    "<<: *a",
    "1 # more",
    "\t1",
    "- 1",
    "---",
    "...",
    "%YAML 9.9",
    "? x",
)


def yaml_text(value: dict[str, dict[str, Any]], draw: random.Random) -> bytes:
    """YAML of two levels, damaged as a tree or in its lines."""
    root = _damaged(value, draw) if draw.random() < 0.6 else tree_of(value)
    if not isinstance(root, Pairs):
        return _json(root).encode("utf-8", "surrogatepass")
    lines = []
    for name, entry in root:
        plain = name if name.isprintable() and name.strip() == name and name else json.dumps(name)
        if isinstance(entry, Pairs):
            lines.append(f"{plain}:")
            lines += [f"  {field}: {_json(figure)}" for field, figure in entry]
        else:
            lines.append(f"{plain}: {_json(entry)}")
    for _ in range(draw.choice((0, 1, 3))):
        where, odd = draw.randrange(len(lines) or 1), draw.choice(YAML_ODD)
        line = lines[where] if lines else ""
        before = line.rpartition(":")[0]
        changed = draw.choice((odd, f"{before}: {odd}", f"{line} {odd}", f" {line}", line.lstrip()))
        lines[where : where + draw.choice((0, 1))] = [changed]
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass")


def csv_text(text: str, draw: random.Random) -> bytes:
    """CSV with damaged cells, rows and columns."""
    rows = [line.split(",") for line in text.splitlines()]
    for _ in range(draw.choice((1, 1, 2, 4))):
        row, column = draw.randrange(len(rows)), draw.randrange(len(rows[0]))
        column = min(column, len(rows[row]) - 1)
        match draw.choice(("odd", "odd", "near", "drop row", "twice", "column", "swap", "quote")):
            case "odd":
                rows[row][column] = _cell(_odd(draw))
            case "near":
                rows[row][column] = str(_near(rows[row][column], draw))
            case "drop row":
                del rows[row]
                rows = rows or [["ms"]]
            case "twice":
                rows.insert(draw.randrange(len(rows) + 1), list(rows[row]))
            case "column":
                for each in rows:
                    del each[column : column + 1]
                rows = [each or [""] for each in rows]
            case "swap":
                other = draw.randrange(len(rows))
                rows[row], rows[other] = rows[other], rows[row]
            case "quote":
                rows[row][column] = draw.choice(('"', '""', '"a', 'a"b', '"a\nb"', "'1'"))
    ends = draw.choice(("\n", "\n", "\r\n", "\r"))
    return ends.join(",".join(row) for row in rows).encode("utf-8", "surrogatepass")


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else _json(value)


def toml_text_of(value: dict[str, Any]) -> bytes:
    """TOML of a value as it is."""
    return "\n".join(f"{_quoted(k)} = {_toml(v)}" for k, v in tree_of(value)).encode()
