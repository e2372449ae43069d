"""From a subnet to a bundle that has proved itself.

A bundle is a folder with the model, ``manifest.json`` (hashes, labels, preprocessing, provenance,
metrics) and nothing that is not named there. It is written only if the model gives the PyTorch
subnet's logits and the same top-1.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
from pydantic import BaseModel, ConfigDict, Field

from ofa_deploy._files import sha256_file, write_bytes, write_model
from ofa_deploy.data import MEAN, STD, Images
from ofa_deploy.errors import DeviceError, GateError, InputError
from ofa_deploy.graph import OPSET, build_onnx
from ofa_deploy.runtimes import Session, get_runtime
from ofa_deploy.supernet import Subnet, SubnetFile, batches, folded_weights, load_subnet

__all__ = ["Gate", "Manifest", "check_out", "export_subnet", "subnet_graph"]

TOLERANCE = 1e-4
_MODEL = "model.onnx"


class Gate(BaseModel):
    """What was checked before the bundle was written.

    Attributes:
        max_difference: greatest difference of a logit from PyTorch's, relative to the greatest
            logit of the test set.
        top1, subnet_top1: on the test set, of the model and of the PyTorch subnet, in percent.
        images: test images.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    runtime: str
    runtime_version: str
    tolerance: float
    max_difference: float
    top1: float
    subnet_top1: float
    images: int


class Manifest(BaseModel):
    """``manifest.json`` of a bundle."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    schema_: Literal["bundle/1"] = Field("bundle/1", alias="schema")
    target: Literal["onnx"] = "onnx"
    files: dict[str, str]
    space: dict[str, Any]
    subnet: dict[str, Any]
    supernet_sha256: str
    labels: tuple[str, ...]
    preprocessing: dict[str, Any]
    opset: int = OPSET
    versions: dict[str, str]
    gate: Gate


def check_out(out: Path, *, overwrite: bool) -> None:
    """See that a bundle may be written to ``out``.

    Raises:
        InputError: if something is there, and it is not a bundle that may be overwritten.
    """
    if not out.exists():
        return
    if not overwrite:
        raise InputError(f"{out} exists; name another folder or pass --overwrite")
    if not (out / "manifest.json").is_file():
        raise InputError(f"{out} is not a bundle and is not overwritten; name another folder")


def subnet_graph(subnet: Subnet, record: SubnetFile) -> onnx.ModelProto:
    """The ONNX graph of a subnet: the one that is measured, and the one that ships."""
    arch = record.network.arch
    metadata = {
        "arch": str(arch),
        "space": record.search_space.name,
        "supernet_sha256": record.supernet_sha256,
        "labels": "\n".join(record.classes),
    }
    blocks = record.search_space.lower(arch)
    return build_onnx(blocks, folded_weights(subnet), metadata=metadata)


@dataclass(frozen=True)
class _Compared:
    max_difference: float
    model_right: int
    subnet_right: int


def export_subnet(path: Path, out: Path, test: Images, *, overwrite: bool = False) -> Manifest:
    """Export ``NAME.subnet.json`` as an ONNX bundle.

    Args:
        out: the bundle's folder; it appears whole or not at all.
        test: the images that the gate compares on.

    Raises:
        InputError: if ``out`` exists, or the subnet was never recalibrated.
        GateError: if the model's logits or top-1 are not the subnet's.
    """
    check_out(out, overwrite=overwrite)
    subnet, record = load_subnet(path)
    if not record.calibration:
        raise InputError(f"{path}: its BN was never recalibrated; cut it with ofa-deploy search")
    graph = subnet_graph(subnet, record)
    onnx.checker.check_model(graph, full_check=True)
    runtime = get_runtime("onnxruntime")
    artefact = runtime.build(graph)
    gate = _gate(runtime.load(artefact, threads=2), runtime.version, subnet, record, test)
    return _write(out, artefact, record, gate)


def _gate(
    session: Session, runtime_version: str, subnet: Subnet, record: SubnetFile, test: Images
) -> Gate:
    compared = _compare(session, subnet, test, record.network.arch.resolution)
    gate = Gate(
        runtime="onnxruntime",
        runtime_version=runtime_version,
        tolerance=TOLERANCE,
        max_difference=compared.max_difference,
        top1=100 * compared.model_right / len(test),
        subnet_top1=100 * compared.subnet_right / len(test),
        images=len(test),
    )
    if gate.max_difference > TOLERANCE:
        raise GateError(
            f"the ONNX model's logits differ from the subnet's by {gate.max_difference:.2g} "
            f"(relative), more than {TOLERANCE:g}; no bundle was written"
        )
    if compared.model_right != compared.subnet_right:
        raise GateError(
            f"the ONNX model's top-1 on the test set is {gate.top1:.2f} %, the subnet's "
            f"{gate.subnet_top1:.2f} %; no bundle was written"
        )
    return gate


@torch.no_grad()
def _compare(session: Session, subnet: Subnet, test: Images, resolution: int) -> _Compared:
    difference, scale = 0.0, 0.0
    right = np.zeros(2, int)
    start = 0
    for batch in batches(test, resolution):
        expected = subnet(batch).numpy()
        found = session.run(np.ascontiguousarray(batch.numpy()))
        if found.shape != expected.shape:
            raise DeviceError(f"expected logits {expected.shape}, the runtime gave {found.shape}")
        if not np.isfinite(found).all():
            raise GateError("the ONNX model gives NaN or infinite logits; no bundle was written")
        difference = max(difference, float(np.abs(found - expected).max()))
        scale = max(scale, float(np.abs(expected).max()))
        labels = test.labels[start : start + len(expected)]
        right += [(found.argmax(1) == labels).sum(), (expected.argmax(1) == labels).sum()]
        start += len(expected)
    return _Compared(difference / max(scale, 1e-30), int(right[0]), int(right[1]))


def _write(out: Path, artefact: bytes, record: SubnetFile, gate: Gate) -> Manifest:
    """Fill a folder beside ``out``, then move it there."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
        folder = Path(temporary) / out.name
        write_bytes(folder / _MODEL, artefact)
        manifest = Manifest(
            files={_MODEL: sha256_file(folder / _MODEL)},
            space=record.space,
            subnet=_with_test(record.candidate, gate),
            supernet_sha256=record.supernet_sha256,
            labels=record.classes,
            preprocessing={
                "size": record.network.arch.resolution,
                "layout": "NCHW, RGB",
                "scale": "pixel / 255",
                "mean": list(MEAN),
                "std": list(STD),
            },
            versions={name: version(name) for name in ("onnx", "onnxruntime", "torch")},
            gate=gate,
        )
        write_model(folder / "manifest.json", manifest)
        if out.exists():
            out.replace(Path(temporary) / "previous")  # goes with the temporary folder
        folder.replace(out)
    return manifest


def _with_test(candidate: Mapping[str, Any], gate: Gate) -> dict[str, Any]:
    """The candidate with its test accuracy, which is only ever reported."""
    return {**candidate, "measured": {**candidate["measured"], "test_top1": gate.top1}}
