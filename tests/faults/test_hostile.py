"""Files made by somebody who means harm: nothing is executed, and nothing leaves its folder."""

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from ofa_deploy.errors import FileFormatError, InputError, OfaDeployError
from ofa_deploy.export import Bundle
from ofa_deploy.files import read_bytes, sha256_file
from ofa_deploy.hardware import Telemetry, import_tables, load_device
from ofa_deploy.predict import load_accuracy_model
from ofa_deploy.space import SearchSpace
from ofa_deploy.supernet import load_ensemble
from tests.faults.bundle_formats import bundle_files, subnet_files
from tests.faults.formats import SPACE
from tests.faults.weight_formats import predictor_format


def one_line(error: pytest.ExceptionInfo[OfaDeployError], name: str) -> str:
    text = str(error.value)
    assert text.isprintable() and name in text and len(text) < 4100
    return text


def laid(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


# -- text -----------------------------------------------------------------------------------

LAUGHS = "\n".join(
    ["a0: &a0 {mean: 1}"] + [f"a{i}: &a{i} [{f'*a{i - 1}, ' * 9}*a{i - 1}]" for i in range(1, 12)]
)
YAML = {
    "laughs": LAUGHS,
    "merge": "a: &a {mean: 1}\nb: {<<: *a}",
    "knot": "a: &a [*a]",
    "deep flow": "a: " + "[" * 100_000,
    "deep block": "\n".join(" " * i + "- " for i in range(3000)),
    "deep keys": "? " * 50_000,
    "tag": "a: !!python/object/apply:os.system ['true']",
    "new": "a: !!python/object/new:subprocess.Popen [['true']]",
    "documents": "a: {mean: 1}\n---\n" * 1000,
    "anchors": "".join(f"k{i}: &x{i} {{mean: 1}}\n" for i in range(1000)),
}


@pytest.mark.parametrize("kind", YAML)
@pytest.mark.timeout(20)
def test_a_yaml_bomb(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "16_table.yaml"
    path.write_text(YAML[kind])
    with pytest.raises(InputError) as error:
        import_tables("ofa-yaml", path, space=SPACE, device="note")
    one_line(error, "16_table.yaml")


TOML = {
    "arrays": "a = " + "[" * 50_000,
    "tables": "a = " + "{a = " * 50_000,
    "dotted": "a" + ".a" * 50_000 + " = 1",
    "headers": "[" + ".".join("a" * 50_000) + "]",
    "number": "a = " + "9" * 100_000,
    "many": "[[a]]\n" * 100_000,
}


@pytest.mark.parametrize("kind", TOML)
@pytest.mark.timeout(20)
def test_deep_toml(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "devices").mkdir()
    for name in ("space.toml", "devices/board.toml"):
        (tmp_path / name).write_text(TOML[kind])
    for name, read in (
        ("space.toml", lambda: SearchSpace.from_toml(tmp_path / "space.toml")),
        ("board.toml", lambda: load_device("board")),
    ):
        with pytest.raises(FileFormatError) as error:
            read()
        one_line(error, name)


def test_messages_move_no_cursor() -> None:
    text = str(InputError("a\x1b[2Jb\nc\x07\u202e\ud800" + "x" * 10_000))
    assert text.isprintable() and "\\x1b[2Jb c" in text and len(text) < 4100


# -- graphs ---------------------------------------------------------------------------------


def predictor(change: Callable[[onnx.ModelProto], object], folder: Path) -> Path:
    """An accuracy model without its seal, changed."""
    model = onnx.ModelProto.FromString(predictor_format().files["accuracy.onnx"])
    kept = [each for each in model.metadata_props if each.key != "sha256"]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    change(model)
    (folder / "acc.onnx").write_bytes(model.SerializeToString())
    return folder / "acc.onnx"


def external(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../../../etc/passwd"


def huge(model: onnx.ModelProto) -> None:
    del model.graph.initializer[0].dims[:]
    model.graph.initializer[0].dims.extend([2**31, 2**31])


@pytest.mark.parametrize("change", [external, huge])
def test_a_hostile_predictor(
    tmp_path: Path, change: Callable[[onnx.ModelProto], object], capfd: pytest.CaptureFixture[str]
) -> None:
    path = predictor(change, tmp_path)
    with pytest.raises(FileFormatError) as error:
        load_accuracy_model(path)
    one_line(error, "acc.onnx")
    assert capfd.readouterr().err == ""


def test_a_predictor_without_a_seal_is_of_before(tmp_path: Path) -> None:
    assert load_accuracy_model(predictor(lambda model: None, tmp_path)).networks > 0


def test_a_changed_predictor_is_refused(tmp_path: Path) -> None:
    data = bytearray(predictor_format().files["accuracy.onnx"])
    model = onnx.ModelProto.FromString(bytes(data))
    weights = max((each.raw_data for each in model.graph.initializer), key=len)
    data[data.find(weights) + 2] ^= 1  # of the least bits of a weight
    (tmp_path / "acc.onnx").write_bytes(data)
    with pytest.raises(FileFormatError, match="its SHA-256 differs"):
        load_accuracy_model(tmp_path / "acc.onnx")


def renewed(folder: Path, name: str, data: bytes) -> None:
    import hashlib

    (folder / name).write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = hashlib.sha256(data).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("change", [external, huge])
def test_a_bundle_with_a_hostile_graph(
    tmp_path: Path, change: Callable[[onnx.ModelProto], object]
) -> None:
    folder = laid(tmp_path / "bundle", bundle_files())
    model = onnx.ModelProto.FromString(bundle_files()["model.onnx"])
    change(model)
    renewed(folder, "model.onnx", model.SerializeToString())
    with pytest.raises(OfaDeployError):
        Bundle.read(folder).open("onnx")
    if change is huge:
        assert Bundle.read(folder).rerun()["onnx"].verdict == "fails"


# -- names ----------------------------------------------------------------------------------

OUTSIDE = [
    "../secret",
    "/etc/passwd",
    "sub/../../secret",
    "..\\secret",
    "C:\\secret",
    "C:secret",
    "\\\\host\\share",
    "a\0b",
    "..",
    ".",
    "",
    ".hidden",
    "manifest.json",
    "a/b",
    "a:stream",
    "x" * 300,
    "a\nb",
    "\u202egnp.exe",
]


@pytest.mark.parametrize("name", OUTSIDE, ids=repr)
def test_a_manifest_names_nothing_outside(tmp_path: Path, name: str) -> None:
    folder = laid(tmp_path / "bundle", bundle_files())
    (tmp_path / "secret").write_text("kept")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = "0" * 64
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(FileFormatError, match="expected a plain name") as error:
        Bundle.read(folder)
    one_line(error, "manifest.json")


@pytest.mark.parametrize("name", [name for name in OUTSIDE if name not in ("a:stream", ".hidden")])
def test_an_ensemble_names_nothing_outside(tmp_path: Path, name: str) -> None:
    folder = laid(tmp_path / "e", subnet_files())
    value = json.loads((folder / "all.ensemble.json").read_text())
    for given in (name, f"{name}.subnet.json"):
        if given in ("...subnet.json", "..subnet.json", ".subnet.json", "C:secret.subnet.json"):
            continue  # plain names on this system, of files that are not there
        value["members"][0]["file"] = given
        (folder / "all.ensemble.json").write_text(json.dumps(value))
        with pytest.raises(InputError) as error:
            load_ensemble(folder / "all.ensemble.json")
        one_line(error, "")


@pytest.mark.parametrize("name", ["model.onnx", "probe.safetensors", "manifest.json"])
def test_a_bundle_follows_no_link(tmp_path: Path, name: str) -> None:
    folder = laid(tmp_path / "bundle", bundle_files())
    (folder / name).rename(tmp_path / name)
    (folder / name).symlink_to(tmp_path / name)
    with pytest.raises(FileFormatError, match="found a link or folder"):
        Bundle.read(folder)


@pytest.mark.parametrize(
    "answer",
    [
        {"missing": ["../../etc/passwd"]},
        {"missing": ["/etc/passwd"]},
        {"missing": ["0" * 64]},
        {"missing": "all"},
        {"have": "../x"},
        {"error": "\x1b]0;owned\x07"},
    ],
    ids=str,
)
def test_an_agent_is_given_no_other_file(
    answer: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device asks for models by hash, and gets only those that it was told of."""
    session: Any = importlib.import_module("ofa_deploy.profiling.remote.session")
    sent: list[bytes] = []

    class Said:
        def send(self, data: bytes) -> None:
            sent.append(data)

        def line(self, timeout_s: float) -> bytes:
            return json.dumps(answer).encode()

    made = object.__new__(session.Session)
    made._pipe, made._name, made._pings = Said(), "ssh://board", 0
    made._silence_s, made._ping_s = 5.0, 1.0
    with pytest.raises(OfaDeployError) as error:
        made._bring({"ab" * 32: Path(__file__)})
    one_line(error, "ssh://board")
    assert all(b"pytest" not in each for each in sent), "this file was sent"


@pytest.mark.parametrize("name", ["../x", "a/b", "a b", "\x1b[2J", "é", "", "x" * 100])
def test_telemetry_has_harmless_names(name: str) -> None:
    with pytest.raises(ValueError, match="telemetry"):
        Telemetry.from_dict({"temperatures_c": {name: 40.0}})


# -- devices in place of files --------------------------------------------------------------


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["pipe", "zeros", "folder", "socket"])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    import os
    import socket

    path = tmp_path / "x.json"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "zeros":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
    for read in (read_bytes, sha256_file):
        with pytest.raises(OfaDeployError) as error:
            read(path)
        one_line(error, "x.json")


def test_a_name_with_a_nul(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no name of a file"):
        read_bytes(f"{tmp_path}/a\0b")
