"""N + P on a model: the same gradient by several strategies, each really run and counted."""

from microfw.law.data import Count, Law, LayerCost
from microfw.law.measure import Way
from microfw.law.run import law
from microfw.law.sweeps import Fit, Sweep, sweep

__all__ = ["Count", "Fit", "Law", "LayerCost", "Sweep", "Way", "law", "sweep"]
