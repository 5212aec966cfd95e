"""What training costs: recorder, session, and the functions that render it."""

from microfw.profiler.compare import Change, Comparison, alternate, compare
from microfw.profiler.cost_check import assert_cost
from microfw.profiler.fits import FitProfile, fits_report
from microfw.profiler.law import law
from microfw.profiler.law_data import Count, Law, LayerCost
from microfw.profiler.measure import Way
from microfw.profiler.profiler import Profiler
from microfw.profiler.ratio import Ratio
from microfw.profiler.report import report
from microfw.profiler.session import Epoch, Layer, Row, Session, Trace
from microfw.profiler.sweep import Fit, Sweep, sweep

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
    "report",
    "sweep",
]
