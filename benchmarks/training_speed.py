"""Images a second of training steps, against a plain implementation of the same steps.

The plain one is below: the weights of the same supernet sliced as one would write it first, images
and weights in torch's default layout, memory handed back to the system as it comes. Both take the
largest network's step and DεpS's four-pass step on the same images, in processes of their own that
run in turns; what is printed are medians of the rounds' rates and of their ratios, and where the
time of our four-pass step goes::

    OMP_WAIT_POLICY=PASSIVE python benchmarks/training_speed.py [--rounds 5] [--csv FILE]
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from figures import Figures, spread
from torch import Tensor

from ofa_deploy.space import Arch, get_space
from ofa_deploy.supernet import Supernet, channels_last
from ofa_deploy.train import Pass, build_optimizer, train_step
from ofa_deploy.train.threads import keep_freed_memory, threads_for

SPACE = get_space("mbv3-nano-32")
BATCH, STEPS = 64, 8


def passes() -> dict[str, tuple[Pass, ...]]:
    """The two kinds of step."""
    rng = np.random.default_rng(0)
    largest = Pass("largest", SPACE.largest, 1.0, "labels", dropout=False)
    random = SPACE.decode(SPACE.sample(rng, 2))
    subnets = (
        Pass("smallest", SPACE.smallest, 1.0, "teacher", dropout=False),
        *(Pass("random", arch, 1.0, "teacher", dropout=False) for arch in random),
    )
    return {"largest only": (largest,), "four passes": (largest, *subnets)}


def plain_forward(net: Supernet, x: Tensor, arch: Arch) -> Tensor:
    """Logits, written out: for the kinds of block that the space has."""
    weights = dict(net.named_parameters())

    def norm(y: Tensor, name: str) -> Tensor:
        c = y.shape[1]
        weight, bias = weights[f"{name}.weight"][:c], weights[f"{name}.bias"][:c]
        return F.batch_norm(y, None, None, weight, bias, training=True)

    for slot, block in SPACE.lower_named(arch):
        name = f"layers.{slot.replace('.', '-')}.full"
        act = {"relu": F.relu, "hswish": F.hardswish}[block.activation]
        mid = block.mid_channels
        if block.kind == "conv":
            conv = F.conv2d(
                x, weights[f"{name}.conv.weight"], None, block.stride, block.kernel // 2
            )
            x = act(norm(conv, f"{name}.bn"))
        elif block.kind == "classifier":
            x = act(F.conv2d(x.mean((2, 3), keepdim=True), weights[f"{name}.features.weight"]))
            x = F.linear(
                x.flatten(1), weights[f"{name}.linear.weight"], weights[f"{name}.linear.bias"]
            )
        else:
            y = x
            if block.expands:
                y = act(
                    norm(F.conv2d(y, weights[f"{name}.expand.weight"][:mid]), f"{name}.expand_bn")
                )
            kernel = weights[f"{name}.depthwise.weight"][:mid]
            if kernel.shape[-1] > block.kernel:
                matrix = weights[f"layers.{slot.replace('.', '-')}.transforms.5to3"]
                centre = kernel[:, :, 1:-1, 1:-1].reshape(mid, 1, 9)
                kernel = F.linear(centre, matrix).view(mid, 1, 3, 3)
            y = F.conv2d(y, kernel, None, block.stride, block.kernel // 2, 1, mid)
            y = act(norm(y, f"{name}.depthwise_bn"))
            if block.se:
                scale = y.mean((2, 3), keepdim=True)
                for part, nonlinearity, rows, columns in (
                    ("reduce", F.relu, block.se, mid),
                    ("expand", F.hardsigmoid, mid, block.se),
                ):
                    weight = weights[f"{name}.squeeze.{part}.weight"][:rows, :columns]
                    scale = nonlinearity(
                        F.conv2d(scale, weight, weights[f"{name}.squeeze.{part}.bias"][:rows])
                    )
                y = y * scale
            y = norm(F.conv2d(y, weights[f"{name}.project.weight"][:, :mid]), f"{name}.project_bn")
            x = x + y if block.residual else y
    return x


def plain_step(
    net: Supernet,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    step: Sequence[Pass],
) -> list[float]:
    """The same step as ``train_step``."""
    optimizer.zero_grad()
    soft: Tensor | None = None
    losses = []
    for each in step:
        logits = plain_forward(net, images, each.arch)
        loss = F.cross_entropy(logits, labels if soft is None else soft)
        soft = logits.detach().softmax(1) if soft is None else soft
        (each.weight * loss).backward()  # type: ignore[no-untyped-call]
        losses.append(loss.item())
    optimizer.step()
    return losses


def worker(kind: str, threads: int) -> None:
    """Time one implementation; rates and first losses as JSON on stdout."""
    torch.set_num_threads(threads)
    net = Supernet(SPACE).train()
    images = torch.randn(BATCH, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(BATCH) % SPACE.classes
    step: Callable[..., list[float]] = plain_step
    if kind == "ours":
        keep_freed_memory()
        most = max(map(len, passes().values()))
        net, step = channels_last(net), partial(train_step, executor=threads_for(most, threads))
        images = images.contiguous(memory_format=torch.channels_last)
    optimizer = build_optimizer(net, lr=0.01, momentum=0.9, weight_decay=3e-5)
    result = {}
    for name, each in passes().items():
        first = step(net, optimizer, images, labels, each)
        step(net, optimizer, images, labels, each)
        started = time.perf_counter()
        for _ in range(STEPS):
            step(net, optimizer, images, labels, each)
        result[name] = [BATCH * STEPS / (time.perf_counter() - started), *first]
    print(json.dumps(result))


GROUPS = {
    "convolution, forward": ("aten::mkldnn_convolution", "aten::_slow_conv2d_forward"),
    "convolution, backward": ("aten::convolution_backward",),
    "batch normalization": ("aten::native_batch_norm", "aten::native_batch_norm_backward"),
    "activations": ("hardswish", "threshold_backward", "clamp_min", "hardsigmoid", "relu"),
    "optimizer": ("Optimizer.step", "_foreach"),
}


def where_it_goes(figures: Figures) -> None:
    """Shares of the four-pass step's time, on one thread."""
    torch.set_num_threads(1)
    keep_freed_memory()
    net = channels_last(Supernet(SPACE)).train()
    images = torch.randn(BATCH, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(BATCH) % SPACE.classes
    optimizer = build_optimizer(net, lr=0.01, momentum=0.9, weight_decay=3e-5)
    each = passes()["four passes"]
    for _ in range(3):
        train_step(net, optimizer, images, labels, each)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        for _ in range(STEPS):
            train_step(net, optimizer, images, labels, each)
    times = {event.key: event.self_cpu_time_total for event in profiler.key_averages()}
    total, rest = sum(times.values()), 1.0
    for group, names in GROUPS.items():
        share = sum(t for key, t in times.items() if any(n in key for n in names)) / total
        rest -= share
        figures.line(f"share of the four-pass step: {group}", f"{share:.1%}")
    figures.line("share of the four-pass step: rest", f"{rest:.1%}")


def main() -> None:
    """Run workers in turns."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--worker", choices=["plain", "ours"], help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--csv", type=Path, help="also write the figures there")
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments.worker, arguments.threads)
        return
    figures = Figures()
    rates: dict[str, dict[str, list[float]]] = {kind: {} for kind in ("plain", "ours")}
    for _ in range(arguments.rounds):
        losses = {}
        for kind, found in rates.items():
            command = [sys.executable, __file__, "--worker", kind]
            done = subprocess.run(
                [*command, "--threads", str(arguments.threads)],
                capture_output=True,
                text=True,
                check=True,
            )
            measured = json.loads(done.stdout)
            for name, (rate, *first) in measured.items():
                found.setdefault(name, []).append(rate)
                losses.setdefault(name, []).append(first)
        for name, (one, other) in losses.items():
            if not np.allclose(one, other, rtol=1e-3):
                raise SystemExit(f"{name}: the two do not compute the same: {one} and {other}")
    for name in rates["ours"]:
        for kind, found in rates.items():
            figures.line(f"{name}, {kind}, images/s", spread(found[name]))
        pairs = zip(rates["ours"][name], rates["plain"][name], strict=True)
        ratios = [ours / plain for ours, plain in pairs]
        figures.line(f"{name}, ours over plain", spread(ratios))
    where_it_goes(figures)
    figures.save(arguments.csv)


if __name__ == "__main__":
    main()
