"""Models whose inputs or outputs are nested: how they are called, and their outputs as columns."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from microfw.autograd.tensor import Tensor
from microfw.data.nested import Columns, fill, flatten, join
from microfw.errors import ArgumentError, DTypeError, ShapeError
from microfw.nn import Module


def is_branch(value: Any) -> bool:
    """Return True for the containers in a model's outputs."""
    return isinstance(value, tuple | list | dict)


class ModelCall:
    """Calls a model with nested features.

    A tuple is passed as positional arguments, and a dict as keyword arguments, if ``forward`` takes them; else as one
    argument.
    """

    def __init__(self, model: Module, template: Any) -> None:
        self.model, self.template = model, template
        signature = inspect.signature(model.forward)
        self.positional = isinstance(template, tuple | list) and binds(signature, *template)
        self.named = isinstance(template, dict) and all(type(key) is str for key in template)
        self.named = self.named and binds(signature, **template)
        if is_branch(template) and not (self.positional or self.named or binds(signature, template)):
            expected = f"the inputs {', '.join(signature.parameters) or 'none'}"
            got = ", ".join(map(str, template)) if isinstance(template, dict) else f"{len(template)} inputs"
            raise ArgumentError(f"{type(model).__name__}.forward", expected, got)

    def call(self, leaves: Sequence[Any]) -> Any:
        """Call the model with Tensors."""
        features = fill(self.template, leaves)
        if self.positional:
            return self.model(*features)
        return self.model(**features) if self.named else self.model(features)


def binds(signature: inspect.Signature, *args: Any, **options: Any) -> bool:
    """Return True if a function with a signature takes these arguments."""
    try:
        signature.bind(*args, **options)
    except TypeError:
        return False
    return True


def check_function(function: Any, name: str, where: str) -> None:
    """Raise unless an argument is a function with the parameters in ``name``, such as ``"f(y_true, y_pred)"``."""
    if not callable(function):
        raise ArgumentError(where, f"a function {name}", type(function).__name__)
    try:
        signature = inspect.signature(function)
    except ValueError:  # some functions written in C have none
        return
    if not binds(signature, *name.split(",")):
        raise ArgumentError(where, f"a function {name}", f"one with {signature}")


def output_columns(outputs: Any, where: str) -> Columns:
    """Return a model's outputs as columns of Tensors.

    Raises
    ------
    DTypeError
        If an output is no Tensor.
    """
    found = Columns(*flatten(outputs, is_branch))
    for leaf, path in zip(found.leaves, found.paths, strict=True):
        if not isinstance(leaf, Tensor):
            got = type(leaf).__name__ + f" at {path}" * bool(path)
            raise DTypeError(where, "the model to return Tensors, alone or in nested tuples and dicts", got)
    return found


def join_outputs(parts: list[Columns], rows: int, batch_size: int, where: str) -> Any:
    """Return the outputs of several batches in the model's structure."""
    sizes = [min(batch_size, rows - k * batch_size) for k in range(len(parts))]
    if len(parts) > 1:
        for part, size in zip(parts, sizes, strict=True):
            for leaf, path in zip(part.leaves, part.paths, strict=True):
                if leaf.shape[:1] != (size,):
                    fix = "pass a batch_size of at least the number of rows"
                    raise ShapeError(where, f"an output for each row at {path or 'the output'}", leaf.shape, fix)
    return join([part.like([leaf.data.copy() for leaf in part.leaves]) for part in parts]).tree
