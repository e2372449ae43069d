"""Search spaces, the networks in them and their building blocks. Torch-free."""

from ofa_deploy.space.arch import Arch, Cost
from ofa_deploy.space.arch_file import arch_from_config, read_arch
from ofa_deploy.space.block import Block, make_divisible
from ofa_deploy.space.catalog import get_space, space_names
from ofa_deploy.space.fields import ArchField, SpaceField, readable_by
from ofa_deploy.space.layout import Head, Stage, Stem
from ofa_deploy.space.search_space import Population, SearchSpace
from ofa_deploy.space.slots import Gene, Slot
from ofa_deploy.space.subspace import choices_within, common_space

__all__ = [
    "Arch",
    "ArchField",
    "Block",
    "Cost",
    "Gene",
    "Head",
    "Population",
    "SearchSpace",
    "Slot",
    "SpaceField",
    "Stage",
    "Stem",
    "arch_from_config",
    "choices_within",
    "common_space",
    "get_space",
    "make_divisible",
    "read_arch",
    "readable_by",
    "space_names",
]
