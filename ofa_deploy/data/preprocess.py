"""What is done to an image before a network sees it."""

import numpy as np
import numpy.typing as npt

__all__ = ["MEAN", "STD", "normalise"]

# ImageNet's channel statistics, as published weights expect them (red, green, blue; 0..1).
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def normalise(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """uint8 images (n, 3, h, w) to float32, less ``MEAN`` and over ``STD``."""
    mean, std = np.array(MEAN, np.float32), np.array(STD, np.float32)
    scale, shift = 1 / (np.float32(255) * std), mean / std
    result: npt.NDArray[np.float32] = images * scale[:, None, None] - shift[:, None, None]
    return result
