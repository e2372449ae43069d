"""Once-for-all's latency tables: YAML, one file a resolution, a mean, std and count a layer.

Keys say what a layer is: ``Conv-input:160x160x3-output:80x80x24`` (the stem), ``expanded_conv-…``
with the width inside it, kernel, stride, shortcut and, for MobileNetV3, squeeze-excite and h-swish,
``Conv_1-…`` (the last 1x1); ``AvgPool2D-…``, ``Conv_2-…`` and ``Logits-…`` are together one
classifier here. Nothing is parsed out of a key: the keys that a block must have are written down
and looked up, so a key that differs in any detail is a missing one.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from math import sqrt
from pathlib import Path
from typing import Any

import yaml

from ofa_deploy.errors import FileFormatError, InputError
from ofa_deploy.files import read_bytes
from ofa_deploy.hardware.figures import (
    MAX_BYTES,
    Figure,
    Form,
    Readings,
    clean,
    count,
    positive,
    spread,
)
from ofa_deploy.space import Block

__all__ = ["OFA_YAML"]

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MOST_FILES = 256
_MOST_PIXELS = 1024  # that a name is taken to mean; larger numbers may be years
_FIELDS = ("mean", "std", "count")


# -- files ----------------------------------------------------------------------------------


def _read(path: Path) -> Readings:
    """All tables of a folder, or one file."""
    files = _files(path)
    found: dict[str, list[Figure]] = {}
    resolutions, content = set(), hashlib.sha256()
    for file in files:
        data = read_bytes(file, limit=MAX_BYTES)
        content.update(hashlib.sha256(data).digest())
        figures = _figures(file, data)
        resolutions |= _resolution(file, figures)
        for name, figure in figures.items():
            found.setdefault(name, []).append(figure)
    repeated = [each for each in found.values() if len(each) > 1]
    ratios = [max(f.mean for f in each) / min(f.mean for f in each) for each in repeated]
    return Readings(
        figures={name: _pooled(each) for name, each in found.items()},
        files=len(files),
        sha256=content.hexdigest(),
        resolutions=tuple(sorted(resolutions)),
        repeated=len(repeated),
        differ=max(ratios, default=1.0) - 1,
    )


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix in (".yaml", ".yml"))
    else:
        files = [path]
    if not files:
        raise InputError(
            f"{path}: no .yaml file there; expected files such as 160_lookup_table.yaml"
        )
    if len(files) > _MOST_FILES:
        raise InputError(f"{path}: {len(files)} .yaml files, more than the {_MOST_FILES} allowed")
    for file in files:
        if file.exists() and not file.is_file():
            raise InputError(f"{file}: expected a file, found a folder or device")
    return files


def _resolution(file: Path, figures: dict[str, Figure]) -> set[int]:
    """What a file's name and its stem say; they must agree."""
    stems = [re.match(r"Conv-input:(\d{1,5})x\1x", name, re.ASCII) for name in figures]
    inside = {int(match[1]) for match in stems if match}
    found = re.match(r"(\d{2,4})_", file.name, re.ASCII)
    named = {int(found[1])} if found and int(found[1]) <= _MOST_PIXELS else set()
    if named and inside and inside != named:
        sizes = ", ".join(str(size) for size in sorted(inside))
        raise FileFormatError(
            f"{file}: named for {named.pop()} pixels, but its stem is for {sizes}; which is wrong?"
        )
    return inside or named


def _pooled(figures: Sequence[Figure]) -> Figure:
    """One figure of several files': the mean of all runs, and their standard deviation."""
    if len(figures) == 1:
        return figures[0]
    runs = sum(f.count for f in figures)
    mean = sum(f.count * f.mean for f in figures) / runs
    squares = sum(f.count * ((f.spread * f.mean) ** 2 + (f.mean - mean) ** 2) for f in figures)
    return Figure(mean, sqrt(squares / runs) / mean, runs)


# -- YAML -----------------------------------------------------------------------------------


def _figures(file: Path, data: bytes) -> dict[str, Figure]:
    """The figures of one file, by key.

    The parser's events are read as they come: no object is ever built, so neither tags nor
    aliases can make anything happen.
    """
    try:
        events = yaml.parse(data.decode(), Loader=_LOADER)
        entries = _entries(file, events)
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{file}: not UTF-8 ({error})") from None
    except yaml.YAMLError as error:
        what = " ".join(str(error).split())
        raise FileFormatError(f"{file}: not readable as YAML ({what}); truncated?") from None
    fields = {name: set(entry) for name, entry in entries.items()}
    usual = next(iter(fields.values()), set())
    for name, own in fields.items():
        if own != usual:
            found = ", ".join(sorted(own)) or "nothing"
            raise FileFormatError(
                f"{file}: {clean(name)} has {found}, other entries have "
                f"{', '.join(sorted(usual))}; truncated?"
            )
    return {name: _figure(f"{file}: {clean(name)}", entry) for name, entry in entries.items()}


