"""From a subnet file to better ones: what is written, and what is refused."""

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ofa_deploy.data import DataSplits, ImageSet
from ofa_deploy.errors import FileFormatError, InputError, MismatchError
from ofa_deploy.export import export_subnet
from ofa_deploy.specialize import SpecializeFile, load_parent, parent_shape, specialize
from ofa_deploy.supernet import load_ensemble, load_members, load_subnet, top1
from ofa_deploy.train import load_supernet
from tests.specialize.conftest import Cut, settings
from tests.train.runs import stop_at

Go = Callable[..., SpecializeFile]
EDST = {"explore_epochs": 1, "refine_epochs": 1, "members": 2, "update_steps": 2}
WIDE = {"imitate_epochs": (0.5,), "output_epochs": 1, "label_epochs": 1}


@pytest.fixture
def go(cut: Cut, data: DataSplits, tmp_path: Path) -> Go:
    """``specialize`` into a folder, with the fixtures where nothing else is given."""

    def call(method: str = "finetune", run: Path = tmp_path / "run", **changes: Any) -> Any:
        given = {name: changes.pop(name) for name in ("parent", "progress") if name in changes}
        subnet, images = changes.pop("subnet", cut.subnet), changes.pop("data", data)
        return specialize(subnet, settings(method, **changes), images, run, **given)

    return call


def test_the_result_is_an_ordinary_subnet(
    go: Go, cut: Cut, data: DataSplits, tmp_path: Path
) -> None:
    found = go("distill", epochs=2)
    assert found == SpecializeFile.load(tmp_path / "run")
    assert found.result == "subnets/best.subnet.json"
    subnet, record = load_subnet(tmp_path / "run" / found.result)
    _, source = load_subnet(cut.subnet)
    assert record.network.arch == source.network.arch
    assert record.supernet_sha256 == source.supernet_sha256
    assert record.calibration == 32
    measured = record.network.measured
    # What holds for the arch stays, what held for the old weights goes.
    assert measured == {"latency": 0.5, "top1": top1(subnet, data.validation, 16)}
    assert found.validation_top1 == (measured["top1"],)
    assert not torch.equal(
        subnet.get_parameter("blocks.0.conv.weight"),
        load_subnet(cut.subnet)[0].get_parameter("blocks.0.conv.weight"),
    )
    export_subnet(tmp_path / "run" / found.result, tmp_path / "bundle", data.test)
    assert (tmp_path / "bundle" / "manifest.json").exists()
    kept = {path.name for path in (tmp_path / "run").iterdir()} - {".lock"}
    assert kept == {"run.json", "metrics.csv", "events", "subnets"}


