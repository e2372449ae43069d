"""Several subnets that answer together: the file that names them, and what they take to store."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import onnx
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from ofa_deploy.errors import FileFormatError, InputError
from ofa_deploy.files import read_model, sha256_file, write_model
from ofa_deploy.graph import BlockWeights, build_onnx, ensemble_onnx
from ofa_deploy.space import Arch, Block
from ofa_deploy.supernet.folding import folded_weights
from ofa_deploy.supernet.storage import SubnetFile, load_subnet
from ofa_deploy.supernet.supernet import Subnet

__all__ = [
    "Ensemble",
    "EnsembleFile",
    "MemberFile",
    "load_ensemble",
    "load_members",
    "save_ensemble",
    "stored_bytes",
]

_SUFFIX = ".ensemble.json"
_VALUE_BYTES = 4


class MemberFile(BaseModel):
    """A subnet file beside the ensemble's, bound by hash."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: Annotated[str, Field(pattern=r"^[^/\\\x00]{1,240}\.subnet\.json$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class EnsembleFile(BaseModel):
    """``NAME.ensemble.json``.

    Attributes:
        combine: what is made of the members' logits.
        measured: metrics of the whole, such as ``top1`` on the validation images.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    schema_: Literal["ensemble/1"] = Field("ensemble/1", alias="schema")
    members: Annotated[tuple[MemberFile, ...], Field(min_length=1, max_length=64)]
    combine: Literal["mean of softmax"] = "mean of softmax"
    measured: dict[str, float] = {}


@dataclass(frozen=True)
class Ensemble:
    """Networks of one arch that answer with the mean of their probabilities; also a single one.

    Attributes:
        subnets: in eval mode.
        record: what all have in common, and what was measured of the whole.
        hashes: SHA-256 of each member's weights, where they come from files.
    """

    subnets: tuple[Subnet, ...]
    record: SubnetFile
    hashes: tuple[str, ...] = ()

    @property
    def arch(self) -> Arch:
        """The members' arch."""
        return self.record.network.arch

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The members' blocks."""
        return tuple(self.record.search_space.lower(self.arch))

    def weights(self) -> list[list[BlockWeights]]:
        """Of each member the arrays that its graph takes, BN folded in."""
        return [folded_weights(subnet) for subnet in self.subnets]

    @property
    def module(self) -> nn.Module:
        """Images to logits for a single network, to the mean of all members' softmax for more."""
        return self.subnets[0] if len(self.subnets) == 1 else _MeanOfSoftmax(self.subnets)

    @property
    def weights_sha256(self) -> str:
        """Of the weights; of several members that of their hashes in a row."""
        if len(self.subnets) == 1:
            return self.record.weights_sha256
        return hashlib.sha256("".join(self.hashes).encode()).hexdigest()

    def onnx(self, *, stacked: bool = False, batch: int | None = None) -> onnx.ModelProto:
        """The graph that is measured, and the one that ships.

        Of a single network images to logits; of more to the mean of their softmax.

        Args:
            stacked: as ``ensemble_onnx`` says, for several members.
            batch: a fixed batch size, or None for a dynamic one.
        """
        record = self.record
        metadata = {
            "arch": str(self.arch),
            "space": record.search_space.name,
            "supernet_sha256": record.supernet_sha256,
            "data_digest": record.data_digest,
            "bn_images": str(record.calibration),
            "labels": "\n".join(record.classes),
        }
        if len(self.subnets) == 1:
            return build_onnx(self.blocks, self.weights()[0], batch=batch, metadata=metadata)
        metadata["members"] = str(len(self.subnets))
        return ensemble_onnx(
            self.blocks, self.weights(), stacked=stacked, batch=batch, metadata=metadata
        )


class _MeanOfSoftmax(nn.Module):
    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([member(x).softmax(1) for member in self.members]).mean(0)


def save_ensemble(stem: Path, members: Sequence[Path], measured: dict[str, float]) -> Path:
    """Write ``NAME.ensemble.json`` beside its members' files.

    Raises:
        InputError: if a member lies in another folder.
    """
    path = stem.with_name(f"{stem.name}{_SUFFIX}")
    if other := [member for member in members if member.parent != path.parent]:
        raise InputError(f"{other[0]}: expected members in the ensemble's folder {path.parent}")
    listed = tuple(MemberFile(file=m.name, sha256=sha256_file(m)) for m in members)
    return write_model(path, EnsembleFile(members=listed, measured=measured))


def load_ensemble(path: Path) -> Ensemble:
    """Read an ensemble and all its members.

    Raises:
        InputError: if the name is not that of an ensemble file, or a file is missing.
        FileFormatError: if a file is damaged, or not the member that is meant, or members cannot
            answer together.
    """
    if not path.name.endswith(_SUFFIX):
        raise InputError(f"{path}: expected a file NAME{_SUFFIX}")
    file = read_model(path, EnsembleFile, schema="ensemble/1")
    listed, measured = file.members, file.measured
    for member in listed:
        if not path.with_name(member.file).exists():
            raise InputError(f"{path}: names a member {member.file!r}, which is not there")
        if sha256_file(path.with_name(member.file)) != member.sha256:
            raise FileFormatError(
                f"{path}: {member.file} is not the member that was written with it (SHA-256 "
                "differs); restore the file or make the ensemble anew"
            )
    loaded = [load_subnet(path.with_name(member.file)) for member in listed]
    first = loaded[0][1]
    for member, (_, record) in zip(listed, loaded, strict=True):
        same = (record.space, record.network.arch, record.classes) == (
            first.space,
            first.network.arch,
            first.classes,
        )
        if not same:
            raise FileFormatError(
                f"{path}: {member.file} is of another space, arch or classes than the first member"
            )
    records = [record for _, record in loaded]
    whole = replace(first.network, measured=measured, predicted={}, intervals={})
    described = first.model_copy(
        update={
            "candidate": whole.to_dict(),
            "calibration": min(record.calibration for record in records),
        }
    )
    hashes = tuple(record.weights_sha256 for record in records)
    return Ensemble(tuple(subnet for subnet, _ in loaded), described, hashes)


def load_members(path: Path) -> Ensemble:
    """An ensemble, or a single subnet as one of one member."""
    if path.name.endswith(_SUFFIX):
        return load_ensemble(path)
    subnet, record = load_subnet(path)
    return Ensemble((subnet,), record)


def stored_bytes(ensemble: Ensemble) -> tuple[int, int]:
    """Bytes of float32 weights, BN folded: dense, and sparse.

    Sparse storage of a tensor is a bit a weight and the living ones, where that is less.
    """
    dense = sparse = 0
    for member in ensemble.weights():
        for arrays in member:
            for array in arrays.values():
                whole = _VALUE_BYTES * array.size
                living = -(-array.size // 8) + _VALUE_BYTES * int(np.count_nonzero(array))
                dense += whole
                sparse += min(whole, living)
    return dense, sparse
