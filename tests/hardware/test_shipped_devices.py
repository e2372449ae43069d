"""The device files that ship, and what their README says."""

import re
import tomllib
from pathlib import Path

import pytest

from ofa_deploy.hardware import device_names, load_device

FOLDER = Path(__file__).resolve().parents[2] / "devices"
SHIPPED = sorted(path.stem for path in FOLDER.glob("*.toml"))
README = (FOLDER / "README.md").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "devices").mkdir()
    return tmp_path / "devices"


def test_all_that_ship_are_found() -> None:
    assert set(SHIPPED) == set(device_names())


@pytest.mark.parametrize("name", SHIPPED)
def test_each_is_valid_and_honest(name: str) -> None:
    device = load_device(name)
    assert device.name and device.note
    # Only this machine has an address; and nothing claims what was not run.
    assert device.connection in ("", "local")
    assert bool(device.verified or device.connection) != (
        "not run on real hardware" in device.note.lower()
    )
    assert "extends" not in tomllib.loads((FOLDER / f"{name}.toml").read_text())


@pytest.mark.parametrize(
    ("name", "reasons"),
    [
        ("jetson-nano", ("3.6", "8.2")),
        ("jetson-xavier-nx", ("8.5", "3.6")),
        ("jetson-agx-xavier", ("8.5", "3.6")),
        ("jetson-orin-nano", ("8.6", "8.5")),
    ],
)
def test_what_is_not_supported_says_why(name: str, reasons: tuple[str, ...]) -> None:
    said = " ".join(state.reason for state in load_device(name).unsupported)
    assert all(reason in said for reason in reasons)


def test_only_the_nano_is_refused() -> None:
    assert [name for name in SHIPPED if load_device(name).refusal] == ["jetson-nano"]


def test_orin_is_measured_with_tensorrt_and_xavier_is_not() -> None:
    for name in SHIPPED:
        if name.startswith("jetson-"):
            assert ("tensorrt" in load_device(name).runtimes) == ("orin" in name)


@pytest.mark.parametrize("name", SHIPPED)
def test_readme_names_each(name: str) -> None:
    assert re.search(rf"^\|.*`{name}`", README, re.MULTILINE)


def test_examples_of_the_readme_are_valid(elsewhere: Path) -> None:
    blocks = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    ids = [tomllib.loads(block)["id"] for block in blocks]
    assert ids == ["my-orin", "board"]
    for id_, block in zip(ids, blocks, strict=True):
        (elsewhere / f"{id_}.toml").write_text(block)
        assert load_device(id_).ssh is not None
