"""The targets: ONNX Runtime, OpenVINO, torch.export, TensorRT."""

import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from pydantic import ValidationError

from ofa_deploy.checks import problem
from ofa_deploy.errors import FileFormatError, InputError
from ofa_deploy.export.options import MAX_BATCH, ExportOptions
from ofa_deploy.export.target import Built, Target, ending
from ofa_deploy.files import write_bytes
from ofa_deploy.runtimes import Runtime, Session
from ofa_deploy.runtimes.base import Floats
from ofa_deploy.runtimes.onnx_fp16 import half
from ofa_deploy.runtimes.openvino import OpenVino, pack, unpack
from ofa_deploy.runtimes.openvino_library import nncf_version
from ofa_deploy.runtimes.tensorrt import EngineRuntime, TensorRt
from ofa_deploy.runtimes.tensorrt_rtx import TensorRtRtx
from ofa_deploy.runtimes.trt.artefact import EngineRecord, write_plan
from ofa_deploy.runtimes.trt.artefact import pack as pack_engine
from ofa_deploy.runtimes.trt.graphs import with_precision
from ofa_deploy.runtimes.trt.recipe import (
    build_recipe,
    read_recipe,
    trtexec_command,
    write_recipe,
)

if TYPE_CHECKING:
    from ofa_deploy.export.source import Source

__all__ = ["OnnxTarget", "OpenVinoTarget", "TensorRtTarget", "TorchTarget"]


class OnnxTarget(Target):
    """ONNX, for ONNX Runtime and whatever else reads it."""

    runtime = "onnxruntime"
    laid_out = True

    def build(self, source: "Source", folder: Path) -> Built:
        load = dict(self.engine().settings(source.options.threads))
        settings: dict[str, Any] = {"opset": source.graph.opset_import[0].version, "load": load}
        model = source.graph
        if self.precision == "fp16":
            model = half(source.graph)
        elif self.precision == "int8":
            model = source.quantizer.build(floats=source.sensitive.nodes)
            settings |= _int8_settings(source, "Q/DQ, a scale a channel for weights")
            settings["activations"] = "int8" if source.math.signed else "uint8"
            settings["sensitivity"] = source.sensitive.to_dict()
        model = source.complete(model)
        if model is not source.graph:
            _add_metadata(model, self.precision, source.options)
        onnx.checker.check_model(model, full_check=True)
        name = "model.onnx" if self.name == "onnx" else f"{self.name}.onnx"
        artefact = bytes(model.SerializeToString())
        write_bytes(folder / name, artefact)
        return Built((name,), settings, artefact)

    def artefact(self, files: Mapping[str, bytes]) -> bytes:
        return ending(files, ".onnx")


def _add_metadata(model: onnx.ModelProto, precision: str, options: ExportOptions) -> None:
    for key, value in (("precision", precision), ("preprocessing", options.preprocessing)):
        model.metadata_props.add(key=key, value=value)


def _int8_settings(source: "Source", form: str) -> dict[str, Any]:
    """What both engines' INT8 files are built with."""
    narrow = source.math.narrow
    return {
        "form": form,
        "processor": source.options.processor,
        "weights": "int8 within 7 bits, for processors without VNNI" if narrow else "int8",
        "ranges": "least and greatest value seen",
        "calibration": {
            "split": "train",
            "images": sum(map(len, source.batches)),
            "data_digest": source.record.data_digest,
        },
    }


class OpenVinoTarget(Target):
    """OpenVINO's own form."""

    runtime = "openvino"
    laid_out = True

    def versions(self) -> dict[str, str]:
        quantiser = {"nncf": nncf_version()} if self.precision == "int8" else {}
        return super().versions() | quantiser

    def build(self, source: "Source", folder: Path) -> Built:
        engine = OpenVino()
        load = dict(engine.settings(source.options.threads))
        settings: dict[str, Any] = {"weights": self.precision, "load": load}
        if self.precision == "int8":
            artefact, found = _quantized(engine, source)
            settings |= _int8_settings(source, "NNCF, preset MIXED") | found
        else:
            artefact = engine.build(source.complete(source.graph), self.precision)
        names = (f"{self.name}.xml", f"{self.name}.bin")
        for name, data in zip(names, unpack(artefact), strict=True):
            write_bytes(folder / name, data)
        return Built(names, settings, artefact)

    def artefact(self, files: Mapping[str, bytes]) -> bytes:
        return pack(ending(files, ".xml"), ending(files, ".bin"))


