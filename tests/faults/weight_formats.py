"""Formats of weights and of what predicts: runs, published checkpoints, accuracy models."""

import io
import json
import random
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tests.faults import binary_mutations
from tests.faults.formats import SPACE, Format, json_format

__all__ = [
    "alike",
    "files_of",
    "made_by",
    "predictor_format",
    "predictor_pth_format",
    "pth_format",
    "published",
    "run_files",
    "run_format",
    "safetensors_format",
    "saved",
    "state",
    "state_format",
    "supernet",
    "supernet_format",
    "unchanged",
]


def files_of(folder: Path, *names: str) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names}


def made_by(make: Callable[[Path], dict[str, bytes]]) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        return make(Path(folder))


def unchanged(valid: Any) -> Callable[[Path, Any], str | None]:
    """What a hash or a checksum covers is as it was."""
    return lambda _, found: None if alike(valid, found) else "another value than was written"


def alike(a: Any, b: Any) -> bool:
    import torch

    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and bool(torch.equal(a, b))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(alike(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(alike(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and bool(a == b or (a != a and b != b))


def saved(value: Any, *, legacy: bool = False) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


# -- runs -----------------------------------------------------------------------------------


@cache
def supernet() -> Any:
    from ofa_deploy.supernet import Supernet

    return Supernet(SPACE, seed=1)


def _run_record() -> Any:
    from ofa_deploy.train import DepsConfig
    from ofa_deploy.train.checkpoint import RunFile

    return RunFile(
        space=SPACE.to_dict(),
        config=DepsConfig(epochs=3, ramp_end=2, threads=1),
        data="quarters",
        data_digest="0" * 16,
        data_options={"seed": 0, "train": None},
        classes=("a", "b", "c", "d"),
        versions={"torch": "2", "numpy": "2"},
        validation_top1={"largest": 60.5, "smallest": 55.0},
    )


@cache
def run_files() -> dict[str, bytes]:
    from ofa_deploy.files import write_model
    from ofa_deploy.supernet import save_tensors

    def make(folder: Path) -> dict[str, bytes]:
        sha256 = save_tensors(folder / "supernet.safetensors", supernet().state_dict(), {})
        write_model(
            folder / "run.json", _run_record().model_copy(update={"weights_sha256": sha256})
        )
        return files_of(folder, "run.json", "supernet.safetensors")

    return made_by(make)


def _read_run(folder: Path) -> Any:
    from ofa_deploy.train import load_supernet

    net, record = load_supernet(folder)
    return record, net.state_dict()


def run_format() -> Format:
    files = run_files()

    def dump(found: Any) -> Any:
        record, _ = found
        space = json.loads(json.dumps(record.search_space.to_dict()))
        return record.model_dump(mode="json", by_alias=True) | {"space": space}

    value = json.loads(files["run.json"])
    others = {"supernet.safetensors": files["supernet.safetensors"]}
    made = json_format("run.json", "run.json", value, _read_run, dump, others)
    return replace(made, names=("training has not finished",))  # of the folder


def supernet_format() -> Format:
    files = run_files()
    valid = dict(supernet().state_dict())
    return Format(
        "supernet.safetensors",
        {name: files[name] for name in ("supernet.safetensors", "run.json")},
        {"header": binary_mutations.safetensors, "bytes": binary_mutations.binary},
        _read_run,
        lambda _, found: unchanged(valid)(_, dict(found[1])),
    )


def state() -> dict[str, Any]:
    plain = {
        "schema": "training-state/1",
        "identity": "here",
        "step": 8,
        "sums": {"largest": [3.5, 2]},
        "rows": [{"epoch": 1, "phase": "shrink", "lr": 0.1, "top1_largest": 40.0}],
        "cost": 123456,
        "frozen": None,
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.1, "params": [0]}]},
    }
    weights = {
        name: tensor for name, tensor in supernet().state_dict().items() if tensor.numel() < 999
    }
    return {**plain, "net": weights}


def _read_state(folder: Path) -> Any:
    from ofa_deploy.train.checkpoint import load_state

    return load_state(folder / "state.pt", "here", state().keys() - {"schema", "identity"})


def state_format() -> Format:
    """As a disk damages it: a checksum tells."""
    valid = state()

    def agrees(folder: Path, found: Any) -> str | None:
        if found is None:  # there is none: training begins anew
            return None if not (folder / "state.pt").exists() else "passed over"
        return None if alike(valid, found) else "another value than was written"

    return Format(
        "state.pt",
        {"state.pt": saved(valid)},
        {"bytes": binary_mutations.binary},
        _read_state,
        agrees,
    )


def _pickled(data: bytes, draw: random.Random) -> bytes:
    """The pickle inside a checkpoint damaged, with a checksum that fits."""
    import zipfile

    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(packed, "w") as made:
        for entry in archive.infolist():
            content = archive.read(entry)
            if entry.filename.endswith("data.pkl"):
                content = binary_mutations.binary(content, draw)
            made.writestr(zipfile.ZipInfo(entry.filename), content)
    return packed.getvalue()


# -- published checkpoints ------------------------------------------------------------------


@cache
def published() -> dict[str, Any]:
    from ofa_deploy.supernet.published import _names

    net, own = supernet(), supernet().state_dict()
    return {name: own[key] for name, key in _names(net)}


def _read_published(name: str) -> Callable[[Path], Any]:
    from ofa_deploy.supernet import Supernet, load_checkpoint

    def read(folder: Path) -> Any:
        net = Supernet(SPACE, seed=2)
        load_checkpoint(net, folder / name)
        return dict(net.state_dict())

    return read


def _agrees_weights(name: str) -> Callable[[Path, Any], str | None]:
    """Whole, finite weights; those of the file, which torch reads without our checks."""

    def agrees(folder: Path, found: Any) -> str | None:
        import torch

        from ofa_deploy.supernet.published import _names

        if not all(torch.isfinite(t).all() for t in found.values() if t.is_floating_point()):
            return "weights that are not finite"
        with warnings.catch_warnings(action="ignore"):
            said = torch.load(folder / name, weights_only=True, map_location="cpu")
        for wrapper in ("state_dict", "model", "net") * 3:
            if isinstance(said, dict) and isinstance(said.get(wrapper), dict):
                said = said[wrapper]
        wrong = [n for n, k in _names(supernet()) if n in said and not _equal(said[n], found[k])]
        return f"{wrong[0]} is not what stands there" if wrong else None

    return agrees


def _equal(said: Any, found: Any) -> bool:
    return bool((said.to(found.dtype) == found).all())


def pth_format(kind: str) -> Format:
    legacy = kind == "legacy"
    data = saved({"state_dict": published()}, legacy=legacy)
    ways = {"bytes": binary_mutations.binary}
    if not legacy:
        ways = {"zip": binary_mutations.zipped, "pickle": _pickled, **ways}
    return Format(
        f"published .pth ({kind})",
        {"net.pth": data},
        ways,
        _read_published("net.pth"),
        _agrees_weights("net.pth"),
    )


def safetensors_format() -> Format:
    from safetensors.torch import load, save

    def agrees(folder: Path, found: Any) -> str | None:
        from ofa_deploy.supernet.published import _names

        said = load((folder / "net.safetensors").read_bytes())
        wrong = [n for n, k in _names(supernet()) if n in said and not _equal(said[n], found[k])]
        return f"{wrong[0]} is not what stands there" if wrong else None

    return Format(
        "published .safetensors",
        {"net.safetensors": save({n: t.contiguous() for n, t in published().items()})},
        {"header": binary_mutations.safetensors, "bytes": binary_mutations.binary},
        _read_published("net.safetensors"),
        agrees,
    )


def predictor_pth_format() -> Format:
    import torch

    from ofa_deploy.predict import MLP_RESOLUTIONS
    from ofa_deploy.space import get_space
    from ofa_deploy.supernet import import_accuracy_model

    space = get_space("ofa-mbv3-w1.2").with_resolutions(MLP_RESOLUTIONS[0])
    rng = torch.Generator().manual_seed(0)
    widths, weights = (128, 400, 400, 400, 1), {}
    for layer in range(4):
        shape = (widths[layer + 1], widths[layer])
        weights[f"{2 * layer}.weight"] = torch.randn(shape, generator=rng) / shape[1] ** 0.5
        weights[f"{2 * layer}.bias"] = torch.randn(shape[0], generator=rng)

    def read(folder: Path) -> Any:
        model = import_accuracy_model("ofa-mlp", folder / "acc.pth", space=space)
        return _named("acc.pth", lambda: model.predict([space.smallest, space.largest]))

    def agrees(_: Path, found: Any) -> str | None:
        return None if np.isfinite(found).all() else "predictions that are not finite"

    return Format(
        "predictor .pth",
        {"acc.pth": saved(weights)},
        {"zip": binary_mutations.zipped, "bytes": binary_mutations.binary, "pickle": _pickled},
        read,
        agrees,
    )


# -- accuracy models ------------------------------------------------------------------------


def _named(name: str, use: Callable[[], Any]) -> Any:
    """What is used after it was read no longer knows its file; the command says it."""
    from ofa_deploy.errors import FileFormatError

    try:
        return use()
    except FileFormatError as error:
        raise FileFormatError(f"{name}: {error}") from error


def _other_facts(data: bytes, draw: random.Random) -> bytes:
    """Other facts of a model, without the hash of the whole: nothing tells but themselves."""
    import onnx

    model = onnx.ModelProto.FromString(data)
    facts = {entry.key: entry.value for entry in model.metadata_props}
    del facts["sha256"]
    name = draw.choice(sorted(facts))
    odd = ("nan", "inf", "-1", "0", "1", "1e308", "9" * 400, "", "x", "[]", "{}", "\x1b[2J")
    facts[name] = draw.choice(odd)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, facts)
    return bytes(model.SerializeToString())


