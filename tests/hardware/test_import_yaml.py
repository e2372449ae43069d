"""Once-for-all's YAML tables: which layer is which block, and what is refused."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from ofa_deploy import import_tables
from ofa_deploy.cost import AdditiveModel
from ofa_deploy.errors import FileFormatError, InputError, MismatchError, UnknownNameError
from ofa_deploy.hardware import LatencyTable, check_table, ofa_yaml, table_space
from ofa_deploy.space import Block, Head, SearchSpace, get_space
from tests.hardware.yaml_folder import edited, read

# -- what it reads --------------------------------------------------------------------------


def test_every_block_gets_its_layers_time(
    folder: Path, tiny_space: SearchSpace, ms_of: Callable[[Block], float]
) -> None:
    table = read(folder, tiny_space)
    table.check_for(tiny_space)
    assert set(table.blocks) == {block.key for block in tiny_space.blocks()}
    for block in tiny_space.blocks():
        entry = table.blocks[block.key]
        assert entry.ms == pytest.approx(ms_of(block), rel=1e-12)
        assert (entry.macs, entry.params) == (block.macs, block.params)
        assert entry.bytes_moved == block.bytes_moved
    assert table.reference is None
    assert table.networks == ()
    assert table.unjudged == "error unknown: no whole network was measured"
    assert re.fullmatch(r"ofa-yaml: lookup, 2 files, sha256 [0-9a-f]{64}", table.source)


@pytest.mark.parametrize(
    ("key", "block"),
    [
        ("Conv-input:160x160x3-output:80x80x24", "conv_160x160_3-24_k3_s2_hswish"),
        (
            "expanded_conv-input:80x80x24-output:80x80x24-expand:24-kernel:3-stride:1-idskip:1-se:0-hs:0",
            "mbconv_80x80_24-24-24_k3_relu_res",
        ),
        (
            "expanded_conv-input:80x80x24-output:40x40x32-expand:72-kernel:5-stride:2-idskip:0-se:0-hs:0",
            "mbconv_80x80_24-72-32_k5_s2_relu",
        ),
        (
            "expanded_conv-input:10x10x136-output:10x10x136-expand:408-kernel:3-stride:1-idskip:1-se:1-hs:1",
            "mbconv_10x10_136-408-136_k3_hswish_se104_res",
        ),
        ("Conv_1-input:5x5x192-output:5x5x1152", "conv_5x5_192-1152_k1_hswish"),
    ],
)
def test_published_keys_are_these_blocks(key: str, block: str) -> None:
    space = get_space("ofa-mbv3-w1.2").with_resolutions(160)
    (found,) = [b.key for b in space.blocks() if (key,) in ofa_yaml.OFA_YAML.names(b)]
    assert found == block


def test_pool_and_both_linear_layers_are_one_classifier() -> None:
    *_, classifier = get_space("ofa-mbv3-w1.2").with_resolutions(160).blocks()
    assert ofa_yaml.OFA_YAML.names(classifier) == [
        (
            "AvgPool2D-input:5x5x1152-output:1x1x1152",
            "Conv_2-input:1x1x1152-output:1x1x1536",
            "Logits-input:1x1x1536-output:1000",
        )
    ]


def test_figures_of_several_files_are_pooled(folder: Path, tiny_space: SearchSpace) -> None:
    for size, mean, std, runs in ((12, 1.0, 0.1, 30), (16, 2.0, 0.2, 10)):
        file = folder / f"{size}_lookup_table.yaml"
        old = r"(Logits.*\n) *count:.*\n *mean:.*\n *std:.*"
        edited(file, old, rf"\1  count: {runs}\n  mean: {mean}\n  std: {std}")
        for name in ("Conv_2", "AvgPool2D"):
            old = rf"({name}-.*\n) *count:.*\n *mean:.*\n *std:.*"
            edited(file, old, r"\1  count: 1000\n  mean: 1.0\n  std: 0")
    table = read(folder, tiny_space)
    entries = [e for key, e in table.blocks.items() if key.startswith("classifier")]
    # 40 runs with mean 1.25; their variance is that within the files and that between them
    variance = (30 * (0.1**2 + 0.25**2) + 10 * (0.2**2 + 0.75**2)) / 40
    assert [e.ms for e in entries] == pytest.approx([3.25] * len(entries))
    assert [e.spread for e in entries] == pytest.approx([variance**0.5 / 3.25] * len(entries))
    assert [e.count for e in entries] == [40] * len(entries)
    assert table.protocol["repeated_differ"] == 1.0


def test_tables_without_se_and_hs_are_read(
    tmp_path: Path, lookup_of: Any, dump: Any, ms_of: Callable[[Block], float]
) -> None:
    """ProxylessNAS's form: shorter keys, the pool in the last layer, and a ratio for the width."""
    space = get_space("ofa-proxyless-w1.0").with_resolutions(160)
    entries: dict[str, dict[str, float]] = {}
    for block in space.blocks():
        s, o, cin = block.size, block.out_size, block.in_channels
        shape = f"input:{s}x{s}x{cin}-output:{o}x{o}x{block.out_channels}"
        match block.kind:
            case "mbconv":
                ratio = block.mid_channels // cin
                key = (
                    f"expanded_conv-{shape}-expand:{ratio}-kernel:{block.kernel}"
                    f"-stride:{block.stride}-idskip:{int(block.residual)}"
                )
            case "conv":
                key = f"{'Conv' if cin == 3 else 'Conv_1'}-{shape}"
            case _:
                key = f"Logits-input:{s}x{s}x{cin}-output:{block.out_channels}"
        entries[key] = {"mean": ms_of(block)}
    file = tmp_path / "table.yaml"
    file.write_text(dump(entries))
    table = read(file, space)
    assert {b.key: pytest.approx(ms_of(b)) for b in space.blocks()} == {
        key: entry.ms for key, entry in table.blocks.items()
    }