def _quantized(engine: OpenVino, source: "Source") -> tuple[bytes, dict[str, Any]]:
    """INT8 with the blocks in float32 that ONNX Runtime's needs there, if that helps here too."""

    def build(floats: tuple[str, ...], *, whole: bool) -> bytes:
        before = source.before if whole else None
        return engine.quantized(
            source.graph, source.batches, source.math, floats=floats, before=before
        )

    nodes = source.sensitive.nodes
    plain = build((), whole=not nodes)
    if not nodes:
        return plain, {"float_blocks": []}
    mixed = build(nodes, whole=False)
    kept, found = source.worth(*(source.noise.of(engine.load(each)) for each in (plain, mixed)))
    if source.before is None:
        return mixed if kept else plain, found
    return build(nodes if kept else (), whole=True), found


class TorchTarget(Target):
    """A ``torch.export`` program, for ExecuTorch. Not timed: nobody runs it as it is."""

    runtime = "torch"
    timed = False

    def engine(self) -> Runtime:
        raise InputError("torch-export is for ExecuTorch; no runtime of ours loads its files")

    def versions(self) -> dict[str, str]:
        from importlib.metadata import version

        return {"torch": version("torch")}

    def build(self, source: "Source", folder: Path) -> Built:
        artefact = _exported(source)
        name = f"{self.name}.pt2"
        write_bytes(folder / name, artefact)
        shapes = "fixed batch" if source.options.batch else f"dynamic batch of up to {MAX_BATCH:,}"
        return Built((name,), {"shapes": shapes}, artefact)

    def loads(self, files: Iterable[str]) -> bool:
        return False

    def artefact(self, files: Mapping[str, bytes]) -> bytes:
        raise InputError(
            "loading a program of torch.export may run code that it brings, so it is not loaded "
            "from a bundle; its hash says that it is the one that was checked"
        )

    def load(self, artefact: bytes, *, threads: int = 1) -> Session:
        """Load a program that this very process has made."""
        return _TorchSession(artefact)

    def preprocessing(self, asked: str) -> str:
        return "none"


def _exported(source: "Source") -> bytes:
    import copy
    import json

    import torch

    # Weights in the usual order: a program keeps strides, and others do not expect these.
    subnet = copy.deepcopy(source.subnet)
    for weights in subnet.parameters():
        weights.data = weights.data.contiguous()
    batch = {} if source.options.batch else {0: torch.export.Dim("batch", min=1, max=MAX_BATCH)}
    with torch.no_grad():
        program = torch.export.export(subnet, (source.example,), dynamic_shapes=({"x": batch}))
    packed = io.BytesIO()
    metadata = {entry.key: entry.value for entry in source.graph.metadata_props}
    torch.export.save(program, packed, extra_files={"ofa_deploy.json": json.dumps(metadata)})
    return packed.getvalue()


class _TorchSession(Session):
    def __init__(self, artefact: bytes) -> None:
        import torch

        self._module = torch.export.load(io.BytesIO(artefact)).module()

    def run(self, images: Floats) -> Floats:
        import torch

        with torch.no_grad():
            return np.asarray(self._module(torch.from_numpy(images)).numpy(), np.float32)

    def bound(self, images: Floats) -> Callable[[], None]:
        return lambda: (self.run(images), None)[1]


