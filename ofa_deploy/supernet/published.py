"""Weights that once-for-all published (Cai et al. 2020), under the names it gave them.

Its checkpoints come in two generations of names (``.mobile_inverted_conv.`` became ``.conv.``) and
double the last part of a name where a layer is elastic (``.conv.conv.weight``, ``.bn.bn.weight``).
Both are brought to one plain form here, which is then matched name by name and shape by shape:
nothing is skipped, nothing is left as it was.
"""

import io
import re
import warnings
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor

from ofa_deploy.errors import FileFormatError, MismatchError
from ofa_deploy.files import read_bytes
from ofa_deploy.supernet.modules import initialise
from ofa_deploy.supernet.storage import check_archive, check_tensors, parse_safetensors
from ofa_deploy.supernet.supernet import Supernet

__all__ = ["load_checkpoint", "load_published_weights", "read_checkpoint"]

_MAX_BYTES = 2 * 2**30
_OWN = "layers."
_LINEAR, _OWN_LINEAR = "classifier.", "layers.classifier.full.linear."
_WRAPPERS = ("state_dict", "model", "net")

_MBCONV = {
    "expand": "inverted_bottleneck.conv",
    "expand_bn": "inverted_bottleneck.bn",
    "depthwise": "depth_conv.conv",
    "depthwise_bn": "depth_conv.bn",
    "squeeze.reduce": "depth_conv.se.fc.reduce",
    "squeeze.expand": "depth_conv.se.fc.expand",
    "project": "point_linear.conv",
    "project_bn": "point_linear.bn",
}
_BOTTLENECK = {
    **{f"conv{i}": f"conv{i}.conv" for i in (1, 2, 3)},
    **{f"bn{i}": f"conv{i}.bn" for i in (1, 2, 3)},
    "shortcut": "downsample.conv",
    "shortcut_bn": "downsample.bn",
}


@torch.no_grad()
def load_published_weights(
    net: Supernet,
    state_dict: Mapping[str, Tensor],
    *,
    new_classifier: bool = False,
    seed: int = 0,
) -> None:
    """Give ``net`` the weights of a once-for-all checkpoint, all of them or none.

    Args:
        net: of the space that the checkpoint was trained in.
        state_dict: a checkpoint's, of either generation of names.
        new_classifier: draw the last linear layer anew and take the rest; for other classes.
        seed: for drawing it.

    Raises:
        WeightsError: with every key that is missing, extra or of another shape.
        MismatchError: naming a tensor that holds no weights: NaN, infinite, not numbers.
    """
    own = net.state_dict()  # shares memory with the net
    wanted = {name: own[key] for name, key in _names(net)}
    _load(net, wanted, _plain_names(state_dict), _LINEAR if new_classifier else None, seed)


@torch.no_grad()
def load_checkpoint(
    net: Supernet, path: Path | str, *, new_classifier: bool = False, seed: int = 0
) -> None:
    """Give ``net`` the weights in a file: a published checkpoint's, or a supernet's of ours.

    Raises:
        FileFormatError: if the file is damaged or holds more than tensors.
        MismatchError: naming the file, and what does not fit.
    """
    tensors = read_checkpoint(path)
    try:
        if any(name.startswith(_OWN) for name in tensors):
            without = _OWN_LINEAR if new_classifier else None
            _load(net, net.state_dict(), tensors, without, seed)
        else:
            load_published_weights(net, tensors, new_classifier=new_classifier, seed=seed)
    except MismatchError as error:
        error.args = (f"{path}: {error}",)
        raise


def _load(
    net: Supernet,
    wanted: dict[str, Tensor],
    found: dict[str, Tensor],
    without: str | None,
    seed: int,
) -> None:
    """Copy all tensors whose names do not begin with ``without``, or none; draw those anew."""
    if without is not None:
        wanted = {name: each for name, each in wanted.items() if not name.startswith(without)}
        found = {name: each for name, each in found.items() if not name.startswith(without)}
    _check(net, wanted, found)
    for name, target in wanted.items():
        target.copy_(found[name])
    if without is not None:
        initialise(net.classifier.full.linear, torch.Generator().manual_seed(seed))


