"""Exporting to where something is: what may be replaced, and what is spared."""

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ofa_deploy.errors import GateError, InputError
from ofa_deploy.export import ExportOptions, export_subnet
from tests.export.tampering import tree

bundle_module: Any = importlib.import_module("ofa_deploy.export.bundle")
side_module: Any = importlib.import_module("ofa_deploy.export.side_by_side")

FILES = {"model.onnx", "manifest.json", "README.md", "probe.safetensors"}


def test_overwriting_replaces_the_whole_bundle(saved: Any, out: Path) -> None:
    more = ExportOptions(targets=("onnx", "onnx-fp16"), measure=False)
    first = export_subnet(saved.path, out, saved.test, options=more)
    assert set(tree(out)) == FILES | {"onnx-fp16.onnx"}
    second = export_subnet(saved.path, out, saved.test, overwrite=True)
    assert second.files["model.onnx"] == first.files["model.onnx"]
    assert set(tree(out)) == FILES
    assert {path.name for path in out.parent.iterdir()} == {"best"}


def test_bundle_of_an_older_version_may_be_replaced(saved: Any, out: Path) -> None:
    out.mkdir(parents=True)
    (out / "old.onnx").touch()
    manifest = {"schema": "bundle/1", "files": {"old.onnx": "0" * 64}}
    (out / "manifest.json").write_text(json.dumps(manifest))
    export_subnet(saved.path, out, saved.test, overwrite=True)
    assert set(tree(out)) == FILES


@pytest.mark.parametrize("name", ["tensorrt.plan", "notes.txt", ".hidden", "model.onnx/mine.txt"])
def test_overwriting_spares_what_was_put_into_a_bundle(saved: Any, out: Path, name: str) -> None:
    """An engine, for one, that was built there as the model card says."""
    export_subnet(saved.path, out, saved.test)
    mine = out / name
    if mine.parent != out:
        mine.parent.unlink()
        mine.parent.mkdir()
    mine.write_bytes(b"hours of work")
    before = tree(out)
    found = mine.relative_to(out).parts[0]
    with pytest.raises(InputError, match=f"its manifest does not name {found}; move that"):
        export_subnet(saved.path, out, saved.test, overwrite=True)
    assert tree(out) == before


@pytest.mark.parametrize(
    "text",
    [
        '{"schema": "web-app/1", "files": {"index.html": ""}}',
        '{"schema": "bundle/2"}',
        '{"schema": "bundle/2", "files": ["index.html"]}',
        '{"schema": 2, "files": {"index.html": ""}}',
        '{"name": "an app", "files": {"index.html": ""}}',
        "[]",
        "not JSON",
    ],
)
def test_overwriting_spares_manifests_of_others(saved: Any, out: Path, text: str) -> None:
    out.mkdir(parents=True)
    (out / "manifest.json").write_text(text)
    (out / "index.html").write_text("irreplaceable")
    before = tree(out)
    with pytest.raises(InputError, match="best is not a bundle and is not overwritten"):
        export_subnet(saved.path, out, saved.test, overwrite=True)
    assert tree(out) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_came_while_building_is_spared(
    saved: Any, out: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    if overwrite:
        export_subnet(saved.path, out, saved.test)
    real = side_module.draft

    def draft(*args: Any) -> Any:
        made = real(*args)
        out.mkdir(exist_ok=True)
        (out / "mine.txt").write_text("keep me")
        return made

    monkeypatch.setattr(side_module, "draft", draft)
    with pytest.raises(InputError, match="mine.txt" if overwrite else "exists; name another"):
        export_subnet(saved.path, out, saved.test, overwrite=overwrite)
    assert tree(out)["mine.txt"] == b"keep me"
    assert {path.name for path in out.parent.iterdir()} == {"best"}


def test_overwriting_needs_nothing_to_be_there(saved: Any, out: Path) -> None:
    export_subnet(saved.path, out, saved.test, overwrite=True)
    assert set(tree(out)) == FILES


def test_failed_gate_keeps_the_old_bundle(
    saved: Any, out: Path, lying: Callable[..., None]
) -> None:
    export_subnet(saved.path, out, saved.test)
    before = tree(out.parent)
    lying(lambda logits: logits + 1)
    with pytest.raises(GateError):
        export_subnet(saved.path, out, saved.test, overwrite=True)
    assert tree(out.parent) == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_interrupted_overwrite_keeps_the_old_bundle(
    saved: Any, out: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    export_subnet(saved.path, out, saved.test)
    before = tree(out.parent)

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(bundle_module, "write_model", fail)
    with pytest.raises(error):
        export_subnet(saved.path, out, saved.test, overwrite=True)
    assert tree(out.parent) == before


def test_overwriting_spares_a_folder_that_is_no_bundle(saved: Any, tmp_path: Path) -> None:
    """``--out ~/photos --overwrite`` must not cost the photos."""
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "cat.jpg").write_bytes(b"irreplaceable")
    with pytest.raises(InputError, match="photos"):
        export_subnet(saved.path, photos, saved.test, overwrite=True)
    assert tree(photos) == {"cat.jpg": b"irreplaceable"}


def test_overwriting_a_file_is_refused(saved: Any, tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    with pytest.raises(InputError, match="notes.txt"):
        export_subnet(saved.path, file, saved.test, overwrite=True)
    assert file.read_text() == "mine"
