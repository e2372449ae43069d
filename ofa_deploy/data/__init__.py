"""Images: built-in glyphs, folders by class, the Hugging Face hub; and their splits. Torch-free."""

from ofa_deploy.data.augmentations import AUGMENTATIONS, augmentation_names
from ofa_deploy.data.counts import few_images, share_interval, thin_classes
from ofa_deploy.data.decode import read_image
from ofa_deploy.data.files import ImageFiles
from ofa_deploy.data.folder import folder_images, image_folder
from ofa_deploy.data.glyphs import glyphs
from ofa_deploy.data.hub import SHORT_NAMES
from ofa_deploy.data.images import Images, ImageSet, in_proportion
from ofa_deploy.data.preprocess import MEAN, STD, normalise
from ofa_deploy.data.splits import DataSplits, full_name, load_data

__all__ = [
    "AUGMENTATIONS",
    "MEAN",
    "SHORT_NAMES",
    "STD",
    "DataSplits",
    "ImageFiles",
    "ImageSet",
    "Images",
    "augmentation_names",
    "few_images",
    "folder_images",
    "full_name",
    "glyphs",
    "image_folder",
    "in_proportion",
    "load_data",
    "normalise",
    "read_image",
    "share_interval",
    "thin_classes",
]
