"""What elastic weights cost over plain ones in the published spaces, on this machine.

Prints, as paired medians: forward and backward of ``net(x, arch)`` over those of the extracted
module for the largest network, the time of ``extract``, and of building every block's graph of
``ofa-mbv3-w1.2`` at one resolution. Run it on an otherwise idle machine::

    python benchmarks/published_spaces.py [--csv FILE]
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from figures import Figures, spread
from torch import Tensor, nn

from ofa_deploy.graph import build_onnx
from ofa_deploy.space import get_space
from ofa_deploy.supernet import Supernet, channels_last
from ofa_deploy.train.threads import keep_freed_memory

SPACES = ("ofa-mbv3-w1.0", "ofa-mbv3-w1.2", "ofa-proxyless-w1.3", "ofa-resnet50")


def seconds(work: Callable[[], object]) -> float:
    """How long a call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def paired(
    figures: Figures, what: str, one: Callable[[], object], other: Callable[[], object], pairs: int
) -> None:
    """The median ratio of two calls timed in turns, in changing order."""
    ratios, elastic = [], []
    for attempt in range(pairs + 2):
        first, second = (one, other) if attempt % 2 else (other, one)
        times = (seconds(first), seconds(second))
        mine, theirs = times if attempt % 2 else times[::-1]
        if attempt >= 2:
            ratios.append(mine / theirs)
            elastic.append(1e3 * mine)
    low, _, high = statistics.quantiles(ratios, n=4)
    figures.line(
        what,
        f"{statistics.median(ratios):.3f} (quartiles {low:.3f} to {high:.3f}, {pairs} pairs; "
        f"elastic {statistics.median(elastic):.0f} ms)",
    )


def overhead(figures: Figures, name: str, batch: int, pairs: int) -> None:
    """Elastic over extracted, largest network: forward alone in eval, then with backward."""
    net = channels_last(Supernet(get_space(name)))
    arch = net.space.largest
    subnet = channels_last(net.extract(arch))
    x = torch.randn(batch, 3, arch.resolution, arch.resolution)
    x = x.contiguous(memory_format=torch.channels_last)

    def forward(call: Callable[[], Tensor], module: nn.Module) -> Callable[[], object]:
        def work() -> None:
            module.eval()
            with torch.no_grad():
                call()

        return work

    def both(call: Callable[[], Tensor], module: nn.Module) -> Callable[[], object]:
        def work() -> None:
            module.train()
            module.zero_grad(set_to_none=True)
            call().square().mean().backward()  # type: ignore[no-untyped-call]

        return work

    for what, wrap in (("forward", forward), ("forward and backward", both)):
        elastic = wrap(lambda: net(x, arch), net)
        plain = wrap(lambda: subnet(x), subnet)
        paired(figures, f"{name}, {what}, batch {batch}, elastic/extracted", elastic, plain, pairs)


def extraction(figures: Figures, name: str) -> None:
    """Milliseconds of ``extract``, smallest and largest."""
    net = Supernet(get_space(name))
    for size, arch in (("smallest", net.space.smallest), ("largest", net.space.largest)):
        net.extract(arch)
        times = [1e3 * seconds(lambda arch=arch: net.extract(arch)) for _ in range(15)]
        figures.line(f"{name}, extract, {size}, ms", spread(times))


def building(figures: Figures, name: str) -> None:
    """Seconds to build the graph of every block at one resolution."""
    space = get_space(name).with_resolutions(224)
    blocks = space.blocks()
    times = [seconds(lambda: [build_onnx([block]) for block in blocks]) for _ in range(5)]
    figures.line(f"{name} at 224, graphs of all {len(blocks)} blocks, s", spread(times))


def main() -> None:
    """Run all parts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=24, help="pairs of timed calls")
    parser.add_argument("--batch", type=int, default=4, help="images a call")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--csv", type=Path, help="also write the figures there")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    figures = Figures()
    building(figures, "ofa-mbv3-w1.2")
    for name in SPACES:
        extraction(figures, name)
    for name in SPACES:
        # A step of ResNet-50 takes ten times as long, and its ratio moves less.
        pairs = arguments.pairs // 3 if "resnet" in name else arguments.pairs
        overhead(figures, name, arguments.batch, pairs)
    figures.save(arguments.csv)


if __name__ == "__main__":
    main()
