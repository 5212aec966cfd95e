"""What training costs: recorder, session, and the functions that render it."""

from microfw.profiler.fits import FitProfile, fits_report
from microfw.profiler.law import law
from microfw.profiler.law_data import Count, Law, LayerCost, Ratio
from microfw.profiler.measure import Way
from microfw.profiler.profiler import Profiler
from microfw.profiler.report import report
from microfw.profiler.session import Epoch, Layer, Row, Session
from microfw.profiler.sweep import Fit, Sweep, sweep

__all__ = [
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
    "Way",
    "fits_report",
    "law",
    "report",
    "sweep",
]
