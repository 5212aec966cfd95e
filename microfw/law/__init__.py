"""The law of N + P: the gradient of a model by several strategies, each run and counted."""

from microfw.law.data import Law, LayerCost
from microfw.law.measure import StrategyResult
from microfw.law.run import law
from microfw.law.sweeps import PowerLaw, Sweep, sweep
from microfw.profiler.node_count import NodeCount

__all__ = ["NodeCount", "PowerLaw", "Law", "LayerCost", "Sweep", "StrategyResult", "law", "sweep"]


def __dir__() -> list[str]:
    return sorted(__all__)
