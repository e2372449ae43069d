"""Images: the built-in glyphs, folders by class, splits and augmentation. Torch-free."""

from ofa_deploy.data.augment import AUGMENTATIONS, augment
from ofa_deploy.data.folder import image_folder, read_image
from ofa_deploy.data.glyphs import glyphs
from ofa_deploy.data.images import ImageSet
from ofa_deploy.data.preprocess import MEAN, STD, normalise
from ofa_deploy.data.splits import DataSplits, load_data

__all__ = [
    "AUGMENTATIONS",
    "MEAN",
    "STD",
    "DataSplits",
    "ImageSet",
    "augment",
    "glyphs",
    "image_folder",
    "load_data",
    "normalise",
    "read_image",
]
