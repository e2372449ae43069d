"""The names of what varies training images; ``ofa_deploy.train.augment`` does it."""

from ofa_deploy.errors import InputError, UnknownNameError

__all__ = ["AUGMENTATIONS", "augmentation_names"]

AUGMENTATIONS = (
    "none",
    "crop",
    "flip",
    "rrc",
    "autoaugment",
    "autoaugment-cifar",
    "jitter",
    "erase",
)


def augmentation_names(text: str) -> tuple[str, ...]:
    """The parts of a text such as ``crop+flip``, in order; ``none`` has none.

    Raises:
        UnknownNameError: if a part is not one of ``AUGMENTATIONS``.
        InputError: if one stands there twice, or ``none`` beside others.
    """
    names = tuple(text.split("+"))
    for name in names:
        if name not in AUGMENTATIONS:
            raise UnknownNameError("augmentation", name, AUGMENTATIONS)
    if len(set(names)) < len(names):
        raise InputError(f"augmentation {text!r}: expected each name once")
    if "none" in names and len(names) > 1:
        raise InputError(f"augmentation {text!r}: none cannot be joined with others")
    return () if names == ("none",) else names
