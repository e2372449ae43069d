"""Bundles: files that run on the target, checked before they leave.

::

    options.py, source.py      what to export, and what every target is built from
    target.py, builders.py     a target: source → files → what an engine loads
    targets.py                 their names
    sensitivity.py             which blocks INT8 leaves in float32
    gate.py                    what files give, against what the PyTorch subnet gives
    timing.py, busy.py         how long they take, in turns with one of them; a load beside
    classify.py                from an image to its classes, as a bundle's user writes it
    probe.py                   the same on a few made-up images, for other machines
    manifest.py, card.py       what is written about them
    draft.py                   all targets of a subnet, built and checked, not yet timed
    bundle.py                  one subnet, or many, to bundles
    verify.py                  a bundle, read with suspicion, and its gate again
    bench.py                   how fast it is on this machine, alone and as deployed
    as_shipped.py              a run's subnets in one engine and precision: their accuracy
    examiner.py                candidates of a search, measured as they would ship

Names are imported on first use: processes that only run files never load torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ofa_deploy.export.as_shipped import AsShipped
    from ofa_deploy.export.bench import Bench, BenchOptions, Timed, bench_bundle
    from ofa_deploy.export.bundle import (
        ExportJob,
        check_out,
        export_many,
        export_subnet,
    )
    from ofa_deploy.export.examiner import DeviceExaminer
    from ofa_deploy.export.manifest import Accuracy, Latency, Manifest, TargetRecord, load_manifest
    from ofa_deploy.export.options import ExportOptions
    from ofa_deploy.export.targets import (
        TARGETS,
        accuracy_file,
        check_targets,
        export_target,
        get_target,
        kept_as,
    )
    from ofa_deploy.export.verify import Bundle, Rerun

__all__ = [
    "TARGETS",
    "Accuracy",
    "AsShipped",
    "Bench",
    "BenchOptions",
    "Bundle",
    "DeviceExaminer",
    "ExportJob",
    "ExportOptions",
    "Latency",
    "Manifest",
    "Rerun",
    "TargetRecord",
    "Timed",
    "accuracy_file",
    "bench_bundle",
    "check_out",
    "check_targets",
    "export_many",
    "export_subnet",
    "export_target",
    "get_target",
    "kept_as",
    "load_manifest",
]

_HOMES = {
    "as_shipped": ("AsShipped",),
    "bench": ("Bench", "BenchOptions", "Timed", "bench_bundle"),
    "bundle": ("ExportJob", "check_out", "export_many", "export_subnet"),
    "examiner": ("DeviceExaminer",),
    "manifest": ("Accuracy", "Latency", "Manifest", "TargetRecord", "load_manifest"),
    "options": ("ExportOptions",),
    "targets": (
        "TARGETS",
        "accuracy_file",
        "check_targets",
        "export_target",
        "get_target",
        "kept_as",
    ),
    "verify": ("Bundle", "Rerun"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value