class TensorRtTarget(Target):
    """TensorRT and TensorRT for RTX: engines where they can be built, else what builds them."""

    portable = False

    def __init__(self, name: str, precision: str, twin: str = "") -> None:
        super().__init__(name, precision, twin)
        self.runtime = twin or name

    def engine(self, options: ExportOptions | None = None) -> EngineRuntime:
        """The engine, with the settings that are asked for."""
        options = options or ExportOptions()
        if self.runtime == "tensorrt":
            return TensorRt(options.engine, timing_cache=options.timing_cache)
        if options.capabilities:
            return TensorRtRtx(options.capabilities, options.engine)
        return TensorRtRtx(settings=options.engine)

    def versions(self) -> dict[str, str]:
        engine = self.engine()
        absent = self.runtime == "tensorrt" and engine.why_not()
        return {} if absent else {self.runtime: engine.version}

    def check(self, options: ExportOptions) -> None:
        self.engine(options)  # which refuses settings that its kind does not have
        least, best, greatest = options.engine.batches
        if options.batch is None and least > 1:
            raise InputError(
                f"{self.name}: expected a least batch of 1, found {least}: single images are given "
                f"to a bundle's files too; take batches 1,{best},{greatest}, or a fixed batch"
            )
        super().check(options)

    def build(self, source: "Source", folder: Path) -> Built:
        engine = self.engine(source.options)
        asked = source.options.engine
        settings: dict[str, Any] = {"engine": asdict(asked) | {"batches": list(asked.batches)}}
        floats: tuple[str, ...] = ()
        if self.precision == "int8":
            floats, found = _explicit(source)
            settings |= found
        why_not = engine.why_not() or ""
        if why_not and self.runtime == "tensorrt":
            return self._recipe(source, folder, floats, settings, why_not)
        ready = with_precision(source.graph, self.precision, self._batches(source), floats=floats)
        artefact = engine.build_ready(ready.SerializeToString(), self.precision)
        name = f"{self.name}.plan"
        record = write_plan(folder / name, artefact)
        settings["capabilities"] = [f"{major}.{minor}" for major, minor in record.capabilities]
        settings["onnx_sha256"] = record.onnx_sha256
        return Built((name, f"{name}.json"), settings, None if why_not else artefact, why_not)

    def _recipe(
        self,
        source: "Source",
        folder: Path,
        floats: tuple[str, ...],
        settings: dict[str, Any],
        why_not: str,
    ) -> Built:
        """The ONNX that TensorRT builds from, and how, for a machine with a GPU."""
        path = write_recipe(
            folder,
            self.name,
            source.graph,
            self.precision,
            self._batches(source),
            settings=source.options.engine,
            floats=floats,
        )
        recipe, _ = read_recipe(path)
        settings["trtexec"] = trtexec_command(recipe)
        return Built((recipe.onnx, path.name), settings, None, why_not)

    def _batches(self, source: "Source") -> tuple[Floats, ...]:
        return source.batches if self.precision == "int8" else ()

    def loads(self, files: Iterable[str]) -> bool:
        return not _is_recipe(files) or self.engine().why_not() is None

    def artefact(self, files: Mapping[str, bytes]) -> bytes:
        if _is_recipe(files):
            engine = self.engine()
            if why_not := engine.why_not():
                raise InputError(
                    f"{self.name} is a recipe, and its engine cannot be built here: {why_not}"
                )
            text, model = ending(files, ".recipe.json"), ending(files, ".onnx")
            return build_recipe(text, model, module=engine.module, cuda=engine.cuda)
        plan = ending(files, ".plan")
        try:
            record = EngineRecord.model_validate_json(ending(files, ".plan.json"))
        except ValidationError as error:
            raise FileFormatError(f"not the record of an engine: {problem(error)}") from None
        if record.settings.version_compatible:
            raise InputError(
                f"{self.name} is an engine for many versions, which may bring code for this "
                "machine, so it is not loaded from a bundle; export the subnet on this machine"
            )
        return pack_engine(record, plan)

    def preprocessing(self, asked: str) -> str:
        return "none"


def _is_recipe(files: Iterable[str]) -> bool:
    return any(name.endswith(".recipe.json") for name in files)


def _explicit(source: "Source") -> tuple[tuple[str, ...], dict[str, Any]]:
    """Nodes that INT8 leaves in float32, and what the manifest tells of calibration and of them.

    Whether they help is measured in ONNX Runtime, on the very graph that TensorRT is given.
    """
    batches, nodes = source.batches, source.sensitive.nodes
    settings: dict[str, Any] = {
        "calibration": {"split": "train", "images": sum(map(len, batches))},
        "float_blocks": [],
    }
    if not nodes:
        return (), settings
    tried = (with_precision(source.graph, "int8", batches, floats=each) for each in ((), nodes))
    kept, found = source.worth(*map(source.noise.of_model, tried))
    return (nodes if kept else ()), settings | found
