"""Several subnets that answer together: the file that names them, and what they take to store."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import onnx
from pydantic import BaseModel, ConfigDict, Field

from ofa_deploy._files import read_model, sha256_file, write_model
from ofa_deploy.errors import FileFormatError, InputError
from ofa_deploy.graph import BlockWeights
from ofa_deploy.space import Arch, Block
from ofa_deploy.specialize.graph import ensemble_onnx
from ofa_deploy.supernet import Subnet, SubnetFile, folded_weights, load_subnet

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
        record: of the first, which says what all have in common.
    """

    subnets: tuple[Subnet, ...]
    record: SubnetFile

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

    def onnx(self, *, stacked: bool = False) -> onnx.ModelProto:
        """One graph from images to the mean of the members' softmax, as ``ensemble_onnx`` says."""
        metadata = {
            "arch": str(self.arch),
            "space": self.record.search_space.name,
            "members": str(len(self.subnets)),
            "supernet_sha256": self.record.supernet_sha256,
            "labels": "\n".join(self.record.classes),
        }
        return ensemble_onnx(self.blocks, self.weights(), stacked=stacked, metadata=metadata)


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
    listed = read_model(path, EnsembleFile, schema="ensemble/1").members
    for member in listed:
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
    return Ensemble(tuple(subnet for subnet, _ in loaded), first)


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
