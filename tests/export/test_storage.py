"""Subnets on disk: weights and the file that binds them."""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ofa_deploy.errors import FileFormatError, InputError
from ofa_deploy.space import Arch, SearchSpace
from ofa_deploy.supernet import (
    Supernet,
    batches,
    load_subnet,
    load_tensors,
    load_weights,
    save_tensors,
)
from ofa_deploy.supernet import storage as storage_module


def weights(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(".subnet.json") + ".safetensors")


def edited(path: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    value = json.loads(path.read_text())
    edit(value)
    path.write_text(json.dumps(value))
    return path


# -- tensors --------------------------------------------------------------------------------


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "plain": torch.randn(3, 4, generator=generator),
        "transposed": torch.randn(3, 4, generator=generator).T,
        "last": torch.randn(2, 3, 4, 4, generator=generator).to(memory_format=torch.channels_last),
        "count": torch.tensor(7),
    }


def test_tensors_come_back(tensors: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / "made" / "w.safetensors"
    sha256 = save_tensors(path, tensors, {"space": "tiny"})
    assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    found = load_tensors(path, sha256=sha256)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_same_tensors_are_the_same_file(tensors: dict[str, torch.Tensor], tmp_path: Path) -> None:
    first = save_tensors(tmp_path / "a", tensors, {"space": "tiny"})
    assert save_tensors(tmp_path / "b", tensors, {"space": "tiny"}) == first


@pytest.mark.parametrize("damage", ["truncated", "flipped", "emptied", "longer"])
def test_damaged_tensors_are_refused(
    tensors: dict[str, torch.Tensor], tmp_path: Path, damage: str
) -> None:
    path = tmp_path / "w.safetensors"
    sha256 = save_tensors(path, tensors, {})
    data = bytearray(path.read_bytes())
    flipped = data[:-1] + bytes([data[-1] ^ 1])
    after = {"truncated": data[:-9], "flipped": flipped, "emptied": b"", "longer": data + b"x"}
    path.write_bytes(bytes(after[damage]))
    with pytest.raises(FileFormatError, match="SHA-256 differs") as error:
        load_tensors(path, sha256=sha256)
    assert str(path) in str(error.value)


def test_file_that_is_no_safetensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"\x80\x04pickle?")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(FileFormatError, match="unreadable weights"):
        load_tensors(path, sha256=sha256)


def test_missing_tensors_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="w.safetensors: no such file"):
        load_tensors(tmp_path / "w.safetensors", sha256="")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.pop("weight"), "do not fit: 1 missing: weight"),
        (lambda t: t.update(other=torch.zeros(1)), "do not fit: 1 extra: other"),
        (
            lambda t: t.update(weight=torch.zeros(3, 2)),
            "do not fit: 1 misshaped: weight (2x3 wanted, 3x2 found)",
        ),
    ],
)
def test_weights_that_do_not_fit_are_listed(
    edit: Callable[[dict[str, torch.Tensor]], object], message: str
) -> None:
    module = nn.Linear(3, 2)
    before = module.weight.detach().clone()
    tensors = {name: value + 1 for name, value in module.state_dict().items()}
    edit(tensors)
    with pytest.raises(FileFormatError, match=re.escape(message)):
        load_weights(module, tensors, Path("here"))
    assert torch.equal(module.weight, before), "half of the weights were loaded"


# -- subnets --------------------------------------------------------------------------------


def test_subnet_computes_the_same_after_a_round_trip(saved: Any) -> None:
    subnet, record = load_subnet(saved.path)
    assert not subnet.training
    with torch.no_grad():
        for batch in batches(saved.test, 12):
            assert torch.equal(subnet(batch), saved.subnet(batch))
    assert record.weights_sha256 == hashlib.sha256(weights(saved.path).read_bytes()).hexdigest()
    unbound = record.model_copy(update={"weights_sha256": ""})
    assert unbound.model_dump(mode="json") == saved.record.model_dump(mode="json")


def test_record_gives_back_space_and_candidate(
    saved: Any, tiny_space: SearchSpace, arch: Arch
) -> None:
    _, record = load_subnet(saved.path)
    assert record.search_space == tiny_space
    assert record.search_space.fingerprint == tiny_space.fingerprint
    network = record.network
    assert network.arch == arch
    assert network.predicted == {"top1": 61.0, "latency": 0.3}
    assert network.intervals == {"latency": (0.2, 0.4)}
    assert network.measured == {"top1": 60.0, "latency": 0.31}
    assert network.budget == "latency <= 0.4 ms"


