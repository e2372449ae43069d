"""What is installed and shipped: licences, pins, the wheel; commands stay off the network."""

import os
import re
import socket
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.faults.offline import block

ROOT = Path(__file__).resolve().parents[2]
LICENCES: dict[str, Any] = tomllib.loads((Path(__file__).parent / "licences.toml").read_text())


def _pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    stripped = [line.partition("#")[0].strip() for line in lines]
    return dict(line.split("==") for line in stripped if line)


# -- licences and pins ----------------------------------------------------------------------


def _licences(name: str) -> list[str]:
    """What a package's metadata calls its licences: the expression, else classifiers, else text."""
    metadata = distribution(name).metadata
    if expression := metadata.get("License-Expression"):
        return _parts(expression.replace("(", "").replace(")", ""))
    head = "License :: OSI Approved :: "
    listed = [each for each in metadata.get_all("Classifier") or [] if each.startswith(head)]
    if listed:
        return [each.removeprefix(head) for each in listed]
    return _parts(next(iter((metadata.get("License") or "").splitlines()), ""))


def _parts(expression: str) -> list[str]:
    found = re.split(r"\s+(?:AND|OR|WITH)\s+|\s*,\s*", expression)
    return [part.strip() for part in found if part.strip()]


@pytest.mark.parametrize("name", _pins())
def test_a_pinned_package_has_a_licence_that_we_allow(name: str) -> None:
    try:
        found = _licences(name)
    except PackageNotFoundError:
        pytest.skip(f"{name} is not installed here")
    if name in LICENCES["exceptions"]:
        known = filter(None, LICENCES["exceptions"][name]["licence"].split(" OR "))
        assert set(found) == set(known), "the licence has changed: look at it again"
        return
    assert found, f"{name} says nothing of its licence"
    assert set(found) <= set(LICENCES["allowed"]), found


def test_exceptions_are_of_pinned_packages() -> None:
    assert set(LICENCES["exceptions"]) <= set(_pins())
    assert all(each["why"] for each in LICENCES["exceptions"].values())


def test_what_is_tested_is_what_is_pinned() -> None:
    other = {}
    for name, version in _pins().items():
        try:
            found = distribution(name).version.partition("+")[0]
        except PackageNotFoundError:
            continue
        if found != version:
            other[name] = (version, found)
    assert not other, "installed otherwise than pinned"


# -- the wheel ------------------------------------------------------------------------------

_SHIPPED = re.compile(
    r"ofa_deploy/([a-z0-9_]+/)*[a-z0-9_]+\.py|ofa_deploy/py\.typed"
    r"|ofa_deploy/report/assets/[a-z0-9_.-]+\.(js|css|html|svg|txt)"
    r"|ofa_deploy/_devices/([a-z0-9.-]+\.toml|README\.md)"
    r"|ofa_deploy/_latency_tables/([a-z0-9-]+/)?[A-Za-z0-9@._-]+\.(json|md)"
    r"|ofa_deploy-[0-9.]+\.dist-info/(METADATA|WHEEL|RECORD|entry_points\.txt|licenses/LICENSE)"
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    code = (
        "import sys; from hatchling.builders.wheel import WheelBuilder; "
        "print(*WheelBuilder(sys.argv[1]).build(directory=sys.argv[2], versions=['standard']))"
    )
    command = [sys.executable, "-c", code, str(ROOT), str(folder)]
    subprocess.run(command, check=True, capture_output=True, timeout=120, stdin=subprocess.DEVNULL)
    (made,) = folder.glob("*.whl")
    return made


def test_the_wheel_holds_what_it_should(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert archive.testzip() is None
        links = [each.filename for each in archive.infolist() if each.external_attr >> 28 == 0xA]
    assert not links
    assert [name for name in names if not _SHIPPED.fullmatch(name)] == []
    assert len(set(names)) == len(names)
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "ofa_deploy").rglob("*.py")}
    assert sources <= set(names), "a module is missing"
    devices = {f"ofa_deploy/_devices/{path.name}" for path in (ROOT / "devices").glob("*.toml")}
    assert devices <= set(names)


def test_the_wheel_names_no_place_of_the_machine_that_built_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            data = archive.read(name)
            assert str(ROOT).encode() not in data, name
            assert b"BEGIN OPENSSH PRIVATE KEY-----\n" not in data, name


# -- the network ----------------------------------------------------------------------------


