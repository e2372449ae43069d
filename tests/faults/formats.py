"""Every format that is read: a small valid example, ways to damage it, and what an answer must say.

What a reader accepts must say what the file says. ``Format.agrees`` looks that up in another way
than the reader does: text is read again by the standard library alone, strictly; what a hash or a
checksum covers must be the valid example's, bit for bit.
"""

import json
import random
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofa_deploy.space import Head, SearchSpace, Stage, Stem
from tests.faults import binary_mutations, mutations

__all__ = [
    "SPACE",
    "Format",
    "Mutator",
    "dumped",
    "generator",
    "json_format",
    "json_ways",
    "same",
    "says_json",
    "says_toml",
    "strict_json",
]

Mutator = Callable[[bytes, random.Random], bytes]

SPACE = SearchSpace(
    name="small",
    resolutions=(12, 16),
    classes=4,
    stem=Stem(channels=8),
    stages=(
        Stage(channels=8, stride=1, depths=(1,), kernels=(3,), expands=(1,), activation="relu"),
        Stage(channels=16, stride=2, depths=(1, 2), kernels=(3, 5), expands=(2, 3), se=True),
    ),
    head=Head(channels=24, features=32),
)


@dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
        files: a valid example: contents by name; the first is damaged.
        ways: to damage it.
        read: what reads the folder of the files, and uses what it read as commands do.
        agrees: from the folder and what was read to why that is not what the file says.
        link: whether the file may be a link to one; a bundle's may not.
        is_file: whether there could be a link, folder or pipe in its place.
        names: what a refusal may name instead of the file.
    """

    name: str
    files: Mapping[str, bytes]
    ways: Mapping[str, Mutator]
    read: Callable[[Path], Any]
    agrees: Callable[[Path, Any], str | None]
    link: bool = True
    is_file: bool = True
    names: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        """The name of the file that is damaged."""
        return next(iter(self.files))


# -- what text says -------------------------------------------------------------------------


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)


def _refuse(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _finite(text: str) -> float:
    return float(text) if abs(float(text)) < float("inf") else _refuse(text)


def strict_json(data: bytes) -> Any:
    """JSON without repeated keys and numbers that are none."""
    return json.loads(
        data.decode(), object_pairs_hook=_once, parse_constant=_refuse, parse_float=_finite
    )


def same(said: Any, got: Any, where: str = "") -> str | None:
    """Why two values differ, if they do; what the file leaves out is its schema's to fill in."""
    if isinstance(said, dict) and isinstance(got, dict):
        if lost := sorted(set(said) - set(got)):
            return f"{where}: {lost[0]!r} was not read"
        found = (same(value, got[key], f"{where}.{key}") for key, value in said.items())
        return next((each for each in found if each), None)
    if isinstance(said, list | tuple) and isinstance(got, list | tuple):
        if len(said) != len(got):
            return f"{where}: {len(said)} items, {len(got)} were read"
        found = (same(a, b, f"{where}.{i}") for i, (a, b) in enumerate(zip(said, got, strict=True)))
        return next((each for each in found if each), None)
    number = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (said, got))
    if (number or type(said) is type(got)) and said == got:
        return None
    if number and isinstance(got, float) and float(said) == got:
        return None
    return f"{where}: {said!r:.60} was read as {got!r:.60}"


def _says(
    parse: Callable[[bytes], Any], name: str, dump: Callable[[Any], Any]
) -> Callable[[Path, Any], str | None]:
    def agrees(folder: Path, value: Any) -> str | None:
        try:
            said = parse((folder / name).read_bytes())
        except (ValueError, RecursionError) as error:
            return f"accepted, though {error}"
        return same(said, dump(value))

    return agrees


def says_json(name: str, dump: Callable[[Any], Any]) -> Callable[[Path, Any], str | None]:
    """Whether a JSON file says what was read from it."""
    return _says(strict_json, name, dump)


def says_toml(name: str, dump: Callable[[Any], Any]) -> Callable[[Path, Any], str | None]:
    """Whether a TOML file says what was read from it."""
    return _says(lambda data: tomllib.loads(data.decode()), name, dump)


def json_ways(value: Any) -> dict[str, Mutator]:
    """Damage to a JSON file of a value."""
    return {
        "tree": lambda _, draw: mutations.json_text(value, draw),
        "again": lambda _, draw: mutations.json_text(value, draw),
        "bytes": binary_mutations.binary,
    }


def json_format(
    name: str,
    file: str,
    value: Any,
    read: Callable[[Path], Any],
    dump: Callable[[Any], Any],
    others: Mapping[str, bytes] | None = None,
) -> Format:
    """A format that is a JSON file, perhaps with others beside it."""
    files = {file: json.dumps(value).encode(), **(others or {})}
    return Format(name, files, json_ways(value), read, says_json(file, dump))


def dumped(model: Any) -> Any:
    """A pydantic model as its file would say it."""
    return model.model_dump(mode="json", by_alias=True)


def generator() -> Any:
    """Draws what a valid example is made of, the same each time."""
    import numpy as np

    return np.random.default_rng(3)
