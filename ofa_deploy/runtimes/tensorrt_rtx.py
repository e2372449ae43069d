"""TensorRT for RTX: engines for GeForce and RTX GPUs, built ahead of time on any CPU.

Builds run for real in the tests; what they give has not been run on a GPU.

With release 1.7.1 and no GPU: the accepted compute capabilities are those below (7.5 fails on
float32 linear layers; Orin's 8.7 and the data centre's 9.0 and 10.0 are not RTX); refitting, plans
without weights and version-compatible ones need a driver to be built, and so are not offered; a
timing cache does nothing. One engine may hold several capabilities.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ofa_deploy.errors import InputError
from ofa_deploy.runtimes.tensorrt import EngineRuntime
from ofa_deploy.runtimes.trt.artefact import Capability
from ofa_deploy.runtimes.trt.build import build_plan, for_capabilities
from ofa_deploy.runtimes.trt.cuda import Cuda
from ofa_deploy.runtimes.trt.settings import EngineSettings

__all__ = ["ACCEPTED", "TensorRtRtx", "parse_capability"]

ACCEPTED: tuple[Capability, ...] = ((8, 0), (8, 6), (8, 9), (12, 0), (12, 1))
_DEFAULT = ("8.6", "8.9", "12.0")
_FORM = re.compile(r"(?:sm_?)?(\d{1,2})\.?(\d)", re.IGNORECASE)


def parse_capability(text: str) -> Capability:
    """A compute capability: ``8.6``, ``86`` or ``sm86``.

    Raises:
        InputError: if no engine can be built for it, listing those there are.
    """
    found = _FORM.fullmatch(text.strip())
    capability = (int(found[1]), int(found[2])) if found else None
    if capability not in ACCEPTED:
        accepted = ", ".join(f"{major}.{minor}" for major, minor in ACCEPTED)
        raise InputError(
            f"TensorRT for RTX builds no engine for compute capability {text!r}; accepted: "
            f"{accepted}"
        )
    return capability


class TensorRtRtx(EngineRuntime):
    """Engines for stated compute capabilities; no GPU is needed to build them.

    Args:
        capabilities: such as ``("8.6", "8.9")``; one engine runs on all of them.
        settings: as ``EngineSettings``, without those that need a GPU (``hardware``,
            ``version_compatible``).
        module, cuda: see ``EngineRuntime``.

    Raises:
        InputError: for a capability that is not accepted, none at all, or one that stands twice,
            or settings that need a GPU.
    """

    name = "tensorrt-rtx"
    _package, _extra = "tensorrt_rtx", "tensorrt-rtx"

    def __init__(
        self,
        capabilities: Iterable[str] = _DEFAULT,
        settings: EngineSettings | None = None,
        *,
        module: Any = None,
        cuda: Cuda | None = None,
    ) -> None:
        super().__init__(settings, module=module, cuda=cuda)
        self.capabilities = tuple(sorted(parse_capability(each) for each in capabilities))
        if not self.capabilities or len(set(self.capabilities)) < len(self.capabilities):
            raise InputError(
                f"expected distinct compute capabilities, found {list(self.capabilities)}"
            )
        needs_gpu = self.engine_settings
        if needs_gpu.version_compatible or needs_gpu.hardware != "none":
            raise InputError(
                "TensorRT for RTX: hardware and version compatibility need a GPU to be built with; "
                "state the compute capabilities instead"
            )

    def settings(self, threads: int = 1) -> Mapping[str, str | int]:
        """As TensorRT's, without CUDA graphs: they need engines that are built to be captured."""
        return {**super().settings(threads), "cuda_graph_batch": 0}

    def _plan(self, model: bytes) -> bytes:
        configure = for_capabilities(self.module, self.capabilities)
        plan, _ = build_plan(self.module, model, self.engine_settings, configure=configure)
        return plan

    def _built_for(self) -> dict[str, Any]:
        return {"capabilities": self.capabilities}