def test_bn_statistics_are_saved(saved: Any, net: Supernet, arch: Arch) -> None:
    loaded = load_subnet(saved.path)[0].state_dict()
    fresh = net.extract(arch).state_dict()
    means = [name for name in loaded if name.endswith("running_mean")]
    assert means
    assert all(not torch.equal(loaded[name], fresh[name]) for name in means)


def test_name_with_dots_keeps_its_weights_apart(saved: Any, tmp_path: Path) -> None:
    paths = [saved.write(tmp_path / name) for name in ("v1.0", "v1.1")]
    assert [path.name for path in paths] == ["v1.0.subnet.json", "v1.1.subnet.json"]
    assert len({weights(path) for path in paths}) == 2
    for path in paths:
        load_subnet(path)


@pytest.mark.parametrize("name", ["best.safetensors", "best.json", "best"])
def test_other_names_are_refused(saved: Any, name: str) -> None:
    with pytest.raises(InputError, match=r"expected a file NAME\.subnet\.json"):
        load_subnet(saved.path.with_name(name))


def test_missing_files_are_named(saved: Any) -> None:
    weights(saved.path).unlink()
    with pytest.raises(InputError, match="best.safetensors: no such file"):
        load_subnet(saved.path)
    saved.path.unlink()
    with pytest.raises(InputError, match="best.subnet.json: no such file"):
        load_subnet(saved.path)


def test_tampered_weights_are_refused(saved: Any) -> None:
    path = weights(saved.path)
    data = bytearray(path.read_bytes())
    data[-3] ^= 0x40
    path.write_bytes(data)
    with pytest.raises(FileFormatError, match="best.safetensors: not the weights"):
        load_subnet(saved.path)


def test_weights_of_another_subnet_are_refused(
    saved: Any, net: Supernet, arch: Arch, tmp_path: Path
) -> None:
    """Of the same arch, so that nothing but the hash can tell."""
    other = saved.write(tmp_path / "subnets" / "other", subnet=net.extract(arch))
    weights(other).replace(weights(saved.path))
    with pytest.raises(FileFormatError, match="SHA-256 differs"):
        load_subnet(saved.path)


def test_crash_between_the_two_files_is_noticed(
    saved: Any, net: Supernet, arch: Arch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(storage_module, "write_model", crash)
    with pytest.raises(KeyboardInterrupt):
        saved.write(saved.path.with_name("best"), subnet=net.extract(arch))
    with pytest.raises(InputError, match="no such file"):  # rather than weights of another subnet
        load_subnet(saved.path)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda v: v.update(schema="subnet/2"), "newer ofa-deploy"),
        (lambda v: v.update(schema="front/1"), "expected a file of schema 'subnet/1'"),
        (lambda v: v.pop("supernet_sha256"), "supernet_sha256"),
        (lambda v: v.update(calibration=-1), "calibration"),
        (lambda v: v.update(surprise=1), "surprise"),
        (lambda v: v["candidate"].pop("arch"), "arch"),
        (lambda v: v["candidate"]["measured"].update(top1="high"), "high"),
        (lambda v: v["candidate"]["measured"].update(top1=float("nan")), "NaN"),
        (lambda v: v["space"].pop("stem"), "stem"),
        (lambda v: v["space"].update(classes=5), "4 class names for a space of 5 classes"),
    ],
)
def test_bad_record_is_refused(
    saved: Any, edit: Callable[[dict[str, Any]], object], message: str
) -> None:
    edited(saved.path, edit)
    with pytest.raises(FileFormatError, match=re.escape(message)) as error:
        load_subnet(saved.path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        {"kernels": [5, 7, 3, 5, 3]},  # another depthwise shape
        {"expands": [3, 3, 1.5, 3, 3]},
        {"depths": [2, 1], "kernels": [3, 7, 3], "expands": [2, 3, 1.5]},
        {"kernels": [9, 7, 3, 5, 3]},  # not in the space
        {"resolution": 13},
    ],
)
def test_record_of_another_arch_is_refused(saved: Any, change: dict[str, Any]) -> None:
    edited(saved.path, lambda value: value["candidate"]["arch"].update(change))
    with pytest.raises(InputError) as error:
        load_subnet(saved.path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("classes", [["ant", "bee", "cat"], ["ant", "bee", "cat", "dog", "eel"]])
def test_labels_that_do_not_fit_the_logits_are_refused(saved: Any, classes: list[str]) -> None:
    edited(saved.path, lambda value: value.update(classes=classes))
    with pytest.raises(FileFormatError, match="classes"):
        load_subnet(saved.path)


@pytest.mark.parametrize("kept", [0, 10, -3])
def test_truncated_record_is_refused(saved: Any, kept: int) -> None:
    saved.path.write_bytes(saved.path.read_bytes()[:kept])
    with pytest.raises(FileFormatError, match="best.subnet.json"):
        load_subnet(saved.path)
