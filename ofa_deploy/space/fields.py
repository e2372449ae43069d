"""Fields of files that hold a space or an arch as plain data: checked when the file is read."""

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator

from ofa_deploy.errors import InputError
from ofa_deploy.space.arch import Arch
from ofa_deploy.space.search_space import SearchSpace

__all__ = ["ArchField", "SpaceField", "readable_by"]


def readable_by(read: Callable[[dict[str, Any]], object]) -> AfterValidator:
    """That ``read`` takes a value, which stays as it is; its InputError is the field's fault."""

    def check(value: dict[str, Any]) -> dict[str, Any]:
        try:
            read(value)
        except InputError as error:
            raise ValueError(str(error)) from None
        return value

    return AfterValidator(check)


ArchField = Annotated[dict[str, Any], readable_by(Arch.from_dict)]
SpaceField = Annotated[dict[str, Any], readable_by(SearchSpace.from_dict)]
