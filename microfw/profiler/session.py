"""What a profile holds: plain numbers, by epoch, layer and op. It saves itself as JSON.

Times are integer nanoseconds. Counts are sums over the steps of an epoch whose ops were observed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self, TypeVar

from microfw.errors import DataError

VERSION = 1

T = TypeVar("T")

COUNTS = (
    "nodes", "edges", "rules", "accumulated", "flops_forward", "flops_backward", "products_forward",
    "products_backward", "saved_bytes", "forward_ns", "backward_ns",
)  # fmt: skip


@dataclass
class Row:
    """What one op of one layer did in an epoch.

    Attributes
    ----------
    layer, op : str
        The layer's path, or "" outside of any; the op's name, or "" in a sum over ops.
    nodes : int
        Op nodes recorded.
    edges : int
        Inputs that needed a gradient.
    rules : int
        Derivative rules called, one a node.
    accumulated : int
        Gradients added into parameters.
    flops_forward, flops_backward : int
        Scalar operations, a multiply-add counted as 2. One scalar operation is one node of the graph that
        computes with scalars, so ``flops_forward`` is N counted in scalars.
    products_forward, products_backward : int
        Those of them in matrix products and convolutions.
    saved_bytes : int
        Bytes kept for backward, each array once, parameters not among them.
    forward_ns, backward_ns : int
        Time in the op itself, and in the node's derivative rule.
    uncounted : int
        Nodes of ops that declare no cost.
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

    def add(self, other: Row) -> None:
        """Add another row's counts and times."""
        for name in (*COUNTS, "uncounted"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass
class Epoch:
    """One epoch.

    Attributes
    ----------
    loss : float or None
        The Trainer's, a mean over rows; in a loop of one's own the mean over steps.
    metrics : dict
        The Trainer's other numbers.
    rows : list of Row
        One for each op of each layer, in order of first use.
    epoch, steps, observed : int
        Number, steps taken, and on how many of them every op was observed.
    parameters, parameter_tensors : int
        P: trainable scalars that got a gradient in a step, and the arrays that they are in.
    forward_ns, backward_ns, update_ns : int
        Time in the model and the loss, in ``backward``, and in the optimizer's step.
    observed_forward_ns, observed_backward_ns : int
        The same, over the observed steps only.
    data_ns, evaluation_ns, total_ns : int
        Time from one step's end to the next one's start; in forwards under ``no_grad``; of the whole epoch.
    """

    epoch: int
    steps: int = 0
    observed: int = 0
    loss: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    parameters: int = 0
    parameter_tensors: int = 0
    forward_ns: int = 0
    backward_ns: int = 0
    update_ns: int = 0
    observed_forward_ns: int = 0
    observed_backward_ns: int = 0
    data_ns: int = 0
    evaluation_ns: int = 0
    total_ns: int = 0
    rows: list[Row] = field(default_factory=list)

    def layers(self) -> list[Row]:
        """Return one row a layer, in order of first use, ops added up."""
        found: dict[str, Row] = {}
        for row in self.rows:
            found.setdefault(row.layer, Row(row.layer)).add(row)
        return list(found.values())

    def sum(self) -> Row:
        """Return one row for all layers."""
        total = Row("total")
        for row in self.rows:
            total.add(row)
        return total

    @property
    def untagged_forward_ns(self) -> int:
        """Forward time of the observed steps that no op accounts for."""
        return self.observed_forward_ns - sum(row.forward_ns for row in self.rows)

    @property
    def untagged_backward_ns(self) -> int:
        """Backward time of the observed steps that no node accounts for: the walk itself."""
        return self.observed_backward_ns - sum(row.backward_ns for row in self.rows)


@dataclass
class Layer:
    """A layer of the model.

    Attributes
    ----------
    name, kind : str
        Its path and its type.
    parameters, trainable : int
        How many parameters are its own, and how many of them are trained.
    """

    name: str
    kind: str
    parameters: int = 0
    trainable: int = 0


@dataclass
class Session:
    """A whole profile.

    Attributes
    ----------
    version : int
        Of the format.
    name, model : str
        The title, and the model's type.
    every : int
        Ops were observed on every so many-th step.
    layers : list of Layer
        The model's modules, the model itself first.
    epochs : list of Epoch
        What was recorded.
    environment : dict
        Versions and machine.
    overhead : dict
        What observing cost, as measured when the profiler was detached.

    Examples
    --------
    >>> session = Session(model="Sequential", epochs=[Epoch(1, steps=2, rows=[Row("0", "linear", nodes=2)])])
    >>> session.epochs[0].sum().nodes
    2
    """

    version: int = VERSION
    name: str = ""
    model: str = ""
    every: int = 1
    layers: list[Layer] = field(default_factory=list)
    epochs: list[Epoch] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    overhead: dict[str, float] = field(default_factory=dict)

    def total(self) -> Epoch:
        """Return all epochs added up, as epoch 0."""
        return merged(self.epochs)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write JSON to a file."""
        import json

        text = json.dumps(asdict(self), indent=1, allow_nan=False) + "\n"
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote.

        Raises
        ------
        DataError
            If the file is no profile, is truncated, or is of another version.
        FileNotFoundError
            If there is no such file.
        """
        import json

        where = f"profile {os.fspath(path)}"
        with open(path, encoding="utf-8") as file:
            try:
                data = json.load(file)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{where}: expected JSON, got {error}; was the file cut short?") from None
        if not isinstance(data, dict) or "epochs" not in data:
            raise DataError(f"{where}: expected a profile saved by microfw, got other JSON")
        if data.get("version") != VERSION:
            raise DataError(
                f"{where}: expected version {VERSION}, got {data.get('version')!r}; "
                "read it with the microfw that wrote it"
            )
        try:
            return cls.from_dict(data)
        except (TypeError, KeyError) as error:
            raise DataError(
                f"{where}: expected a profile saved by microfw, got an entry that is wrong: {error}"
            ) from None

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Make a session of what ``dataclasses.asdict`` made of one."""
        epochs = [_make(Epoch, e | {"rows": [_make(Row, row) for row in e["rows"]]}) for e in data["epochs"]]
        layers = [_make(Layer, layer) for layer in data["layers"]]
        return _make(cls, data | {"epochs": epochs, "layers": layers})


def _make(kind: type[T], data: Any) -> T:
    wanted = {f.name: f.type for f in fields(kind)}  # type: ignore[arg-type]
    for name, value in data.items():
        if wanted[name] == "int" and (type(value) is not int or value < 0):
            raise TypeError(f"{kind.__name__}.{name} is {value!r}")
        if wanted[name] == "str" and type(value) is not str:
            raise TypeError(f"{kind.__name__}.{name} is {value!r}")
    return kind(**data)


def merged(epochs: Iterable[Epoch]) -> Epoch:
    """Add epochs up; every sum is conserved."""
    total = Epoch(0)
    rows: dict[tuple[str, str], Row] = {}
    for epoch in epochs:
        for f in fields(Epoch):
            if f.type == "int" and f.name not in ("epoch", "parameters", "parameter_tensors"):
                setattr(total, f.name, getattr(total, f.name) + getattr(epoch, f.name))
        total.parameters = max(total.parameters, epoch.parameters)
        total.parameter_tensors = max(total.parameter_tensors, epoch.parameter_tensors)
        total.loss = epoch.loss
        for row in epoch.rows:
            rows.setdefault((row.layer, row.op), Row(row.layer, row.op)).add(row)
    total.rows = list(rows.values())
    return total
