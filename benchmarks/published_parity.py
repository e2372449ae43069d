"""Our logits against those of the reference implementation, from a parity fixture.

The fixture is a folder with ``NAME.json`` (key shapes, networks, their MACs and parameters),
``NAME.npz`` (logits) and ``weights.py``, whose two functions make weights and images; it is run, so
give only a folder that you trust. Prints the greatest difference over the logits' standard
deviation: elastic, extracted, through ONNX Runtime, and after BN recalibration::

    python benchmarks/published_parity.py --data DIR [--name mbv3_w1.0 --space ofa-mbv3-w1.0]
"""

import argparse
import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from figures import Figures

from ofa_deploy.graph import build_onnx
from ofa_deploy.runtimes import get_runtime
from ofa_deploy.space import arch_from_config, get_space
from ofa_deploy.supernet import Supernet, folded_weights, load_published_weights, recalibrate

CONFIG = ("d", "ks", "e", "w")


def differences(folder: Path, name: str, space_name: str) -> dict[str, float]:
    """The greatest relative differences; MACs and parameters must be equal."""
    fixture: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    logits = np.load(folder / f"{name}.npz", allow_pickle=False)
    make = runpy.run_path(str(folder / "weights.py"))
    net = Supernet(get_space(space_name)).eval()
    load_published_weights(
        net,
        {k: torch.as_tensor(make["tensor_for"](k, tuple(s))) for k, s in fixture["state"].items()},
    )
    given, size = fixture["input"], fixture["input"]["size"]
    images = make["image_batch"](given["seed"], given["batch"], size)
    x, runtime = torch.from_numpy(images), get_runtime("onnxruntime")
    worst = dict.fromkeys(("elastic", "extracted", "ONNX Runtime", "recalibrated"), 0.0)

    def compare(kind: str, found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> None:
        worst[kind] = max(worst[kind], float(np.abs(found - expected).max() / expected.std()))

    for n, config in enumerate(fixture["archs"]):
        arch = arch_from_config(net.space, {**{k: config.get(k) for k in CONFIG}, "r": size})
        cost, subnet = net.space.cost(arch), net.extract(arch)
        assert cost.params == config["params"], f"network {n}: parameters differ"
        assert abs(cost.macs / 1e6 - config[f"mmacs_{size}"]) < 1e-6, f"network {n}: MACs differ"
        graph = build_onnx(net.space.lower(arch), folded_weights(subnet))
        with torch.no_grad():
            compare("elastic", net(x, arch).numpy(), logits["logits"][n])
            compare("extracted", subnet(x).numpy(), logits["logits"][n])
            session = runtime.load(runtime.build(graph), threads=1)
            compare("ONNX Runtime", session.run(images), logits["logits"][n])
            if n == fixture["calibration"]["arch"]:
                how = fixture["calibration"]
                batches = [make["image_batch"](s, how["batch"], how["size"]) for s in how["seeds"]]
                recalibrate(subnet, map(torch.from_numpy, batches))
                compare("recalibrated", subnet(x).numpy(), logits["calibrated_logits"])
    return worst


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="the fixture's folder")
    parser.add_argument("--name", default="mbv3_w1.0")
    parser.add_argument("--space", default="ofa-mbv3-w1.0")
    arguments = parser.parse_args()
    figures = Figures()
    for kind, value in differences(arguments.data, arguments.name, arguments.space).items():
        figures.line(f"{arguments.name}, {kind}, greatest difference / std", f"{value:.2e}")


if __name__ == "__main__":
    main()
