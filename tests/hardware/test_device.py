"""Devices: where their files are looked for, what they may say, and what is refused."""

import re
from pathlib import Path

import pytest

from ofa_deploy.errors import FileFormatError, InputError, UnknownNameError
from ofa_deploy.hardware import Connection, device_names, load_device, processor_name

TEXT = """\
schema = "device/1"
id = "board"
name = "A board"
kind = "cpu"
connection = "local"
runtimes = ["onnxruntime"]
precisions = ["fp32"]
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``./devices`` of an empty working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "devices").mkdir()
    return tmp_path / "devices"


def test_this_machine_ships() -> None:
    device = load_device("local")
    assert device.id == "local"
    assert device.connection == "local"
    assert "onnxruntime" in device.runtimes
    assert "fp32" in device.precisions


def test_devices_are_found_without_a_folder_of_ones_own(folder: Path) -> None:
    folder.rmdir()
    assert "local" in device_names()
    assert load_device("local").id == "local"


def test_own_device_is_added(folder: Path) -> None:
    (folder / "board.toml").write_text(TEXT)
    assert {"board", "local"} <= set(device_names())
    assert list(device_names()) == sorted(device_names())
    assert load_device("board").name == "A board"


def test_own_device_goes_before_a_shipped_one(folder: Path) -> None:
    (folder / "local.toml").write_text(TEXT.replace('"board"', '"local"'))
    assert device_names().count("local") == 1
    assert load_device("local").name == "A board"


@pytest.mark.parametrize(("asked", "meant"), [("locl", "local"), ("bord", "board")])
def test_unknown_device_names_the_nearest(folder: Path, asked: str, meant: str) -> None:
    (folder / "board.toml").write_text(TEXT)
    with pytest.raises(UnknownNameError, match=f"unknown device '{asked}'; did you mean {meant}"):
        load_device(asked)


def test_unknown_device_unlike_any_lists_all(folder: Path) -> None:
    (folder / "board.toml").write_text(TEXT)
    with pytest.raises(
        UnknownNameError, match="known: amd-epyc-2core, board, cpu-arm, cpu-x86, .*, local, "
    ):
        load_device("zzzzzz")


@pytest.mark.parametrize("name", ["../devices/board", "/board", "board.toml", ""])
def test_device_is_a_name_and_no_path(folder: Path, name: str) -> None:
    (folder / "board.toml").write_text(TEXT)
    with pytest.raises(UnknownNameError):
        load_device(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id = ", "not readable as TOML"),
        (TEXT + 'id = "board"\n', "not readable as TOML"),
        (TEXT.replace('"board"', '"other"'), "id 'other' differs from the file's name"),
        (TEXT.replace('"board"', '"Bo ard"'), "id: "),
        (TEXT.replace("device/1", "device/2"), "schema: "),
        (TEXT.replace('"cpu"', '"abacus"'), "kind: "),
        (TEXT + "speed = 3\n", "speed: "),
        (TEXT + "power.speed = 3\n", "power.speed: "),
        (
            TEXT.replace('"local"', '"ssh://-oProxyCommand=x"'),
            "connection: expected 'local' or ssh://",
        ),
        (TEXT.replace('"local"', '"telnet://board"'), "connection: expected 'local' or ssh://"),
        (TEXT.replace('["onnxruntime"]', '["onnx runtime"]'), "runtimes.0: "),
        (TEXT.replace('["fp32"]', "[]"), "runtimes and precisions may be empty only"),
        (TEXT + 'architecture = "z80"\n', "architecture: "),
        (TEXT + "cores = [0, 1, 0]\n", "cores: a core stands twice"),
        (TEXT + "cores = [-1]\n", "cores.0: "),
        (TEXT + f"cores = [0x{'f' * 4000}]\n", "a number is too large (Exceeds the limit"),
        (TEXT + "cool_down_s = -1\n", "cool_down_s: "),
        (TEXT + "cool_down_s = nan\n", "cool_down_s: "),
        (TEXT + "limits.temperature_c = 900\n", "limits.temperature_c: "),
        (TEXT + "limits.memory_mib = 0\n", "limits.memory_mib: "),
        (TEXT + 'power.mode = "15W"\n', "power: mode '15W' is not one of modes (none)"),
        (TEXT + 'power.modes = ["; reboot"]\n', "power.modes.0: "),
        (TEXT + 'power.clocks = "cmd"\n', "power.clocks: "),
        (
            TEXT + '[[supported]]\nsystem = "old"\npython = "3.6"\n',
            "supported.0.python: 3.6 is older than 3.8, which the agent needs",
        ),
        (TEXT + '[[unsupported]]\nsystem = "old"\n', "unsupported.0.reason: "),
        ("", "schema: "),
    ],
)
def test_bad_file_is_refused_by_name(folder: Path, text: str, message: str) -> None:
    path = folder / "board.toml"
    path.write_text(text)
    with pytest.raises(FileFormatError, match=re.escape(message)) as error:
        load_device("board")
    assert "devices/board.toml" in str(error.value)
    assert "\n" not in str(error.value)


def test_file_that_is_no_text_is_refused(folder: Path) -> None:
    (folder / "board.toml").write_bytes(b"\xff\xfe\x00id")
    with pytest.raises(FileFormatError, match="board.toml"):
        load_device("board")


def test_processor_has_a_name_and_cores() -> None:
    assert re.fullmatch(r"\S.*, \d+ cores", processor_name())


# -- all that a file may say -----------------------------------------------------------------

WHOLE = """\
schema = "device/1"
id = "board"
name = "A board"
kind = "jetson"
connection = "ssh://me@board.local:2222"
runtimes = ["tensorrt", "onnxruntime"]
precisions = ["fp32", "fp16"]
architecture = "aarch64"
interpreter = "~/venv/bin/python3.10"
cores = [4, 5]
cool_down_s = 7.5
verified = ["2026-11: three tables"]
[power]
modes = ["15W", "MAXN_SUPER"]
mode = "15W"
clocks = "fixed"
[limits]
memory_mib = 4096
temperature_c = 80
[[supported]]
system = "JetPack 6.1"
python = "3.10"
[[unsupported]]
system = "JetPack 4"
reason = "Python 3.6"
"""


def test_everything_that_a_file_says_is_kept(folder: Path) -> None:
    (folder / "board.toml").write_text(WHOLE)
    device = load_device("board")
    assert device.ssh == Connection(host="board.local", user="me", port=2222)
    assert device.interpreter == "~/venv/bin/python3.10"
    assert device.cores == (4, 5)
    assert device.cool_down_s == 7.5
    assert (device.power.mode, device.power.clocks) == ("15W", "fixed")
    assert (device.limits.memory_mib, device.limits.temperature_c) == (4096, 80.0)
    assert device.supported[0].python == "3.10"
    assert device.verified == ("2026-11: three tables",)
    assert device.refusal == ""


def test_what_a_file_leaves_out_demands_nothing(folder: Path) -> None:
    (folder / "board.toml").write_text(TEXT)
    device = load_device("board")
    assert device.ssh is None
    assert (device.architecture, device.interpreter, device.cores) == ("", "python3", ())
    assert (device.power.mode, device.power.clocks, device.limits.temperature_c) == (
        "",
        "any",
        None,
    )
    assert device.refusal == ""


@pytest.mark.parametrize(
    "word",
    [
        "-c",
        "python3 -c",
        "python3;reboot",
        "$(reboot)",
        "`x`",
        "a\\nb",
        "",
        "~root/python",
        "x/",
        "é",
    ],
)
def test_interpreter_is_one_harmless_word(folder: Path, word: str) -> None:
    text = TEXT + f'interpreter = "{word}"\n'
    (folder / "board.toml").write_text(text)
    with pytest.raises(FileFormatError, match="interpreter: "):
        load_device("board")


@pytest.mark.parametrize(
    "word", ["python3.10", "/usr/bin/python3", "venv/bin/python", "~/.v/bin/py"]
)
def test_interpreter_may_be_a_name_or_a_path(folder: Path, word: str) -> None:
    (folder / "board.toml").write_text(TEXT + f'interpreter = "{word}"\n')
    assert load_device("board").interpreter == word


def test_device_without_a_supported_state_is_refused_with_the_reasons(folder: Path) -> None:
    bad = TEXT.replace('["onnxruntime"]', "[]").replace('["fp32"]', "[]")
    (folder / "board.toml").write_text(
        bad + '[[unsupported]]\nsystem = "JetPack 4"\nreason = "Python 3.6"\n'
    )
    assert load_device("board").refusal == "JetPack 4: Python 3.6"


def test_kind_of_machine_has_no_address(folder: Path) -> None:
    message = "no address is known; write devices/NAME.toml with extends = 'cpu-x86' and connec"
    with pytest.raises(InputError, match=message):
        _ = load_device("cpu-x86").ssh


@pytest.mark.parametrize("name", ["board", "cpu-x86"])
def test_own_file_without_an_address_is_named(folder: Path, name: str) -> None:
    """It cannot be extended: only what ships can."""
    own = TEXT.replace('connection = "local"\n', "").replace('"board"', f'"{name}"')
    (folder / f"{name}.toml").write_text(own)
    message = rf"device {name} is .* add connection = 'ssh://user@host' to devices/{name}.toml$"
    with pytest.raises(InputError, match=message):
        _ = load_device(name).ssh


# -- devices of one's own, of a kind that ships ----------------------------------------------

MINE = """\
schema = "device/1"
id = "mine"
extends = "jetson-orin-nano"
connection = "ssh://me@orin"
power.mode = "15W"
limits.memory_mib = 1000
"""


def test_own_device_extends_one_that_ships(folder: Path) -> None:
    (folder / "mine.toml").write_text(MINE)
    kind, mine = load_device("jetson-orin-nano"), load_device("mine")
    assert mine.id == "mine"
    assert mine.connection == "ssh://me@orin"
    assert mine.runtimes == kind.runtimes
    assert mine.power.mode == "15W"
    assert mine.power.modes == kind.power.modes
    assert mine.limits.memory_mib == 1000
    assert mine.limits.temperature_c == kind.limits.temperature_c


def test_what_was_run_on_another_machine_is_not_inherited(folder: Path) -> None:
    (folder / "mine.toml").write_text('schema = "device/1"\nid = "mine"\nextends = "local"\n')
    (folder / "x.toml").write_text('schema = "device/1"\nid = "x"\nextends = "cpu-x86"\n')
    assert load_device("mine").connection == ""
    assert load_device("cpu-x86").verified
    assert load_device("x").verified == ()


def test_own_file_of_a_shipped_name_extends_the_shipped_one(folder: Path) -> None:
    (folder / "local.toml").write_text(
        'schema = "device/1"\nid = "local"\nextends = "local"\nconnection = "local"\ncores = [1]\n'
    )
    assert load_device("local").cores == (1,)
    assert load_device("local").ssh is None


@pytest.mark.parametrize("base", ['"mine"', '"../devices/local"', "3", "[1]"])
def test_only_what_ships_can_be_extended(folder: Path, base: str) -> None:
    (folder / "mine.toml").write_text(MINE.replace('"jetson-orin-nano"', base))
    with pytest.raises(FileFormatError, match="mine.toml: extends: expected a device that ships"):
        load_device("mine")


@pytest.mark.parametrize("line", ["power = 3", "limits = []", "power.speed = 1", "runtimes = 1"])
def test_bad_extension_is_refused(folder: Path, line: str) -> None:
    text = MINE.replace('power.mode = "15W"\nlimits.memory_mib = 1000', line)
    (folder / "mine.toml").write_text(text)
    with pytest.raises(FileFormatError, match="mine.toml: (power|limits|runtimes)"):
        load_device("mine")


# -- devices that only an address names -------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "id_"),
    [
        ("ssh://me@Orin.local", "orin.local"),
        ("ssh://me@box:2222", "box-2222"),
        ("ssh://orin-1", "orin-1"),
        ("ssh://pi_4:2222", "pi-4-2222-HASH"),
        ("ssh://[fe80::1]", "fe80-1-HASH"),
        ("ssh://_x", "x-HASH"),
        ("ssh://" + "a" * 200 + ":65535", "a" * 50 + "-65535-HASH"),
        ("ssh://local", "local-HASH"),
        ("ssh://box-2222", "box-2222-HASH"),
    ],
)
def test_address_alone_names_a_device(address: str, id_: str) -> None:
    """Host and port, and a hash where they are not spelled as they are, or another has that id."""
    device = load_device(address)
    assert re.fullmatch(re.escape(id_).replace("HASH", "[0-9a-f]{6}"), device.id)
    assert device.connection == address
    assert device.kind == "any"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ssh://h_h", "ssh://h-h"),
        ("ssh://" + "a" * 50 + ".x", "ssh://" + "a" * 50 + ".y"),
        ("ssh://box:2222", "ssh://box-2222"),
        ("ssh://h_h:22", "ssh://h_h:23"),
    ],
)
def test_two_addresses_are_two_devices(one: str, other: str) -> None:
    """Or the table of one would be written over the other's."""
    assert load_device(one).id != load_device(other).id


def test_an_address_is_not_the_device_of_a_file(folder: Path) -> None:
    before = load_device("ssh://board").id
    (folder / "board.toml").write_text(TEXT)
    assert before == "board"
    assert load_device("ssh://board").id not in device_names()


def test_another_user_of_a_machine_has_no_other_machine() -> None:
    assert load_device("ssh://a@h_h").id == load_device("ssh://b@H_h").id


@pytest.mark.parametrize("address", ["://", "ssh://", "ssh://-x", "http://x", "ssh://a b"])
def test_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(InputError, match="expected 'local' or ssh://"):
        load_device(address)