def test_resolutions_are_those_of_the_files(folder: Path, tiny_space: SearchSpace) -> None:
    wider = tiny_space.with_resolutions(8, 12, 16)
    assert read(folder, wider).fingerprint == tiny_space.fingerprint
    one = tiny_space.with_resolutions(12)
    assert read(folder, one).fingerprint == one.fingerprint
    asked = read(folder, wider, resolutions=(16,))
    assert asked.fingerprint == tiny_space.with_resolutions(16).fingerprint
    assert read(folder, wider).protocol["unused"] == 0
    assert asked.protocol["unused"] != 0
    with pytest.raises(MismatchError, match="blocks of space tiny are missing"):
        read(folder, wider, resolutions=(8, 16))


@pytest.mark.parametrize(("unit", "factor"), [("ms", 1.0), ("us", 1e3), ("s", 1e-3)])
def test_units(folder: Path, tiny_space: SearchSpace, unit: str, factor: float) -> None:
    plain = read(folder, tiny_space)
    for file in folder.iterdir():
        text = re.sub(r"(mean|std): (.*)", lambda m: f"{m[1]}: {float(m[2]) * factor!r}",
                      file.read_text())  # fmt: skip
        file.write_text(text)
    table = read(folder, tiny_space, unit=unit)
    for key, entry in table.blocks.items():
        assert entry.ms == pytest.approx(plain.blocks[key].ms)
        assert entry.spread == pytest.approx(plain.blocks[key].spread)


def test_conditions_that_nobody_told_are_unknown(folder: Path, tiny_space: SearchSpace) -> None:
    c = read(folder, tiny_space).conditions
    assert (c.device, c.processor, c.runtime, c.precision) == ("note", *["unknown"] * 3)
    assert read(folder, tiny_space).protocol["assumed"] == "batch 1, threads 1"
    told = read(folder, tiny_space, batch=4, threads=2, runtime="tflite", precision="fp32")
    assert (told.conditions.batch, told.conditions.threads) == (4, 2)
    assert "assumed" not in told.protocol
    block = tiny_space.blocks()[0]
    assert told.blocks[block.key].macs == 4 * block.macs
    wanted = told.conditions.model_copy(update={"threads": 4, "precision": "int8"})
    with pytest.raises(MismatchError, match=r"precision \(fp32, int8\), threads \(2, 4\)"):
        told.check_for(tiny_space, wanted)


def test_imported_table_survives_its_file_and_its_check(
    folder: Path, tiny_space: SearchSpace, tmp_path: Path
) -> None:
    table = read(folder, tiny_space)
    loaded = LatencyTable.load(table.save(tmp_path / table.file_name))
    assert loaded == table
    assert table_space(loaded, tiny_space) == tiny_space
    assert [f.kind for f in check_table(loaded, tiny_space)] == ["unjudged"]
    model = AdditiveModel.from_blocks(tiny_space, loaded.value)
    assert model.predict([tiny_space.smallest])[0] < model.predict([tiny_space.largest])[0]