def _plain_names(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without a wrapper's prefix, an old generation's spelling or doubled parts."""
    plain: dict[str, Tensor] = {}
    for key, tensor in state_dict.items():
        name = str(key).removeprefix("module.").replace(".mobile_inverted_conv.", ".conv.")
        name = ".".join(part for part, _ in groupby(name.split(".")))
        if name in plain:
            raise MismatchError(f"the checkpoint holds {name} twice, under two spellings")
        plain[name] = tensor
    return plain


def _names(net: Supernet) -> Iterator[tuple[str, str]]:
    """Published name and own name of every tensor of ``net``."""
    position = {slot: str(i) for i, slot in enumerate(_stage_slots(net))}
    for own in net.state_dict():
        _, slot, rest = own.split(".", 2)
        slot = slot.replace("-", ".")
        if slot in position:
            yield f"blocks.{position[slot]}.{_block_name(rest)}", own
        else:
            yield _outer_name(net, slot, rest.removeprefix("full.")), own


def _stage_slots(net: Supernet) -> list[str]:
    return [slot.name for slot in net.space.slots if slot.name.startswith("stages.")]


def _block_name(rest: str) -> str:
    """Such as ``full.expand.weight`` or ``transforms.7to5`` to what stands after the number."""
    if matrix := re.fullmatch(r"transforms\.(\w+)", rest):
        return f"conv.depth_conv.conv.{matrix[1]}_matrix"
    part, _, tensor = rest.removeprefix("full.").rpartition(".")
    if part in _BOTTLENECK:
        return f"{_BOTTLENECK[part]}.{tensor}"
    return f"conv.{_MBCONV[part]}.{tensor}"


def _outer_name(net: Supernet, slot: str, rest: str) -> str:
    """The name of a tensor before or after the stages."""
    part, _, tensor = rest.rpartition(".")
    match slot.split("."):
        case ["stem"]:
            return f"first_conv.{part}.{tensor}"
        case ["stem", position]:
            inner = "conv." if position == "1" and part == "bn" else ""
            return f"input_stem.{position}.{inner}{part}.{tensor}"
        case ["head"]:
            features = net.space.head.features
            return f"{'final_expand' if features else 'feature_mix'}_layer.{part}.{tensor}"
        case _:
            prefix = "feature_mix_layer.conv" if part == "features" else "classifier.linear"
            return f"{prefix}.{tensor}"


def _check(net: Supernet, wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """See that every tensor is there, of its shape, and full of weights."""
    for name, tensor in found.items():
        if not isinstance(tensor, Tensor):
            raise MismatchError(f"{name[:100]} is not a tensor but {type(tensor).__name__}")
    linear = [name for name in wanted if name.startswith((_LINEAR, _OWN_LINEAR))]
    same = all(wanted[n].shape == found[n].shape for n in wanted.keys() & found.keys() - {*linear})
    hint = "it was trained on another number of classes: ask for a new classifier"
    check_tensors(
        wanted,
        found,
        f"the weights do not fit space {net.space.name}",
        hint=f"{hint} (train --init FILE --new-classifier)" if same else "",
    )
    for name, tensor in found.items():
        if (why := _unusable(tensor, wanted[name])) is not None:
            raise MismatchError(f"{name} {why}")
        if name.endswith("running_var") and (tensor < 0).any():
            raise MismatchError(f"{name} holds a negative variance")


def _unusable(tensor: Tensor, wanted: Tensor) -> str | None:
    """Why a tensor cannot stand for another of its shape, if it cannot."""
    if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
        return "does not hold plain numbers"
    whole = not tensor.dtype.is_floating_point
    if tensor.is_complex() or (whole and wanted.dtype.is_floating_point):
        return f"holds {tensor.dtype}, expected {wanted.dtype}"
    if wanted.dtype.is_floating_point and not torch.isfinite(tensor.to(wanted.dtype)).all():
        return "holds NaN or infinite values"
    return None


def read_checkpoint(path: Path | str) -> dict[str, Tensor]:
    """The tensors of a ``.pth`` or ``.safetensors`` file; nothing in it is executed.

    Raises:
        FileFormatError: if it is damaged, holds more than tensors, or is too large.
    """
    path = Path(path)
    data = read_bytes(path, limit=_MAX_BYTES)
    if path.suffix == ".safetensors":
        return parse_safetensors(data, path)
    try:
        check_archive(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about formats that have been read all the same
            loaded = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except Exception as error:  # torch raises many kinds for a damaged or hostile file
        raise FileFormatError(f"{path}: {_unreadable(error)}") from None
    for _ in _WRAPPERS:
        if isinstance(loaded, dict) and (inner := [w for w in _WRAPPERS if w in loaded]):
            loaded = loaded[inner[0]]
    if not isinstance(loaded, dict) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in loaded.items()
    ):
        raise FileFormatError(f"{path}: expected names and tensors (a state dict)")
    return dict(loaded)


def _unreadable(error: Exception) -> str:
    if type(error).__name__ == "UnpicklingError":  # whose text advises to load it all the same
        return (
            "damaged, or it holds more than tensors, which is never loaded; export its state dict "
            "where it was made"
        )
    reason = str(error).strip().partition("\n")[0][:200]
    return f"not a checkpoint of tensors only ({reason}); download it again"