def test_metrics_have_a_row_an_epoch_and_a_phase(go: Go, tmp_path: Path) -> None:
    found = go("wide-narrow", **WIDE)
    with (tmp_path / "run" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = [f"imitate {n}" for n in ("stem", "stages.0", "stages.1", "stages.2", "head")]
    assert [row["phase"] for row in rows] == [*names, "outputs", "labels"]
    assert [row["epoch"] for row in rows] == ["0.5", "1.0", "1.5", "2.0", "2.5", "3.5", "4.5"]
    assert [row["top1_subnet"] for row in rows[:5]] == ["nan"] * 5
    assert float(rows[-1]["top1_subnet"]) == found.validation_top1[0]
    assert int(rows[-1]["cost_macs"]) == found.cost_macs > 0


def test_an_ensemble_names_its_members(go: Go, data: DataSplits, tmp_path: Path) -> None:
    found = go("edst", **EDST)
    assert found.result == "subnets/best.ensemble.json"
    assert found.cost_sparse_macs < found.cost_macs
    path = tmp_path / "run" / found.result
    whole = load_ensemble(path)
    tops = [top1(subnet, data.validation, 16) for subnet in whole.subnets]
    assert tuple(tops) == found.validation_top1
    for position in (1, 2):
        _, record = load_subnet(path.with_name(f"best-{position}.subnet.json"))
        assert record.network.measured["top1"] == tops[position - 1]
    assert set(json.loads(path.read_text())["measured"]) == {"top1"}
    zeros = [int((w == 0).sum()) for w in whole.subnets[0].parameters() if w.ndim > 1]
    assert sum(zeros) > 0


def test_what_was_specialised_is_specialised_further(go: Go, cut: Cut, tmp_path: Path) -> None:
    first = go("finetune", epochs=1)
    again = tmp_path / "run" / str(first.result)
    with pytest.raises(InputError, match="the supernet that it was cut from is not beside it"):
        go("distill", run=tmp_path / "other", subnet=again, epochs=1)
    found = go("distill", run=tmp_path / "other", subnet=again, epochs=1, parent=cut.run)
    assert found.subnet_sha256 == load_subnet(again)[1].weights_sha256


def test_a_finished_run_returns_at_once(
    go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = go(epochs=1)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a finished run was trained again")

    monkeypatch.setattr("ofa_deploy.specialize.run.Specialist", never)
    assert go(epochs=1) == first


# -- interrupted ----------------------------------------------------------------------------


@pytest.mark.usefixtures("save_every_step")
@pytest.mark.parametrize(
    ("method", "changes", "stops"),
    [
        ("wide-narrow", {**WIDE, "start": ("random",)}, (1, 7, 10, 15)),
        ("edst", EDST, (3, 5, 9)),
        ("finetune", {"epochs": 1, "members": 2}, (4, 6)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_interrupted_run_ends_the_same(
    go: Go, tmp_path: Path, method: str, changes: dict[str, Any], stops: tuple[int, ...]
) -> None:
    go(method, run=tmp_path / "whole", **changes)
    for stop in stops:
        with pytest.raises(KeyboardInterrupt):
            go(method, progress=stop_at(stop), **changes)
        assert not SpecializeFile.load(tmp_path / "run").finished
    go(method, **changes)
    files = {
        path.relative_to(tmp_path / "whole")
        for path in (tmp_path / "whole").rglob("*")
        if path.is_file() and path.parent.name != "events" and path.name != ".lock"
    }
    assert len(files) >= 4
    for name in files:
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not (tmp_path / "run" / "state.pt").exists()


# -- refused --------------------------------------------------------------------------------


def test_other_settings_in_the_same_folder(go: Go) -> None:
    go(epochs=1)
    with pytest.raises(MismatchError, match=r"differs in lr \(0.02 there, 0.5 now"):
        go(epochs=1, lr=0.5)


def test_another_subnet_in_the_same_folder(go: Go, cut: Cut, tmp_path: Path) -> None:
    first = go(epochs=1)
    other = tmp_path / "run" / str(first.result)
    with pytest.raises(MismatchError, match="which differs in its subnet;"):
        go(epochs=1, subnet=other)


def test_another_parent_in_the_same_folder(go: Go, cut: Cut) -> None:
    go("distill", epochs=1)
    with pytest.raises(MismatchError, match="which differs in its parent;"):
        go("distill", epochs=1, parent=cut.subnet)


def test_a_supernets_folder_is_not_written_to(go: Go, cut: Cut, tmp_path: Path) -> None:
    run = tmp_path / "super"
    shutil.copytree(cut.run, run)
    before = (run / "run.json").read_bytes()
    with pytest.raises(FileFormatError, match="expected a file of schema 'specialize-run/1', fo"):
        go(epochs=1, run=run)
    assert (run / "run.json").read_bytes() == before


def test_settings_for_other_processes(go: Go, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="settings for 2 processes, found 1"):
        go(epochs=1, processes=2)
    assert not (tmp_path / "run").exists()


def test_data_of_other_classes(go: Go, data: DataSplits, tmp_path: Path) -> None:
    assert isinstance(data.train, ImageSet)
    train = replace(data.train, classes=("a", "b", "c", "d"))
    with pytest.raises(MismatchError, match=r"trained for the classes ne, nw, se, ... \(4\), the"):
        go(epochs=1, data=replace(data, train=train))
    assert not (tmp_path / "run").exists()


def test_no_run_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no specialisation there .*begin one with: ofa-deploy"):
        SpecializeFile.load(tmp_path)


# -- parents --------------------------------------------------------------------------------


def test_the_supernets_largest_is_the_parent(cut: Cut, data: DataSplits) -> None:
    net, record = load_supernet(cut.run)
    parent = load_parent(cut.run, 16, data, 32)
    assert parent.arch == net.space.largest
    assert parent.sha256 == record.weights_sha256
    images = torch.randn(2, 3, 16, 16)
    extracted = net.extract(net.space.largest)
    # Its BN has statistics of its own: the supernet's running ones were never touched.
    assert not torch.allclose(parent.subnet(images), extracted(images))
    weight = "blocks.1.depthwise.weight"
    assert torch.equal(parent.subnet.get_parameter(weight), extracted.get_parameter(weight))


def test_a_subnet_may_be_the_parent(cut: Cut, data: DataSplits) -> None:
    parent = load_parent(cut.subnet, 16, data, 32)
    expected, _ = load_subnet(cut.subnet)
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(parent.subnet(images), expected(images))


def test_a_parent_must_know_the_resolution(cut: Cut) -> None:
    for path in (cut.run, cut.subnet):
        with pytest.raises(MismatchError, match="made for resolutions 16; the subnet works at 12"):
            parent_shape(path, 12)


def test_a_parent_at_another_resolution_has_its_bn_measured_there(
    cut: Cut, data: DataSplits, tmp_path: Path
) -> None:
    for name in ("best.subnet.json", "best.safetensors"):
        shutil.copy(cut.subnet.with_name(name), tmp_path / name)
    path = tmp_path / "best.subnet.json"
    value = json.loads(path.read_text())
    value["space"]["resolutions"] = [12, 16]
    path.write_text(json.dumps(value))
    images = torch.randn(2, 3, 12, 12)
    found, source = load_parent(path, 12, data, 32), load_subnet(path)[0]
    assert found.arch.resolution == 12
    norm = "blocks.0.bn.running_var"
    assert not torch.equal(found.subnet.get_buffer(norm), source.get_buffer(norm))
    assert not torch.allclose(found.subnet(images), source(images))


def test_a_missing_parent_is_one_line(go: Go, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no training run there"):
        go("distill", parent=tmp_path / "nowhere")


def test_members_of_a_subnet_file(cut: Cut) -> None:
    assert len(load_members(cut.subnet).subnets) == 1
