"""Bundles of one target: what is in them, what is refused, and that they appear whole or not."""

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from ofa_deploy.data import MEAN, STD, DataSplits, ImageSet
from ofa_deploy.errors import (
    DeviceError,
    FileFormatError,
    GateError,
    InputError,
    MismatchError,
    UnknownNameError,
)
from ofa_deploy.export import (
    DeviceExaminer,
    ExportOptions,
    export_subnet,
    load_manifest,
)
from ofa_deploy.files import sha256_file
from ofa_deploy.graph import OPSET
from ofa_deploy.hardware import Conditions, Measurement
from ofa_deploy.pareto import Candidate
from ofa_deploy.profiling import REFERENCE, Protocol, Subject, reference_arch
from ofa_deploy.space import Arch, SearchSpace
from ofa_deploy.supernet import Supernet, batches, cut
from tests.export.tampering import tree

examiner_module: Any = importlib.import_module("ofa_deploy.export.examiner")

Lie = Callable[[np.ndarray], np.ndarray]


# -- a bundle -------------------------------------------------------------------------------


def test_bundle_holds_what_the_manifest_names(saved: Any, out: Path) -> None:
    manifest = export_subnet(saved.path, out, saved.test)
    assert {path.name for path in out.iterdir()} == {*manifest.files, "manifest.json"}
    assert {path.name for path in out.parent.iterdir()} == {"best"}
    for name, sha256 in manifest.files.items():
        assert sha256_file(out / name) == sha256
    assert load_manifest(out / "manifest.json") == manifest


def test_manifest_tells_how_to_use_the_model(saved: Any, out: Path) -> None:
    manifest = export_subnet(saved.path, out, saved.test)
    assert manifest.labels == ("ant", "bee", "cat", "dog")
    assert manifest.preprocessing.size == 12
    assert manifest.preprocessing.mean == MEAN
    assert manifest.preprocessing.std == STD
    assert manifest.opset == OPSET
    assert manifest.supernet_sha256 == saved.record.supernet_sha256
    assert Candidate.from_dict(manifest.subnet).arch == saved.record.network.arch
    assert manifest.versions["onnxruntime"] == ort.__version__
    assert manifest.bn_images == 60
    assert manifest.weights_sha256 == sha256_file(saved.path.with_name("best.safetensors"))
    assert manifest.best == "onnx"
    latency = manifest.targets["onnx"].latency
    assert latency is not None and latency.ratio == 1.0, "timed, though it is the reference itself"
    assert "somebody" not in (out / "manifest.json").read_text(), "no path of the user's"


def test_gate_reports_the_test_accuracy(saved: Any, out: Path) -> None:
    manifest = export_subnet(saved.path, out, saved.test)
    with torch.no_grad():
        logits = torch.cat([saved.subnet(batch) for batch in batches(saved.test, 12)]).numpy()
    top1 = 100 * (logits.argmax(1) == saved.test.labels).mean()
    assert 0 < top1 < 100
    gate = manifest.targets["onnx"].accuracy
    assert gate is not None
    assert gate.top1 == gate.subnet_top1 == pytest.approx(top1)
    assert gate.agreement == 100
    assert gate.images == len(saved.test) == 270
    assert gate.tolerance == 1e-4
    assert 0 <= gate.max_difference <= 1e-4
    assert gate.sqnr_db > 100
    assert manifest.subnet["measured"]["test_top1"] == pytest.approx(top1)
    assert manifest.subnet["measured"]["top1"] == 60.0, "what it was chosen by stays"


def test_model_alone_gives_the_subnets_logits(saved: Any, out: Path) -> None:
    """As a user runs it: only the bundle, its manifest and ONNX Runtime."""
    export_subnet(saved.path, out, saved.test)
    session = ort.InferenceSession(out / "model.onnx", providers=["CPUExecutionProvider"])
    (source,), (target,) = session.get_inputs(), session.get_outputs()
    batch = next(iter(batches(saved.test, 12)))
    found = session.run([target.name], {source.name: np.ascontiguousarray(batch.numpy())})[0]
    with torch.no_grad():
        expected = saved.subnet(batch).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_model_knows_where_it_comes_from(saved: Any, out: Path) -> None:
    export_subnet(saved.path, out, saved.test)
    model = onnx.load(out / "model.onnx")
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert facts["supernet_sha256"] == saved.record.supernet_sha256
    assert facts["labels"].split("\n") == ["ant", "bee", "cat", "dog"]
    assert facts["arch"] == str(saved.record.network.arch)
    assert facts["space"] == "tiny"


