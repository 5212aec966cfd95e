"""The parts of a Trainer: checks that they fit together."""

from __future__ import annotations

from typing import Any

from microfw.errors import ArgumentError
from microfw.nn import Module

# A test that passes for good arguments comes first; what is wrong is only looked for after it has failed.


def check_parts(model: Any, loss: Any, optimizer: Any) -> None:
    """Raise unless model, loss and optimizer are of the right kind, and the optimizer has the model's parameters."""
    able = hasattr(optimizer, "step") and hasattr(optimizer, "zero_grad")
    if not able or not isinstance(model, Module) or not callable(loss) or isinstance(loss, type):
        _refuse_part(model, loss, optimizer, able)
    stepped = getattr(getattr(optimizer, "flat", None), "parameters", None)
    if stepped is not None and {id(p) for p in stepped}.isdisjoint([id(p) for p in model.parameters()]):
        expected, fix = "an optimizer of the model's parameters", "make it with model.parameters()"
        raise ArgumentError("Trainer", expected, "others", fix)


def _refuse_part(model: Any, loss: Any, optimizer: Any, able: bool) -> None:
    for name, part, good, expected in (
        ("model", model, isinstance(model, Module), "a Module"),
        ("loss", loss, callable(loss), "a loss such as nn.MSELoss()"),
        ("optimizer", optimizer, able, "an optimizer"),
    ):
        if isinstance(part, type):
            raise ArgumentError("Trainer", f"{name} to be {expected}", f"the class {part.__name__}", "call it")
        if not good:
            raise ArgumentError("Trainer", f"{name} to be {expected}", type(part).__name__)
