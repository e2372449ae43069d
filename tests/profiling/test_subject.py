"""Files of what is timed, built here or in other processes."""

import os
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest

from ofa_deploy.errors import DeviceError
from ofa_deploy.graph import build_empty, build_onnx
from ofa_deploy.profiling import Subject, subject
from ofa_deploy.profiling.subject import write_models
from ofa_deploy.runtimes import get_runtime
from ofa_deploy.space import SearchSpace
from ofa_deploy.terminal import SILENT


@pytest.fixture
def subjects(tiny_space: SearchSpace) -> dict[str, Subject]:
    return {
        f"{name} {seed}": Subject(
            partial(build_onnx, tiny_space.lower(arch), metadata={"seed": str(seed)}),
            (1, 3, arch.resolution, arch.resolution),
        )
        for name, arch in (("small", tiny_space.smallest), ("large", tiny_space.largest))
        for seed in range(4)
    }


def test_other_processes_build_the_same(
    subjects: dict[str, Subject], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    here = write_models(subjects, tmp_path / "here", "onnxruntime", "int8", SILENT)
    monkeypatch.setattr(subject, "_MANY", 2)
    there = write_models(subjects, tmp_path, "onnxruntime", "int8", SILENT)
    assert [*here] == [*there] == [*subjects]
    assert len({model["path"] for model in there.values()}) == len(subjects)
    for name, model in there.items():
        assert model["sha256"] == here[name]["sha256"]
        size = subjects[name].shape
        images = np.random.default_rng(0).standard_normal(size).astype(np.float32)
        logits = [
            get_runtime("onnxruntime").load(Path(each["path"]).read_bytes()).run(images)
            for each in (model, here[name])
        ]
        np.testing.assert_array_equal(*logits)
    assert len({model["sha256"] for model in there.values()}) == len(subjects)


def test_graphs_are_made_one_at_a_time(subjects: dict[str, Subject], tmp_path: Path) -> None:
    made: list[str] = []

    def make(name: str) -> onnx.ModelProto:
        assert len(list(tmp_path.iterdir())) == len(made)
        made.append(name)
        return subjects[name].graph

    watched = {name: Subject(partial(make, name), each.shape) for name, each in subjects.items()}
    write_models(watched, tmp_path, "onnxruntime", "fp32", SILENT)
    assert made == list(subjects)


def test_builder_that_dies_is_said_to_have_died(
    subjects: dict[str, Subject], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "_MANY", 2)
    monkeypatch.setattr(subject, "_Job", _Dies)
    with pytest.raises(DeviceError, match="a process that builds graphs died"):
        write_models(subjects, tmp_path, "onnxruntime", "int8", SILENT)


class _Dies:
    def __init__(self, *_: object) -> None: ...

    def run(self) -> None:
        os._exit(1)


def test_a_batch_is_another_subject(tiny_subjects: dict[str, Subject], tmp_path: Path) -> None:
    """Their graphs are the same, and what was measured of one is nothing about the other."""
    graph = tiny_subjects["small"].make
    batches = {str(n): Subject(graph, (n, 3, 12, 12)) for n in (1, 2)}
    written = write_models(batches, tmp_path, "onnxruntime", "fp32", SILENT)
    assert written["1"]["sha256"] != written["2"]["sha256"]


@pytest.mark.parametrize("runtime", ["tensorrt", "tensorrt-rtx", "onnxruntime-tensorrt"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_engines_that_are_built_there_get_an_onnx_for_their_batch(
    tiny_subjects: dict[str, Subject], tmp_path: Path, runtime: str, precision: str
) -> None:
    """No library of TensorRT is needed here."""
    subject = Subject(tiny_subjects["small"].make, (4, 3, 12, 12))
    written = write_models({"a": subject}, tmp_path, runtime, precision, SILENT, "arm")
    model = onnx.load(written["a"]["path"])
    onnx.checker.check_model(model, full_check=True)
    ends = (*model.graph.input, *model.graph.output)
    sizes = [value.type.tensor_type.shape.dim[0] for value in ends]
    assert [size.dim_value for size in sizes] == [4, 4]
    kinds = {tensor.data_type for tensor in model.graph.initializer}
    wanted = {"fp32": onnx.TensorProto.FLOAT, "fp16": onnx.TensorProto.FLOAT16}
    assert wanted.get(precision, onnx.TensorProto.INT8) in kinds
    assert {value.type.tensor_type.elem_type for value in ends} == {onnx.TensorProto.FLOAT}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_empty_graph_can_be_had_in_every_precision(tmp_path: Path, precision: str) -> None:
    empty = {"empty": Subject(build_empty, (2, 1))}
    written = write_models(empty, tmp_path, "tensorrt", precision, SILENT)
    images = np.array([[1.5], [2.5]], np.float32)
    data = Path(written["empty"]["path"]).read_bytes()
    np.testing.assert_array_equal(get_runtime("onnxruntime").load(data).run(images), images)