def predictor_format() -> Format:
    import onnx

    from ofa_deploy.predict import fit_accuracy, load_accuracy_model

    archs = SPACE.decode(SPACE.sample(np.random.default_rng(1), 40))
    archs = list(dict.fromkeys(archs))
    top1 = [50 + SPACE.cost(arch).macs / 1e5 for arch in archs]
    model = fit_accuracy(SPACE, archs, top1)
    probe = [SPACE.smallest, SPACE.largest, *archs[:5]]
    valid = model.predict(probe)

    def make(folder: Path) -> dict[str, bytes]:
        model.save(folder / "accuracy.onnx")
        return files_of(folder, "accuracy.onnx")

    def read(folder: Path) -> Any:
        found = load_accuracy_model(folder / "accuracy.onnx", SPACE)
        facts = (found.margin, found.rmse, found.kendall, found.networks, found.source)
        assert found.doubt.isprintable() and str(found)
        predicted = _named("accuracy.onnx", lambda: found.predict(probe))
        return predicted, found.interval(probe), facts, found.measured

    facts = (model.margin, model.rmse, model.kendall, model.networks, model.source)

    def agrees(folder: Path, found: Any) -> str | None:
        predicted, _, said, measured = found
        if b"sha256" not in (folder / "accuracy.onnx").read_bytes():
            return None  # as files were before they had one: nothing tells
        if not np.array_equal(predicted, valid) or said != facts:
            return "other predictions than those of the model that was written"
        if not all(np.array_equal(a, b) for a, b in zip(measured, model.measured, strict=True)):
            return "other measurements than those that it was fitted on"
        return None

    parse = onnx.ModelProto.FromString
    return Format(
        "accuracy model",
        made_by(make),
        {
            "message": lambda data, draw: binary_mutations.message(parse, data, draw),
            "again": lambda data, draw: binary_mutations.message(parse, data, draw),
            "bytes": binary_mutations.binary,
            "facts": _other_facts,
        },
        read,
        agrees,
    )
