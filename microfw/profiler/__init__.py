"""What training costs: recorder, session, and the functions that render it."""

from microfw.profiler.compare import Change, Comparison, alternate, compare
from microfw.profiler.cost_check import assert_cost
from microfw.profiler.profiler import Profiler
from microfw.profiler.report import report
from microfw.profiler.session import Epoch, Layer, Row, Session, Trace

__all__ = [
    "Change",
    "Comparison",
    "Epoch",
    "Layer",
    "Profiler",
    "Row",
    "Session",
    "Trace",
    "alternate",
    "assert_cost",
    "compare",
    "report",
]
