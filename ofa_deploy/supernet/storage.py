"""Weights and subnets on disk: safetensors, bound by hash to the JSON that describes them."""

import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from ofa_deploy.checks import Count
from ofa_deploy.errors import FileFormatError, InputError, MismatchError, WeightsError
from ofa_deploy.files import read_bytes, read_model, write_bytes, write_model
from ofa_deploy.pareto import Candidate, CandidateField
from ofa_deploy.space import SearchSpace, SpaceField
from ofa_deploy.supernet.modules import channels_last
from ofa_deploy.supernet.supernet import Subnet

__all__ = [
    "SubnetFile",
    "check_amount",
    "check_archive",
    "check_tensors",
    "load_subnet",
    "load_tensors",
    "load_weights",
    "parse_safetensors",
    "save_subnet",
    "save_tensors",
]

_SUFFIX = ".subnet.json"
_FEW_PARAMS = 1_000_000  # so that files with a few missing are told which


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    """Write weights as safetensors; returns the file's SHA-256."""
    data = save_safetensors({k: v.detach().contiguous() for k, v in tensors.items()}, metadata)
    write_bytes(path, data)
    return hashlib.sha256(data).hexdigest()


def load_tensors(path: Path, *, sha256: str) -> dict[str, Tensor]:
    """Read weights and check them against the hash that binds them.

    Raises:
        FileFormatError: if they are damaged or not the ones meant.
    """
    data = read_bytes(path)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise FileFormatError(
            f"{path}: not the weights that were written with it (SHA-256 differs); "
            "restore the file or make it anew"
        )
    return parse_safetensors(data, path)


def parse_safetensors(data: bytes, path: Path) -> dict[str, Tensor]:
    """The tensors in a safetensors file's bytes.

    Raises:
        FileFormatError: if they are damaged.
    """
    try:
        return load_safetensors(data)
    except SafetensorError as error:
        raise FileFormatError(f"{path}: unreadable weights ({error})") from None


def check_archive(data: bytes) -> None:
    """See that what torch saved is whole, and takes no more memory than it has bytes.

    Torch checks neither. What is no zip passes: the format before PyTorch 1.6 is a plain stream.

    Raises:
        InputError: saying what is wrong with it.
        zipfile.BadZipFile, ValueError, ...: if it is a zip that cannot be read.
    """
    if not data:
        raise InputError("the file is empty")
    if not zipfile.is_zipfile(io.BytesIO(data)):
        return
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = archive.infolist()
        if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
            raise InputError("expected parts as they are, found compressed ones")
        if sum(part.file_size for part in parts) > len(data):
            raise InputError("its parts are larger than the file")
        if len({part.filename for part in parts}) < len(parts):
            raise InputError("a part stands twice")
        if odd := [part.filename for part in parts if part.is_dir() or part.external_attr & 0x10]:
            raise InputError(f"{odd[0]} is damaged")  # torch would take a folder for values
        if (damaged := archive.testzip()) is not None:
            raise InputError(f"{damaged} is damaged")


def check_tensors(
    wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], what: str, *, hint: str = ""
) -> None:
    """See that ``found`` has the names and shapes of ``wanted``, and nothing else.

    Args:
        what: the beginning of the message.
        hint: its end, where nothing is wrong but the shape of a few.

    Raises:
        WeightsError: with every name that is missing, extra or misshaped.
    """
    misshaped = [
        f"{name} ({_shape(wanted[name])} wanted, {_shape(found[name])} found)"
        for name in wanted.keys() & found.keys()
        if wanted[name].shape != found[name].shape
    ]
    missing, extra = wanted.keys() - found.keys(), found.keys() - wanted.keys()
    if missing or extra or misshaped:
        raise WeightsError(
            what,
            missing=missing,
            extra=extra,
            misshaped=misshaped,
            hint="" if missing or extra else hint,
        )


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def check_amount(params: int, tensors: Mapping[str, Tensor], where: Path) -> None:
    """See that a network is not far larger than its weights, before it takes that much memory.

    Raises:
        FileFormatError: if it is.
    """
    held = sum(tensor.numel() for tensor in tensors.values())
    if params > 2 * held + _FEW_PARAMS:
        raise FileFormatError(
            f"{where}: {held:,} values, far fewer than the {params:,} parameters of the network "
            "that they are said to be of"
        )


def load_weights(module: torch.nn.Module, tensors: dict[str, Tensor], where: Path) -> None:
    """Load a complete set of weights.

    Raises:
        FileFormatError: listing names that are missing, extra or of another shape.
    """
    try:
        check_tensors(module.state_dict(), tensors, f"{where}: the weights do not fit")
    except WeightsError as error:
        raise FileFormatError(str(error)) from None
    module.load_state_dict(tensors)


class SubnetFile(BaseModel):
    """``NAME.subnet.json``, beside ``NAME.safetensors``.

    Attributes:
        supernet_sha256: of the weights it was cut from.
        data: what it was trained and evaluated on, and the options that load the same again.
        calibration: training images whose statistics its BN took; 0 means none were taken.
        candidate: arch, budget asked, metrics predicted and measured.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    schema_: Literal["subnet/1"] = Field("subnet/1", alias="schema")
    space: SpaceField
    supernet_sha256: str
    data: str
    data_options: dict[str, int | None]
    data_digest: str
    classes: tuple[str, ...]
    calibration: Count
    candidate: CandidateField
    weights_sha256: str = ""

    @model_validator(mode="after")
    def _of_the_space(self) -> Self:
        try:
            self.search_space.encode([self.network.arch])
        except MismatchError as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def search_space(self) -> SearchSpace:
        """The space that the subnet belongs to."""
        return SearchSpace.from_dict(self.space)

    @property
    def network(self) -> Candidate:
        """Arch and metrics."""
        return Candidate.from_dict(self.candidate)


def save_subnet(stem: Path, subnet: Subnet, record: SubnetFile) -> Path:
    """Write the weights, then the file that binds them; returns the latter's path."""
    described = stem.with_name(f"{stem.name}{_SUFFIX}")
    described.unlink(missing_ok=True)  # or a crash would leave it beside weights of another subnet
    sha256 = save_tensors(
        stem.with_name(f"{stem.name}.safetensors"),
        subnet.state_dict(),
        {"space": record.search_space.name},
    )
    return write_model(described, record.model_copy(update={"weights_sha256": sha256}))


def load_subnet(path: Path) -> tuple[Subnet, SubnetFile]:
    """Read a subnet and its weights, in eval mode.

    Raises:
        InputError: if the name is not that of a subnet file, or a file is missing.
        FileFormatError: if a file is damaged or the two do not belong together.
    """
    if not path.name.endswith(_SUFFIX):
        raise InputError(f"{path}: expected a file NAME{_SUFFIX}")
    record = read_model(path, SubnetFile, schema="subnet/1")
    space = record.search_space
    if len(record.classes) != space.classes:
        raise FileFormatError(
            f"{path}: {len(record.classes)} class names for a space of {space.classes} classes"
        )
    arch = record.network.arch
    weights = path.with_name(path.name.removesuffix(_SUFFIX) + ".safetensors")
    tensors = load_tensors(weights, sha256=record.weights_sha256)
    check_amount(space.cost(arch).params, tensors, weights)
    subnet = Subnet.of(space.lower(arch), space.bn_eps)
    load_weights(subnet, tensors, weights)
    return channels_last(subnet.eval()), record
