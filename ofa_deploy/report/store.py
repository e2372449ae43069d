"""Networks as the page is given them: what is said of each, and the glyphs of its blocks."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from shlex import quote
from typing import Any

import numpy as np

from ofa_deploy.files import digest
from ofa_deploy.pareto import Candidate
from ofa_deploy.report.network import glyph, stage_of, widest
from ofa_deploy.report.series import Series
from ofa_deploy.space import Arch, SearchSpace
from ofa_deploy.terminal import metric, short

__all__ = ["Store", "export_command", "said"]


@dataclass
class Glyphs:
    """Every block of one space that some network has, drawn once."""

    space: SearchSpace
    most: int
    made: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    _index: dict[tuple[str, str], int] = field(default_factory=dict)

    def of(self, archs: Sequence[Arch]) -> list[list[int]]:
        """For each network the glyphs of its blocks, from input to output."""
        rows = self.space.encode(archs)
        found = np.full((len(archs), len(self.space.slots)), -1, np.int32)
        for column, slot in enumerate(self.space.slots):
            choices, inverse = np.unique(rows[:, list(slot.genes)], axis=0, return_inverse=True)
            drawn = np.array([self._drawn(slot.name, slot.block, each) for each in choices])
            found[:, column] = drawn[inverse.ravel()]
        return [[int(i) for i in row if i >= 0] for row in found]

    def _drawn(self, place: str, build: Any, choice: Any) -> int:
        block = build(*map(int, choice)) if (choice >= 0).all() else None
        if block is None:
            return -1
        key = (place, block.key)
        if key not in self._index:
            self._index[key] = len(self.made)
            self.keys.append(block.key)
            self.made.append(
                {
                    **glyph(block, self.most).to_dict(),
                    "place": place,
                    "stage": stage_of(place),
                    "key": block.key,
                    "macs": block.macs,
                }
            )
        return self._index[key]


@dataclass
class Store:
    """The networks of all charts, each once a series, and what they share."""

    arch: list[str] = field(default_factory=list)
    said: list[list[str]] = field(default_factory=list)
    fields: list[dict[str, Any]] = field(default_factory=list)
    name: list[str] = field(default_factory=list)
    group: list[int] = field(default_factory=list)
    blocks: list[list[int]] = field(default_factory=list)
    kept: dict[int, str] = field(default_factory=dict)
    groups: list[dict[str, Any]] = field(default_factory=list)
    glyphs: list[Glyphs] = field(default_factory=list)
    _of: dict[tuple[int, int], int] = field(default_factory=dict)

    def add(self, series: Series) -> None:
        context = series.context
        first, archs = len(self.arch), [c.arch for c in series.front]
        drawn: list[list[int]] = [[]] * len(archs)
        glyphs = -1
        if context.space is not None:
            glyphs = self._glyphs(context.space)
            drawn = self.glyphs[glyphs].of(archs)
        self.groups.append(
            {
                "name": series.name,
                "panel": series.panel,
                "glyphs": glyphs,
                "run": quote(context.run) if context.run else "",
                "target": _target(context.target),
            }
        )
        for offset, candidate in enumerate(series.front):
            self.arch.append(str(candidate.arch))
            self.said.append(said(candidate))
            self.fields.append(candidate.arch.to_dict())
            self.name.append(f"network-{digest(candidate.arch.to_dict())[:8]}")
            self.group.append(len(self.groups) - 1)
            self.blocks.append(drawn[offset])
            self._of[id(series), id(candidate)] = first + offset
            if candidate.arch in context.subnets:
                path = context.subnets[candidate.arch]
                target = candidate.target or context.target
                self.kept[first + offset] = export_command(path, target)

    def find(self, candidate: Candidate, *series: Series) -> int:
        """The network's place, as a candidate of the first of these series that it is in.

        One candidate may stand in several series: a network on several devices is one.
        """
        places = (self._of.get((id(each), id(candidate))) for each in series)
        return next(place for place in places if place is not None)

    def _glyphs(self, space: SearchSpace) -> int:
        for index, each in enumerate(self.glyphs):
            if each.space.fingerprint == space.fingerprint:
                return index
        self.glyphs.append(Glyphs(space, widest(space)))
        return len(self.glyphs) - 1

    def to_dict(self, series_list: Sequence[Series]) -> dict[str, Any]:
        for group, series in zip(self.groups, series_list, strict=True):
            table, index = series.context.table, group["glyphs"]
            entries = table.blocks if table is not None else {}
            keys = self.glyphs[index].keys if index >= 0 else []
            group["ms"] = [short(entries[k].ms) if k in entries else None for k in keys]
        names = ("arch", "said", "fields", "name", "group", "blocks", "kept", "groups")
        return {
            **{name: getattr(self, name) for name in names},
            "glyphs": [each.made for each in self.glyphs],
        }


def export_command(path: str, target: str) -> str:
    """Exports a subnet's file; the target is empty for ONNX in float32."""
    out = quote(f"bundles/{path.rsplit('/', 1)[-1].removesuffix('.subnet.json')}")
    return f"ofa-deploy export {quote(path)} --out {out}{_target(target)}"


def _target(target: str) -> str:
    exact = " --no-sensitivity" if target.endswith("int8") else ""
    return f" --target {quote(target)}{exact}" if target else ""


def said(candidate: Candidate) -> list[str]:
    """Every metric with its unit and where it is from, a line each, and the budget."""
    names = dict.fromkeys([*candidate.predicted, *candidate.measured])
    lines = [f"{name}: {_metric(candidate, name)}" for name in names]
    return lines + ([f"budget: {candidate.budget}"] if candidate.budget else [])


def _metric(candidate: Candidate, name: str) -> str:
    parts = []
    if name in candidate.measured:
        parts.append(f"{metric(name, candidate.measured[name])} measured")
    if name in candidate.predicted:
        predicted = metric(name, candidate.predicted[name])
        exact = name in ("macs", "params", "peak_memory", "model_size")
        parts.append(predicted if exact else f"{predicted} predicted")
    if name in candidate.intervals:
        low, high = (metric(name, end) for end in candidate.intervals[name])
        parts[-1] += f" ({low} to {high})"
    return ", ".join(parts)
