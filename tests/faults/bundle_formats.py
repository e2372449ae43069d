"""Formats of networks that were found, and of bundles."""

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tests.faults import binary_mutations, mutations
from tests.faults.formats import SPACE, Format, json_format, same, says_json, strict_json
from tests.faults.text_formats import candidate
from tests.faults.weight_formats import files_of, made_by, supernet, unchanged

__all__ = [
    "bundle_files",
    "ensemble_format",
    "forged_format",
    "manifest_format",
    "model_format",
    "onnx_ways",
    "subnet_files",
    "subnet_format",
    "subnet_weights_format",
]


# -- subnets and ensembles ------------------------------------------------------------------


@cache
def subnet_files() -> dict[str, bytes]:
    from ofa_deploy.supernet import SubnetFile, save_ensemble, save_subnet

    arch = SPACE.arch(resolution=12, depths=[2], kernels=[3, 5], expands=[2, 3])

    def make(folder: Path) -> dict[str, bytes]:
        record = SubnetFile(
            space=SPACE.to_dict(),
            supernet_sha256="ab" * 32,
            data="somewhere",
            data_options={"seed": 0, "train": None},
            data_digest="0" * 16,
            classes=("ant", "bee", "cat", "dog"),
            calibration=60,
            candidate=candidate(arch).to_dict(),
        )
        members = [save_subnet(folder / name, supernet().extract(arch), record) for name in "ab"]
        save_ensemble(folder / "all", members, {"top1": 61.0})
        return files_of(folder, *(path.name for path in folder.iterdir()))

    return made_by(make)


def _first(name: str) -> dict[str, bytes]:
    files = subnet_files()
    return {name: files[name], **files}


def _read_subnet(folder: Path) -> Any:
    from ofa_deploy.supernet import load_members

    ensemble = load_members(folder / "a.subnet.json")
    return ensemble, dict(ensemble.subnets[0].state_dict())


def subnet_format() -> Format:
    def dump(found: Any) -> Any:
        record = found[0].record
        space = json.loads(json.dumps(record.search_space.to_dict()))
        whole = record.model_dump(mode="json", by_alias=True)
        return whole | {"candidate": record.network.to_dict(), "space": space}

    value = json.loads(subnet_files()["a.subnet.json"])
    return json_format("subnet", "a.subnet.json", value, _read_subnet, dump, subnet_files())


def subnet_weights_format() -> Format:
    arch = SPACE.arch(resolution=12, depths=[2], kernels=[3, 5], expands=[2, 3])
    valid = dict(supernet().extract(arch).state_dict())
    return Format(
        "subnet weights",
        _first("a.safetensors"),
        {"header": binary_mutations.safetensors, "bytes": binary_mutations.binary},
        _read_subnet,
        lambda folder, found: unchanged(valid)(folder, found[1]),
    )


def ensemble_format() -> Format:
    from ofa_deploy.supernet import load_members

    def read(folder: Path) -> Any:
        return load_members(folder / "all.ensemble.json")

    def agrees(folder: Path, ensemble: Any) -> str | None:
        said = strict_json((folder / "all.ensemble.json").read_bytes())
        if len(said["members"]) != len(ensemble.subnets) or said["schema"] != "ensemble/1":
            return "other members"
        extra = said.keys() - {"schema", "members", "combine", "measured"}
        measured = dict(ensemble.record.network.measured)
        return f"{extra} was not read" if extra else same(said.get("measured", {}), measured)

    value = json.loads(subnet_files()["all.ensemble.json"])
    made = json_format("ensemble", "all.ensemble.json", value, read, vars, subnet_files())
    return Format(made.name, made.files, made.ways, read, agrees)


# -- bundles --------------------------------------------------------------------------------


@cache
def bundle_files(target: str = "onnx") -> dict[str, bytes]:
    from ofa_deploy.data import ImageSet
    from ofa_deploy.export import ExportOptions, export_subnet

    def make(folder: Path) -> dict[str, bytes]:
        for name, data in subnet_files().items():
            (folder / name).write_bytes(data)
        rng = np.random.default_rng(0)
        images = rng.integers(0, 255, (24, 3, 16, 16)).astype(np.uint8)
        labels = rng.integers(0, 4, 24).astype(np.int64)
        test = ImageSet(images, labels, ("ant", "bee", "cat", "dog"))
        options = ExportOptions(targets=(target,), measure=False)
        export_subnet(folder / "a.subnet.json", folder / "bundle", test, options=options)
        made = folder / "bundle"
        return files_of(made, *(path.name for path in made.iterdir()))

    return made_by(make)


def _read_bundle(folder: Path) -> Any:
    from ofa_deploy.export import Bundle

    bundle = Bundle.read(folder)
    return bundle, bundle.probe(), bundle.rerun()


def _bundle_format(file: str, ways: Mapping[str, Any], agrees: Any) -> Format:
    files = {file: bundle_files()[file], **bundle_files()}
    return Format(f"bundle {file}", files, ways, _read_bundle, agrees, link=False)


def manifest_format() -> Format:
    value = json.loads(bundle_files()["manifest.json"])

    def dump(found: Any) -> Any:
        bundle, *_ = found
        whole = bundle.manifest.model_dump(mode="json", by_alias=True)
        return whole

    ways = {
        "tree": lambda _, draw: mutations.json_text(value, draw),
        "again": lambda _, draw: mutations.json_text(value, draw),
        "bytes": binary_mutations.binary,
    }
    return _bundle_format("manifest.json", ways, says_json("manifest.json", dump))


def _same_bytes(name: str) -> Callable[[Path, Any], str | None]:
    valid = bundle_files()[name]
    return lambda folder, _: (
        None if (folder / name).read_bytes() == valid else "accepted with another hash"
    )


def model_format(name: str, ways: Mapping[str, Any]) -> Format:
    return _bundle_format(name, ways, _same_bytes(name))


def forged_format(name: str, ways: Mapping[str, Any], target: str = "onnx") -> Format:
    """A file of a bundle changed, and its hash with it: what somebody does who means harm.

    It may be refused, fail, or differ; where it holds, it does what the file did that was checked.
    """
    import hashlib

    from ofa_deploy.errors import GateError

    files = bundle_files(target)

    def read(folder: Path) -> Any:
        manifest = json.loads(files["manifest.json"])
        if (folder / name).is_file():
            digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
            manifest["files"][name] = digest
        (folder / "manifest.json").write_text(json.dumps(manifest))
        bundle, _, reruns = _read_bundle(folder)
        rerun = reruns[target]
        if rerun.verdict != "holds":  # which is what ``verify`` says, and ends with
            raise GateError(f"{name}: {rerun.verdict}: {'; '.join(rerun.reasons)}")
        image = np.random.default_rng(5).integers(0, 255, (16, 16, 3)).astype(np.uint8)
        opened = bundle.open(target)
        return opened.logits(opened.feed([image]))

    def agrees(folder: Path, found: Any) -> str | None:
        return None if found.shape == (1, 4) else f"logits of shape {found.shape}"

    return Format(f"forged {name}", {name: files[name], **files}, ways, read, agrees, link=False)


def onnx_ways() -> dict[str, Any]:
    import onnx

    parse = onnx.ModelProto.FromString
    return {
        "message": lambda data, draw: binary_mutations.message(parse, data, draw),
        "again": lambda data, draw: binary_mutations.message(parse, data, draw),
        "bytes": binary_mutations.binary,
    }
