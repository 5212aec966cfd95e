"""What training costs: recorder, session, and the functions that render it."""

from microfw.profiler.profiler import Profiler
from microfw.profiler.report import report
from microfw.profiler.session import Epoch, Layer, Row, Session

__all__ = ["Epoch", "Layer", "Profiler", "Row", "Session", "report"]
