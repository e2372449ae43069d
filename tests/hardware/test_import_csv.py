"""Tables as CSV: out and in again without a difference, and what is refused."""

import csv
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ofa_deploy import import_tables
from ofa_deploy.errors import FileFormatError, InputError, MismatchError
from ofa_deploy.hardware import LatencyTable, table_csv
from ofa_deploy.space import SearchSpace

Make = Callable[..., LatencyTable]
FIELDS = (
    "kind",
    "in_channels",
    "mid_channels",
    "out_channels",
    "kernel",
    "stride",
    "se",
    "activation",
    "residual",
    "size",
)


@pytest.fixture
def file(make_table: Make, tiny_space: SearchSpace, tmp_path: Path) -> Path:
    path = tmp_path / "table.csv"
    path.write_text(table_csv(make_table(tiny_space)))
    return path


def read(file: Path, space: SearchSpace, **options: Any) -> LatencyTable:
    return import_tables("csv", file, space=space, device="note", **options)


def by_fields(space: SearchSpace, ms: Callable[[Any], float]) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow((*FIELDS, "ms"))
    for block in space.blocks():
        writer.writerow((*(getattr(block, name) for name in FIELDS), ms(block)))
    return text.getvalue()


def test_what_is_written_is_read_again_exactly(
    file: Path, make_table: Make, tiny_space: SearchSpace
) -> None:
    table = make_table(tiny_space)
    awkward = {b.key: 0.1 + 0.2 + i / 7 for i, b in enumerate(tiny_space.blocks())}
    table = make_table(tiny_space, awkward)
    file.write_text(table_csv(table))
    again = read(file, tiny_space)
    assert again.blocks == table.blocks
    assert table_csv(again) == table_csv(table)


def test_frames_csv_is_read_too(file: Path, make_table: Make, tiny_space: SearchSpace) -> None:
    table = make_table(tiny_space)
    table.to_frame().to_csv(file, index=False)
    assert read(file, tiny_space).blocks == table.blocks


def test_blocks_are_named_by_their_fields(
    file: Path, make_table: Make, ms_of: Any, tiny_space: SearchSpace
) -> None:
    file.write_text(by_fields(tiny_space, ms_of))
    found = read(file, tiny_space)
    expected = make_table(tiny_space)
    assert {k: e.ms for k, e in found.blocks.items()} == {
        k: e.ms for k, e in expected.blocks.items()
    }
    assert {(e.spread, e.count) for e in found.blocks.values()} == {(0.0, 1)}


def test_spreadsheets_habits_are_borne(file: Path, tiny_space: SearchSpace) -> None:
    plain = read(file, tiny_space).blocks
    rows = [line.split(",") for line in file.read_text().splitlines()]
    text = "\r\n".join(", ".join(row) for row in [*rows, []]) + "\r\n"
    file.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read(file, tiny_space).blocks == plain


def test_empty_spread_and_count_are_unknown(file: Path, tiny_space: SearchSpace) -> None:
    lines = file.read_text().splitlines()
    key, ms = lines[1].split(",")[:2]
    lines[1] = f"{key},{ms},,,,,,"
    file.write_text("\n".join(lines))
    entry = read(file, tiny_space).blocks[key]
    assert (entry.ms, entry.spread, entry.count) == (float(ms), 0.0, 1)


def test_more_blocks_than_the_space_has_are_counted(
    file: Path, make_table: Make, tiny_space: SearchSpace
) -> None:
    one = tiny_space.with_resolutions(16)
    found = read(file, one)
    assert set(found.blocks) == {block.key for block in one.blocks()}
    assert found.protocol["unused"] == len(tiny_space.blocks()) - len(one.blocks())


def test_missing_block_names_the_nearest(file: Path, tiny_space: SearchSpace) -> None:
    lines = file.read_text().splitlines()
    gone = next(i for i, line in enumerate(lines) if "_k5_" in line)
    key = lines.pop(gone).split(",")[0]
    file.write_text("\n".join(lines))
    with pytest.raises(MismatchError, match=re.escape(f"the first: {key}; nearest")) as error:
        read(file, tiny_space)
    near = str(error.value).partition("nearest present:")[2]
    assert near.count("mbconv_") == 2
    assert "1 of" in str(error.value)


def test_duplicate_block_names_its_line(file: Path, tiny_space: SearchSpace) -> None:
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines, lines[3]]))
    key = lines[3].split(",")[0]
    message = f"line {len(lines) + 1}: block '{key}' stands twice"
    with pytest.raises(FileFormatError, match=re.escape(message)):
        read(file, tiny_space)


