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
    if stepped is not None and list(map(id, stepped)) != list(map(id, model.parameters())):
        _check_owned(model, loss, stepped)


def _check_owned(model: Any, loss: Any, stepped: list[Any]) -> None:
    """Raise if the optimizer has none of the model's parameters, or those from before a layer was replaced."""
    held, own = {id(p) for p in stepped}, {id(p) for p in model.parameters()}
    if held.isdisjoint(own):
        expected, fix = "an optimizer of the model's parameters", "make it with model.parameters()"
        raise ArgumentError("Trainer", expected, "others", fix)
    known = own | {id(p) for p in (loss.parameters() if isinstance(loss, Module) else ())}
    left = [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in held]
    gone = [p for p in stepped if id(p) not in known]
    if left and gone:
        expected = f"an optimizer of {', '.join(left[:4])}{', …' if len(left) > 4 else ''}"
        got = f"one of other parameters, of shapes {', '.join(str(p.shape) for p in gone[:4])}"
        raise ArgumentError("Trainer", expected, got, "make it after the model is changed")


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