def test_same_subnet_gives_the_same_model(saved: Any, tmp_path: Path) -> None:
    one, other = (export_subnet(saved.path, tmp_path / n, saved.test) for n in "ab")
    for name in ("model.onnx", "probe.safetensors"):
        assert one.files[name] == other.files[name]


# -- what is refused ------------------------------------------------------------------------


def refused(
    saved: Any, out: Path, error: type[Exception], message: str, path: Path, **options: Any
) -> None:
    """Exporting raises, and leaves nothing behind."""
    with pytest.raises(error, match=message) as raised:
        export_subnet(path, out, saved.test, options=ExportOptions(**options))
    assert "\n" not in str(raised.value)
    assert not out.exists()
    assert not out.parent.exists() or not list(out.parent.iterdir())


def test_tampered_weights_are_refused(saved: Any, out: Path) -> None:
    weights = saved.path.with_name("best.safetensors")
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    refused(saved, out, FileFormatError, "SHA-256 differs", saved.path)


def test_subnet_that_was_never_recalibrated_is_refused(
    saved: Any, out: Path, tmp_path: Path, net: Supernet, arch: Arch
) -> None:
    path = saved.write(tmp_path / "raw", subnet=net.extract(arch), calibration=0)
    refused(saved, out, InputError, "never recalibrated.*--force", path)
    forced = export_subnet(path, out, saved.test, options=ExportOptions(force=True))
    assert forced.bn_images == 0
    assert "never recalibrated" in (out / "README.md").read_text()


def test_images_of_other_classes_are_refused(saved: Any, out: Path) -> None:
    labels = np.zeros(9, np.int64)
    others = ImageSet(saved.test.images[:9], labels, ("ant", "bee", "cat", "eel"))
    with pytest.raises(MismatchError, match="4 classes, test images of 4 others"):
        export_subnet(saved.path, out, others)
    int8 = ExportOptions(targets=("ort-int8",))
    with pytest.raises(MismatchError, match="calibration images of 4 other classes"):
        export_subnet(saved.path, out, saved.test, calibration=others, options=int8)
    assert not out.exists()


def test_unknown_target_is_refused_at_once(saved: Any, out: Path) -> None:
    refused(saved, out, UnknownNameError, "did you mean openvino", saved.path, targets=("openvin",))


