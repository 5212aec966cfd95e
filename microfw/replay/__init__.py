"""A training step captured once, and replayed as the NumPy calls that it came down to."""

from microfw.replay.step import CompiledStep, compile

__all__ = ["CompiledStep", "compile"]