def test_both_parsers_read_the_same(
    folder: Path, tiny_space: SearchSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = read(folder, tiny_space)
    monkeypatch.setattr(ofa_yaml, "_LOADER", yaml.SafeLoader)
    assert read(folder, tiny_space).blocks == fast.blocks


# -- missing and mistaken keys --------------------------------------------------------------


def test_missing_key_names_the_block_and_the_nearest_keys(
    folder: Path, tiny_space: SearchSpace
) -> None:
    edited(folder / "16_lookup_table.yaml", r"(expanded_conv.*)kernel:7(.*)", r"\1kernel:9\2")
    with pytest.raises(MismatchError) as error:
        read(folder, tiny_space)
    message = str(error.value)
    assert f"1 of {len(tiny_space.blocks())} blocks" in message
    assert re.search(r"mbconv_\S*_k7\S*, expected as 'expanded_conv-\S*kernel:7\S*'", message)
    assert "kernel:9" in message.partition("nearest present:")[2]


@pytest.mark.parametrize("field", ["idskip", "se", "hs", "stride", "expand"])
def test_block_that_differs_in_a_detail_is_a_missing_one(
    folder: Path, tiny_space: SearchSpace, field: str
) -> None:
    edited(
        folder / "16_lookup_table.yaml",
        rf"^(expanded_conv.*){field}:(\d+)(.*)$",
        lambda m: f"{m[1]}{field}:{1 - int(m[2]) if len(m[2]) == 1 else 7}{m[3]}",  # type: ignore[arg-type]
    )
    with pytest.raises(MismatchError, match=f"1 of .* blocks.*{field}:"):
        read(folder, tiny_space)


def test_resolution_that_lacks_its_stem_is_not_dropped(
    folder: Path, tiny_space: SearchSpace
) -> None:
    edited(folder / "12_lookup_table.yaml", r"^Conv-(.*\n.*\n.*\n.*\n)", "")
    with pytest.raises(MismatchError, match="the first: conv_12x12_3-8"):
        read(folder, tiny_space)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("mean", "1e308", "a latency greater than 0, from 1e-12 to 1e.12"),
        ("mean", "1e-300", "a latency greater than 0"),
        ("std", "1e200", "a spread of 0 or more, up to 1e.12"),
    ],
)
def test_figures_whose_squares_have_no_number_are_refused(
    folder: Path, tiny_space: SearchSpace, field: str, value: str, expected: str
) -> None:
    """Figures of several files are pooled: their squares are added."""
    for size in (12, 16):
        file = folder / f"{size}_lookup_table.yaml"
        edited(file, rf"(Logits.*\n(?:  .*\n)*? *{field}:).*", rf"\1 {value}")
    with pytest.raises(FileFormatError, match=f"expected {expected}"):
        read(folder, tiny_space)


def test_a_year_in_a_name_is_no_resolution(folder: Path, tiny_space: SearchSpace) -> None:
    (folder / "12_lookup_table.yaml").rename(folder / "2024_my_phone.yaml")
    assert read(folder, tiny_space).blocks


def test_file_named_for_another_resolution_is_refused(
    folder: Path, tiny_space: SearchSpace
) -> None:
    (folder / "12_lookup_table.yaml").rename(folder / "24_lookup_table.yaml")
    with pytest.raises(FileFormatError, match="named for 24 pixels, but its stem is for 12"):
        read(folder, tiny_space)


def test_space_that_the_form_cannot_hold_asks_for_csv(folder: Path) -> None:
    with pytest.raises(MismatchError, match="bottleneck|maxpool|conv") as error:
        read(folder, get_space("ofa-resnet50").with_resolutions(160))
    assert "csv" in str(error.value) or "missing" in str(error.value)


def test_tables_of_another_space_are_refused(folder: Path, tiny_space: SearchSpace) -> None:
    other = replace(tiny_space, head=Head(channels=24, features=40))
    with pytest.raises(MismatchError, match="2 of .* blocks .* expected as 'Conv_2-"):
        read(folder, other)


# -- arguments ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "../../etc"}, "device: expected lower-case letters"),
        ({"device": ""}, "device: expected"),
        ({"runtime": "a/b"}, "runtime: expected"),
        ({"precision": "fp 32"}, "precision: expected"),
        ({"power_mode": "../x"}, "power mode: expected"),
        ({"batch": 0}, "batch: expected 1 or more, found 0"),
        ({"threads": -1}, "threads: expected 1 or more"),
    ],
)
def test_conditions_that_cannot_be_are_refused(
    folder: Path, tiny_space: SearchSpace, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        import_tables("ofa-yaml", folder, space=tiny_space, **{"device": "note", **options})


def test_unknown_forms_and_units_name_the_known(folder: Path, tiny_space: SearchSpace) -> None:
    with pytest.raises(UnknownNameError, match="did you mean ofa-yaml"):
        import_tables("ofa-yml", folder, space=tiny_space, device="note")
    with pytest.raises(UnknownNameError, match="unknown unit 'min'"):
        read(folder, tiny_space, unit="min")


# -- seconds read as milliseconds -----------------------------------------------------------


@pytest.fixture
def phone(tmp_path: Path, lookup_of: Any, dump: Any) -> Callable[[float], Path]:
    """Tables of a published space on a phone of some 10 GMAC/s, in a unit of so many to the ms."""
    space = get_space("ofa-mbv3-w1.2").with_resolutions(160, 224)

    def write(per_ms: float) -> Path:
        for size in space.resolutions:
            entries = lookup_of(space.with_resolutions(size))
            scaled = {
                key: {"mean": entry["mean"] / 6 * per_ms, "count": 9}
                for key, entry in entries.items()
            }
            (tmp_path / f"{size}_lookup_table.yaml").write_text(dump(scaled))
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("per_ms", "unit"), [(1.0, "ms"), (1e3, "us"), (1e-3, "s")], ids=["ms", "us", "s"]
)
def test_only_one_unit_is_plausible(
    phone: Callable[[float], Path], per_ms: float, unit: str
) -> None:
    space = get_space("ofa-mbv3-w1.2")
    files = phone(per_ms)
    table = read(files, space, unit=unit)
    assert table.fingerprint == space.with_resolutions(160, 224).fingerprint
    for other in {"ms", "us", "s"} - {unit}:
        with pytest.raises(InputError, match="too (fast|slow) to be true") as error:
            read(files, space, unit=other)
        assert f"--unit {unit}" in str(error.value)