def _call(folder: Path, *command: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    block_folder = folder.with_name("blocked")
    block_folder.mkdir(exist_ok=True)
    folder.mkdir(exist_ok=True)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "PYTHON"))}
    home = {"HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**kept, **home, **block(block_folder), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def _tries(folder: Path) -> str:
    path = folder.with_name("blocked") / "tries"
    return path.read_text() if path.exists() else ""


TRIES = {
    "connect": "import socket; socket.create_connection(('192.0.2.1', 9), 1)",
    "name": "import socket; socket.getaddrinfo('example.org', 80)",
    "udp": "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'', ('192.0.2.1', 9))",
    "urllib": "import urllib.request; urllib.request.urlopen('http://192.0.2.1/', timeout=1)",
    "six": "import socket; socket.socket(socket.AF_INET6).connect(('2001:db8::1', 9))",
    "child": "import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', "
    "\"import socket; socket.create_connection(('192.0.2.1', 9), 1)\"]))",
}


@pytest.mark.parametrize("name", TRIES)
def test_the_block_itself(tmp_path: Path, name: str) -> None:
    done = _call(tmp_path / "home", "-c", TRIES[name])
    assert done.returncode != 0
    assert "no network in this test" in done.stderr
    assert _tries(tmp_path / "home")


def test_the_block_lets_this_machine_through(tmp_path: Path) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        code = f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}))"
        done = _call(tmp_path / "home", "-W", "ignore", "-c", code)
    assert done.returncode == 0, done.stderr
    assert not _tries(tmp_path / "home")


OFFLINE = [
    ("--help",),
    ("--version",),
    ("spaces",),
    ("devices", "list"),
    ("devices", "show", "local"),
    ("tables", "list"),
    ("doctor",),
]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("command", OFFLINE, ids=" ".join)
def test_a_command_stays_on_this_machine(tmp_path: Path, command: tuple[str, ...]) -> None:
    done = _call(tmp_path / "home", "-m", "ofa_deploy", *command)
    assert done.returncode == 0, done.stderr
    assert not _tries(tmp_path / "home")


def test_help_and_the_spaces_stay_on_this_machine(tmp_path: Path) -> None:
    """Of what the slow test asks every command, a little at once."""
    code = (
        "from typer.testing import CliRunner; from ofa_deploy.cli.main import app; "
        "found = [CliRunner().invoke(app, list(words)).exit_code for words in "
        f"{[OFFLINE[i] for i in (0, 2, 3)]!r}]; assert found == [0, 0, 0], found"
    )
    done = _call(tmp_path / "home", "-c", code)
    assert done.returncode == 0, done.stderr
    assert not _tries(tmp_path / "home")


_TELEMETRY = re.compile(r"Microsoft|intel/|onnxruntime\.db|deviceid|telemetry|_cid")
_RUN = "runs/q"
_SUBNET = f"{_RUN}/subnets/budget-20.subnet.json"
_TABLE = f"{_RUN}/latency_table.json"
# Every other command, on what the quickstart left; {image} is a picture.
AFTERWARDS = [
    ("train", "--data", "glyphs", "--epochs", "3", "--dry-run"),
    ("evaluate", _RUN, "--subnets", "44"),
    ("profile", "--run", _RUN, "--minutes", "0.3", "--out", "mine.json"),
    ("plan", "--space", "mbv3-nano-32", "--table", _TABLE, "--constraint", "latency <= 9 ms"),
    ("search", "--run", _RUN, "--table", _TABLE, "--constraint", "latency <= 9 ms", "--no-verify"),
    ("export", _SUBNET, "--out", "b", "--no-measure", "--target", "onnx,ort-int8,openvino-int8"),
    ("verify", "b"),
    ("bench", "b", "--batches", "1", "--minutes", "0.05", "--processes", "1"),
    ("run", "b", "{image}"),
    ("show", _SUBNET),
    ("compare", f"{_RUN}/fronts/measured.front.json", "--out", "fronts.html"),
    ("specialize", _SUBNET, "--method", "finetune", "--run", "s", "--scale", "0.02"),
    ("tables", "show", _TABLE),
    ("tables", "check", _TABLE),
    ("tables", "diff", _TABLE, _TABLE),
    ("tables", "export", _TABLE, "--out", "table.csv"),
    ("predictors", "show", f"{_RUN}/accuracy.onnx"),
]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_whole_job_stays_on_this_machine(tmp_path: Path) -> None:
    """From training to the report, as the quickstart does it, small; then every command by hand."""
    home = tmp_path / "home"
    words = ("quickstart", "--epochs", "3", "--images", "500", "--run", _RUN)
    done = _call(home, "-m", "ofa_deploy", *words, timeout=1700)
    assert done.returncode == 0, done.stderr[-2000:]
    Image.new("RGB", (40, 40), (200, 30, 90)).save(home / "picture.png")
    for command in AFTERWARDS:
        given = [word.format(image="picture.png") for word in command]
        done = _call(home, "-m", "ofa_deploy", *given, timeout=600)
        assert done.returncode in (0, 3), (command, done.stderr[-2000:])
    assert not _tries(home)
    # Native threads do not pass by Python's hooks, but they keep what they mean to send.
    kept = (str(path.relative_to(home)) for path in home.rglob("*"))
    assert not list(filter(_TELEMETRY.search, kept))
    left = {name for name in _names() if name not in {each[0] for each in (*OFFLINE, *AFTERWARDS)}}
    assert left == {"quickstart", "adapt"}, "try these too; adapt needs a checkpoint"


def _names() -> list[str]:
    from ofa_deploy.cli.main import COMMANDS

    return [command.__name__ for command in COMMANDS]