def test_block_and_fields_must_agree(file: Path, ms_of: Any, tiny_space: SearchSpace) -> None:
    rows = by_fields(tiny_space, ms_of).splitlines()
    keys = [block.key for block in tiny_space.blocks()]
    with_keys = [f"block,{rows[0]}", *(f"{k},{r}" for k, r in zip(keys, rows[1:], strict=True))]
    file.write_text("\n".join(with_keys))
    assert set(read(file, tiny_space).blocks) == set(keys)
    swapped = [with_keys[0], *(f"{k},{r}" for k, r in zip(keys[::-1], rows[1:], strict=True))]
    file.write_text("\n".join(swapped))
    with pytest.raises(FileFormatError, match="line 2: block .*, but its fields say conv_"):
        read(file, tiny_space)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("ms", "nan"),
        ("ms", "-1"),
        ("ms", "0"),
        ("ms", "inf"),
        ("ms", "1e999"),
        ("ms", "1,5"),
        ("ms", "True"),
        ("ms", ""),
        ("ms", "1_0"),
        ("ms", "1e-320"),
        ("ms", "1e300"),
        ("spread", "1e300"),
        ("ms", "٣"),
        ("spread", "-0.1"),
        ("spread", "nan"),
        ("count", "-4"),
        ("count", "0"),
        ("count", "1.5"),
        ("count", "many"),
    ],
)
def test_value_that_makes_no_sense_names_its_line(
    file: Path, tiny_space: SearchSpace, column: str, value: str
) -> None:
    header, *rows = [line.split(",") for line in file.read_text().splitlines()]
    rows[4][header.index(column)] = f'"{value}"'
    file.write_text("\n".join(",".join(row) for row in [header, *rows]))
    with pytest.raises(FileFormatError, match=f"{re.escape(str(file))}: line 6: {column}"):
        read(file, tiny_space)


@pytest.mark.parametrize(("column", "value"), [("ms", "1e-11"), ("ms", "1e10"), ("spread", "1e7")])
def test_value_beyond_all_devices_names_its_block(
    file: Path, tiny_space: SearchSpace, column: str, value: str
) -> None:
    header, *rows = [line.split(",") for line in file.read_text().splitlines()]
    rows[4][header.index(column)] = value
    file.write_text("\n".join(",".join(row) for row in [header, *rows]))
    with pytest.raises(FileFormatError, match=rf"{re.escape(str(file))}: block .*: {column}: "):
        read(file, tiny_space)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("kind", "conv2d"),
        ("in_channels", "0"),
        ("out_channels", "-8"),
        ("size", "1e1"),
        ("kernel", "0"),
        ("activation", "swish"),
        ("residual", "maybe"),
        ("se", "-1"),
    ],
)
def test_field_that_makes_no_sense_names_its_line(
    file: Path, ms_of: Any, tiny_space: SearchSpace, column: str, value: str
) -> None:
    header, *rows = [line.split(",") for line in by_fields(tiny_space, ms_of).splitlines()]
    rows[0][header.index(column)] = value
    file.write_text("\n".join(",".join(row) for row in [header, *rows]))
    with pytest.raises(FileFormatError, match=f"line 2: {column}: expected"):
        read(file, tiny_space)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column ms"),
        ("block\nx\n", "no column ms"),
        ("ms\n1\n", "no column kind"),
        ("block,ms,spred\nx,1,1\n", "unknown column 'spred'"),
        ("block;ms\nx;1\n", "unknown column 'block;ms'"),
        ("block,ms,ms\nx,1,1\n", "two columns ms"),
        ("block,ms\nx,1,2\n", "line 2: expected 2 values, found 3"),
        ("block,ms\nx\n", "line 2: expected 2 values, found 1"),
        ('block,ms\n"x,1\n', "not readable as CSV"),
        ('block,ms\n"x"y,1\n', "not readable as CSV"),
        ("block,ms\n", "blocks of space tiny are missing"),
    ],
)
def test_other_text_is_refused(
    tiny_space: SearchSpace, tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "table.csv"
    file.write_text(text)
    with pytest.raises(InputError, match=re.escape(message)) as error:
        read(file, tiny_space)
    assert "\n" not in str(error.value)


def test_bytes_and_sizes_that_are_no_table_are_refused(
    file: Path, tiny_space: SearchSpace, tmp_path: Path
) -> None:
    file.write_bytes(b"block,ms\n\xff\xfe,1\n")
    with pytest.raises(FileFormatError, match="not UTF-8"):
        read(file, tiny_space)
    with file.open("wb") as handle:
        handle.truncate(100 * 2**20)
    with pytest.raises(FileFormatError, match="104,857,600 bytes"):
        read(file, tiny_space)
    with pytest.raises(InputError, match="folder"):
        read(tmp_path, tiny_space)
    file.write_text("block,ms\n" + "x" * 200_000 + ",1\n")
    with pytest.raises(FileFormatError, match="not readable as CSV"):
        read(file, tiny_space)
