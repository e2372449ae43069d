"""Measured latency of a subnet, and of an ensemble: members in turn, and in one batch of groups."""

from functools import partial
from pathlib import Path

from ofa_deploy.graph import build_onnx
from ofa_deploy.profiling import Protocol, Subject, measure, network_subject, reference_arch
from ofa_deploy.supernet import Ensemble
from ofa_deploy.terminal import SILENT, Progress

__all__ = ["measured_latency"]

_PROTOCOL = Protocol(rounds=20, processes=2)


def measured_latency(
    ensemble: Ensemble,
    *,
    runtime: str = "onnxruntime",
    batch: int = 1,
    threads: int = 1,
    protocol: Protocol | None = None,
    journal: Path | None = None,
    progress: Progress = SILENT,
) -> dict[str, float]:
    """Latency on this machine in ms, all timed in turns with the space's reference network.

    Zeros in the weights save nothing here: kernels are dense.

    Args:
        batch: images a call.
        journal: a folder that keeps finished measurements.

    Returns:
        ``latency_member`` of the first member alone; ``latency_in_turn`` of one graph that computes
        members one after another, and ``latency_stacked`` of one in which they go through each
        layer together. For a single network all three are the same.

    Raises:
        NoisyDeviceError: if the machine does not stand still.
    """
    shape = (batch, 3, ensemble.arch.resolution, ensemble.arch.resolution)
    first = partial(build_onnx, ensemble.blocks, ensemble.weights()[0])
    subjects = {"latency_member": Subject(first, shape)}
    if len(ensemble.subnets) > 1:
        subjects["latency_in_turn"] = Subject(ensemble.onnx, shape)
        subjects["latency_stacked"] = Subject(partial(ensemble.onnx, stacked=True), shape)
    space = ensemble.record.search_space
    taken = measure(
        subjects,
        network_subject(space, reference_arch(space), batch=batch),
        runtime=runtime,
        threads=threads,
        protocol=protocol or _PROTOCOL,
        journal=journal,
        progress=progress,
        label="measure latency",
    )
    names = ("latency_member", "latency_in_turn", "latency_stacked")
    return {name: taken[name if name in subjects else names[0]].ms for name in names}
