"""Latency tables: what they keep, and what they refuse to be read or used as."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ofa_deploy.errors import FileFormatError, InputError, MismatchError
from ofa_deploy.hardware import (
    Conditions,
    LatencyTable,
    NetworkEntry,
    find_table,
    table_files,
)
from ofa_deploy.space import SearchSpace, get_space
from tests.tables import measurement, table_of

HERE = Conditions(
    device="local", processor="Fast Inc. X1, 2 cores", runtime="onnxruntime", runtime_version="1.2"
)


@pytest.fixture
def table(tiny_space: SearchSpace) -> LatencyTable:
    roles = (("calibration", tiny_space.smallest, 0.2), ("holdout", tiny_space.largest, 0.7))
    places = {block.key: i for i, block in enumerate(tiny_space.blocks())}
    return table_of(
        tiny_space,
        lambda block: 0.01 * (places[block.key] + 1),
        conditions=HERE,
        other_load=0.25,
        empty_ms=0.003,
        reference=measurement(0.4),
        networks=tuple(
            NetworkEntry(arch=arch.to_dict(), role=role, latency=measurement(ms))
            for role, arch, ms in roles
        ),
    )


@pytest.fixture
def file(table: LatencyTable, tmp_path: Path) -> Path:
    return table.save(tmp_path / "table.json")


def edited(file: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    """The file with its JSON changed by ``edit``; NaN is written as Python writes it."""
    value = json.loads(file.read_text())
    edit(value)
    file.write_text(json.dumps(value))
    return file


def first_block(value: dict[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = next(iter(value["blocks"].values()))
    return entry


# -- on disk --------------------------------------------------------------------------------


def test_table_comes_back_as_it_was(table: LatencyTable, file: Path) -> None:
    loaded = LatencyTable.load(file)
    assert loaded == table
    assert loaded.schema_ == "latency-table/1"
    assert list(loaded.blocks) == list(table.blocks)


def test_roles_and_archs_come_back(file: Path, tiny_space: SearchSpace) -> None:
    loaded = LatencyTable.load(file)
    assert loaded.archs("calibration") == ([tiny_space.smallest], [0.2])
    assert loaded.archs("holdout") == ([tiny_space.largest], [0.7])


@pytest.mark.parametrize("kept", [0, 1, 100, -2])
def test_truncated_table_is_refused(file: Path, kept: int) -> None:
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(FileFormatError, match=re.escape(str(file))):
        LatencyTable.load(file)


def test_newer_table_asks_for_an_upgrade(file: Path) -> None:
    edited(file, lambda value: value.update(schema="latency-table/2", what_is_new=1))
    with pytest.raises(FileFormatError, match="newer ofa-deploy .*latency-table/2.*upgrade"):
        LatencyTable.load(file)


@pytest.mark.parametrize("schema", ["front/1", "latency-table/x", None, 1])
def test_file_of_another_schema_is_refused(file: Path, schema: object) -> None:
    edited(file, lambda value: value.update(schema=schema))
    with pytest.raises(FileFormatError, match="expected a file of schema 'latency-table/1'"):
        LatencyTable.load(file)


@pytest.mark.parametrize("ms", [float("nan"), float("inf"), -0.1, 0, 1e-320, 1e300, "fast", None])
def test_latency_that_makes_no_sense_is_refused(file: Path, ms: object) -> None:
    edited(file, lambda value: first_block(value).update(ms=ms))
    with pytest.raises(FileFormatError, match=re.escape(str(file))):
        LatencyTable.load(file)


def test_latency_too_large_for_a_float_is_refused(file: Path) -> None:
    text = file.read_text().replace('"ms": 0.01,', '"ms": 1e999,', 1)
    assert "1e999" in text
    file.write_text(text)
    with pytest.raises(FileFormatError, match="inf|1e999"):
        LatencyTable.load(file)


@pytest.mark.parametrize("name", ["macs", "params", "bytes_moved", "count"])
@pytest.mark.parametrize("many", [-1, 2**63, 10**400])
def test_count_that_nothing_counts_with_is_refused(file: Path, name: str, many: int) -> None:
    edited(file, lambda value: first_block(value).update({name: many}))
    with pytest.raises(FileFormatError, match=re.escape(f".{name}: ")):
        LatencyTable.load(file)


def test_greatest_counts_and_times_can_be_worked_with(file: Path) -> None:
    most = {"macs": 2**63 - 1, "params": 2**63 - 1, "bytes_moved": 2**63 - 1}
    edited(file, lambda value: first_block(value).update(most, ms=1e-9))
    frame = LatencyTable.load(file).to_frame()
    assert np.isfinite(frame.select_dtypes("number")).all().all()


def test_message_names_the_field(file: Path, table: LatencyTable) -> None:
    edited(file, lambda value: first_block(value).update(ms=-1))
    key = next(iter(table.blocks))
    with pytest.raises(FileFormatError, match=re.escape(f"blocks.{key}.ms")):
        LatencyTable.load(file)


def test_duplicate_block_is_refused(file: Path, table: LatencyTable) -> None:
    first, second = list(table.blocks)[:2]
    file.write_text(file.read_text().replace(f'"{second}"', f'"{first}"'))
    with pytest.raises(FileFormatError, match=re.escape(f"key '{first}' stands twice")):
        LatencyTable.load(file)


@pytest.mark.parametrize(
    "edit",
    [
        lambda value: value.pop("conditions"),
        lambda value: value.pop("fingerprint"),
        lambda value: value.pop("classes"),
        lambda value: value.update(classes=1),
        lambda value: value.update(resolutions=[0]),
        lambda value: value.pop("reference"),
        lambda value: value["reference"].update(ms=0),
        lambda value: value["blocks"].clear(),
        lambda value: value.update(comment="hello"),
        lambda value: value.update(other_load=1.5),
        lambda value: value["conditions"].update(batch=0),
        lambda value: value["networks"][0].update(role="other"),
        lambda value: value["networks"][0]["latency"].update(p99=-1),
    ],
)
def test_incomplete_or_inconsistent_table_is_refused(
    file: Path, edit: Callable[[dict[str, Any]], object]
) -> None:
    edited(file, edit)
    with pytest.raises(FileFormatError, match=re.escape(str(file))):
        LatencyTable.load(file)


# -- what it answers for --------------------------------------------------------------------


def test_block_is_looked_up_by_key(table: LatencyTable, tiny_space: SearchSpace) -> None:
    values = [table.value(block) for block in tiny_space.blocks()]
    assert values == pytest.approx([0.01 * (i + 1) for i in range(len(values))])


def test_missing_block_names_the_nearest(table: LatencyTable, tiny_space: SearchSpace) -> None:
    stem, *rest = tiny_space.blocks()
    smaller = table.model_copy(update={"blocks": {b.key: table.blocks[b.key] for b in rest}})
    with pytest.raises(MismatchError, match=f"no block {stem.key}; nearest: conv_") as error:
        smaller.value(stem)
    assert "local" in str(error.value)


def test_table_of_another_space_is_refused(table: LatencyTable, tiny_space: SearchSpace) -> None:
    table.check_for(tiny_space)
    other = tiny_space.with_classes(5)
    with pytest.raises(MismatchError, match=r"with_classes\(4\)") as error:
        table.check_for(other)
    assert tiny_space.fingerprint in str(error.value)
    assert other.fingerprint in str(error.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("device", "jetson"),
        ("processor", "Slow Inc. Y2, 2 cores"),
        ("runtime", "tensorrt"),
        ("runtime_version", "1.3"),
        ("precision", "int8"),
        ("batch", 8),
        ("threads", 2),
        ("power_mode", "15W"),
    ],
)
def test_other_conditions_are_refused_by_name(
    table: LatencyTable, tiny_space: SearchSpace, name: str, value: object
) -> None:
    other = HERE.model_copy(update={name: value})
    assert HERE.differences(other) == [f"{name} ({getattr(HERE, name)}, {value})"]
    with pytest.raises(MismatchError, match=re.escape(f"{name} (")) as error:
        table.check_for(tiny_space, other)
    names = re.findall(r"(\w+) \(", str(error.value).partition("(table, asked):")[2])
    assert names == [name]


def test_same_conditions_are_accepted(table: LatencyTable, tiny_space: SearchSpace) -> None:
    table.check_for(tiny_space, HERE.model_copy())


# -- names, frames, folders -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({}, "tiny-ID@onnxruntime-fp32-b1-t1.json"),
        (
            {"runtime": "tensorrt", "precision": "int8", "batch": 4, "threads": 2},
            "tiny-ID@tensorrt-int8-b4-t2.json",
        ),
        ({"power_mode": "15W"}, "tiny-ID@onnxruntime-fp32-b1-t1-15W.json"),
    ],
)
def test_file_name_tells_the_conditions(
    table: LatencyTable, changed: dict[str, object], name: str
) -> None:
    conditions = HERE.model_copy(update=changed)
    expected = name.replace("ID", table.fingerprint[:8])
    assert table.model_copy(update={"conditions": conditions}).file_name == expected


def test_file_name_tells_a_space_from_the_catalogues() -> None:
    """Tables of one space at other resolutions, or with other classes, do not overwrite."""
    space = get_space("mbv3-nano-32")
    spaces = (space, space.with_resolutions(32, 48), space.with_classes(space.classes + 1))
    plain, *others = (table_of(each, lambda block: 1.0).file_name for each in spaces)
    assert plain == "mbv3-nano-32@onnxruntime-fp32-b1-t1.json"
    for each, name in zip(spaces[1:], others, strict=True):
        assert name == plain.replace("@", f"-{each.fingerprint[:8]}@")
    assert len({plain, *others}) == 3


def test_frame_has_a_row_a_block(table: LatencyTable) -> None:
    frame = table.to_frame()
    assert list(frame["block"]) == list(table.blocks)
    row = frame.iloc[3]
    assert row["gmacs_per_s"] == pytest.approx(row["macs"] / (row["ms"] * 1e-3) / 1e9)


def test_tables_are_found_and_the_users_come_first(
    table: LatencyTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = table.save(tmp_path / "latency_tables" / "local" / table.file_name)
    (own.parent / ".journal").mkdir()
    (own.parent / ".journal" / "half.jsonl").write_text("{}\n")
    found = table_files()
    assert found[0] == own
    assert [path for path in found if path.is_relative_to(tmp_path)] == [own]


def test_table_is_found_by_path(table: LatencyTable, file: Path) -> None:
    assert find_table(str(file)) == table


def test_missing_table_lists_those_at_hand(
    table: LatencyTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = table.save(tmp_path / "latency_tables" / "local" / table.file_name)
    with pytest.raises(InputError, match="no such latency table") as error:
        find_table("elsewhere.json")
    assert str(own) in str(error.value)
    assert "ofa-deploy profile" in str(error.value)


def test_folder_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="folder"):
        find_table(str(tmp_path))


# -- a device at another speed --------------------------------------------------------------


def test_scaled_table_has_every_time_scaled(table: LatencyTable, file: Path) -> None:
    slower = table.scaled(1.5)
    assert slower.scale == 1.5
    assert slower.empty_ms == pytest.approx(1.5 * table.empty_ms)
    assert slower.reference is not None and table.reference is not None
    for name in ("ms", "p10", "p50", "p90", "p99"):
        assert getattr(slower.reference, name) == 1.5 * getattr(table.reference, name)
    assert slower.reference.spread == table.reference.spread
    for key, entry in table.blocks.items():
        assert slower.blocks[key] == entry.model_copy(update={"ms": 1.5 * entry.ms})
    assert [e.latency.ms for e in slower.networks] == pytest.approx([0.3, 1.05])
    assert table.scale == 1
    assert LatencyTable.load(slower.scaled(2).save(file)).scale == 3


@pytest.mark.parametrize("factor", [0, -1, float("nan"), float("inf")])
def test_table_is_scaled_by_positive_factors_only(table: LatencyTable, factor: float) -> None:
    with pytest.raises(InputError, match="expected a positive factor"):
        table.scaled(factor)


def test_table_without_reference_says_where_it_is_from(file: Path) -> None:
    edited(file, lambda value: value.update(reference=None))
    with pytest.raises(FileFormatError, match="a table that was measured has a reference"):
        LatencyTable.load(file)
    edited(file, lambda value: value.update(source="csv: x.csv, 1 file"))
    assert LatencyTable.load(file).reference is None


def test_table_is_unjudged_without_networks(table: LatencyTable) -> None:
    assert table.unjudged == ""
    alone = table.model_copy(update={"networks": ()})
    assert alone.unjudged == "error unknown: no whole network was measured"


def test_noise_is_of_all_that_was_timed(table: LatencyTable) -> None:
    entry = next(iter(table.blocks.values())).model_copy(update={"ms": 0.001, "spread": 0.5})
    assert table.noise_ms(entry) == pytest.approx(0.5 * (0.001 + 0.003))
    assert table.noise_ms(entry.model_copy(update={"spread": 0.0})) == pytest.approx(0.02 * 0.004)


def test_lost_time_is_what_the_best_blocks_would_not_need(table: LatencyTable) -> None:
    frame = table.to_frame()
    best = (frame["macs"] / frame["ms"]).quantile(0.95)
    widest = (frame["bytes_moved"] / frame["ms"]).quantile(0.95)
    for row in frame.to_dict("records"):
        floor = max(row["macs"] / best, row["bytes_moved"] / widest)
        assert row["lost_ms"] == pytest.approx(max(0.0, row["ms"] - floor))
    slow = table.blocks[frame["block"].iloc[0]]
    slower = table.model_copy(
        update={"blocks": {**table.blocks, "x": slow.model_copy(update={"ms": 5.0})}}
    )
    lost = slower.to_frame().set_index("block")["lost_ms"]
    assert lost.idxmax() == "x"
