"""Spaces that users write: files are not believed, errors are one line that names the file."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ofa_deploy.errors import FileFormatError, InputError, UnknownNameError
from ofa_deploy.space import Head, SearchSpace, Stage, Stem, get_space

GOOD = """
resolutions = [96, 128]
classes = 7
bn_eps = 1e-3

[stem]
channels = 16
activation = "relu6"

[head]
channels = 64
features = 0

[[stages]]
channels = 16
stride = 2
depths = [1, 2]
kernels = [3, 5]
expands = [1, 2.5]
se = true

[[stages]]
channels = 24
stride = 1
depths = [1, 2]
kernels = [3]
expands = [2, 3]
coupled = true
activation = "relu"
"""
RESNET = """
name = "narrow-resnet"
resolutions = [64]
classes = 10
width_multipliers = [0.5, 1]
stem = { channels = 32, kind = "deep", activation = "relu", depths = [0, 2] }
head = { channels = 0, features = 0 }

[[stages]]
kind = "bottleneck"
channels = 64
stride = 1
base_depth = 1
depths = [0, 1]
kernels = [3]
expands = [0.25, 0.5]
activation = "relu"
"""

Write = Callable[[str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str | bytes) -> Path:
        path = tmp_path / "garden.v2.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_good_file(write: Write) -> None:
    path = write(GOOD)
    expected = SearchSpace(
        name="garden.v2",
        resolutions=(96, 128),
        classes=7,
        bn_eps=1e-3,
        stem=Stem(channels=16, activation="relu6"),
        stages=(
            Stage(channels=16, stride=2, depths=(1, 2), kernels=(3, 5), expands=(1, 2.5), se=True),
            Stage(
                channels=24,
                stride=1,
                depths=(1, 2),
                kernels=(3,),
                expands=(2, 3),
                coupled=True,
                activation="relu",
            ),
        ),
        head=Head(channels=64, features=0),
    )
    for read in (
        get_space(str(path)),
        SearchSpace.from_toml(path),
        SearchSpace.from_toml(str(path)),
    ):
        assert type(read) is SearchSpace
        assert read == expected and read.fingerprint == expected.fingerprint
    assert expected.num_archs == 2 * (4 + 4**2) * 2


def test_resnet_file_with_a_name(write: Write) -> None:
    space = get_space(str(write(RESNET)))
    assert space.name == "narrow-resnet"
    assert space.width_multipliers == (0.5, 1.0)
    # stem 2, widths of middle, stem and stage 2 each, one or two blocks of two ratios
    assert space.num_archs == 2 * 2 * 2 * 2 * (2 + 4)
    arch = space.arch(depths=[2, 1], expands=0.5, widths=[0, 1, 0])
    assert [block.key for block in space.lower(arch)] == [
        "conv_64x64_3-8_k3_s2_relu",
        "conv_32x32_8-8_k3_relu_res",
        "conv_32x32_8-32_k3_relu",
        "maxpool_32x32_32-32_k3_s2",
        "bottleneck_16x16_32-16-32_k3_relu",
        "bottleneck_16x16_32-16-32_k3_relu_res",
        "classifier_16x16_32-10",
    ]


def test_catalogued_name_wins_over_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mbv3-nano-32").write_text(GOOD)
    (tmp_path / "mbv3-nano-32.toml").write_text(GOOD)
    assert get_space("mbv3-nano-32").classes == 50
    mine = get_space("mbv3-nano-32.toml")
    assert mine.classes == 7 and mine.name == "mbv3-nano-32"


def test_unknown_name_says_how_to_write_one() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown space 'ofa-mbv3'; .*NAME\.toml") as caught:
        get_space("ofa-mbv3")
    assert "ofa-mbv3-w1.0" in str(caught.value)


def swap(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new, 1)


HOSTILE = {
    "unknown field": ("colour = 1\n" + GOOD, "colour: Unexpected keyword argument"),
    "unknown in a stage": (GOOD + "colour = 1\n", "stages.1.colour: "),
    "unknown in the stem": (swap("[stem]", "[stem]\ncolour = 1"), "stem.colour: "),
    "unknown with a line break": ('"a\\nb" = 1\n' + GOOD, "a b: "),
    "missing": (swap("classes = 7\n", ""), "classes: expected, but not there"),
    "missing in a stage": (swap("stride = 1\n", ""), "stages.1.stride: "),
    "text for a number": (swap("classes = 7", 'classes = "7"'), "classes: "),
    "number for a flag": (swap("se = true", "se = 1"), "stages.0.se: "),
    "flag for a number": (swap("classes = 7", "classes = true"), "classes: "),
    "fraction for a number": (swap("stride = 2", "stride = 2.0"), "stages.0.stride: "),
    "date for a number": (swap("classes = 7", "classes = 2020-01-01"), "classes: "),
    "number for a list": (swap("depths = [1, 2]", "depths = 2"), "stages.0.depths: "),
    "line break in a name": ('name = "a\\nb"\n' + GOOD, "name: "),
    "path for a name": ("name = '../../x'\n" + GOOD, "name: "),
    "stages as one table": (
        GOOD.rpartition("[[stages]]")[0].replace("[[stages]]", "[stages]"),
        "expected every stage under [[stages]], found [stages]",
    ),
    "number for a name": ("name = 3\n" + GOOD, "name: "),
    "one stage for a list": ("stages = 1\n" + GOOD.split("[[")[0], "stages: "),
    "list for a table": ("head = []\n" + swap("[head]", "[other]"), "head: "),
    "unknown activation": (swap('"relu6"', '"swish"'), "stem.activation: "),
    "nan": (swap("[1, 2.5]", "[nan]"), "stages.0.expands.0: "),
    "inf": (swap("[1, 2.5]", "[1, inf]"), "stages.0.expands.1: "),
    "negative": (swap("channels = 16", "channels = -16"), "stem.channels: "),
    "zero": (swap("stride = 2", "stride = 0"), "stages.0.stride: "),
    "huge": (swap("channels = 16", f"channels = {10**12}"), "stem.channels: "),
    "400 digits": (swap("classes = 7", f"classes = {'9' * 400}"), "classes: "),
    "ratio of 400 digits": (swap("[1, 2.5]", f"[{'9' * 400}]"), "stages.0.expands.0: "),
    "deep": (swap("depths = [1, 2]", "depths = [1, 65]"), "stages.0.depths.1: "),
    "even kernel": (swap("[3, 5]", "[2, 5]"), "space garden.v2: kernel sizes must be odd"),
    "descending": (swap("[96, 128]", "[128, 96]"), "space garden.v2: expected resolutions"),
    "named, one class": ("name='x'\n" + swap("= 7", "= 1"), "space x: expected at least 2 classes"),
    "coupled": (swap("[2, 3]", "[2]"), "space garden.v2: coupled stage 1 needs"),
    "empty": ("", "resolutions: "),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_file_is_one_line(write: Write, case: str) -> None:
    text, match = HOSTILE[case]
    path = write(text)
    for read in (get_space, SearchSpace.from_toml):
        with pytest.raises(FileFormatError) as caught:
            read(str(path))
        message = str(caught.value)
        assert message.startswith(f"{path}: not a search space: {match}")
        assert message.count(str(path)) == 1 and "\n" not in message


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("classes = = 7", id="syntax"),
        pytest.param('{"classes": 7}', id="JSON"),
        pytest.param("classes = 7\nclasses = 8", id="key twice"),
        pytest.param(b"\xff\xfeclasses", id="not UTF-8"),
        pytest.param("a = " + "[" * 50_000, id="nested"),
        pytest.param(f"classes = {'9' * 5000}", id="5000 digits"),
        pytest.param("classes = 7\0", id="NUL"),
    ],
)
def test_what_is_not_toml_is_refused(write: Write, text: str | bytes) -> None:
    path = write(text)
    with pytest.raises(FileFormatError) as caught:
        get_space(str(path))
    message = str(caught.value)
    assert message.startswith(f"{path}: not readable as TOML (")
    assert message.count(str(path)) == 1 and "\n" not in message


def test_size_is_bounded(write: Write) -> None:
    most = GOOD + "#" + "x" * (2**20 - len(GOOD) - 1)
    assert get_space(str(write(most))).classes == 7
    path = write(most + "x")
    with pytest.raises(FileFormatError) as caught:
        get_space(str(path))
    assert str(caught.value) == f"{path}: 1,048,577 bytes, more than the 1,048,576 allowed"


def test_missing_file_and_folder(tmp_path: Path) -> None:
    missing = tmp_path / "missing.toml"
    with pytest.raises(InputError) as caught:
        get_space(str(missing))
    assert str(caught.value) == f"{missing}: no such file or folder"
    missing.mkdir()
    with pytest.raises(InputError, match="missing.toml: expected a file, found a folder"):
        SearchSpace.from_toml(missing)
