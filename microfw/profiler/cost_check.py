"""`assert_cost`: deterministic test of the counts of a model, for your test suite."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterable
from functools import partial, reduce
from typing import Any

import numpy as np

from microfw.autograd.graph import Leaf, reachable
from microfw.autograd.mode import mode
from microfw.autograd.pytree import flatten
from microfw.autograd.tensor import Tensor
from microfw.data import nested
from microfw.errors import ArgumentError
from microfw.nn.module import Module
from microfw.optim.checks import is_integer
from microfw.profiler.recorder.recorder import Recorder
from microfw.profiler.reports.text import shorten, table
from microfw.profiler.session import Epoch, Session
from microfw.training.outputs import ModelCall

KINDS = (
    "flops", "flops_forward", "flops_backward", "nodes", "edges", "steps", "parameters", "parameter_tensors",
    "saved_bytes",
)  # fmt: skip


def assert_cost(model: Module, X: Any, y: Any = None, loss: Any = None, **expected: int) -> None:
    """Assert the counts of one forward and backward pass of a model. Counts are the same on every machine.

    A copy of the model runs: gradients, statistics and random state of the model do not change.

    Parameters
    ----------
    model : Module
        The model.
    X, y : array, or tuple or dict of arrays
        A batch, and its targets if a loss is given, as `Trainer.fit` takes them.
    loss : Module or callable, optional
        Loss, included in the counts: a Tensor, or a dict of Tensors, which are added. Without one, only the model is
        counted, and its outputs get gradients of ones.
    **expected : int
        Any of ``flops`` (forward and backward together), ``flops_forward``, ``flops_backward``, ``nodes`` (N),
        ``edges`` (E), ``parameters`` and ``parameter_tensors`` (P), ``steps`` (derivative rules called and
        gradients added), ``saved_bytes`` (kept for backward).

    Raises
    ------
    AssertionError
        If a count differs. The message has both numbers and the counts of each layer.
    ArgumentError
        If no count is given, an unknown one, or one that is no count, or an argument cannot work.

    Examples
    --------
    >>> import numpy as np
    >>> from microfw import nn
    >>> model = nn.Sequential(nn.Dense(3, 2, rng=0), nn.ReLU())
    >>> assert_cost(model, np.ones((4, 3)), nodes=2, parameters=8, steps=4)
    >>> assert_cost(model, np.ones((4, 3)), nodes=3)
    Traceback (most recent call last):
    ...
    AssertionError: assert_cost: expected nodes 3, got 2
    layer  nodes  flops_forward  flops_backward  edges  saved_bytes
    ---------------------------------------------------------------
    0          1             56              54      2           48
    1          1              8              16      1           32
    """
    if not expected or not set(expected) <= set(KINDS):
        raise ArgumentError("assert_cost", f"counts among {', '.join(KINDS)}", ", ".join(expected) or "none")
    check_step("assert_cost", model, y, loss)
    for name, value in expected.items():
        if not is_integer(value, 0):
            raise ArgumentError("assert_cost", f"{name} to be a count, 0 or more", repr(value))
    epoch = one_step(model, X, y, loss, "assert_cost")
    total = epoch.sum()
    got = {
        "flops": total.flops_forward + total.flops_backward,
        "steps": total.rules + total.accumulated,
        "parameters": epoch.parameters,
        "parameter_tensors": epoch.parameter_tensors,
    }
    wrong = []
    for name, value in expected.items():
        count = got[name] if name in got else getattr(total, name)
        if count != value:
            wrong.append(f"expected {name} {value:,}, got {count:,}")
    if total.uncounted and any("flops" in name for name in expected):
        wrong.append(f"{total.uncounted} ops declare no cost; their operations are not in flops")
    if wrong:
        names = ["nodes", "flops_forward", "flops_backward", "edges", "saved_bytes"]
        rows = [[shorten(row.layer, 40), *(f"{getattr(row, name):,}" for name in names)] for row in epoch.layers()]
        raise AssertionError(f"assert_cost: {'; '.join(wrong)}\n{table(['layer', *names], rows)}")


def one_step(model: Module, X: Any, y: Any = None, loss: Any = None, where: str = "one_step") -> Epoch:
    """Run one forward and backward pass of a copy of a model; return the counts.

    `Epoch.counts` of the result has N, P, steps and operations; `Epoch.layers` and `Epoch.ops` have a row for each
    layer and op, with ``scalar_nodes`` (N), ``flops_forward`` and ``flops_backward``.

    Examples
    --------
    >>> from microfw import nn
    >>> tensors, scalars = one_step(nn.Dense(3, 2, rng=0), np.ones((4, 3), np.float32)).counts()
    >>> (tensors.N, tensors.P, tensors.steps), (scalars.N, scalars.P, scalars.steps, scalars.operations)
    ((1, 2, 3), (48, 8, 80, 110))
    """
    twin, twin_loss = copied(where, model, loss)
    return count_step(twin, X, y, twin_loss, where, model).epochs[0]


def copied(where: str, model: Module, loss: Any) -> tuple[Module, Any]:
    """Return copies of a model and its loss. A loss that holds the model holds the copy."""
    try:
        return copy.deepcopy((model, loss))
    except Exception as error:
        got = f"{type(error).__name__}: {error}"
        fix = "open files and locks when they are used, not in the constructor"
        raise ArgumentError(where, "a model and a loss that can be copied", got, fix) from error


def count_step(model: Module, X: Any, y: Any, loss: Any, where: str, original: Module) -> Session:
    """Run one forward and backward pass of a model; return the counts. Without trained parameters, run forward only.

    ``original``: the model of which ``model`` is a copy. Gradients of other leaves do not change.
    """
    recorder = Recorder(takes_losses=False, model=model)
    with mode(observer=recorder, timer=recorder, recording=True):
        output = prepared(model, X)()
        end = sum_of_outputs(output) if loss is None else total_loss(loss(output, y))
        if loss is not None and not isinstance(end, Tensor):
            fix = "return it from the loss"
            raise ArgumentError(where, "a loss that is a Tensor, or a dict of them", type(end).__name__, fix)
        if end is not None and end.requires_grad:
            leaves = {p for node in reachable(end._node) for p in node.parents or () if isinstance(p, Leaf)}
            if used := [name for name, p in original.named_parameters() if p._leaf in leaves]:
                raise not_copied(where, used)
            before = [(leaf, leaf.grad, leaf.grad_buffer) for leaf in leaves]
            try:
                for leaf in leaves:
                    leaf.grad = leaf.grad_buffer = None
                end.backward(np.ones(end.shape, end.dtype))
            finally:
                for leaf, grad, buffer in before:
                    leaf.grad, leaf.grad_buffer = grad, buffer
    recorder.step = recorder.observed = 1
    return Session(layers=recorder.names.layers(), epochs=[recorder.end_epoch(1).epoch()])


def prepared(model: Module, X: Any) -> Callable[[], Any]:
    """Return a call of a model as in `Trainer.fit`: with several arguments for a tuple or a dict, if it takes them."""
    template, leaves, _ = nested.flatten(X)
    return partial(ModelCall(model, template).call, leaves)


def total_loss(made: Any) -> Any:
    """Return what a loss returns, the sum of a dict."""
    return reduce(operator.add, made.values()) if isinstance(made, dict) and made else made


def not_copied(where: str, names: Iterable[str]) -> ArgumentError:
    """Return the error for a function that uses trained arrays which are not those of the copies."""
    got = f"a function that uses {', '.join(names)}"
    fix = "make it a Module, with the model or these arrays as attributes"
    return ArgumentError(where, "trained arrays that are copied with the model and the loss", got, fix)


def check_step(where: str, model: Any, y: Any, loss: Any) -> None:
    """Raise ArgumentError for a model or a loss that cannot run, and for targets that no loss would use."""
    if not isinstance(model, Module):
        raise ArgumentError(where, "a Module", type(model).__name__, "pass the model itself")
    if loss is not None and (isinstance(loss, type) or not callable(loss)):
        made = isinstance(loss, type)
        got, fix = (f"the class {loss.__name__}", f"make one: {loss.__name__}()") if made else (repr(loss), "")
        raise ArgumentError(where, "a loss, called as loss(prediction, y)", got, fix)
    if loss is None and where == "law":
        raise ArgumentError(where, "a loss, called as loss(prediction, y)", "none", "call law(model, loss, X, y)")
    if y is not None and loss is None:
        got = f"{type(y).__name__} as y and no loss"
        raise ArgumentError(where, "a loss with targets y", got, f"call {where}(model, X, y, loss), or leave y out")


def sum_of_outputs(output: Any) -> Tensor | None:
    """Return a Tensor that depends on each Tensor of an output that needs a gradient; None if there is none."""
    found = [t for t in flatten(output)[0] if isinstance(t, Tensor) and t.requires_grad]
    if len(found) < 2:
        return found[0] if found else None
    with mode(observer=None, timer=None):  # ops of the sum are not part of the model, and not counted
        total: Any = sum(t.astype(np.float64).sum() for t in found)
    return total  # type: ignore[no-any-return]


def first_array(output: Any) -> Any:
    """Return the first Tensor of an output, which may be nested in tuples, lists and dicts; else its first array."""
    found = [part for part in flatten(output)[0] if isinstance(part, Tensor | np.ndarray)]
    return next((part for part in found if isinstance(part, Tensor)), found[0] if found else None)
