"""The spaces that ship with ofa_deploy, by name."""

from ofa_deploy.errors import UnknownNameError
from ofa_deploy.space.search_space import Head, SearchSpace, Stage, Stem

__all__ = ["get_space", "space_names"]

_SPACES = (
    # For 32x32 images and two CPU cores; the classes are those of the built-in glyphs. The later
    # stages keep kernel 3: on a 4x4 map a wider one sees mostly padding, and its weight gradient is
    # slow on CPUs without AVX-512.
    SearchSpace(
        name="mbv3-nano-32",
        resolutions=(32,),
        classes=50,
        stem=Stem(channels=16, stride=2),
        stages=(
            Stage(
                channels=16, stride=1, depths=(1,), kernels=(3,), expands=(1,), activation="relu"
            ),
            Stage(
                channels=24,
                stride=2,
                depths=(1, 2, 3),
                kernels=(3, 5),
                expands=(2, 3, 4),
                activation="relu",
            ),
            Stage(
                channels=32, stride=2, depths=(1, 2, 3), kernels=(3,), expands=(2, 3, 4), se=True
            ),
            Stage(
                channels=48, stride=1, depths=(1, 2, 3), kernels=(3,), expands=(2, 3, 4), se=True
            ),
        ),
        head=Head(channels=192, features=256),
    ),
)
_BY_NAME = {space.name: space for space in _SPACES}


def space_names() -> tuple[str, ...]:
    """The names of all spaces in the catalogue."""
    return tuple(_BY_NAME)


def get_space(name: str) -> SearchSpace:
    """The space of that name.

    Raises:
        UnknownNameError: listing the nearest names.
    """
    if name not in _BY_NAME:
        raise UnknownNameError("space", name, _BY_NAME, hint="ofa-deploy spaces lists them")
    return _BY_NAME[name]
