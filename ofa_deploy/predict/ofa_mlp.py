"""once-for-all's published accuracy predictor (Cai et al. 2020): a perceptron of 128 inputs.

Its inputs are one-hot: the kernel of each of 20 blocks (3, 5, 7), the expansion ratio of each
(3, 4, 6), zeros where a block is absent, and the resolution, 112 to 224 by 16. Its output is top-1
as a fraction; a model's opinion, and above what ImageNet shows. At 112 to 144 pixels it answers
nonsense, having seen none of them, so those are left out.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from ofa_deploy.errors import FileFormatError, MismatchError
from ofa_deploy.predict.accuracy import AccuracyModel, accuracy_facts
from ofa_deploy.predict.onnx_graph import OnnxGraph
from ofa_deploy.space import SearchSpace

__all__ = ["MLP_RESOLUTIONS", "ofa_mlp"]

MLP_RESOLUTIONS = (160, 176, 192, 208, 224)
_KERNELS, _EXPANDS, _ALL_RESOLUTIONS = (3, 5, 7), (3, 4, 6), range(112, 225, 16)
_BLOCKS = 20
_INPUTS = 128
_LAYERS = (0, 2, 4, 6)

Arrays = Mapping[str, npt.NDArray[Any]]


def ofa_mlp(weights: Arrays, space: SearchSpace, *, source: str = "ofa-mlp") -> AccuracyModel:
    """The published predictor as an accuracy model.

    Args:
        weights: its state dict as arrays: ``0.weight`` (400, 128) to ``6.bias`` (1,).
        space: of MobileNetV3's layout; its resolutions must be among 160 to 224 by 16.
        source: where it is from, kept in the model.

    Raises:
        FileFormatError: if a tensor is missing, extra, of another shape, or not finite.
        MismatchError: if the space is not the one it was made for, or has other resolutions.
    """
    _check_weights(weights)
    _check_space(space)
    graph = OnnxGraph()
    columns, choices, inputs = _one_hot(space)
    picked = graph.add("Gather", "population", graph.ints(columns), axis=1)
    hidden = graph.add(
        "Cast", graph.add("Equal", picked, graph.floats(choices)), to=TensorProto.FLOAT
    )
    for layer in _LAYERS:
        matrix = weights[f"{layer}.weight"].T
        matrix = matrix[inputs] if layer == 0 else matrix
        # Top-1 in percent.
        factor = 100.0 if layer == _LAYERS[-1] else 1.0
        hidden = graph.add("MatMul", hidden, graph.floats(factor * matrix))
        hidden = graph.add("Add", hidden, graph.floats(factor * weights[f"{layer}.bias"]))
        if layer != _LAYERS[-1]:
            hidden = graph.add("Relu", hidden)
    graph.add("Squeeze", hidden, graph.ints([1]))
    model = graph.model("accuracy", "population", "top1")
    return AccuracyModel.of(model, space, accuracy_facts(space, source=source))


def _one_hot(
    space: SearchSpace,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], list[int]]:
    """Gene columns and choices to compare, and the predictor's input that each pair sets."""
    stages = [i for i, stage in enumerate(space.stages) if len(stage.depths) > 1]
    starts = {stage: 4 * position for position, stage in enumerate(stages)}
    found = []
    for column, gene in enumerate(space.genes):
        for choice, value in enumerate(gene.choices):
            if gene.kind == "resolution":
                number = 6 * _BLOCKS + _ALL_RESOLUTIONS.index(int(value))
            elif gene.kind == "depth":
                continue  # told by which blocks are absent
            else:
                group, base = (_KERNELS, 0) if gene.kind == "kernel" else (_EXPANDS, 3 * _BLOCKS)
                number = base + 3 * (starts[gene.stage] + gene.block) + group.index(int(value))
            found.append((column, choice, number))
    columns, choices, inputs = zip(*found, strict=True)
    return np.array(columns), np.array(choices), list(inputs)


def _check_weights(weights: Arrays) -> None:
    widths = (_INPUTS, 400, 400, 400, 1)
    expected: dict[str, tuple[int, ...]] = {}
    for position, layer in enumerate(_LAYERS):
        expected[f"{layer}.weight"] = (widths[position + 1], widths[position])
        expected[f"{layer}.bias"] = (widths[position + 1],)
    found = {name: tuple(array.shape) for name, array in weights.items()}
    wrong = [
        f"{name} {found.get(name, 'missing')} (expected {expected.get(name, 'none')})"
        for name in sorted({*expected, *found})
        if found.get(name) != expected.get(name)
    ]
    if wrong:
        raise FileFormatError(f"not once-for-all's accuracy predictor: {'; '.join(wrong[:4])}")
    if damaged := [name for name, array in weights.items() if not np.isfinite(array).all()]:
        raise FileFormatError(f"damaged accuracy predictor: {damaged[0]} is not finite")


def _check_space(space: SearchSpace) -> None:
    elastic = [stage for stage in space.stages if len(stage.depths) > 1]
    fits = len(elastic) * 4 == _BLOCKS and all(
        stage.most == 4
        and stage.depths == (2, 3, 4)
        and stage.kernels == _KERNELS
        and stage.expands == _EXPANDS
        for stage in elastic
    )
    if not fits or space.width_multipliers:
        raise MismatchError(
            f"once-for-all's accuracy predictor is for MobileNetV3 spaces of five stages, kernels "
            f"3, 5, 7 and expansion ratios 3, 4, 6; {space.name} is another"
        )
    if unknown := sorted(set(space.resolutions) - set(MLP_RESOLUTIONS)):
        raise MismatchError(
            f"once-for-all's accuracy predictor answers nonsense at {unknown[0]:g} pixels; it "
            f"knows {', '.join(map(str, MLP_RESOLUTIONS))}: keep those"
        )
