"""Constraints as people write them."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa_deploy.errors import ConstraintError
from ofa_deploy.search import Constraint, parse_constraint

UNITS = {
    "latency": {"": 1, "ms": 1, "s": 1_000, "us": 0.001, "µs": 0.001},
    "macs": {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9},
    "params": {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9},
    "peak_memory": {
        "": 1,
        "B": 1,
        "kB": 10**3,
        "MB": 10**6,
        "GB": 10**9,
        "KiB": 2**10,
        "MiB": 2**20,
        "GiB": 2**30,
    },
    "top1": {"": 1, "%": 1},
}
PAIRS = [(metric, unit) for metric, units in UNITS.items() for unit in units]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("latency <= 8 ms", ("latency", 8, True)),
        ("latency<=8ms", ("latency", 8, True)),
        ("latency <= 0.25 s", ("latency", 250, True)),
        ("latency[jetson-orin-nano] <= 8 ms", ("latency[jetson-orin-nano]", 8, True)),
        ("macs <= 300M", ("macs", 300_000_000, True)),
        ("params <= 5M", ("params", 5_000_000, True)),
        ("peak_memory <= 2 MiB", ("peak_memory", 2 * 1024 * 1024, True)),
        ("peak_memory <= 512 KiB", ("peak_memory", 524_288, True)),
        ("top1 >= 75", ("top1", 75, False)),
        ("top1 >= 75.5 %", ("top1", 75.5, False)),
        ("macs >= 1e6", ("macs", 1_000_000, False)),
    ],
)
def test_examples(text: str, expected: tuple[str, float, bool]) -> None:
    parsed = parse_constraint(text)
    assert (parsed.metric, parsed.limit, parsed.upper) == expected


@given(
    pair=st.sampled_from(PAIRS),
    number=st.floats(1e-3, 1e6, allow_nan=False),
    sign=st.sampled_from(["<=", ">="]),
    spaces=st.lists(st.sampled_from(["", " ", "  "]), min_size=5, max_size=5),
)
def test_units_and_spaces(
    pair: tuple[str, str], number: float, sign: str, spaces: list[str]
) -> None:
    metric, unit = pair
    a, b, c, d, e = spaces
    parsed = parse_constraint(f"{a}{metric}{b}{sign}{c}{number}{d}{unit}{e}")
    assert parsed.metric == metric
    assert parsed.limit == pytest.approx(number * UNITS[metric][unit], rel=1e-12)
    assert parsed.upper == (sign == "<=")


@given(
    number=st.integers(1, 10**6),
    digits=st.integers(0, 3),
    unit=st.sampled_from([("k", 3), ("M", 6), ("G", 9)]),
)
def test_round_counts_are_exact(number: int, digits: int, unit: tuple[str, int]) -> None:
    """A network of exactly 8.2M MACs keeps ``macs <= 8.2M``."""
    name, power = unit
    written = f"{number / 10**digits:.{digits}f}"
    expected = number * 10 ** (power - digits)
    assert parse_constraint(f"macs <= {written}{name}").limit == expected
    assert parse_constraint(f"macs >= {written} {name}").limit == expected


@given(st.integers(1, 10**6))
def test_round_times_are_exact(us: int) -> None:
    assert parse_constraint(f"latency <= {us} us").limit == us / 1000
    assert parse_constraint(f"latency <= {us / 10**6:.6f} s").limit == us / 1000


def test_text_is_kept_for_reports() -> None:
    constraint = parse_constraint("  latency   <=  8   ms ")
    assert str(constraint) == constraint.text == "latency <= 8 ms"
    assert constraint == Constraint("latency", 8.0, True, "latency <= 8 ms")
    assert parse_constraint(str(constraint)) == constraint


@pytest.mark.parametrize(
    "text",
    [
        "",
        "latency",
        "latency 8 ms",
        "latency < 8 ms",
        "latency = 8 ms",
        "latency == 8 ms",
        "latency => 8 ms",
        "latency <= ms",
        "latency <= -8 ms",
        "latency <= 8 ms 9 ms",
        "latency <= 8 ms; macs <= 3M",
        "8 ms >= latency",
        "latency[] <= 8 ms",
        "latency[a b] <= 8 ms",
        "latency[a <= 8 ms",
        "latency a] <= 8 ms",
        "Latency <= 8 ms",
        "latency <= eight ms",
        "latency <= inf ms",
        "latency <= nan",
        "latency <= 8 m s",
        "latency <= ٣ ms",
    ],
)
def test_malformed_text(text: str) -> None:
    with pytest.raises(ConstraintError, match=r"does not parse; expected METRIC <= NUMBER \[UNIT]"):
        parse_constraint(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "speed <= 8 ms",
            "unknown metric 'speed'; known: latency, macs, params, peak_memory, top1",
        ),
        ("macs[jetson] <= 300M", "only latency is a matter of device"),
        ("latency <= 8 min", "unknown unit 'min' for latency; known: ms, s, us, µs"),
        ("latency <= 8 M", "unknown unit 'M' for latency"),
        ("macs <= 8 ms", "unknown unit 'ms' for macs; known: k, K, M, G"),
        ("macs <= 8 m", "unknown unit 'm' for macs"),
        ("peak_memory <= 2 M", "unknown unit 'M' for peak_memory"),
        ("top1 >= 75 points", "unknown unit 'points' for top1; known: %"),
        ("latency <= 1.2.3 ms", "'1.2.3' is no number"),
        ("latency <= 1- ms", "'1-' is no number"),
        ("latency <= 1e ms", "'1e' is no number"),
        ("latency <= 0 ms", "expected a positive, finite limit"),
        ("latency <= 0.0", "expected a positive, finite limit"),
        ("latency <= 1e999 ms", "expected a positive, finite limit"),
        ("macs <= 1e308 G", "expected a positive, finite limit"),
        ("macs <= 1e-999", "expected a positive, finite limit"),
        ("macs <= 1e99999999G", "expected a positive, finite limit"),
        ("macs <= 1e-99999999G", "expected a positive, finite limit"),
    ],
)
def test_meaningless_text(text: str, message: str) -> None:
    with pytest.raises(ConstraintError) as caught:
        parse_constraint(text)
    assert str(caught.value).startswith(f"constraint {text!r}")
    assert message in str(caught.value)


@given(st.text(alphabet=string.printable + "µ[]<>=", max_size=40))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        parsed = parse_constraint(text)
    except ConstraintError as error:
        assert repr(text) in str(error)
    else:
        assert parsed.limit > 0
