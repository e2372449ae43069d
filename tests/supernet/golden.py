"""What published networks answered, kept in ``tests/golden/published.json``, and what they answer.

``python -m tests.supernet.golden`` writes the file anew. Weights and images are drawn from names
and numbers, so the file holds archs and answers only. It is written in float64 and compared with
what float32 computes.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor

from ofa_deploy.graph import INPUT, OUTPUT, build_onnx
from ofa_deploy.space import Arch, SearchSpace, get_space
from ofa_deploy.supernet import Supernet, folded_weights, load_published_weights, recalibrate
from tests.supernet.published_names import shapes

__all__ = [
    "CASES",
    "PATHS",
    "RECORDS",
    "TOLERANCE",
    "Case",
    "arch_of",
    "check",
    "deviation",
    "draw",
    "images",
    "random_config",
    "read",
    "state",
    "supernet",
]

FILE = Path(__file__).parents[1] / "golden" / "published.json"
TOLERANCE = 1e-4  # of the standard deviation of the logits
CLASSES = 8
Record = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A space of published networks, at a small resolution."""

    name: str
    family: str
    resolution: int
    width: float = 1.0

    @property
    def space(self) -> SearchSpace:
        """A fresh one, so that what it caches is its own."""
        return get_space(self.name).with_resolutions(self.resolution).with_classes(CLASSES)


CASES = {
    case.name: case
    for case in (
        Case("ofa-mbv3-w1.0", "mbv3", 64),
        Case("ofa-mbv3-w1.2", "mbv3", 68, 1.2),
        Case("ofa-proxyless-w1.0", "proxyless", 80),
        Case("ofa-proxyless-w1.3", "proxyless", 72, 1.3),
        Case("ofa-resnet50", "resnet50", 50),  # odd maps from the stem on: its pools overhang
    )
}
RECORDS = {"ofa-mbv3-w1.0": 3, "ofa-proxyless-w1.3": 3, "ofa-resnet50": 2}


# -- weights, images, archs -----------------------------------------------------------------


def _generator(name: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]))


def draw(key: str, shape: tuple[int, ...]) -> Tensor:
    """The tensor that belongs to a key: nothing is zero, symmetric or like its neighbours."""
    rng = _generator(key)
    if key.endswith("num_batches_tracked"):
        return torch.tensor(int(rng.integers(1, 1000)))
    noise = rng.standard_normal(shape, np.float32)
    if key.endswith("_matrix"):
        values = np.eye(shape[0], dtype=np.float32) + np.float32(0.1) * noise
    elif len(shape) > 1:
        values = noise * np.float32((2 / np.prod(shape[1:])) ** 0.5)
    elif key.endswith(("bias", "running_mean")):
        values = np.float32(0.2) * noise
    else:  # BN's scale and its running variance
        values = rng.uniform(0.5, 1.5, shape).astype(np.float32)
    return torch.from_numpy(values)


@cache
def state(case: Case) -> dict[str, Tensor]:
    """The checkpoint of a case, float32; shared, not to be changed."""
    wanted = shapes(case.family, width=case.width, classes=CLASSES)
    return {key: draw(key, shape) for key, shape in wanted.items()}


def images(name: str, count: int, resolution: int) -> Tensor:
    """Images (count, 3, resolution, resolution) of that name: blobs and noise, float32."""
    rng = _generator(name)
    cells = np.arange(resolution) * 5 // resolution
    blobs = rng.standard_normal((count, 3, 5, 5))[:, :, cells][:, :, :, cells]
    noise = rng.standard_normal((count, 3, resolution, resolution))
    return torch.from_numpy((1.2 * blobs + 0.4 * noise).astype(np.float32))


def random_config(family: str, rng: np.random.Generator) -> dict[str, list[float]]:
    """A subnet as published configs write it, lists of full length."""

    def drawn(choices: list[Any], count: int) -> list[Any]:
        return [choices[i] for i in rng.integers(0, len(choices), count)]

    if family == "resnet50":
        depths = drawn([0, 2], 1) + drawn([0, 1, 2], 4)
        return {"d": depths, "e": drawn([0.2, 0.25, 0.35], 18), "w": drawn([0, 1, 2], 6)}
    last = [1] if family == "proxyless" else []
    blocks = 20 + len(last)
    return {
        "d": drawn([2, 3, 4], 5) + last,
        "ks": drawn([3, 5, 7], blocks),
        "e": drawn([3, 4, 6], blocks),
    }


