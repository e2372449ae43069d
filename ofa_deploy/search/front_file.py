"""``NAME.front.json``: a front with the space and conditions that it belongs to."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ofa_deploy.errors import FileFormatError, InputError
from ofa_deploy.files import read_model, write_model
from ofa_deploy.hardware import Conditions
from ofa_deploy.pareto import ParetoFront
from ofa_deploy.space import SearchSpace, SpaceField

__all__ = ["FrontFile"]


class FrontFile(BaseModel):
    """A Pareto front on disk.

    Attributes:
        label: how reports call it.
        kind: whether its candidates were measured.
        budgets: the latency limits that were asked for, in ms.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    schema_: Literal["front/1"] = Field("front/1", alias="schema")
    label: str
    kind: Literal["predicted", "measured"]
    space: SpaceField
    conditions: Conditions | None
    budgets: tuple[float, ...] = ()
    front: dict[str, Any]

    @classmethod
    def build(
        cls,
        label: str,
        kind: Literal["predicted", "measured"],
        space: SearchSpace,
        front: ParetoFront,
        *,
        conditions: Conditions | None,
        budgets: tuple[float, ...] = (),
    ) -> "FrontFile":
        """Describe a front."""
        return cls(
            label=label,
            kind=kind,
            space=space.to_dict(),
            conditions=conditions,
            budgets=budgets,
            front=front.to_dict(),
        )

    @classmethod
    def load(cls, path: Path) -> "FrontFile":
        """Read a front.

        Raises:
            FileFormatError: if it is damaged, or a candidate is not in its space.
        """
        file = read_model(path, cls, schema="front/1")
        try:
            SearchSpace.from_dict(file.space).encode([c.arch for c in file.pareto])
        except InputError as error:
            raise FileFormatError(f"{path}: {error}") from None
        return file

    def save(self, path: Path) -> Path:
        """Write the front."""
        return write_model(path, self)

    @property
    def pareto(self) -> ParetoFront:
        """The front itself."""
        return ParetoFront.from_dict(self.front)
