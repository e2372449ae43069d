"""Weights made by somebody who means harm: nothing is executed, and nothing swells."""

import io
import json
import pickle
import struct
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from ofa_deploy.errors import FileFormatError, InputError
from ofa_deploy.export import Bundle
from ofa_deploy.supernet import Supernet, load_checkpoint, read_checkpoint
from ofa_deploy.supernet.storage import parse_safetensors
from ofa_deploy.train.checkpoint import load_state, restore
from tests.faults.bundle_formats import bundle_files
from tests.faults.formats import SPACE
from tests.faults.pickles import forms, is_whole, pickles
from tests.faults.test_hostile import laid, one_line
from tests.faults.weight_formats import published, run_files, saved, state

NAMES = [name for name, _ in pickles(Path("somewhere"))]


# -- pickles --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore")
def test_a_pickle_is_never_executed(tmp_path: Path, name: str) -> None:
    proof = tmp_path / "proof"
    pickled = dict(pickles(proof))[name]
    assert is_whole(pickled)
    for form, data in forms(pickled).items():
        (tmp_path / "net.pth").write_bytes(data)
        (tmp_path / "state.pt").write_bytes(data)
        with pytest.raises(FileFormatError) as error:
            read_checkpoint(tmp_path / "net.pth")
        one_line(error, "net.pth")
        with pytest.raises(FileFormatError) as error:
            load_state(tmp_path / "state.pt", "here", {"net"})
        one_line(error, "state.pt")
        assert not proof.exists(), form
    assert not (tmp_path.parent / "outside").exists()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore")
def test_those_pickles_would_run_code(tmp_path: Path, name: str) -> None:
    """Or the test above would show nothing."""
    proof = tmp_path / "proof"
    pickled = dict(pickles(proof))[name]
    if name in ("NEWOBJ", "BUILD", "persistent", "torch.load", "getattr", "numpy's"):
        called: list[str] = []

        class Spy(pickle.Unpickler):
            def find_class(self, module: str, what: str) -> Any:
                called.append(f"{module}.{what}")
                return super().find_class(module, what)

        with suppress(Exception):
            Spy(io.BytesIO(pickled)).load()
        assert called, "names nothing that could be called"
        return
    made = pickle.loads(pickled)
    assert proof.exists()
    del made


# -- archives -------------------------------------------------------------------------------


def bomb(mib: int) -> bytes:
    """A zipped checkpoint whose weights are that many MiB of zeros, in a thousandth of it."""
    made = io.BytesIO()
    valid = saved({"state_dict": {"a": torch.zeros(4)}})
    with zipfile.ZipFile(io.BytesIO(valid)) as archive, zipfile.ZipFile(made, "w") as packed:
        for part in archive.infolist():
            data = archive.read(part)
            if part.filename.endswith("/data/0"):
                data = bytes(mib * 2**20)
            packed.writestr(part.filename, data, compress_type=zipfile.ZIP_DEFLATED)
    return made.getvalue()


def overlapping(copies: int) -> bytes:
    """A zip whose directory names the same bytes many times."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as packed:
        packed.writestr("a/data.pkl", bytes(100_000))
    data = bytearray(made.getvalue())
    with zipfile.ZipFile(made) as archive:
        start = archive.start_dir
    entry, end = bytes(data[start : data.rfind(b"PK\x05\x06")]), data[data.rfind(b"PK\x05\x06") :]
    entries = b"".join(entry.replace(b"a/data.pkl", b"%01dxdata.pkl" % i) for i in range(copies))
    struct.pack_into("<HHI", end, 8, copies, copies, len(entries))
    return bytes(data[:start]) + entries + bytes(end)


@pytest.mark.parametrize("data", [bomb(64), overlapping(9)], ids=["deflated", "overlapping"])
def test_a_zip_takes_no_more_than_its_bytes(tmp_path: Path, data: bytes) -> None:
    for name, read in (
        ("net.pth", read_checkpoint),
        ("state.pt", lambda path: load_state(path, "here", {"net"})),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(FileFormatError, match=r"compressed|larger than the file|damaged"):
            read(tmp_path / name)


HEADERS: dict[str, Any] = {
    "overlapping": {
        "a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
        "b": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
    },
    "beyond": {"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}},
    "negative": {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [-4, 0]}},
    "backwards": {"a": {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]}},
    "overflow": {"a": {"dtype": "F32", "shape": [2**32, 2**32], "data_offsets": [0, 0]}},
    "hole": {"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}},
    "short": {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
}


@pytest.mark.parametrize("kind", HEADERS)
def test_a_safetensors_header_that_lies(kind: str) -> None:
    text = json.dumps(HEADERS[kind]).encode()
    with pytest.raises(FileFormatError, match=r"w.safetensors: unreadable weights"):
        parse_safetensors(struct.pack("<Q", len(text)) + text + bytes(16), Path("w.safetensors"))


@pytest.mark.parametrize("length", [0, 1, 2**31, 2**63, 2**64 - 1])
def test_a_safetensors_length_that_lies(length: int) -> None:
    with pytest.raises(FileFormatError, match="unreadable weights"):
        parse_safetensors(struct.pack("<Q", length) + b"{}", Path("w.safetensors"))


# -- checkpoints that fit, and are none ------------------------------------------------------


class Resumed:
    """As much of a trainer as a checkpoint meets first."""

    class plan:
        steps = 12

    def __init__(self) -> None:
        self.net = Supernet(SPACE, seed=1)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.net.load_state_dict(state["net"], strict=False)
        self.sums = {role: (total, count) for role, (total, count) in state["sums"].items()}


@pytest.mark.parametrize(
    "change",
    [
        {"step": -1},
        {"step": 13},
        {"step": 2.0},
        {"step": True},
        {"step": 10**30},
        {"rows": "none"},
        {"rows": [1]},
        {"rows": [{"epoch": [1]}]},
        {"sums": [1]},
        {"sums": {"largest": 3}},
        {"net": None},
        {"net": {"layers.classifier.full.linear.bias": torch.zeros(9)}},
    ],
    ids=str,
)
def test_a_state_of_other_types_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    changed = {**state(), **change}
    with pytest.raises(FileFormatError, match=r"state.pt: not a checkpoint of this run") as error:
        restore(Resumed(), changed, tmp_path / "state.pt")  # type: ignore[arg-type]
    one_line(error, "state.pt")


def test_a_state_that_fits_is_restored(tmp_path: Path) -> None:
    restore(Resumed(), state(), tmp_path / "state.pt")  # type: ignore[arg-type]


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    weights = {name: tensor.clone() for name, tensor in published().items()}
    next(iter(weights.values())).view(-1)[0] = float("nan")
    (tmp_path / "net.pth").write_bytes(saved(weights))
    with pytest.raises(InputError, match=r"net.pth: .* holds NaN or infinite values"):
        load_checkpoint(Supernet(SPACE), tmp_path / "net.pth")


def test_the_valid_files_are_read(tmp_path: Path) -> None:
    from ofa_deploy.train import load_supernet

    load_supernet(laid(tmp_path / "run", run_files()))
    assert Bundle.read(laid(tmp_path / "bundle", bundle_files())).rerun()["onnx"].verdict == "holds"
