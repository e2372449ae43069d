"""What every target makes of the same subnets: time to build, size, accuracy, latency.

The subnets are the smallest, a middle one and the largest of a trained run, and the smallest and
the largest of ofa-mbv3-w1.0 at 224 pixels. The latter's weights are random: top-1 says nothing
there and is left out, what counts is how nearly files give what PyTorch gives; and since such a
network tells images apart by little, INT8 looks worse than with trained weights. Those are
recalibrated, calibrated and compared on made-up images that are as rough as photographs (1/f).

Each subnet is exported to all targets at once, through the gate, and the files are timed in turns
with ONNX Runtime in float32. Then our ONNX stands against what ``torch.onnx.export`` makes of the
same module: logits, nodes, and time in ONNX Runtime, again in turns. Run it on an idle machine::

    OMP_WAIT_POLICY=PASSIVE python benchmarks/export.py --run RUN [--csv FILE] [--summary]

It resumes: the rows of a subnet are written when it is done, and none is done twice. Building is
done with one thread. ``build_s`` of the first INT8 target holds its calibration and the search for
sensitive blocks; OpenVINO's uses what that found.
"""

import argparse
import csv
import importlib.util
import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from figures import Figures, commit

from ofa_deploy.cli._workspace import load_evaluator
from ofa_deploy.data import Images, ImageSet
from ofa_deploy.export import ExportOptions, Latency, Manifest, export_subnet
from ofa_deploy.export.probe import probe_images
from ofa_deploy.export.timing import TimedFile, time_files
from ofa_deploy.files import digest, write_bytes
from ofa_deploy.hardware import LoadMeter, has_vnni, processor_name
from ofa_deploy.pareto import Candidate
from ofa_deploy.profiling import Protocol, reference_arch
from ofa_deploy.runtimes import get_runtime
from ofa_deploy.space import Arch, SearchSpace, get_space
from ofa_deploy.supernet import (
    Ensemble,
    Subnet,
    SubnetFile,
    Supernet,
    cut,
    load_subnet,
    save_subnet,
    to_tensor,
)
from ofa_deploy.terminal import SILENT

RESULTS = Path(__file__).parent / "results" / "export.csv"
TARGETS = (
    "onnx",
    "onnx-fp16",
    "ort-int8",
    "openvino",
    "openvino-fp16",
    "openvino-int8",
    "torch-export",
    "tensorrt",
    "tensorrt-fp16",
    "tensorrt-int8",
)
ENGINES = ("tensorrt-rtx", "tensorrt-rtx-fp16", "tensorrt-rtx-int8")  # where the package is
EXPORTER, OURS = "torch.onnx.export", "ours, batch 1"
UNTRAINED = "ofa-mbv3-w1.0"
SIZE = 224
CALIBRATION, TEST = 128, 128
PAIRED = Protocol(rounds=40, processes=4)
BUILD_S, SPEED_UP = 1.0, 1.6  # the goals
COLUMNS = (
    "network",
    "arch",
    "macs",
    "target",
    "status",
    "build_s",
    "bytes",
    "max_difference",
    "sqnr_db",
    "agreement",
    "top1",
    "subnet_top1",
    "ms",
    "ratio",
    "twin_ratio",
    "spread",
    "p50",
    "p90",
    "p99",
    "nodes",
    "float_blocks",
    "other_load",
    "processor",
    "commit",
    "key",
)
Row = dict[str, Any]


@dataclass(frozen=True)
class Network:
    """A subnet to export.

    Attributes:
        save: writes it into a folder; returns ``NAME.subnet.json``.
        images: for the test and for calibration.
        weights: their SHA-256, or how they were drawn.
        trained: whether its top-1 says anything.
    """

    name: str
    space: SearchSpace
    arch: Arch
    save: Callable[[Path], Path]
    images: Callable[[], tuple[Images, Images]]
    weights: str
    trained: bool

    @property
    def key(self) -> str:
        """What decides about its rows, beside the machine and the code."""
        return digest([self.space.fingerprint, str(self.arch), self.weights, targets()])


def targets() -> tuple[str, ...]:
    """All that can be built here."""
    return TARGETS + (ENGINES if importlib.util.find_spec("tensorrt_rtx") else ())


# -- networks -----------------------------------------------------------------------------------


def trained(run: Path, data: str | None) -> list[Network]:
    """Three subnets of a run."""
    evaluator = load_evaluator(run, SILENT, data=data, threads=1)
    space, splits = evaluator.record.search_space, evaluator.data

    def network(name: str, arch: Arch) -> Network:
        def save(folder: Path) -> Path:
            (top1,) = evaluator.validate([arch])
            record = evaluator.subnet_record(Candidate(arch, measured={"top1": top1}).to_dict())
            return save_subnet(folder / "subnet", evaluator.cut(arch), record)

        return Network(
            f"{space.name} {name}",
            space,
            arch,
            save,
            lambda: (splits.test, splits.calibration(512)),
            str(evaluator.record.weights_sha256),
            trained=True,
        )

    middle = reference_arch(space)
    archs = {"smallest": space.smallest, "middle": middle, "largest": space.largest}
    return [network(name, arch) for name, arch in archs.items()]


