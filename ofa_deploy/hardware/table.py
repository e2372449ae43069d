"""``LatencyTable``: what was measured on a device, block by block and network by network."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ofa_deploy._files import read_model, write_model
from ofa_deploy._folders import shipped
from ofa_deploy.errors import InputError, MismatchError
from ofa_deploy.hardware.measurement import Conditions, Measurement
from ofa_deploy.space import Arch, Block, SearchSpace, get_space, space_names

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BlockEntry", "LatencyTable", "NetworkEntry", "find_table", "table_files"]

_STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class BlockEntry(BaseModel):
    """One block: its latency beyond an empty graph's, and what it computes and moves.

    Attributes:
        ms: latency of the block alone, less that of a graph that does nothing; at least 1e-6.
        count: timed runs.
        macs, bytes_moved: for a whole batch.
    """

    model_config = _STRICT

    ms: float = Field(gt=0)
    spread: float = Field(ge=0)
    count: int = Field(ge=1)
    macs: int = Field(ge=0)
    params: int = Field(ge=0)
    bytes_moved: int = Field(ge=0)

    @property
    def gmacs_per_s(self) -> float:
        """Reached multiply-accumulates, in billions a second."""
        return self.macs / self.ms / 1e6


class NetworkEntry(BaseModel):
    """One whole network: ``calibration`` corrects the sum of blocks, ``holdout`` judges it."""

    model_config = _STRICT

    arch: dict[str, Any]
    role: Literal["calibration", "holdout"]
    latency: Measurement


class LatencyTable(BaseModel):
    """Latency of every block that a space's networks are made of, on one device.

    Attributes:
        space: the name of the space it was made for.
        fingerprint: of that space, classes included.
        blocks: by ``Block.key``.
        networks: whole networks measured in the same run.
        empty_ms: latency of a graph that does nothing.
        reference: the network that everything was timed in turns with; None if imported.
        protocol: how it was measured.
        source: where it was imported from; empty for tables that this project measured.
        other_load: share of the machine that other processes used meanwhile, 0 to 1.
        date: ISO 8601.
    """

    model_config = _STRICT

    schema_: Literal["latency-table/1"] = Field("latency-table/1", alias="schema")
    space: str
    classes: int = Field(ge=2)
    fingerprint: str
    conditions: Conditions
    protocol: dict[str, int | float | str]
    date: str
    other_load: float = Field(0.0, ge=0, le=1)
    empty_ms: float = Field(0.0, ge=0)
    reference: Measurement | None = None
    blocks: dict[str, BlockEntry] = Field(min_length=1)
    networks: tuple[NetworkEntry, ...] = ()
    source: str = ""

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
        """``SPACE[-cCLASSES]@RUNTIME-PRECISION-bBATCH-tTHREADS[-MODE].json``.

        Classes are named where they are not those of the catalogue's space.
        """
        c = self.conditions
        usual = self.space in space_names() and get_space(self.space).classes == self.classes
        space = self.space if usual else f"{self.space}-c{self.classes}"
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
            raise MismatchError(
                f"the table was made for space {self.space} ({self.fingerprint}), not for "
                f"{space.name} ({space.fingerprint}); spaces and class counts must agree"
            )
        if conditions is not None and (different := self.conditions.differences(conditions)):
            raise MismatchError(
                f"the table was measured under other conditions (table, asked): "
                f"{', '.join(different)}; profile anew, or ask for the table's own"
            )

    def archs(self, role: str) -> tuple[list[Arch], list[float]]:
        """The measured networks of a role, and their ms."""
        chosen = [entry for entry in self.networks if entry.role == role]
        return [Arch.from_dict(e.arch) for e in chosen], [e.latency.ms for e in chosen]

    def to_frame(self) -> "pd.DataFrame":
        """One row a block: key, ms, spread, count, macs, params, bytes_moved, gmacs_per_s."""
        import pandas as pd

        rows = [
            {"block": key, **entry.model_dump(), "gmacs_per_s": entry.gmacs_per_s}
            for key, entry in self.blocks.items()
        ]
        return pd.DataFrame(rows)


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
