"""What training costs: recorder, session, and the functions that render it."""

from typing import TYPE_CHECKING

from microfw._lazy import attach
from microfw.profiler.comparison import Change, Comparison, alternate, compare
from microfw.profiler.cost_check import assert_cost
from microfw.profiler.profiler import Profiler
from microfw.profiler.ratio import Ratio
from microfw.profiler.reports.text import report
from microfw.profiler.search import FitProfile, fits_report, load_fits
from microfw.profiler.session import Epoch, Layer, Row, Session, Trace

if TYPE_CHECKING:
    from microfw.law import Count, Fit, Law, LayerCost, Sweep, Way, law, sweep
else:
    __getattr__ = attach("microfw.profiler", {"microfw.law": "Count Fit Law LayerCost Sweep Way law sweep"})

__all__ = [
    "Change",
    "Comparison",
    "Count",
    "Epoch",
    "Fit",
    "FitProfile",
    "Law",
    "Layer",
    "LayerCost",
    "Profiler",
    "Ratio",
    "Row",
    "Session",
    "Sweep",
    "Trace",
    "Way",
    "alternate",
    "assert_cost",
    "compare",
    "fits_report",
    "law",
    "load_fits",
    "report",
    "sweep",
]


def __dir__() -> list[str]:
    return __all__
