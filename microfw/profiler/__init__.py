"""Profiler of training: records a run, stores the numbers in a session, renders reports."""

from typing import TYPE_CHECKING

from microfw._lazy import attach
from microfw.profiler.comparison import Change, Comparison, alternate, compare
from microfw.profiler.cost_check import assert_cost
from microfw.profiler.profiler import Profiler
from microfw.profiler.ratio import Ratio
from microfw.profiler.reports.text import report
from microfw.profiler.search import FitProfile, fits_report
from microfw.profiler.session import Epoch, Layer, Row, Session, Trace

if TYPE_CHECKING:
    from microfw.law import Law, LayerCost, NodeCount, PowerLaw, StrategyResult, Sweep, law, sweep
else:
    __getattr__ = attach(
        "microfw.profiler", {"microfw.law": "Law LayerCost NodeCount PowerLaw StrategyResult Sweep law sweep"}
    )

__all__ = [
    "Change",
    "Comparison",
    "Epoch",
    "FitProfile",
    "Law",
    "Layer",
    "LayerCost",
    "NodeCount",
    "PowerLaw",
    "Profiler",
    "Ratio",
    "Row",
    "Session",
    "StrategyResult",
    "Sweep",
    "Trace",
    "alternate",
    "assert_cost",
    "compare",
    "fits_report",
    "law",
    "report",
    "sweep",
]


def __dir__() -> list[str]:
    return __all__
