"""What training costs: recorder, session, and the functions that render it."""

from microfw._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