def arch_of(space: SearchSpace, config: dict[str, Any], resolution: int | None = None) -> Arch:
    """The space's arch for a published config."""
    return space.arch(
        resolution=resolution,
        depths=config["d"],
        kernels=config.get("ks"),
        expands=config["e"],
        widths=config.get("w"),
    )


def supernet(case: Case, space: SearchSpace | None = None) -> Supernet:
    """A supernet with the weights of a case, in eval mode; ``space`` where it is not the case's."""
    net = Supernet(case.space if space is None else space)
    load_published_weights(net, state(case))
    return net.eval()


# -- what a network answers -----------------------------------------------------------------


def _inputs(net: Supernet, arch: Arch) -> Tensor:
    dtype = next(net.parameters()).dtype
    return images("input", 2, arch.resolution).to(dtype)


def _forward(net: Supernet, arch: Arch) -> Tensor:
    return net(_inputs(net, arch), arch)  # type: ignore[no-any-return]


def _extracted(net: Supernet, arch: Arch) -> Tensor:
    x = _inputs(net, arch)
    return net.extract(arch).to(x.dtype)(x)  # type: ignore[no-any-return]


def _recalibrated(net: Supernet, arch: Arch) -> Tensor:
    """After statistics of its own, from two batches that differ in size and brightness.

    In float64: so few images make a BN's statistics, and what follows from them, ill-conditioned.
    """
    subnet = net.extract(arch).double()
    first, second = (images(f"batch {n}", n, arch.resolution).double() for n in (8, 4))
    recalibrate(subnet, [first, second * 1.5 + 0.5])
    return subnet(_inputs(net, arch).double())  # type: ignore[no-any-return]


def _onnx(net: Supernet, arch: Arch) -> Tensor:
    model = build_onnx(net.space.lower(arch), folded_weights(net.extract(arch)))
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options)
    (logits,) = session.run([OUTPUT], {INPUT: _inputs(net, arch).numpy()})
    return torch.from_numpy(np.asarray(logits))


PATHS: dict[str, Callable[[Supernet, Arch], Tensor]] = {
    "forward": _forward,
    "extracted": _extracted,
    "onnx": _onnx,
    "recalibrated": _recalibrated,
}


# -- the file -------------------------------------------------------------------------------


@cache
def read() -> dict[str, list[Record]]:
    """The golden file: by space, a list of configs and answers."""
    found: dict[str, list[Record]] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


@torch.no_grad()
def deviation(net: Supernet, record: Record, path: str) -> float:
    """How far an answer is from the golden one, in standard deviations of its logits."""
    kind = "recalibrated" if path == "recalibrated" else "logits"
    expected = torch.tensor(record[kind], dtype=torch.float64)
    found = PATHS[path](net, arch_of(net.space, record["config"]))
    return float((found - expected).abs().max() / expected.std())


def check(net: Supernet, path: str) -> None:
    """Compare a net with the golden file; AssertionError names the first arch that differs."""
    for record in read()[net.space.name]:
        far = deviation(net, record, path)
        arch = arch_of(net.space, record["config"])
        assert far <= TOLERANCE, f"{path}: {arch} deviates by {far:.1e}"


def _rounded(logits: Tensor) -> list[list[float]]:
    return [[float(f"{value:.6g}") for value in row] for row in logits.tolist()]


@torch.no_grad()
def _records(case: Case) -> Iterator[Record]:
    net = supernet(case).double()
    rng = _generator(case.name)
    for _ in range(RECORDS[case.name]):
        config = random_config(case.family, rng)
        arch = arch_of(net.space, config)
        cost = net.space.cost(arch)
        yield {
            "config": config,
            "params": cost.params,
            "macs": cost.macs,
            "logits": _rounded(_forward(net, arch)),
            "recalibrated": _rounded(_recalibrated(net, arch)),
        }


def _write() -> None:
    made = {name: list(_records(CASES[name])) for name in RECORDS}
    FILE.parent.mkdir(exist_ok=True)
    with FILE.open("w", encoding="utf-8") as file:
        file.write("{\n")
        for position, (name, records) in enumerate(made.items()):
            lines = ",\n".join(json.dumps(record) for record in records)
            file.write(f"{json.dumps(name)}: [\n{lines}\n]{',' * (position < len(made) - 1)}\n")
        file.write("}\n")


if __name__ == "__main__":
    torch.set_num_threads(1)  # depthwise convolutions in float64 get slower with more
    _write()
