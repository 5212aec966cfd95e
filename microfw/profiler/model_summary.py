"""`summary`: the layers of a model with shapes, parameters, nodes and operations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from microfw.errors import printable
from microfw.nn.module import Module
from microfw.profiler.cost_check import check_step, copied, count_step, first_array
from microfw.profiler.node_count import NodeCount
from microfw.profiler.recorder.naming import title_of
from microfw.profiler.reports.counts import undeclared
from microfw.profiler.reports.text import shorten, table, whole, wrap_lines
from microfw.profiler.row import shown_kind


@dataclass
class LayerSummary:
    """A layer in a `Summary`.

    Attributes
    ----------
    name, kind : str
        Path in the model, and type.
    output_shape : tuple of int or None
        Shape of the last output; of the first Tensor, else the first array, if the layer returns several. None
        if the layer was not called.
    parameters : int
        Number of its own parameters, frozen ones included.
    N : int
        Its own nodes: scalar nodes, or if an op has none, tensor nodes.
    operations : int
        Its own scalar operations, forward and backward; a multiply-add is 2.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...] | None = None
    parameters: int = 0
    N: int = 0
    operations: int = 0


@dataclass
class Summary:
    """Layers of a model. ``str()`` returns a table.

    Attributes
    ----------
    layers : list of LayerSummary
        The model itself, its layers in order of assignment, then the loss, if given.
    counts : list of NodeCount
        N, P and steps of one backward pass, in tensors and, unless an op has no scalar nodes, in scalars.
    note : str
        Sentence on ops without a declared cost, or "".
    """

    layers: list[LayerSummary]
    counts: list[NodeCount]
    note: str = ""

    def __str__(self) -> str:
        rows = [
            [shorten(f"{row.name} {shown_kind(row.name, row.kind)}".rstrip(), 30)]
            + ["" if row.output_shape is None else str(row.output_shape)]
            + [f"{value:,}" if value else "" for value in (row.parameters, row.N, row.operations)]
            for row in self.layers
        ]
        sums = [sum(getattr(row, name) for row in self.layers) for name in ("parameters", "N", "operations")]
        rows.append(["total", "", *(f"{value:,}" for value in sums)])
        head = ["layer", "output shape", "parameters", "N", "operations"]
        tensors, c = self.counts[0], self.counts[-1]
        lines = [table(head, rows), "No parameter is trained, so backward has no steps."]
        if c.P:
            text = f"In tensors: N = {tensors.N:,}, P = {tensors.P:,} arrays."
            if c is not tensors:
                text += f" In scalars: N = {whole(c.N)} nodes, P = {whole(c.P)} trained numbers."
            lines[1:] = [
                text,
                f"Backward takes {whole(c.steps)} steps: {c.steps / (c.N + c.P):.2f} x (N + P).",
            ]
        lines += ["Operations: forward and backward; a multiply-add is 2.", *wrap_lines(self.note)]
        return printable("\n".join(lines))

    __repr__ = __str__


def summary(model: Module, X: Any, y: Any = None, loss: Any = None) -> Summary:
    """Return the layers of a model, with output shapes, parameters, N and operations.

    A copy of the model runs one step in evaluation mode, so the model does not change, and layers that act in training
    only, such as dropout, have no nodes.

    Parameters
    ----------
    model : Module
        The model.
    X : array_like, or tuple or dict of them
        A batch, as `Trainer.fit` takes it.
    y : array_like, or tuple or dict of them, optional
        Its targets, if a loss is given.
    loss : Module or callable, optional
        Loss, ``loss(prediction, y)``, included in N and operations: a Tensor, or a dict of Tensors, which are added.
        Without one, all outputs of the model count.

    Returns
    -------
    Summary
        ``print`` it, or use its ``layers`` and ``counts``.

    Raises
    ------
    ArgumentError
        If ``model`` is not a Module, ``loss`` cannot be called, or targets come without a loss.

    Examples
    --------
    >>> import numpy as np, microfw as mf
    >>> from microfw import nn
    >>> model = nn.Sequential(nn.Dense(64, 32, rng=0), nn.ReLU(), nn.Dense(32, 10, rng=1))
    >>> mf.summary(model, np.zeros((32, 64)), np.zeros(32, int), nn.CrossEntropyLoss())
    layer             output shape  parameters        N  operations
    ---------------------------------------------------------------
    Sequential            (32, 10)
    0 Dense               (32, 32)       2,080  131,072     264,160
    1 ReLU                (32, 32)                1,024       3,072
    2 Dense               (32, 10)         330   20,480      62,070
    CrossEntropyLoss                              1,056       3,296
    total                                2,410  153,632     332,598
    In tensors: N = 4, P = 4 arrays. In scalars: N = 153,632 nodes, P = 2,410 trained numbers.
    Backward takes 230,752 steps: 1.48 x (N + P).
    Operations: forward and backward; a multiply-add is 2.
    """
    check_step("summary", model, y, loss)
    original, (model, loss) = model, copied("summary", model, loss)
    model.eval()
    shapes: dict[str, tuple[int, ...]] = {}
    for name, module in model.named_modules():
        vars(module)["forward"] = noting_shape(module.forward, shapes, name or title_of(model))
    if isinstance(loss, Module):
        loss.eval()
    session = count_step(model, X, y, loss, "summary", original)
    epoch = session.epochs[0]
    counts = epoch.counts()
    found = {}
    for layer in session.layers:
        found[layer.name] = LayerSummary(layer.name, layer.kind, shapes.get(layer.name), layer.parameters)
    for row in epoch.layers():
        line = found.setdefault(row.layer, LayerSummary(row.layer, ""))
        line.N = row.scalar_nodes if counts[-1].kind == "scalars" else row.nodes
        line.operations = row.flops_forward + row.flops_backward
    return Summary(list(found.values()), counts, undeclared(epoch))


def noting_shape(forward: Callable[..., Any], shapes: dict[str, tuple[int, ...]], name: str) -> Callable[..., Any]:
    """Return a forward method that stores the shape of its output under a name."""

    def noting(*inputs: Any, **options: Any) -> Any:
        output = forward(*inputs, **options)
        first = first_array(output)
        if first is not None:
            shapes[name] = first.shape
        return output

    vars(noting)["__wrapped__"] = forward  # its signature decides how several inputs are passed
    return noting
