"""Ensembles: one ONNX graph that gives the mean of members, files that bind them, their size."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from ofa_deploy.errors import FileFormatError, InputError
from ofa_deploy.graph import ensemble_onnx
from ofa_deploy.pareto import Candidate
from ofa_deploy.runtimes import get_runtime
from ofa_deploy.space import Arch, SearchSpace, get_space
from ofa_deploy.supernet import (
    Ensemble,
    Subnet,
    SubnetFile,
    load_ensemble,
    load_members,
    recalibrate,
    save_ensemble,
    save_subnet,
    stored_bytes,
)
from ofa_deploy.supernet.modules import initialise
from tests.specialize.test_bridges import RESNET, WIDE


def network(space: SearchSpace, arch: Arch, seed: int) -> Subnet:
    """Random weights, BN statistics of noise."""
    subnet = Subnet.of(space.lower(arch), space.bn_eps)
    generator = torch.Generator().manual_seed(seed)
    initialise(subnet, generator)
    size = arch.resolution
    recalibrate(subnet, [torch.randn(16, 3, size, size, generator=generator)])
    return subnet


def described(space: SearchSpace, arch: Arch) -> SubnetFile:
    return SubnetFile(
        space=space.to_dict(),
        supernet_sha256="0" * 64,
        data="glyphs",
        data_options={},
        data_digest="0" * 16,
        classes=tuple(f"class {i}" for i in range(space.classes)),
        calibration=16,
        candidate=Candidate(arch, measured={"top1": 50.0}).to_dict(),
    )


def ensemble(space: SearchSpace, arch: Arch, count: int = 3) -> Ensemble:
    members = tuple(network(space, arch, seed) for seed in range(count))
    return Ensemble(members, described(space, arch))


TINY_RELU6 = WIDE.with_classes(3)
CASES = {
    "mbv3": (get_space("mbv3-nano-32"), get_space("mbv3-nano-32").smallest),
    "resnet": (RESNET, RESNET.largest),
    "mobile": (TINY_RELU6, TINY_RELU6.largest),
    "proxyless": (
        get_space("ofa-proxyless-w1.0").with_resolutions(48).with_classes(7),
        get_space("ofa-proxyless-w1.0").with_resolutions(48).with_classes(7).smallest,
    ),
}


@pytest.mark.parametrize("stacked", [False, True], ids=["in turn", "stacked"])
@pytest.mark.parametrize("case", CASES)
def test_the_graph_is_the_mean_of_members(case: str, stacked: bool) -> None:
    space, arch = CASES[case]
    made = ensemble(space, arch)
    graph = made.onnx(stacked=stacked)
    onnx.checker.check_model(graph, full_check=True)
    generator = torch.Generator().manual_seed(1)
    images = 2 * torch.randn(5, 3, arch.resolution, arch.resolution, generator=generator)
    with torch.no_grad():
        expected = torch.stack([net(images).softmax(1) for net in made.subnets]).mean(0).numpy()
    runtime = get_runtime("onnxruntime")
    found = runtime.load(runtime.build(graph)).run(images.numpy())
    np.testing.assert_allclose(found, expected, atol=2e-6, rtol=1e-4)
    assert np.ptp(expected, axis=0).max() > 1e-3  # it depends on the images
    labels = {each.key: each.value for each in graph.metadata_props}["labels"]
    assert labels.splitlines() == list(made.record.classes)


def test_a_single_member_is_its_own_mean() -> None:
    """As an ensemble of one; by itself it gives its logits, as any subnet does."""
    space, arch = CASES["mbv3"]
    made = ensemble(space, arch, 1)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    runtime = get_runtime("onnxruntime")
    with torch.no_grad():
        logits = made.subnets[0](images)
    for stacked in (False, True):
        graph = ensemble_onnx(made.blocks, made.weights(), stacked=stacked)
        found = runtime.load(runtime.build(graph)).run(images.numpy())
        np.testing.assert_allclose(found, logits.softmax(1).numpy(), atol=1e-6)
    found = runtime.load(runtime.build(made.onnx())).run(images.numpy())
    np.testing.assert_allclose(found, logits.numpy(), atol=1e-5)
    assert made.module is made.subnets[0]


def test_the_module_is_the_mean_of_members() -> None:
    space, arch = CASES["mbv3"]
    made = ensemble(space, arch, 3)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = sum(member(images).softmax(1) for member in made.subnets) / 3
        torch.testing.assert_close(made.module(images), expected)


def test_a_graph_may_have_a_fixed_batch() -> None:
    space, arch = CASES["mbv3"]
    made = ensemble(space, arch, 2)
    graph = ensemble_onnx(made.blocks, made.weights(), stacked=True, batch=4)
    shape = [d.dim_value for d in graph.graph.output[0].type.tensor_type.shape.dim]
    assert shape == [4, space.classes]


def test_graphs_of_nothing_or_of_parts_are_refused() -> None:
    made = ensemble(*CASES["mbv3"], 1)
    with pytest.raises(InputError, match="at least one member"):
        ensemble_onnx(made.blocks, [])
    with pytest.raises(InputError, match="whole networks, which end with a classifier"):
        ensemble_onnx(made.blocks[:-1], [made.weights()[0][:-1]])


# -- files ----------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    space, arch = CASES["mbv3"]
    made = ensemble(space, arch, 2)
    members = [
        save_subnet(tmp_path / f"best-{i}", subnet, made.record)
        for i, subnet in enumerate(made.subnets)
    ]
    return save_ensemble(tmp_path / "best", members, {"top1": 60.0})


def test_an_ensemble_comes_back(saved: Path) -> None:
    assert saved.name == "best.ensemble.json"
    value = json.loads(saved.read_text())
    assert value["schema"] == "ensemble/1"
    assert [member["file"] for member in value["members"]] == [
        *("best-0.subnet.json", "best-1.subnet.json")
    ]
    assert (value["combine"], value["measured"]) == ("mean of softmax", {"top1": 60.0})
    found = load_ensemble(saved)
    images = torch.randn(2, 3, 32, 32)
    for seed, subnet in enumerate(found.subnets):
        expected = network(*CASES["mbv3"], seed)
        assert not subnet.training
        with torch.no_grad():
            torch.testing.assert_close(subnet(images), expected(images))
    assert found.record.classes[0] == "class 0"


def test_a_subnet_is_an_ensemble_of_one(saved: Path) -> None:
    assert len(load_members(saved).subnets) == 2
    found = load_members(saved.with_name("best-1.subnet.json"))
    assert len(found.subnets) == 1


def edited(path: Path, **changes: object) -> Path:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return path


@pytest.mark.parametrize(
    "file", ["../best-0.subnet.json", "/best-0.subnet.json", "a\\b.subnet.json", "best-0.json", ""]
)
def test_members_lie_beside_the_file(saved: Path, file: str) -> None:
    edited(saved, members=[{"file": file, "sha256": "0" * 64}])
    with pytest.raises(FileFormatError, match="members.0.file: expected text of the form"):
        load_ensemble(saved)


def test_a_changed_member_is_noticed(saved: Path) -> None:
    member = saved.with_name("best-1.subnet.json")
    member.write_text(member.read_text() + " ")
    with pytest.raises(FileFormatError, match="best-1.subnet.json is not the member that was"):
        load_ensemble(saved)


def test_changed_weights_are_noticed(saved: Path) -> None:
    shutil.copy(saved.with_name("best-0.safetensors"), saved.with_name("best-1.safetensors"))
    with pytest.raises(FileFormatError, match="best-1.safetensors: not the weights"):
        load_ensemble(saved)


def test_a_missing_member_is_named(saved: Path) -> None:
    saved.with_name("best-1.subnet.json").unlink()
    with pytest.raises(InputError, match=r"a member .best-1.subnet.json., which is not there"):
        load_ensemble(saved)


def test_members_of_other_archs_cannot_answer_together(saved: Path) -> None:
    space, _ = CASES["mbv3"]
    other = save_subnet(
        saved.with_name("other"),
        network(space, space.largest, 1),
        described(space, space.largest),
    )
    members = [saved.with_name("best-0.subnet.json"), other]
    path = save_ensemble(saved.with_name("mixed"), members, {})
    with pytest.raises(FileFormatError, match="other.subnet.json is of another space, arch or"):
        load_ensemble(path)


def test_members_elsewhere_are_not_written(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected members in the ensemble's folder"):
        save_ensemble(tmp_path / "deeper" / "best", [saved.with_name("best-0.subnet.json")], {})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"members": []}, "members: expected at least 1 entries"),
        ({"combine": "vote"}, "combine"),
        ({"colour": "red"}, "colour: unknown; take it out"),
        ({"schema": "ensemble/2"}, "written by a newer ofa-deploy"),
        ({"schema": "subnet/1"}, "expected a file of schema 'ensemble/1'"),
    ],
)
def test_files_that_say_something_else_are_refused(
    saved: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(FileFormatError, match=message):
        load_ensemble(edited(saved, **changes))


def test_only_ensemble_files_are_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a file NAME.ensemble.json"):
        load_ensemble(tmp_path / "best.json")


# -- size -----------------------------------------------------------------------------------


def test_sparse_storage_counts_the_living() -> None:
    space, arch = CASES["mbv3"]
    made = ensemble(space, arch, 1)
    with torch.no_grad():
        for parameter in made.subnets[0].parameters():
            parameter.add_(0.01)  # no bias is zero
    dense, sparse = stored_bytes(made)
    assert dense == sum(block.weight_bytes for block in made.blocks)
    assert dense == sparse  # where all weights live, dense is the less
    expand = made.subnets[0].get_parameter("blocks.3.expand.weight")
    with torch.no_grad():
        expand.view(-1)[: expand.numel() // 2] = 0
    assert stored_bytes(made)[0] == dense
    size = expand.numel()
    assert stored_bytes(made)[1] == dense - 4 * (size // 2) + -(-size // 8)