def _figure(where: str, entry: dict[str, str]) -> Figure:
    if "mean" not in entry:
        raise FileFormatError(f"{where}: expected a mean, found {', '.join(entry) or 'nothing'}")
    mean = positive(entry["mean"], f"{where}: mean")
    std = spread(entry.get("std", "0"), f"{where}: std")
    return Figure(mean, std / mean, count(entry.get("count", "1"), f"{where}: count"))


def _entries(file: Path, events: Iterator[Any]) -> dict[str, dict[str, str]]:
    """Key to field to text; exactly a mapping of mappings of plain numbers."""
    for event in events:
        if isinstance(event, yaml.MappingStartEvent):
            _plain(file, event)
            break
        if not isinstance(event, yaml.StreamStartEvent | yaml.DocumentStartEvent):
            raise FileFormatError(f"{file}: expected entries such as 'Conv-input:…', found none")
    entries: dict[str, dict[str, str]] = {}
    for name in _keys(file, events, entries):
        start = _plain(file, next(events))
        if not isinstance(start, yaml.MappingStartEvent):
            raise FileFormatError(f"{file}: {clean(name)}: expected {', '.join(_FIELDS)}")
        entry: dict[str, str] = {}
        for field in _keys(file, events, entry):
            value = _plain(file, next(events))
            if not isinstance(value, yaml.ScalarEvent) or value.style:
                raise FileFormatError(f"{file}: {clean(name)}: {clean(field)}: expected a number")
            entry[field] = value.value
        entries[name] = entry
    for event in events:
        if not isinstance(event, yaml.DocumentEndEvent | yaml.StreamEndEvent):
            raise FileFormatError(f"{file}: expected one document, found another after it")
    return entries


def _keys(file: Path, events: Iterator[Any], known: dict[str, Any]) -> Iterator[str]:
    """The keys of a mapping that has begun; the caller takes each key's value."""
    for event in events:
        if isinstance(event, yaml.MappingEndEvent):
            return
        if not isinstance(_plain(file, event), yaml.ScalarEvent):
            raise FileFormatError(f"{file}: line {event.start_mark.line + 1}: expected a name")
        if event.value in known:
            raise FileFormatError(f"{file}: {clean(event.value)} stands twice")
        yield event.value


def _plain(file: Path, event: Any) -> Any:
    """The event, if it is neither an alias nor marked with an anchor or a tag."""
    marked = getattr(event, "anchor", None) is not None or getattr(event, "tag", None) is not None
    if marked or isinstance(event, yaml.AliasEvent):
        raise FileFormatError(
            f"{file}: line {event.start_mark.line + 1}: aliases, anchors and tags are refused; "
            "expected plain numbers"
        )
    return event


# -- names ----------------------------------------------------------------------------------


def _names(block: Block) -> Sequence[tuple[str, ...]]:
    """The keys that stand for a block, best known first."""
    source = f"input:{block.size}x{block.size}x{block.in_channels}"
    target = f"output:{block.out_size}x{block.out_size}x{block.out_channels}"
    match block.kind:
        case "conv" if not block.residual:
            return [(f"{'Conv' if block.kernel > 1 else 'Conv_1'}-{source}-{target}",)]
        case "mbconv":
            return [(name,) for name in _mbconv_names(block, source, target)]
        case "classifier":
            return _classifier_names(block, source)
        case _:
            return []


def _mbconv_names(block: Block, source: str, target: str) -> Iterator[str]:
    """MobileNetV3's form; where there is nothing to tell, ProxylessNAS's, which ends earlier.

    ``expand`` is the width inside, or in ProxylessNAS's own tables the ratio.
    """
    rest = f"kernel:{block.kernel}-stride:{block.stride}-idskip:{int(block.residual)}"
    tail = f"se:{int(block.se > 0)}-hs:{int(block.activation == 'hswish')}"
    yield f"expanded_conv-{source}-{target}-expand:{block.mid_channels}-{rest}-{tail}"
    if block.activation == "relu6" and not block.se:
        yield f"expanded_conv-{source}-{target}-expand:{block.mid_channels}-{rest}"
        ratio, left = divmod(block.mid_channels, block.in_channels)
        if not left:
            yield f"expanded_conv-{source}-{target}-expand:{ratio}-{rest}"


def _classifier_names(block: Block, source: str) -> list[tuple[str, ...]]:
    wide, outputs = block.in_channels, block.out_channels
    pool = f"AvgPool2D-{source}-output:1x1x{wide}"
    if block.mid_channels:
        hidden = f"Conv_2-input:1x1x{wide}-output:1x1x{block.mid_channels}"
        return [(pool, hidden, f"Logits-input:1x1x{block.mid_channels}-output:{outputs}")]
    linear = f"Logits-input:1x1x{wide}-output:{outputs}"
    return [(pool, linear), (f"Logits-{source}-output:{outputs}",)]


OFA_YAML = Form(_read, _names)
