"""Measuring graphs on a device, and building latency tables. Torch-free."""

from ofa_deploy.profiling.choice import choose_networks
from ofa_deploy.profiling.measure import ALONE, REFERENCE, Taken, Turns, measure
from ofa_deploy.profiling.place import Here, Place
from ofa_deploy.profiling.protocol import Protocol
from ofa_deploy.profiling.remote import RemoteTarget, open_target
from ofa_deploy.profiling.sentinels import (
    Sentinel,
    SentinelCheck,
    changed_conditions,
    check_sentinels,
    choose_sentinels,
)
from ofa_deploy.profiling.space_table import (
    blocks_subject,
    conditions_here,
    network_subject,
    profile_space,
    reference_arch,
)
from ofa_deploy.profiling.subject import Subject

__all__ = [
    "ALONE",
    "REFERENCE",
    "Here",
    "Place",
    "Protocol",
    "RemoteTarget",
    "Sentinel",
    "SentinelCheck",
    "Subject",
    "Taken",
    "Turns",
    "blocks_subject",
    "changed_conditions",
    "check_sentinels",
    "choose_networks",
    "choose_sentinels",
    "conditions_here",
    "measure",
    "network_subject",
    "open_target",
    "profile_space",
    "reference_arch",
]
