"""Measuring on other devices: the agent as one file, the way to a device, and what it answers."""

from ofa_deploy.profiling.remote.target import RemoteTarget, open_target

__all__ = ["RemoteTarget", "open_target"]
