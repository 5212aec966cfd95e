"""N, P and steps of a backward pass, in tensors or in scalars."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class NodeCount:
    """Counts of one backward pass, in one kind of node.

    Attributes
    ----------
    kind : {"tensors", "scalars"}
        Unit: tensor ops and arrays, or scalar operations and numbers.
    N : int
        Nodes without leaves: for each op that the loss depends on, those that its output depends on, all entries of the
        output counted.
    P : int
        Parameters.
    E : int or None
        Edges: inputs of the nodes that need a gradient. The profile counts them in tensors only.
    operations : int or None
        Scalar operations (FLOP) forward and backward, by the cost rules of the ops; given for scalars.
    rules : int
        Derivative rules that backprop calls: one for each node that the loss depends on, and one more for each time
        that a later backward pass visits a retained node again.
    accumulated : int
        Gradients that backprop adds into parameters.
    steps : int
        Steps of backprop: ``rules + accumulated``.
    unreached : int
        Nodes of N whose rule is not called: ``N - rules``, or 0.
    revisited : int
        Visits of retained nodes after the first: ``rules - N``, or 0.

    Examples
    --------
    >>> NodeCount("scalars", N=7, P=4, rules=7, accumulated=4).steps
    11
    """

    kind: str
    N: int
    P: int
    rules: int
    accumulated: int
    E: int | None = None
    operations: int | None = None

    @property
    def steps(self) -> int:
        """Derivative rules called plus gradients added into parameters."""
        return self.rules + self.accumulated

    @property
    def unreached(self) -> int:
        """Nodes that the loss does not depend on, such as those of outputs that are not used."""
        return max(self.N - self.rules, 0)

    @property
    def revisited(self) -> int:
        """Visits of nodes that an earlier backward pass has visited and retained."""
        return max(self.rules - self.N, 0)
