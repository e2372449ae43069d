"""``LatencyTable``: what was measured on a device, block by block and network by network."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ofa_deploy.checks import Count, Energy, Factor, Milliseconds, PositiveCount, Spread
from ofa_deploy.errors import InputError, MismatchError
from ofa_deploy.files import read_model, shipped, write_model
from ofa_deploy.hardware.measurement import Conditions, Measurement
from ofa_deploy.hardware.trace import Trace
from ofa_deploy.space import Arch, ArchField, Block, SearchSpace, get_space, space_names

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BlockEntry", "LatencyTable", "NetworkEntry", "find_table", "table_files"]

Side = Annotated[int, Field(ge=1, le=2**16)]  # of an image, in pixels
_STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
# Relative. Blocks that stand several times in once-for-all's published tables differ by 0.4 % in
# the median and 2 % at most, although each figure's own spread is smaller.
_LEAST_NOISE = 0.02
_SURE = 0.25  # noise beyond which a block's rate says nothing of what the device can reach
_BEST = 0.95  # quantile of the blocks' rates that stands for what the device can reach


class BlockEntry(BaseModel):
    """One block: its latency beyond an empty graph's, and what it computes and moves.

    Attributes:
        ms: latency of the block alone, less that of a graph that does nothing; at least 1e-6.
        spread: relative; the range over measuring processes, or the standard deviation of the runs
            in an imported table, where 0 is unknown.
        count: timed runs.
        macs, bytes_moved: for a whole batch.
        energy_mj: of the processor while the block ran alone, where the device counts it.
    """

    model_config = _STRICT

    ms: Milliseconds
    spread: Spread
    count: PositiveCount
    macs: Count
    params: Count
    bytes_moved: Count
    energy_mj: Energy | None = None

    @classmethod
    def of(
        cls,
        block: Block,
        *,
        ms: float,
        spread: float,
        count: int,
        batch: int = 1,
        energy_mj: float | None = None,
    ) -> Self:
        """What was measured of a block, beside what the block itself says."""
        return cls(
            ms=ms,
            spread=spread,
            count=count,
            macs=batch * block.macs,
            params=block.params,
            bytes_moved=batch * block.bytes_moved,
            energy_mj=energy_mj,
        )

    @property
    def gmacs_per_s(self) -> float:
        """Reached multiply-accumulates, in billions a second."""
        return self.macs / self.ms / 1e6


class NetworkEntry(BaseModel):
    """One whole network: ``calibration`` corrects the sum of blocks, ``holdout`` judges it."""

    model_config = _STRICT

    arch: ArchField
    role: Literal["calibration", "holdout"]
    latency: Measurement


class LatencyTable(BaseModel):
    """Latency of every block that a space's networks are made of, on one device.

    Attributes:
        space: the name of the space it was made for.
        fingerprint: of that space, classes included.
        resolutions: of that space; empty in tables of before they were kept.
        blocks: by ``Block.key``.
        networks: whole networks measured in the same run.
        empty_ms: latency of a graph that does nothing.
        reference: the network that everything was timed in turns with; None if imported.
        protocol: how it was measured.
        source: where it was imported from; empty for tables that this project measured.
        scale: what all times were multiplied by since they were measured, when the device was
            found to run at another speed.
        other_load: share of the machine that other processes used meanwhile, 0 to 1.
        telemetry: what the device said of itself meanwhile; None in tables of before it was kept,
            and in imported ones.
        windows, rejected, throttled: how many windows stand, and how many were dropped since the
            reference moved, or since clocks were held down.
        date: ISO 8601.
    """

    model_config = _STRICT

    schema_: Literal["latency-table/1"] = Field("latency-table/1", alias="schema")
    space: str
    classes: int = Field(ge=2)
    fingerprint: str
    resolutions: tuple[Side, ...] = ()
    conditions: Conditions
    protocol: dict[str, int | float | str]
    date: str
    other_load: float = Field(0.0, ge=0, le=1)
    telemetry: Trace | None = None
    windows: Count = 0
    rejected: Count = 0
    throttled: Count = 0
    empty_ms: float = Field(0.0, ge=0, le=1e9)
    reference: Measurement | None = None
    blocks: dict[str, BlockEntry] = Field(min_length=1)
    networks: tuple[NetworkEntry, ...] = ()
    source: str = ""
    scale: Factor = 1.0

    @model_validator(mode="after")
    def _reference_unless_imported(self) -> Self:
        if self.reference is None and not self.source:
            raise ValueError("a table that was measured has a reference")
        return self

    @classmethod
    def load(cls, path: Path | str) -> "LatencyTable":
        """Read a table.

        Raises:
            FileFormatError: if it is damaged, of a newer schema, or its values make no sense.
        """
        return read_model(path, cls, schema="latency-table/1")

    def save(self, path: Path | str) -> Path:
        """Write the table."""
        return write_model(path, self)

    @property
    def file_name(self) -> str:
        """``SPACE[-FINGERPRINT]@RUNTIME-PRECISION-bBATCH-tTHREADS[-MODE].json``.

        The fingerprint's first eight digits tell the space from the catalogue's of that name:
        other resolutions, other classes.
        """
        c = self.conditions
        usual = self.space in space_names() and (
            get_space(self.space).fingerprint == self.fingerprint
        )
        space = self.space if usual else f"{self.space}-{self.fingerprint[:8]}"
        mode = f"-{c.power_mode}" if c.power_mode else ""
        return f"{space}@{c.runtime}-{c.precision}-b{c.batch}-t{c.threads}{mode}.json"

    def value(self, block: Block) -> float:
        """The block's ms.

        Raises:
            MismatchError: if the table does not have it, naming the nearest it has.
        """
        entry = self.blocks.get(block.key)
        if entry is None:
            import difflib

            near = difflib.get_close_matches(block.key, self.blocks, n=2, cutoff=0)
            raise MismatchError(
                f"the latency table for {self.space} on {self.conditions.device} has no block "
                f"{block.key}; nearest: {', '.join(near)}; profile the space anew"
            )
        return entry.ms

    def check_for(self, space: SearchSpace, conditions: Conditions | None = None) -> None:
        """See that the table answers for ``space``, under ``conditions`` where given.

        Raises:
            MismatchError: naming what differs.
        """
        if self.fingerprint != space.fingerprint:
            mend = "spaces and class counts must agree"
            if space.name == self.space and space.classes != self.classes:
                mend = f"take the space .with_classes({self.classes}), or a table of the other"
            raise MismatchError(
                f"the table was made for space {self.space} with {self.classes} classes "
                f"({self.fingerprint}), not for {space.name} with {space.classes} "
                f"({space.fingerprint}); {mend}"
            )
        if conditions is not None and (different := self.conditions.differences(conditions)):
            raise MismatchError(
                f"the table was measured under other conditions (table, asked): "
                f"{', '.join(different)}; profile anew, or ask for the table's own"
            )

    @property
    def unjudged(self) -> str:
        """What to say where nothing tells the table's error on whole networks, else nothing."""
        return "" if self.networks else "error unknown: no whole network was measured"

    def noise_ms(self, entry: BlockEntry) -> float:
        """How far a block's ms may be off, in ms.

        It is the entry's spread, at least 2 %, of all that was timed: the block and the empty graph
        that its latency was taken beyond.
        """
        return max(entry.spread, _LEAST_NOISE) * (entry.ms + self.empty_ms)

    def scaled(self, factor: float) -> "LatencyTable":
        """The table of the same device at another speed: every time, multiplied by ``factor``.

        Raises:
            InputError: if the factor is not positive and finite.
        """
        if not (math.isfinite(factor) and factor > 0):
            raise InputError(f"expected a positive factor to scale a table by, found {factor}")
        blocks = {
            key: entry.model_copy(update={"ms": entry.ms * factor})
            for key, entry in self.blocks.items()
        }
        networks = tuple(
            entry.model_copy(update={"latency": _scaled(entry.latency, factor)})
            for entry in self.networks
        )
        return self.model_copy(
            update={
                "scale": self.scale * factor,
                "empty_ms": self.empty_ms * factor,
                "reference": self.reference and _scaled(self.reference, factor),
                "blocks": blocks,
                "networks": networks,
            }
        )

    def archs(self, role: str) -> tuple[list[Arch], list[float]]:
        """The measured networks of a role, and their ms."""
        chosen = [entry for entry in self.networks if entry.role == role]
        return [Arch.from_dict(e.arch) for e in chosen], [e.latency.ms for e in chosen]

    def to_frame(self) -> "pd.DataFrame":
        """One row a block: key, ms, spread, count, macs, params, bytes_moved, gmacs_per_s.

        ``lost_ms`` is the part of ms beyond what the device's best blocks would need: those with
        the most multiply-accumulates a second, and those with the most bytes (a roofline).
        """
        import pandas as pd

        rows = [
            {"block": key, **entry.model_dump(), "gmacs_per_s": entry.gmacs_per_s}
            for key, entry in self.blocks.items()
        ]
        frame = pd.DataFrame(rows)
        sure = [self.noise_ms(entry) < _SURE * entry.ms for entry in self.blocks.values()]
        known = frame[sure] if any(sure) else frame
        best_macs = (known["macs"] / known["ms"]).quantile(_BEST)
        best_bytes = (known["bytes_moved"] / known["ms"]).quantile(_BEST)
        floor = (frame["macs"] / best_macs).combine(frame["bytes_moved"] / best_bytes, max)
        frame["lost_ms"] = (frame["ms"] - floor).clip(lower=0)
        return frame


def _scaled(measured: Measurement, factor: float) -> Measurement:
    times = {name: getattr(measured, name) * factor for name in ("ms", "p10", "p50", "p90", "p99")}
    return measured.model_copy(update=times)


def table_files() -> list[Path]:
    """Every table at hand: the user's ``./latency_tables`` first, then those that ship."""
    folders = dict.fromkeys(
        folder.resolve() for folder in (Path("latency_tables"), shipped("latency_tables"))
    )
    return [path for folder in folders for path in sorted(folder.glob("*/*.json"))]


def find_table(name: str) -> LatencyTable:
    """A table by its path.

    Raises:
        InputError: if there is no such file, listing the tables at hand.
        FileFormatError: if it is damaged.
    """
    path = Path(name)
    if not path.exists():
        known = ", ".join(str(each) for each in table_files()) or "none yet"
        raise InputError(
            f"{name}: no such latency table; at hand: {known}; "
            "make one with: ofa-deploy profile --space NAME"
        )
    return LatencyTable.load(path)
