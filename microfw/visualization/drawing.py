"""`draw`, and the Drawing that it returns."""

from __future__ import annotations

from functools import cached_property
from os import PathLike
from os.path import splitext
from typing import Any, Literal, Never

import numpy as np

from microfw.autograd.tensor import Tensor
from microfw.errors import ArgumentError, DTypeError, GraphError, refuse_former
from microfw.nn.module import Module
from microfw.serialization.output import path_text, write_text
from microfw.visualization import svg, text
from microfw.visualization.picture import Picture, read


class Drawing:
    """Drawing of a graph, from `draw`: a notebook shows it, ``print`` lists it, `save` writes it to a file.

    A drawing is plain data: the graph can be freed.

    Attributes
    ----------
    picture : Picture
        The drawn ``ops``, ``leaves`` and ``boxes``.
    """

    def __init__(self, picture: Picture, tall: bool = True) -> None:
        self.picture = picture
        self.tall = tall

    @cached_property
    def svg(self) -> str:
        """Text of an SVG file."""
        return svg.svg(self.picture, self.tall, alone=True)

    @cached_property
    def dot(self) -> str:
        """The graph in the DOT language of Graphviz, which computes its own layout."""
        return text.dot(self.picture, self.tall)

    def save(self, path: str | PathLike[str]) -> None:
        """Write a file; the suffix ``.svg`` or ``.dot`` selects the format.

        Raises
        ------
        ArgumentError
            If the name has another suffix.
        FileError
            If the file cannot be written. An existing file is then unchanged.
        """
        text = path_text(path, "Drawing.save", "drawing.save(path)")
        suffix = splitext(text)[1].lower()
        if suffix not in (".svg", ".dot"):
            raise ArgumentError("Drawing.save", "a path that ends in .svg or .dot", repr(text))
        write_text(text, self.svg if suffix == ".svg" else self.dot)

    @cached_property
    def html(self) -> str:
        """HTML fragment with the SVG in the colours of the page around it."""
        return f'<div style="overflow-x:auto">{svg.svg(self.picture, self.tall, alone=False)}</div>'

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, dict[str, bool]]]:
        # no HTML: an untrusted notebook strips it to loose words, but shows the text instead of an SVG
        # "unconfined", and the style: a wide drawing scrolls, as JupyterLab and exports would shrink it to the column
        wide = self.svg.replace("<svg ", '<svg style="max-width:none" ', 1)
        listed = str(self)
        plain = listed if len(listed) <= 2_000 else repr(self)
        return {"image/svg+xml": wide, "text/plain": plain}, {"image/svg+xml": {"unconfined": True}}

    def __str__(self) -> str:
        return text.terminal(self.picture)

    def __repr__(self) -> str:
        return f"<Drawing of {len(self.picture.ops):,} nodes>"


def draw(
    loss: Tensor,
    model: Module | None = None,
    *,
    direction: Literal["TB", "LR"] = "TB",
    data: bool = True,
    max_nodes: int = 2000,
    **former: Never,
) -> Drawing:
    """Draw the graph of a Tensor, before ``backward`` frees it.

    A rectangle is an op: name, shape of the output, and number in the order in which ``backward`` visits the nodes,
    from 1. Parameters have round ends, other leaves that get a gradient have pointed ends, and data that derivative
    rules saved are dashed. Ops are in boxes of the layers that recorded them.

    Parameters
    ----------
    loss : Tensor
        Tensor on which ``backward`` would be called.
    model : Module, optional
        Model whose paths name layers and parameters, followed by the type: ``0 Dense``. Without a model, paths begin at
        the outermost modules that were called.
    direction : {"TB", "LR"}
        Direction of values: top to bottom, or left to right.
    data : bool
        If True, show arrays without a gradient that derivative rules saved.
    max_nodes : int
        Maximum number of nodes; larger graphs raise an error.

    Returns
    -------
    Drawing
        Drawing with ``.svg``, ``.dot`` and ``.save(path)``; ``print`` lists the ops.

    Raises
    ------
    DTypeError
        If ``loss`` is not a Tensor.
    GraphError
        If ``loss`` has no graph, or the graph was freed.
    ArgumentError
        If the graph has more than ``max_nodes`` nodes, or the direction is unknown.

    Examples
    --------
    >>> import numpy as np, microfw as mf
    >>> from microfw import nn
    >>> model = nn.Sequential(nn.Dense(4, 3, rng=0), nn.ReLU())
    >>> loss = nn.MSELoss()(model(np.ones((2, 4))), np.zeros((2, 3)))
    >>> print(mf.draw(loss, model, data=False))
    MSELoss
      1 squared_error scalar  <- 2
    Sequential
      1 ReLU
        2 relu (2, 3)         <- 3
      0 Dense
        3 linear (2, 3)       <- weight (4, 3), bias (3,)
    N = 3 tensor nodes, numbered in the order that backward visits them: 1 first. E = 4 edges that carry
    a gradient. P = 2 arrays that get a gradient (15 numbers). Arrows show values going forward;
    gradients go back along them.
    """
    refuse_former("draw", former, most="max_nodes")
    if not isinstance(loss, Tensor):
        raise DTypeError("draw", "a Tensor", type(loss).__name__, "pass the loss that a model computed")
    if model is not None and not isinstance(model, Module):
        raise ArgumentError(
            "draw", "model to be a Module", type(model).__name__, "leave it out, or pass the model itself"
        )
    if isinstance(max_nodes, bool) or not isinstance(max_nodes, int | np.integer) or max_nodes < 1:
        raise ArgumentError("draw", "max_nodes to be a positive integer", repr(max_nodes))
    if direction not in ("TB", "LR"):
        raise ArgumentError("draw", 'direction "TB" or "LR"', repr(direction))
    if loss._node is None:
        raise GraphError(
            "draw: expected a Tensor computed from leaves with requires_grad=True, got one without a graph; "
            "was it computed under no_grad, or from .data?"
        )
    return Drawing(read(loss._node, model, data, max_nodes), direction == "TB")
