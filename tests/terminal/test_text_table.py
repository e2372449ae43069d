"""Tables on terminals of any width: nothing that is printed is cut."""

import io

import pytest
from rich.console import Console

from ofa_deploy.terminal import KEPT, TextTable, decimals

TABLE = TextTable(
    "a title of several words, as wide as a note",
    ("*", "Budget", "Measured ms", "MACs", "Params", "Architecture"),
    (True, False, True, True, True, False),
    (
        ("*", "latency <= 0.102 ms", "0.0975 (0.0949–0.1)", "1.31 M", "90.6 k", "r32 | k5e2 k3e3"),
        ("", "params <= 200 k", "0.126 ±1.3 %", "912 k", "101 k", "r32 | k3e3"),
    ),
    note="in brackets: what its number of images leaves open (90 %)",
    spare=("Params", "MACs"),
)  # fmt: skip


def shown(table: TextTable, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(table, crop=False)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("width", range(1, 120))
def test_whatever_the_width_every_word_is_whole(width: int) -> None:
    text = shown(TABLE, width)
    left_out = [name for name in TABLE.headers if name not in TABLE.fitted(width).headers]
    for i, name in enumerate(TABLE.headers):
        if name in left_out:
            continue
        for row in TABLE.rows:
            whole = [row[i]] if TABLE.numeric[i] else row[i].split()
            assert all(word in text for word in whole), (name, row[i])
    assert ("left out at" in " ".join(text.split())) == bool(left_out)
    assert all(name in text for name in left_out)
    assert all(word in text.split() for word in TABLE.note.split())
    if width >= 40:
        assert max(map(len, text.splitlines())) <= width


def test_a_number_stays_beside_its_unit_and_its_sign() -> None:
    text = shown(TABLE, 60)
    assert "<= 0.102 ms" in text and "<= 200 k" in text and "±1.3 %" in text


def test_what_is_left_out_is_the_least_and_is_named() -> None:
    assert TABLE.fitted(TABLE.width) is TABLE
    narrow = [TABLE.fitted(width) for width in range(TABLE.width, 30, -1)]
    first = next(table for table in narrow if table is not TABLE)
    assert set(TABLE.headers) - set(first.headers) == {"Params"}
    assert "Params (the table takes" in first.note


def test_all_columns_are_printed_at_the_width_that_they_take() -> None:
    lines = shown(TABLE, TABLE.width).splitlines()
    assert max(map(len, lines)) == TABLE.width
    assert any("latency <= 0.102 ms" in line and "r32 | k5e2 k3e3" in line for line in lines)


def test_wide_characters_and_kept_spaces() -> None:
    kept = "9.4 % ████████████████████".replace(" ", KEPT)
    table = TextTable("", ("Name", "Share"), (False, False), (("日本語", kept), ("one", kept)))
    first, second = shown(table, 20).splitlines()[3:5]
    assert (first, second) == (" 日本語", " one") and "left out at 20" in table.fitted(20).note
    assert "日本語  9.4 % ████████████████████" in shown(table, 60)


@pytest.mark.parametrize(
    ("values", "percents", "expected"),
    [
        ([50.0, 62.5, 54.17], True, ["50.00", "62.50", "54.17"]),
        ([20370.0, 1255.0], False, ["20,370", "1,255"]),
        ([0.01194, 0.9], False, ["0.0119", "0.9000"]),
        ([0.01194, 0.00633], False, ["0.01194", "0.00633"]),
        ([0.0, float("inf")], False, ["0", "inf"]),
    ],
)
def test_a_column_has_one_number_of_decimals(
    values: list[float], percents: bool, expected: list[str]
) -> None:
    places = decimals(values, percents=percents)
    assert [f"{value:,.{places}f}" for value in values] == expected