@pytest.mark.parametrize("target", ["ort-int8", "openvino-int8", "tensorrt-int8"])
def test_int8_needs_training_images(saved: Any, out: Path, target: str) -> None:
    message = "calibration images of the training split, found none"
    refused(saved, out, InputError, message, saved.path, targets=(target,))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": ()}, "expected distinct targets, found none"),
        ({"targets": ("onnx", "onnx")}, "distinct targets"),
        ({"preprocessing": "crop"}, "unknown preprocessing"),
        ({"processor": "x68"}, "unknown processor"),
        ({"batch": 0}, "batch: expected 1 to 1024, found 0"),
        ({"calibration_images": 0}, "calibration images"),
        ({"allowed_loss": -1.0}, "allowed loss"),
        ({"allowed_loss": float("nan")}, "allowed loss"),
        ({"threads": 0}, "threads"),
        ({"test_images": 0}, "test images"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ExportOptions(**options)


def test_existing_folder_is_left_alone(saved: Any, out: Path) -> None:
    out.mkdir(parents=True)
    (out / "mine.txt").write_text("keep me")
    with pytest.raises(InputError, match="exists; name another folder"):
        export_subnet(saved.path, out, saved.test)
    assert tree(out) == {"mine.txt": b"keep me"}


def one_wrong(logits: np.ndarray) -> np.ndarray:
    wrong = logits.copy()
    wrong[-1, -1] += 0.01 * np.abs(logits).max()
    return wrong


@pytest.mark.parametrize(
    "lie",
    [
        one_wrong,
        lambda logits: logits[:, ::-1],
        lambda logits: logits[::-1],
        lambda logits: 1.01 * logits,
        lambda logits: 0 * logits,
        lambda logits: np.full_like(logits, np.inf),
    ],
    ids=["one", "classes", "order", "scale", "nothing", "infinite"],
)
def test_wrong_logits_do_not_pass_the_gate(
    saved: Any, out: Path, lying: Callable[[Lie], None], lie: Lie
) -> None:
    lying(lie)
    refused(saved, out, GateError, "no bundle was written", saved.path)


def test_logits_that_are_no_numbers_do_not_pass_the_gate(
    saved: Any, out: Path, lying: Callable[[Lie], None]
) -> None:
    """Even where the labels make both top-1 equal: no label is hit by either model."""
    lying(lambda logits: np.full_like(logits, np.nan))
    with torch.no_grad():
        logits = torch.cat([saved.subnet(batch) for batch in batches(saved.test, 12)])
    hit = logits.argmax(1).numpy()
    labels = np.where(hit == 3, 2, 3).astype(np.int64)  # never what is hit, nor NaN's argmax of 0
    test = ImageSet(saved.test.images, labels, saved.test.classes)
    with pytest.raises(GateError, match="no bundle was written"):
        export_subnet(saved.path, out, test)
    assert not out.exists()


def test_same_logits_but_another_top1_do_not_pass_the_gate(
    saved: Any, out: Path, tmp_path: Path, lying: Callable[[Lie], None], net: Supernet, arch: Arch
) -> None:
    """Two classes as good as equal: a difference within the tolerance decides."""
    subnet = cut(net, arch, saved.test)
    with torch.no_grad():
        linear = [m for m in subnet.modules() if isinstance(m, torch.nn.Linear)][-1]
        linear.weight.zero_()
        linear.bias.copy_(torch.tensor([1.0, 1.00001, 0.0, 0.0]))

    def nudge(logits: np.ndarray) -> np.ndarray:
        return logits + np.array([2e-5, 0, 0, 0], np.float32)

    path = saved.write(tmp_path / "flat", subnet=subnet)
    lying(nudge)
    refused(saved, out, GateError, "top-1 on the test set", path)


def test_logits_of_another_shape_are_a_device_error(
    saved: Any, out: Path, lying: Callable[[Lie], None]
) -> None:
    lying(lambda logits: logits[:, :3])
    refused(saved, out, DeviceError, r"expected logits \(\d+, 4\)", saved.path)


# -- what is measured is what ships ---------------------------------------------------------


def test_examiner_measures_the_graph_that_ships(
    saved: Any,
    net: Supernet,
    arch: Arch,
    out: Path,
    tmp_path: Path,
    tiny_space: SearchSpace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured: dict[str, Subject] = {}

    def measure(
        subjects: Mapping[str, Subject], reference: Subject, **options: Any
    ) -> dict[str, Measurement]:
        measured.update(subjects)
        assert reference.shape == (1, 3, *[reference_arch(tiny_space).resolution] * 2)
        assert (options["threads"], options["journal"]) == (3, tmp_path)
        taken = Measurement(ms=2.0, p10=2.1, p50=2.5, p90=3.0, p99=4.0, spread=0.1, repeats=9)
        return dict.fromkeys([*subjects, REFERENCE], taken)

    monkeypatch.setattr(examiner_module, "measure", measure)
    data = DataSplits("somewhere", saved.test, saved.test, saved.test)
    evaluator: Any = SimpleNamespace(
        data=data,
        record=saved.record,
        validate=lambda archs, progress: [10.0 * (i + 1) for i in range(len(archs))],
        cut=lambda arch: saved.subnet,
        subnet_record=lambda candidate: saved.record.model_copy(update={"candidate": candidate}),
    )
    conditions = Conditions(
        device="local", processor="p", runtime="onnxruntime", runtime_version="1", threads=3
    )
    examine = DeviceExaminer(evaluator, conditions, 2.0, Protocol(), tmp_path)
    assert examine([]) == []
    (figures,) = examine([arch])
    percentiles = {"p10": 2.1, "p50": 2.5, "p90": 3.0, "p99": 4.0}
    named = {f"latency.{name}": ms for name, ms in percentiles.items()}
    assert figures == {"top1": 10.0, "latency": 2.0, "latency.spread": 0.1, **named} | {
        "top1.images": float(len(saved.test))
    }
    (subject,) = measured.values()
    assert subject.shape == (1, 3, 12, 12)
    export_subnet(saved.path, out, saved.test)
    assert subject.graph.SerializeToString() == (out / "model.onnx").read_bytes()
