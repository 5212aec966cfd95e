"""Layer of a model, and row of a profile: counts and times of one op of one layer."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

COUNTS = (
    "nodes", "edges", "rules", "accumulated", "flops_forward", "flops_backward", "products_forward",
    "products_backward", "products_first", "products_weights", "saved_bytes", "uncounted", "scalar_nodes",
    "scalar_rules", "scalar_accumulated", "scalar_uncounted", "forward_ns", "backward_ns",
)  # fmt: skip
"""Fields that add up."""


@dataclass
class Layer:
    """A layer of the model.

    Attributes
    ----------
    name, kind : str
        Path and type.
    parameters, trainable : int
        Number of its own parameters, and of those that are trained.
    weights : int
        Number of its trained parameters in arrays with two or more axes, shared ones included: they can be factors of
        products.
    used : int
        Number of trained parameters that it uses: its own, and those that it shares with an earlier layer. 0 in a
        profile that an older version has saved.
    varies : bool
        Whether these numbers were other ones in a part of the profile, as when the layer was frozen for some epochs.
    gone : bool
        Whether the model has another layer, or none, in its place at the end.
    """

    name: str
    kind: str
    parameters: int = 0
    trainable: int = 0
    weights: int = 0
    used: int = 0
    varies: bool = False
    gone: bool = field(default=False, compare=False)

    @property
    def shown_kind(self) -> str:
        """Type to show after the name."""
        return shown_kind(self.name, self.kind)

    def steady(self) -> Layer:
        """Return the layer, without the numbers of trained parameters if they vary."""
        return replace(self, trainable=0, weights=0, used=0) if self.varies else self


def shown_kind(name: str, kind: str) -> str:
    """Return a type to show after a name; "" if the name ends with the type, maybe with a number.

    Examples
    --------
    >>> [shown_kind(name, "Dense") for name in ("0", "Dense#2", "outside: Dense")]
    ['Dense', '', '']
    """
    last = name.rpartition(".")[2].rpartition(" ")[2].partition("#")[0]
    return "" if kind in (name, last) else kind


@dataclass
class Row:
    """Counts and times of one op of one layer in an epoch.

    Attributes
    ----------
    layer, op : str
        Path of the layer, or "" outside of any; name of the op, or "" in a sum over ops.
    nodes : int
        Op nodes recorded. Ops of frozen layers record none; their operations and forward time are counted.
    edges : int
        Inputs of these nodes that need a gradient.
    rules : int
        Derivative rules called.
    accumulated : int
        Gradients added into parameters.
    flops_forward, flops_backward : int
        Scalar operations, a multiply-add counted as 2.
    products_forward, products_backward : int
        Operations of these in matrix products and convolutions.
    saved_bytes : int
        Bytes kept for backward, without parameters; each byte counts once.
    forward_ns, backward_ns : int
        Time in the op, and in the derivative rule of its node.
    uncounted : int
        Calls of ops that declare no cost.
    products_first : int
        F1: ``products_forward`` of ops with a factor that needs no gradient, such as the data of a first layer; counted
        twice if neither factor needs one.
    products_weights : int
        ``products_forward`` of the nodes with a trained weight of the layer as a factor.
    scalar_nodes, scalar_rules, scalar_accumulated : int
        The same as ``nodes``, ``rules`` and ``accumulated`` in the graph with a node for each operation on numbers; see
        `microfw.profiler.scalars`. ``scalar_nodes`` are all nodes that the op's output depends on, ``scalar_rules``
        those that the loss depends on. Steps of the same shapes have the counts of the first of them, also if they read
        ``x[indices]`` at other indices.
    scalar_uncounted : int
        Calls of ops whose scalar nodes are not counted, such as `inv`.
    """

    layer: str
    op: str = ""
    nodes: int = 0
    edges: int = 0
    rules: int = 0
    accumulated: int = 0
    flops_forward: int = 0
    flops_backward: int = 0
    products_forward: int = 0
    products_backward: int = 0
    saved_bytes: int = 0
    forward_ns: int = 0
    backward_ns: int = 0
    uncounted: int = 0
    products_first: int = 0
    products_weights: int = 0
    scalar_nodes: int = 0
    scalar_rules: int = 0
    scalar_accumulated: int = 0
    scalar_uncounted: int = 0

    def add(self, other: Row) -> None:
        """Add the counts and times of another row."""
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
