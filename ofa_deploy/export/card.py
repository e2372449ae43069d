"""``README.md`` of a bundle: what somebody who meets the folder wants to know."""

import shlex
from collections.abc import Mapping, Sequence

from ofa_deploy.export.manifest import Manifest, TargetRecord
from ofa_deploy.export.targets import preferred
from ofa_deploy.pareto import Candidate
from ofa_deploy.space import SearchSpace
from ofa_deploy.terminal import metric

__all__ = ["CARD", "model_card"]

CARD = "README.md"
_SHOWN_LABELS = 12

_EXAMPLE = """\
```python
import json

import numpy as np
import onnxruntime as ort
from PIL import Image, ImageOps

manifest = json.load(open("manifest.json", encoding="utf-8"))
wanted = manifest["preprocessing"]
image = ImageOps.exif_transpose(Image.open("image.jpg")).convert("RGB")
side = min(image.size)
left, top = (image.width - side) // 2, (image.height - side) // 2
box = (left, top, left + side, top + side)
{feed}{fill}
session = ort.InferenceSession("{file}", providers=["CPUExecutionProvider"])
scores = session.run(None, {{session.get_inputs()[0].name: pixels}})[0][0]  # {output}
for index in np.argsort(-scores)[:5]:
    print(manifest["labels"][index], scores[index])
```"""
_FEEDS = {
    "none": """\
square = image.resize((wanted["size"],) * 2, Image.Resampling.BILINEAR, box=box)
pixels = (np.asarray(square, np.float32) / 255 - wanted["mean"]) / wanted["std"]
pixels = pixels.transpose(2, 0, 1)[None].astype(np.float32)""",
    "normalise": """\
square = image.resize((wanted["size"],) * 2, Image.Resampling.BILINEAR, box=box)
pixels = np.asarray(square, np.uint8)[None]""",
    "resize": """\
pixels = np.asarray(image.crop(box), np.uint8)[None]""",
}
_FILL = "\npixels = pixels.repeat({count}, 0)  # the file takes {count} images at a time"