def untrained() -> list[Network]:
    """The smallest and the largest of a published space, weights as they were drawn."""
    space = get_space(UNTRAINED).with_resolutions(SIZE)

    def network(name: str, arch: Arch) -> Network:
        def save(folder: Path) -> Path:
            subnet = cut(Supernet(space, seed=0), arch, made_up(0, CALIBRATION))
            return save_subnet(folder / "subnet", subnet, untrained_record(space, arch))

        return Network(
            f"{space.name} {name}, random weights",
            space,
            arch,
            save,
            lambda: (made_up(1, TEST), made_up(2, 2 * CALIBRATION)),
            "seed 0",
            trained=False,
        )

    return [network("smallest", space.smallest), network("largest", space.largest)]


def untrained_record(space: SearchSpace, arch: Arch) -> SubnetFile:
    """What is known of a subnet that was never trained."""
    return SubnetFile(
        space=space.to_dict(),
        supernet_sha256="0" * 64,
        data="made-up images",
        data_options={},
        data_digest="0" * 16,
        classes=tuple(f"class {i}" for i in range(space.classes)),
        calibration=CALIBRATION,
        candidate=Candidate(arch).to_dict(),
    )


def made_up(part: int, count: int) -> ImageSet:
    """Images as rough as photographs, other ones for other parts; all of class 0."""
    drawn: list[Any] = []
    while sum(map(len, drawn)) < count:
        drawn.append(probe_images(SIZE, 1 + 1000 * part + len(drawn)))
    classes = tuple(f"class {i}" for i in range(1000))
    return ImageSet(np.concatenate(drawn)[:count], np.zeros(count, np.int64), classes)


# -- measuring ----------------------------------------------------------------------------------


def measured(network: Network) -> list[Row]:
    """All rows of a subnet."""
    test, calibration = network.images()
    meter = LoadMeter()
    with tempfile.TemporaryDirectory(prefix="ofa-deploy-") as name:
        folder = Path(name)
        path = network.save(folder)
        options = ExportOptions(targets=targets(), allowed_loss=1.0, calibration_images=CALIBRATION)
        manifest = export_subnet(
            path, folder / "bundle", test, calibration=calibration, options=options
        )
        rows = [row_of(network, manifest, target, folder / "bundle") for target in targets()]
        rows += exporters(*load_subnet(path), test, folder)
    known = {
        "network": network.name,
        "arch": str(network.arch),
        "macs": network.space.cost(network.arch).macs,
        "other_load": round(meter.others(), 3),
        "processor": processor_name(),
        "commit": commit(),
        "key": network.key,
    }
    if not network.trained:
        for row in rows:
            row |= {"top1": None, "subnet_top1": None}
    return [row | known for row in rows]


def row_of(network: Network, manifest: Manifest, target: str, folder: Path) -> Row:
    """What the manifest says of a target."""
    record = manifest.targets[target]
    row: Row = {
        "target": target,
        "status": "best" if target == manifest.best else record.status,
        "build_s": round(record.build_s, 3),
        "bytes": record.bytes,
    }
    if record.accuracy is not None:
        names = ("max_difference", "sqnr_db", "agreement", "top1", "subnet_top1")
        row |= {name: getattr(record.accuracy, name) for name in names}
    if record.latency is not None:
        row |= figures_of(record.latency)
    if record.files[0].endswith(".onnx"):
        row["nodes"] = len(onnx.load(folder / record.files[0]).graph.node)
    found = record.settings.get("sensitivity", record.settings).get("float_blocks")
    return row | {"float_blocks": " ".join(found) if found else None}


def figures_of(latency: Latency) -> Row:
    """The columns of a latency."""
    names = ("ms", "ratio", "twin_ratio", "spread", "p50", "p90", "p99")
    return {name: getattr(latency, name) for name in names}


def exporters(subnet: Subnet, record: SubnetFile, test: Images, folder: Path) -> list[Row]:
    """What ``torch.onnx.export`` makes of a subnet, and ours, both of a fixed batch of one."""
    size = record.network.arch.resolution
    makers: dict[str, Callable[[], onnx.ModelProto]] = {
        OURS: lambda: Ensemble((subnet,), record).onnx(batch=1),
        EXPORTER: lambda: torch_onnx(subnet, size),
    }
    rows: dict[str, Row] = {}
    models: dict[str, onnx.ModelProto] = {}
    files: dict[str, TimedFile] = {}
    for name, make in makers.items():
        started = time.perf_counter()
        models[name] = make()
        data = models[name].SerializeToString()
        rows[name] = {
            "target": name,
            "build_s": round(time.perf_counter() - started, 3),
            "bytes": len(data),
            "nodes": len(models[name].graph.node),
        }
        path = write_bytes(folder / f"{name}.artefact", data)
        files[name] = TimedFile("onnx", path, (1, 3, size, size), "float32")
    images = to_tensor(test.batch(np.arange(8)), size).contiguous().numpy()
    own, theirs = (logits(model, images) for model in models.values())
    rows[EXPORTER]["max_difference"] = float(np.abs(own - theirs).max() / np.abs(own).max())
    timed = time_files(files, {EXPORTER: OURS}, reference=OURS, protocol=PAIRED)
    return [row | figures_of(timed[name]) for name, row in rows.items()]


