"""Profiler of training: records a run, stores the numbers in a session, renders reports."""

from microfw._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
