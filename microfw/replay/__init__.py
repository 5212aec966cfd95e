"""Training steps captured as a list of NumPy calls, and replayed without running the Python that made them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from microfw.errors import ArgumentError
from microfw.optim.optimizer import Optimizer
from microfw.replay.step import CompiledStep

__all__ = ["CompiledStep", "compile"]


def compile(f: Callable[..., Any], optimizer: Optimizer) -> CompiledStep:
    """Return a function that runs a whole training step, and replays it from the third call on.

    ``step(*arrays)`` gives the same bits as::

        optimizer.zero_grad()
        loss = f(*arrays)
        loss.backward()
        optimizer.step()

    The first two calls for each shape and dtype of the arguments run these lines, and the ops of both are compared.
    Later calls replay the NumPy calls of the second one, with results written into preallocated memory.

    Parameters
    ----------
    f : callable
        ``f(*arrays)`` returns the loss, a scalar Tensor, or a tuple with the loss first. ``f`` is called with
        Tensors: floats cast to the dtype of the parameters, integers in their own dtype. Arguments that need a
        gradient raise GraphError.
    optimizer : optimizer
        Owns all parameters that ``f`` trains. Hyperparameters, such as ``lr``, may change between steps.

    Returns
    -------
    CompiledStep
        ``step(*arrays)`` returns what ``f`` returns, as Tensors without a graph. ``step.explain()`` lists the shapes
        that are replayed, and why others are not. ``print(step)`` shows the calls.

    Raises
    ------
    ArgumentError
        If ``f`` is not callable, or ``optimizer`` is not an Optimizer or takes a closure.

    Notes
    -----
    Side effects of ``f`` happen only in steps that run eagerly. Before each replay, everything that ``f`` can reach is
    compared: settings of modules, attributes of objects, entries of containers, variables. After a change the step is
    captured again. If ``f`` uses something that cannot be compared, every step runs eagerly, and
    `CompiledStep.explain` names it. A step that reads a value of a Tensor, such as a branch on the loss, also runs
    eagerly every time. At replays 16, 64, 256 and so on the plan is compared with an eager step again; a difference
    drops the plan with a `ReplayWarning`.

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
        raise ArgumentError("compile", "a function that returns the loss", type(f).__name__)
    if not isinstance(optimizer, Optimizer) or optimizer.takes_closure:
        raise ArgumentError("compile", "an optimizer whose step takes no function", type(optimizer).__name__)
    return CompiledStep(f, optimizer)


def __dir__() -> list[str]:
    return sorted(__all__)
