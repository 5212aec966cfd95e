"""`draw`, and the Drawing that it returns."""

from __future__ import annotations

from functools import cached_property
from os import PathLike
from os.path import splitext
from typing import Literal

from microfw.autograd.tensor import Tensor
from microfw.errors import ArgumentError, DTypeError, GraphError, message
from microfw.nn.module import Module
from microfw.serialization.output import path_text, write_text
from microfw.visualization import svg, text
from microfw.visualization.picture import Picture, read


class Drawing:
    """A picture of a graph, made by `draw`: a notebook shows it, ``print`` lists it, `save` writes it to a file.

    It is plain data: the graph can be walked and freed meanwhile.

    Attributes
    ----------
    picture : Picture
        What is drawn: ``ops``, ``leaves`` and ``boxes``.
    """

    def __init__(self, picture: Picture, tall: bool = True) -> None:
        self.picture = picture
        self.tall = tall

    @cached_property
    def svg(self) -> str:
        """The drawing as an SVG file's text."""
        return svg.svg(self.picture, self.tall, alone=True)

    @cached_property
    def dot(self) -> str:
        """The graph in the language of Graphviz, which may lay it out in its own way."""
        return text.dot(self.picture, self.tall)

    def save(self, path: str | PathLike[str]) -> None:
        """Write a file, ``.svg`` or ``.dot`` by its name.

        Raises
        ------
        ArgumentError
            If the name ends otherwise.
        FileError
            If the file cannot be written. A file that was there before is then as it was.
        """
        text = path_text(path, "Drawing.save", "drawing.save(path)")
        suffix = splitext(text)[1].lower()
        if suffix not in (".svg", ".dot"):
            raise ArgumentError(message("Drawing.save", "a path that ends in .svg or .dot", repr(text)))
        write_text(text, self.svg if suffix == ".svg" else self.dot)

    def _repr_svg_(self) -> str:
        return self.svg

    def _repr_html_(self) -> str:
        return f'<div style="overflow-x:auto">{svg.svg(self.picture, self.tall, alone=False)}</div>'

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
    most: int = 2000,
) -> Drawing:
    """Draw the graph that a Tensor was computed by, before ``backward`` walks and frees it.

    A box is an op: its name, the shape of its output, and its number in the order in which ``backward`` visits
    the nodes, 1 first. Parameters have round ends, other leaves that get a gradient pointed ones, and data that
    derivative rules saved is dashed. Ops are grouped by the layers that recorded them.

    Parameters
    ----------
    loss : Tensor
        Where ``backward`` would begin.
    model : Module, optional
        The model whose paths name layers and parameters; their kinds are added, ``0 Dense`` instead of ``0``. Without
        it, the paths are those from the modules that were called.
    direction : {"TB", "LR"}
        Whether values flow from the top down or from left to right.
    data : bool
        Show the arrays that need no gradient, but that rules saved.
    most : int
        Refuse a graph of more nodes.

    Returns
    -------
    Drawing
        With the texts ``.svg`` and ``.dot``, and ``.save(path)``; ``print`` lists it.

    Raises
    ------
    DTypeError
        If it is no Tensor.
    GraphError
        If no gradient flows through it, or its graph was freed.
    ArgumentError
        If there are too many nodes, or the direction is unknown.

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
    N = 3 op nodes, numbered in the order that backward visits them: 1 first. E = 4 edges that carry a
    gradient. P = 15 trainable numbers, in 2 arrays. Arrows show values going forward; gradients go back
    along them.
    """
    if not isinstance(loss, Tensor):
        raise DTypeError(message("draw", "a Tensor", type(loss).__name__, "pass the loss that a model computed"))
    if direction not in ("TB", "LR"):
        raise ArgumentError(message("draw", 'direction "TB" or "LR"', repr(direction)))
    if loss._node is None:
        raise GraphError(
            "draw: expected a Tensor computed from leaves with requires_grad=True, got one without a graph; "
            "was it computed under no_grad, or from .data?"
        )
    return Drawing(read(loss._node, model, data, most), direction == "TB")
