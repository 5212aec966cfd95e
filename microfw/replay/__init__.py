"""A training step captured once, and replayed as the NumPy calls that it came down to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from microfw.errors import ArgumentError, message
from microfw.optim.optimizer import Optimizer
from microfw.replay.step import CompiledStep

__all__ = ["CompiledStep", "compile"]


def compile(f: Callable[..., Any], optimizer: Optimizer) -> CompiledStep:
    """Return a function that does a whole training step, and replays it when it has seen it twice.

    ``step(*arrays)`` does what these lines do, bit for bit::

        optimizer.zero_grad()
        loss = f(*arrays)
        loss.backward()
        optimizer.step()

    The first two calls for each shape and dtype of the arguments run just so, and are compared. From then on
    the NumPy calls that they came down to run from a list, into memory that is there already.

    Parameters
    ----------
    f : callable
        ``f(*arrays)`` returns the loss, a scalar Tensor, or a tuple whose first entry it is. It gets Tensors:
        floats in the dtype of the parameters, integers as they are.
    optimizer : optimizer
        Owns all parameters that ``f`` trains. Its settings, such as ``lr``, may change between steps.

    Returns
    -------
    CompiledStep
        ``step(*arrays)`` returns what ``f`` returns, as Tensors without a graph. ``step.explain()`` says what
        is replayed and what is not, and why; ``print(step)`` shows the calls.

    Raises
    ------
    ArgumentError
        If ``f`` is no function, or the optimizer is none.

    Notes
    -----
    Side effects of ``f`` happen only in steps that run eagerly. What ``f`` can reach is compared before each replay:
    settings of modules, attributes of objects, entries of containers, variables. A change makes the step captured
    again; what cannot be compared makes it run every time, and `CompiledStep.explain` names it. A step that reads a
    value of a Tensor, such as a branch on the loss, runs every time too. At replays 16, 64, 256 and so on the plan
    is compared with an eager step again; a difference drops the plan with a `ReplayWarning`.

    Examples
    --------
    >>> import numpy as np, microfw as mf
    >>> model = mf.nn.Dense(3, 1, rng=0)
    >>> loss = mf.nn.MSELoss()
    >>> step = mf.compile(lambda X, y: loss(model(X), y), mf.optim.SGD(model.parameters(), lr=0.1))
    >>> X, y = np.ones((8, 3)), np.zeros((8, 1))
    >>> [f"{step(X, y).item():.4f}" for _ in range(4)]
    ['6.4367', '0.2575', '0.0103', '0.0004']
    >>> print(step.explain())
    float32 (8, 3), float32 (8, 1): replayed
    """
    if not callable(f):
        raise ArgumentError(message("compile", "a function that returns the loss", type(f).__name__))
    if not isinstance(optimizer, Optimizer) or optimizer.takes_closure:
        raise ArgumentError(message("compile", "an optimizer whose step takes no function", type(optimizer).__name__))
    return CompiledStep(f, optimizer)
