"""A stand-in for ONNX Runtime on a GPU, as far as it is used here."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

__all__ = ["FakeOrt"]

_KNOWN = {
    "CUDAExecutionProvider": {"device_id", "use_tf32", "arena_extend_strategy"},
    "TensorrtExecutionProvider": {
        "device_id",
        "trt_builder_optimization_level",
        "trt_engine_cache_enable",
        "trt_engine_cache_path",
        "trt_timing_cache_enable",
        "trt_timing_cache_path",
    },
}


class FakeOrt:
    """The module ``onnxruntime`` of a package with these providers.

    Args:
        providers: beside that of the processor.
        starts: whether they can be started.

    Attributes:
        said: what it was told, in order.
        on_run: called by each inference.
    """

    __version__ = "1.99.0"
    GraphOptimizationLevel = SimpleNamespace(ORT_ENABLE_ALL="all")

    def __init__(self, *providers: str, starts: bool = True) -> None:
        self.providers, self.starts = [*providers, "CPUExecutionProvider"], starts
        self.said: list[Any] = []
        self.on_run: Callable[[], None] = lambda: None
        self.options: dict[str, dict[str, str]] = {}
        self.session_options: Any = None
        self.OrtValue = SimpleNamespace(
            ortvalue_from_numpy=lambda images, device, number: (images.shape, device, number)
        )

    def get_available_providers(self) -> list[str]:
        return self.providers

    def SessionOptions(self) -> Any:
        self.session_options = SimpleNamespace()
        return self.session_options

    def InferenceSession(
        self,
        model: bytes,
        options: Any,
        providers: Sequence[str | tuple[str, dict[str, str]]],
        enable_fallback: int = 1,
    ) -> Any:
        assert not enable_fallback, "it would take the processor and say so on stdout"
        pairs = [(p, {}) if isinstance(p, str) else p for p in providers]
        self.options = dict(pairs)  # type: ignore[arg-type]
        for name, told in pairs:
            for option, value in told.items():
                assert isinstance(value, str)
                if option not in _KNOWN[name]:
                    raise RuntimeError(f'Unknown provider option: "{option}".\n(more lines)')
        names = [name for name, _ in pairs]
        self.said.append(("session", names))
        if b"rubbish" in model:
            raise RuntimeError("Invalid protobuf\nsecond line")
        return SimpleNamespace(
            get_providers=lambda: names if self.starts else names[-1:],
            get_inputs=lambda: [SimpleNamespace(name="image")],
            get_outputs=lambda: [SimpleNamespace(name="logits")],
            io_binding=lambda: SimpleNamespace(
                bind_ortvalue_input=lambda *said: self.said.append(("in", *said)),
                bind_output=lambda *said: self.said.append(("out", *said)),
            ),
            run_with_iobinding=lambda _: self._run(),
            run=lambda outputs, feed: [np.zeros((1, 4), np.float32)],
        )

    def _run(self) -> None:
        self.said.append(("run",))
        self.on_run()
        path = self.options.get("TensorrtExecutionProvider", {}).get("trt_engine_cache_path")
        if path and not (Path(path) / "a.engine").exists():
            self.said.append(("build",))
            (Path(path) / "a.engine").write_bytes(b"engine")
