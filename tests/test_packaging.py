"""What is declared agrees: version, dependencies, pins, shipped data, and the scripts around."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import ofa_deploy

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT: dict[str, Any] = PYPROJECT["project"]
# `make` installs these extras, so they are pinned; the others need their own hardware.
PINNED_EXTRAS = ("test", "dev")


def _lines(name: str) -> list[str]:
    text = (ROOT / name).read_text(encoding="utf-8")
    stripped = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in stripped if line]


def _direct() -> list[Requirement]:
    """What the project and its pinned extras ask for, and what builds it."""
    extras = PROJECT["optional-dependencies"]
    listed = [
        *PYPROJECT["build-system"]["requires"],
        *PROJECT["dependencies"],
        *(line for extra in PINNED_EXTRAS for line in extras[extra]),
    ]
    found = [Requirement(line) for line in listed]
    return [requirement for requirement in found if requirement.name != PROJECT["name"]]


def _pins() -> dict[str, Version]:
    pins = (line.split("==") for line in _lines("constraints.txt"))
    return {canonicalize_name(name): Version(version) for name, version in pins}


def test_version_is_one() -> None:
    assert ofa_deploy.__version__ == PROJECT["version"]


def test_changelog_knows_the_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## .*\b{re.escape(PROJECT['version'])}\b", text, re.MULTILINE)


def test_every_pin_is_exact_and_from_an_index() -> None:
    lines = _lines("constraints.txt")
    pin = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[0-9][0-9a-z.]*")
    assert [line for line in lines if not pin.fullmatch(line)] == []
    assert len(_pins()) == len(lines), "a package is pinned twice"
    assert canonicalize_name(PROJECT["name"]) not in _pins()


@pytest.mark.parametrize("requirement", _direct(), ids=str)
def test_direct_dependency_is_pinned(requirement: Requirement) -> None:
    pins = _pins()
    name = canonicalize_name(requirement.name)
    assert name in pins, f"pin {name} in constraints.txt"
    assert requirement.specifier.contains(pins[name])
    assert any(one.operator == ">=" for one in requirement.specifier), "give a lower bound"


def test_optional_packages_are_not_required() -> None:
    extras = PROJECT["optional-dependencies"]
    names = {requirement.name for requirement in _direct()}
    for extra in set(extras) - set(PINNED_EXTRAS):
        assert not names & {Requirement(line).name for line in extras[extra]}


@pytest.mark.parametrize("source", ["devices", "latency_tables/README.md"])
def test_data_folder_is_shipped_in_the_wheel(source: str) -> None:
    wheel = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"][source] == f"ofa_deploy/_{source}"
    assert (ROOT / source).exists()


def test_package_says_that_it_is_typed() -> None:
    assert (ROOT / "ofa_deploy" / "py.typed").is_file()


def test_every_device_file_parses() -> None:
    devices = {path: tomllib.loads(path.read_text()) for path in (ROOT / "devices").glob("*.toml")}
    assert devices
    for path, device in devices.items():
        assert device["id"] == path.stem


def test_command_is_where_the_script_looks() -> None:
    module, _, function = PROJECT["scripts"]["ofa-deploy"].partition(":")
    source = ROOT.joinpath(*module.split(".")).with_suffix(".py").read_text(encoding="utf-8")
    assert re.search(rf"^def {function}\(|^{function} = ", source, re.MULTILINE)


@pytest.mark.parametrize("name", ["Makefile", "constraints.txt", "pyproject.toml", ".ci/run"])
def test_no_package_index_is_named(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert not re.search(r"://|index-url|find-links|trusted-host", text)


def test_ci_script_can_be_run() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder, with a space in its name, that has the scripts and one test."""
    folder = tmp_path / "a checkout"
    (folder / "tests").mkdir(parents=True)
    (folder / ".ci").mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints.txt", ".ci/run"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "apt-packages.txt").write_text("# none\n\n")
    (folder / "tests" / "test_one.py").write_text("def test_one(): pass\n")
    return folder


def _call(checkout: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        command,
        cwd=checkout,
        env=kept | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _ci(checkout: Path) -> subprocess.CompletedProcess[str]:
    """Run ``.ci/run`` with a ``make`` that only says its goals and an ``apt-get`` that fails."""
    folder = checkout / "bin"
    folder.mkdir(exist_ok=True)
    for name, script in {"make": 'echo "make $*"', "apt-get": "exit 100"}.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    return _call(checkout, ".ci/run", PATH=f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_ci_runs_the_slow_tests_once_there_are_any(checkout: Path) -> None:
    assert _ci(checkout).stdout == "make test\n"
    mark = ".".join(("pytest", "mark", "slow"))
    (checkout / "tests" / "test_two.py").write_text(f"@{mark}\ndef test_two(): pass\n")
    assert _ci(checkout).stdout == "make test test-all\n"


def test_ci_goes_on_without_system_packages(checkout: Path) -> None:
    assert _ci(checkout).stderr == ""
    (checkout / "apt-packages.txt").write_text("# a browser\nfirst\nsecond  # why\n")
    result = _ci(checkout)
    assert result.returncode == 0
    assert result.stdout == "make test\n"
    assert "first second" in result.stderr
    assert "why" not in result.stderr


def test_make_lists_its_targets(checkout: Path) -> None:
    shown = _call(checkout, "make").stdout
    for target in ("quickstart", "test", "test-all", "lint", "wheel", "clean"):
        assert f"make {target} " in shown


def test_make_refuses_an_old_python(checkout: Path) -> None:
    old = checkout / "old-python"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.10.1 || exit 1\n')
    old.chmod(0o755)
    result = _call(checkout, "make", "quickstart", "PYTHON=./old-python")
    assert result.returncode != 0
    assert "needs Python 3.11 or newer; ./old-python is Python 3.10.1" in result.stderr
    assert not (checkout / ".venv").exists()
