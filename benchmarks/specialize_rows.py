"""What ``specialize.py`` compares, at which settings, and the rows that it keeps."""

import csv
import fcntl
import io
import math
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from training import SPACE, STEPS_PER_EPOCH, deps

from ofa_deploy.files import digest, write_text
from ofa_deploy.profiling import reference_arch
from ofa_deploy.space import Arch
from ofa_deploy.specialize import SpecializeConfig, forecast_macs, specialize_recipe
from ofa_deploy.train import standard_archs

RESULTS = Path(__file__).parent / "results" / "specialize.csv"
PARENT = (SPACE, SPACE.largest)
INHERITED = "inherited"
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "fine-tune": ("finetune", {}),
    "fine-tune, distilled": ("distill", {}),
    "wide-narrow, inherited": ("wide-narrow", {}),
    "wide-narrow, random": ("wide-narrow", {"start": ("random",)}),
    "labels, random": ("finetune", {"start": "random"}),
    "dense ensemble of 3": ("finetune", {"members": 3}),
    "DST 3": ("dst", {}),
    "EDST 3": ("edst", {}),
    "DST 3, zeros free": ("dst", {}),
    "EDST 3, zeros free": ("edst", {}),
}
LAST = ("DST 3, zeros free", "EDST 3, zeros free")  # when all others are there


def archs() -> dict[str, Arch]:
    """The subnets, by size."""
    return {
        "small": SPACE.smallest,
        "middle": reference_arch(SPACE),
        "large": standard_archs(SPACE)["d3 e3"],
    }


def macs_of(config: SpecializeConfig, arch: Arch, *, zeros_free: bool = False) -> float:
    """Expected multiply-accumulates of a run."""
    parent = PARENT if config.needs_parent else None
    phases = forecast_macs(config, SPACE, arch, STEPS_PER_EPOCH, parent)
    return sum(each.macs.sparse if zeros_free else each.macs.dense for each in phases)


@cache
def budget(arch: Arch) -> float:
    """What every run of a subnet may cost."""
    return macs_of(specialize_recipe("finetune", "glyphs"), arch)


@cache
def at_budget(method: str, arch: Arch) -> SpecializeConfig:
    """A method's recipe, stretched to the budget within a step or so."""
    name, settings = METHODS[method]
    low, high = 0.01, 10.0
    for _ in range(30):
        middle = math.sqrt(low * high)
        config = specialize_recipe(name, "glyphs", scale=middle, threads=1, **settings)
        if macs_of(config, arch, zeros_free=method in LAST) > budget(arch):
            high = middle
        else:
            low = middle
    return specialize_recipe(name, "glyphs", scale=low, threads=1, **settings)


@dataclass(frozen=True)
class Row:
    """One method on one subnet of one supernet. What was not measured is NaN."""

    method: str
    seed: int
    subnet: str
    members: int
    top1: float
    nll: float
    ece: float
    brier: float
    member_top1: float
    disagreement: float
    kl: float
    top1_corrupted: float
    top1_noise: float
    top1_blur: float
    top1_contrast: float
    top1_brightness: float
    top1_jpeg: float
    macs: int
    sparse_macs: int
    params: int
    living: int
    dense_bytes: int
    sparse_bytes: int
    training_macs: int
    training_sparse_macs: int
    latency_member: float
    latency_in_turn: float
    latency_stacked: float
    cpu_seconds: float
    commit: str
    settings: str

    @classmethod
    def parse(cls, values: dict[str, str]) -> "Row":
        """From a line of the CSV."""
        made: dict[str, Any] = {
            field.name: field.type(values[field.name])  # type: ignore[operator]
            for field in fields(cls)
        }
        return cls(**made)

    @property
    def latency(self) -> float:
        """The lesser way to compute all members, in ms."""
        return min(self.latency_in_turn, self.latency_stacked)


COLUMNS = [field.name for field in fields(Row)]
LATENCIES = ("latency_member", "latency_in_turn", "latency_stacked")


def settings_of(method: str, arch: Arch) -> str:
    """A name for what decides about a row, whatever the seed and the threads."""
    known: dict[str, Any] = {"supernet": deps(1 / 1.8).model_dump(mode="json")}
    if method != INHERITED:
        known["config"] = at_budget(method, arch).model_dump(mode="json")
    for config in known.values():
        del config["seed"], config["threads"]
    return digest(known)


def finished() -> list[Row]:
    """The rows there are."""
    if not RESULTS.exists():
        return []
    with RESULTS.open(newline="") as file:
        return [Row.parse(line) for line in csv.DictReader(file)]


def keep(row: Row) -> None:
    """Add a row, or put it in the place of the one of the same run; several may do so at once."""
    with (RESULTS.parent / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until it is closed
        same = {name: getattr(row, name) for name in ("method", "seed", "subnet", "settings")}
        others = [
            each for each in finished() if any(getattr(each, k) != v for k, v in same.items())
        ]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([getattr(r, name) for name in COLUMNS] for r in [*others, row])
        write_text(RESULTS, text.getvalue())


def is_there(seed: int, name: str, method: str) -> Row | None:
    """The row of a run with today's settings."""
    known = settings_of(method, archs()[name])
    for row in finished():
        if (row.seed, row.subnet, row.method, row.settings) == (seed, name, method, known):
            return row
    return None