def torch_onnx(subnet: Subnet, size: int) -> onnx.ModelProto:
    """By PyTorch's exporter."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(action="ignore"):
        program = torch.onnx.export(
            subnet, (torch.zeros(1, 3, size, size),), dynamo=True, verbose=False
        )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    return model


def logits(model: onnx.ModelProto, images: Any) -> Any:
    """Of images, one by one, in ONNX Runtime."""
    session = get_runtime("onnxruntime").load(model.SerializeToString())
    return np.concatenate([session.run(images[i : i + 1]) for i in range(len(images))])


# -- keeping ------------------------------------------------------------------------------------


def finished(path: Path) -> list[Row]:
    """The rows there are."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def keep(path: Path, rows: Sequence[Row]) -> None:
    """Add the rows of a subnet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows({name: row.get(name) for name in COLUMNS} for row in rows)


# -- telling ------------------------------------------------------------------------------------

SHOWN = {
    "build_s": ".2f",
    "bytes": ",.0f",
    "max_difference": ".1e",
    "sqnr_db": ".1f",
    "agreement": ".2f",
    "top1": ".2f",
    "ms": ".3f",
    "ratio": ".3f",
    "nodes": ".0f",
}


def summary(rows: Iterable[Row]) -> None:
    """Print a table a subnet, then what became of the goals."""
    networks: dict[str, list[Row]] = {}
    for row in rows:
        networks.setdefault(row["network"], []).append(row)
    for name, of in networks.items():
        load = float(of[0]["other_load"])
        print(f"\n{name}, {int(of[0]['macs']):,} MACs; other programs used {load:.0%} meanwhile")
        print(f"{'target':<20}" + "".join(f"{column:>15}" for column in SHOWN) + "  status")
        for row in of:
            cells = (shown(row[column], how) for column, how in SHOWN.items())
            floats = f", float32: {row['float_blocks']}" if row["float_blocks"] else ""
            print(f"{row['target']:<20}" + "".join(f"{cell:>15}" for cell in cells), end="")
            print(f"  {row['status']}{floats}")
    goals(networks)


def shown(value: Any, how: str) -> str:
    """A figure, or nothing."""
    return format(float(value), how) if value not in (None, "") else ""


def goals(networks: dict[str, list[Row]]) -> None:
    """What was aimed at, and what was reached."""
    figures = Figures()
    figures.line("8-bit dot products here (VNNI), which INT8 lives by", str(has_vnni()).lower())
    for name, rows in networks.items():
        by = {row["target"]: row for row in rows}
        figures.line(f"{name}: ONNX, s (goal: ≤ {BUILD_S:g})", by["onnx"]["build_s"])
        speed = 1 / float(by["openvino-int8"]["ratio"])
        figures.line(f"{name}: OpenVINO INT8 (goal: ≥ {SPEED_UP:g}×)", f"{speed:.2f}×")
        best = next((row["target"] for row in rows if row["status"] == "best"), "none")
        figures.line(f"{name}: best for this CPU, as measured", best)
        own, theirs = by[OURS], by[EXPORTER]
        beside = (
            f"{own['nodes']} nodes against {theirs['nodes']}, {float(own['build_s']):.2f} s "
            f"against {float(theirs['build_s']):.1f}, logits within "
            f"{float(theirs['max_difference']):.0e}; the exporter's file takes "
            f"{float(theirs['twin_ratio']):.3f} times as long"
        )
        figures.line(f"{name}: ours against {EXPORTER}", beside)


def main() -> None:
    """Measure what is missing, then summarise."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--run", type=Path, help="a trained run; without it only random weights")
    parser.add_argument("--data", help="where the run's images are now, if they have moved")
    parser.add_argument("--csv", type=Path, default=RESULTS)
    parser.add_argument("--summary", action="store_true", help="only summarise what is there")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if not arguments.summary:
        networks = trained(arguments.run, arguments.data) if arguments.run else []
        done = {row["key"] for row in finished(arguments.csv)}
        for network in networks + untrained():
            if network.key not in done:
                print(f"{time.strftime('%H:%M')} {network.name} ...", flush=True)
                keep(arguments.csv, measured(network))
    summary(finished(arguments.csv))


if __name__ == "__main__":
    main()