def model_card(manifest: Manifest) -> str:
    """The card, as Markdown."""
    space = SearchSpace.from_dict(manifest.space)
    network = Candidate.from_dict(manifest.subnet)
    cost = space.cost(network.arch)
    parts = [
        f"# {space.name}, {network.arch}",
        f"{_what(manifest)} of {len(manifest.labels)} classes for {network.arch.resolution}x"
        f"{network.arch.resolution} pixels: {cost.macs:,} multiply-accumulates, "
        f"{cost.params:,} parameters. Exported by ofa_deploy {manifest.versions['ofa_deploy']} on "
        f"{manifest.date}.",
        "## Files",
        _table(_target_rows(manifest)),
        _legend(manifest),
        *_marks(manifest.targets),
        "## The network",
        _table(_metric_rows(network)),
        *_provenance(manifest),
        "## Use",
        _usage(manifest),
        *_example(manifest),
        *_recipes(manifest.targets),
        "## Labels",
        _labels(manifest.labels),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _what(manifest: Manifest) -> str:
    if manifest.members == 1:
        return "An image classifier"
    return (
        f"An image classifier, {manifest.members} networks whose answer is the mean of their "
        "probabilities (the counts below are one network's),"
    )


def _table(rows: Sequence[Mapping[str, str]]) -> str:
    if not rows:
        return ""
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([row[name] for name in names] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _target_rows(manifest: Manifest) -> list[dict[str, str]]:
    rows = []
    for name, each in manifest.targets.items():
        accuracy, latency = each.accuracy, each.latency
        rows.append(
            {
                "target": f"**{name}** (best)" if name == manifest.best else name,
                "files": ", ".join(f"`{file}`" for file in each.files),
                "KB": f"{each.bytes / 1000:,.0f}",
                "top-1 %": f"{accuracy.top1:.2f}" if accuracy else "",
                "loss": f"{accuracy.loss:+.2f}" if accuracy else "",
                "SQNR dB": f"{accuracy.sqnr_db:.1f}" if accuracy else "",
                "ms": f"{latency.ms:.3g}" if latency else "",
                "vs ORT fp32": f"{latency.ratio:.2f}" if latency else "",
                "status": each.status,
            }
        )
    return rows


def _legend(manifest: Manifest) -> str:
    checked = [each.accuracy for each in manifest.targets.values() if each.accuracy]
    timed = [each.latency for each in manifest.targets.values() if each.latency]
    said = []
    if checked:
        said.append(
            f"Top-1 on {checked[0].images:,} test images; the PyTorch subnet has "
            f"{checked[0].subnet_top1:.2f} %. A loss of more than {manifest.allowed_loss:g} points "
            "is marked."
        )
    if timed:
        said.append(
            f"Times of batch {timed[0].batch} with {timed[0].threads} thread(s) on "
            f"{manifest.machine['processor']}, in turns with ONNX Runtime in float32; the last "
            "but one column is the ratio to it. Measure again on your device."
        )
    return " ".join(said)


def _marks(targets: Mapping[str, TargetRecord]) -> list[str]:
    reasons = [
        f"- {name}: {each.status}: {'; '.join(each.reasons)}"
        for name, each in targets.items()
        if each.reasons
    ]
    return ["\n".join(reasons)] if reasons else []


def _metric_rows(network: Candidate) -> list[dict[str, str]]:
    names = list(dict.fromkeys([*network.predicted, *network.measured]))
    rows = [
        {
            "metric": name,
            "predicted": _figure(network.predicted, name),
            "measured": _figure(network.measured, name),
        }
        for name in names
    ]
    if rows and network.budget:
        rows.insert(0, {"metric": "asked", "predicted": network.budget, "measured": ""})
    return rows


def _figure(values: Mapping[str, float], name: str) -> str:
    return metric(name, values[name]) if name in values else ""


def _provenance(manifest: Manifest) -> list[str]:
    recalibrated = (
        f"its own, from {manifest.bn_images:,} training images"
        if manifest.bn_images
        else "**never recalibrated**: the export was forced"
    )
    versions = ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
    return [
        "\n".join(
            [
                f"- supernet: SHA-256 `{manifest.supernet_sha256}`",
                f"- subnet's weights: SHA-256 `{manifest.weights_sha256}`",
                f"- BN statistics: {recalibrated}",
                f"- data: {manifest.data} (`{manifest.data_digest}`)",
                f"- made with: {versions}",
            ]
        )
    ]


def _usage(manifest: Manifest) -> str:
    wanted = manifest.preprocessing
    said = (
        f"Cut out the {wanted.crop}, resize it to {wanted.size}x{wanted.size} "
        f"({wanted.resize}), divide {wanted.colours} pixels by 255, take off the mean "
        f"{list(wanted.mean)} and divide by the deviation {list(wanted.std)}."
    )
    inside = {
        "none": "The files take what comes of that, float32, channels first.",
        "normalise": "Files whose input is `pixels` take uint8 pixels of that size, height by "
        "width by channels, and do the rest themselves.",
        "resize": "Files whose input is `pixels` do all of that themselves: they take uint8 "
        "pixels of any size, height by width by channels.",
    }
    return f"{said} {inside[wanted.inside]}"


def _example(manifest: Manifest) -> list[str]:
    """Python for the best of the ONNX files, if there is any."""
    files = {name: each for name, each in manifest.targets.items() if each.runtime == "onnxruntime"}
    if not files:
        return []
    chosen = files.get(manifest.best or "") or files[preferred(files)[0]]
    count = chosen.input.shape[0]
    code = _EXAMPLE.format(
        feed=_FEEDS[chosen.input.preprocessing],
        fill=_FILL.format(count=count) if isinstance(count, int) and count > 1 else "",
        file=chosen.files[0],
        output=manifest.output,
    )
    return ["With onnxruntime, numpy and Pillow:", code]


def _recipes(targets: Mapping[str, TargetRecord]) -> list[str]:
    """How to build what could not be built where the bundle was made."""
    commands = [
        shlex.join(each.settings["trtexec"])
        for each in targets.values()
        if "trtexec" in each.settings
    ]
    if not commands:
        return []
    lines = "\n".join(commands)
    return [
        "TensorRT's engines are built in this folder, on the machine whose GPU they are for:",
        f"```sh\n{lines}\n```",
    ]


def _labels(labels: Sequence[str]) -> str:
    shown = ", ".join(_plain(label) for label in labels[:_SHOWN_LABELS])
    more = len(labels) - _SHOWN_LABELS
    return f"{shown} and {more:,} more, in `manifest.json`." if more > 0 else f"{shown}."


def _plain(text: str) -> str:
    """Text that Markdown leaves as it is."""
    printable = "".join(c if c.isprintable() else " " for c in text)
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in printable)
