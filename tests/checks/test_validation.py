"""What is wrong is told in one line: what was expected, what was found."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ofa_deploy.checks import problem


class Sample(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    epochs: int = Field(3, ge=2, le=100_000)
    lr: float = Field(0.1, gt=0, lt=0.5)
    kind: Literal["sgd", "rmsprop"] = "sgd"
    name: str = Field("a", pattern="^[a-z]+$", max_length=5)
    sizes: tuple[Annotated[int, Field(gt=0)], ...] = Field((1,), min_length=1)
    fast: bool = False
    even: int = 2
    inner: dict[str, int] = {}

    @field_validator("even")
    @classmethod
    def _even(cls, value: int) -> int:
        if value % 2:
            raise ValueError(f"expected an even number, found {value}")
        return value


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"epochs": 1}, "epochs: expected at least 2, found 1"),
        ({"epochs": 10**6}, "epochs: expected at most 100,000, found 1000000"),
        ({"epochs": "9"}, "epochs: expected a whole number, found '9'"),
        ({"epochs": 2.5}, "epochs: expected a whole number, found 2.5"),
        ({"epochs": True}, "epochs: expected a whole number, found true"),
        ({"epochs": None}, "epochs: expected a whole number, found nothing"),
        ({"lr": 0}, "lr: expected more than 0, found 0"),
        ({"lr": 0.5}, "lr: expected less than 0.5, found 0.5"),
        ({"lr": "fast"}, "lr: expected a number, found 'fast'"),
        ({"lr": float("nan")}, "lr: expected a finite number, found nan"),
        ({"kind": "adam"}, "kind: expected 'sgd' or 'rmsprop', found 'adam'"),
        ({"name": "A"}, "name: expected text of the form ^[a-z]+$, found 'A'"),
        ({"name": "a" * 99}, f"name: expected at most 5 characters, found '{'a' * 59}…"),
        ({"name": 7}, "name: expected text, found 7"),
        ({"sizes": 7}, "sizes: expected a list, found 7"),
        ({"sizes": ()}, "sizes: expected at least 1 entries, found ()"),
        ({"sizes": (1, 0)}, "sizes.1: expected more than 0, found 0"),
        ({"fast": "yes"}, "fast: expected true or false, found 'yes'"),
        ({"even": 3}, "even: expected an even number, found 3"),
        ({"inner": 3}, "inner: expected names with values, found 3"),
        ({"colour": 1}, "colour: unknown; take it out, or mend its name"),
        ({"a\nb": 1}, "a b: unknown; take it out, or mend its name"),
        ({"epochs": 1, "lr": 0}, "epochs: expected at least 2, found 1 (and 1 more)"),
    ],
)
def test_what_was_expected_and_what_was_found(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as error:
        Sample.model_validate(given, strict=True)
    assert problem(error.value) == said
