"""ONNX to a TensorRT engine (a "plan").

Every function takes the module that it works with: ``tensorrt`` 10.x or 11.x, or ``tensorrt_rtx``.
Only what these have in common is used: networks are strongly typed, so that precision comes from
the ONNX alone; no precision flags, no calibrators, no names that 11 took away. Agents carry this
file: the module and the standard library only, on Python 3.8 too.

Runs in the tests for real through ``tensorrt_rtx``, which needs no GPU; through ``tensorrt`` only
against stand-ins of its two interfaces.

Source: docs.nvidia.com/deeplearning/tensorrt, Python API and migration guide 10.x to 11.x; the
bindings' own signatures (10.13.0.35, 11.4.0.106, and TensorRT-RTX 1.7.1.116).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ofa_deploy.errors import DeviceError
from ofa_deploy.runtimes.trt.module import name_of, quiet_log, refused
from ofa_deploy.runtimes.trt.settings import HARDWARE, EngineSettings

__all__ = ["build_plan", "for_capabilities"]


def build_plan(
    trt: Any,
    model: bytes,
    settings: EngineSettings,
    *,
    timing_cache: bytes | None = None,
    configure: Callable[[Any], None] | None = None,
) -> tuple[bytes, bytes | None]:
    """Build an engine.

    Args:
        trt: the module.
        model: an ONNX with one input, types as the engine shall compute.
        timing_cache: what an earlier build gave, or ``b""`` to start one; None for none. One of
            another GPU or version is left alone.
        configure: sets what only one of the modules has, on its builder configuration.

    Returns:
        The plan, and the timing cache as it is now.

    Raises:
        DeviceError: with what TensorRT says.
    """
    log = quiet_log(trt)
    try:
        builder = trt.Builder(log)
        network = builder.create_network(
            1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)  # in 11 a matter of course
        )
        _parse(trt, network, log, model)
        config = builder.create_builder_config()
        _apply(trt, config, settings)
        _add_profile(builder, config, network, settings.batches)
        if configure:
            configure(config)
        if timing_cache is not None:
            _use_cache(config, timing_cache)
        plan = builder.build_serialized_network(network, config)
    except (TypeError, RuntimeError, ValueError) as error:  # what its bindings raise
        raise refused(trt, log, [error]) from error
    if plan is None:
        raise refused(trt, log)
    cache = None if timing_cache is None else bytes(config.get_timing_cache().serialize())
    return bytes(plan), cache


def _parse(trt: Any, network: Any, log: Any, model: bytes) -> None:
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model):
        raise refused(trt, log, [parser.get_error(i).desc() for i in range(parser.num_errors)])
    if (network.num_inputs, network.num_outputs) != (1, 1):
        raise DeviceError(
            f"{name_of(trt)}: expected a model of one input and one output, found "
            f"{network.num_inputs} and {network.num_outputs}"
        )


def _apply(trt: Any, config: Any, settings: EngineSettings) -> None:
    if settings.memory_limit is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.memory_limit)
    level = HARDWARE[settings.hardware]
    if not hasattr(trt.HardwareCompatibilityLevel, level):
        raise DeviceError(
            f"{name_of(trt)} {trt.__version__} has no hardware compatibility "
            f"{settings.hardware!r}; build with a later one, or with 'none' or 'ampere+'"
        )
    if settings.hardware != "none":
        config.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, level)
    if settings.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if not settings.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    config.builder_optimization_level = settings.optimization_level


def _add_profile(builder: Any, config: Any, network: Any, batches: tuple[int, int, int]) -> None:
    source = network.get_input(0)
    batch, *image = source.shape
    if batch != -1:
        return
    if -1 in image:
        raise DeviceError(f"expected images of one size, found an input of shape {[batch, *image]}")
    profile = builder.create_optimization_profile()
    profile.set_shape(source.name, *[(size, *image) for size in batches])
    config.add_optimization_profile(profile)


def _use_cache(config: Any, saved: bytes) -> None:
    if not config.set_timing_cache(config.create_timing_cache(saved), False):
        config.set_timing_cache(config.create_timing_cache(b""), False)


def for_capabilities(trt: Any, capabilities: Sequence[tuple[int, int]]) -> Callable[[Any], None]:
    """What configures a build of ``tensorrt_rtx`` for GPUs of these compute capabilities.

    Raises:
        DeviceError: when called, for a capability that this release builds no engine for.
    """

    def configure(config: Any) -> None:
        config.num_compute_capabilities = len(capabilities)
        for index, (major, minor) in enumerate(capabilities):
            value = getattr(trt.ComputeCapability, f"SM{major}{minor}", None)
            if value is None or not config.set_compute_capability(value, index):
                raise DeviceError(
                    f"{name_of(trt)} {trt.__version__} builds no engine for compute capability "
                    f"{major}.{minor}"
                )

    return configure
