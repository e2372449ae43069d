"""What measures, here and on other devices: numpy and one engine only, on Python 3.8 too."""

from ofa_deploy.profiling.agent.engines import ENGINES, EngineError, open_model

__all__ = ["ENGINES", "EngineError", "open_model"]
