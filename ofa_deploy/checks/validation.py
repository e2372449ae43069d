"""What is wrong with settings or a file, in the words of all other messages."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError

__all__ = ["problem"]

_SHOWN = 60  # characters of what was found

_EXPECTED: dict[str, str | Callable[[Mapping[str, Any]], str]] = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_parsing": "a number",
    "bool_parsing": "true or false",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "names with values",
    "model_type": "names with values",
    "model_attributes_type": "names with values",
    "dataclass_type": "names with values",
    "none_required": "nothing",
    "greater_than": lambda context: f"more than {_number(context['gt'])}",
    "greater_than_equal": lambda context: f"at least {_number(context['ge'])}",
    "less_than": lambda context: f"less than {_number(context['lt'])}",
    "less_than_equal": lambda context: f"at most {_number(context['le'])}",
    "enum": lambda context: f"{context['expected']}",
    "literal_error": lambda context: f"{context['expected']}",
    "string_pattern_mismatch": lambda context: f"text of the form {context['pattern']}",
    "string_too_short": lambda context: f"at least {context['min_length']} characters",
    "string_too_long": lambda context: f"at most {context['max_length']} characters",
    "too_short": lambda context: f"at least {context['min_length']} entries",
    "too_long": lambda context: f"at most {context['max_length']} entries",
    "union_tag_invalid": lambda context: f"{context['discriminator']} {context['expected_tags']}",
}


def problem(error: "ValidationError") -> str:
    """The first problem on one line: ``epochs: expected at least 2, found 1 (and 3 more)``."""
    first = error.errors(include_url=False)[0]
    where = " ".join(".".join(map(str, first["loc"])).split())
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{where and f'{where}: '}{_what(first)}{more}"


def _what(first: Mapping[str, Any]) -> str:
    kind, said = first["type"], first["msg"]
    if kind == "value_error":  # ours, and worded by us
        return str(said).removeprefix("Value error, ")
    if kind == "missing":
        return "expected, but not there"
    if kind == "extra_forbidden":
        return "unknown; take it out, or mend its name"
    expected = _EXPECTED.get(kind)
    if expected is None:
        return f"{said}, found {_shown(first['input'])}"
    text = expected if isinstance(expected, str) else expected(first["ctx"])
    return f"expected {text}, found {_shown(first['input'])}"


def _number(value: float) -> str:
    return f"{int(value):,}" if value == int(value) else f"{value:g}"


def _shown(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
