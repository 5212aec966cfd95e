"""Ratio of backward to forward: scalar operations, matrix products and seconds.

The backward pass of a product of two factors is one product for each factor that needs a gradient. Forward and
backward together take exactly 3F - F1 operations in products: F is the number forward, F1 that of the forward products
with a factor that needs no gradient, such as the data of a first layer. Reports compare 3F - F1 with the counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

BOUNDS = [
    "3  products and quotients of two varying numbers only (Baur & Strassen 1983, Theor. Comput. Sci. 22)",
    "5  all arithmetic (the same, as stated in Bolte et al. 2022, arXiv 2206.01730)",
    "4  operations and moves of memory, by their time (Griewank & Walther 2008, Evaluating Derivatives)",
]
"""Published bounds on (forward + backward) / forward: the bound, what it counts, and its source."""

WHY = (
    "Seconds may exceed the bounds, which count operations: in a small model, Python's work for each node and memory "
    "traffic take longer than the arithmetic."
)

EXCEPT = (
    "the formula holds for products of two factors that run once; a checkpoint runs forward again, and a few ops, such "
    "as a recurrence or an inverse, are not a single product"
)


@dataclass
class Ratio:
    """Backward against forward. Operations are scalar; products are the operations in matrix products.

    ``products_first`` is F1: forward products of ops with a factor that needs no gradient, as in a first layer; counted
    twice if neither factor needs one. ``others``: ops whose products do not match the formula.
    """

    forward: int = 0
    backward: int = 0
    products_forward: int = 0
    products_backward: int = 0
    products_first: int = 0
    forward_seconds: float = 0.0
    backward_seconds: float = 0.0
    others: list[str] = field(default_factory=list)

    @property
    def operations(self) -> float | None:
        """(forward + backward) / forward, in scalar operations."""
        return 1 + self.backward / self.forward if self.forward else None

    @property
    def products(self) -> float | None:
        """(forward + backward) / forward, in matrix products."""
        return 1 + self.products_backward / self.products_forward if self.products_forward else None

    @property
    def seconds(self) -> float | None:
        """(forward + backward) / forward, in seconds."""
        return 1 + self.backward_seconds / self.forward_seconds if self.forward_seconds else None

    @property
    def predicted(self) -> int:
        """3F - F1: predicted operations of products, forward and backward together."""
        return 3 * self.products_forward - self.products_first

    @property
    def exact(self) -> bool:
        """Whether the counted products equal `predicted`."""
        return self.products_forward + self.products_backward == self.predicted

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers, for JSON."""
        names = ("operations", "products", "seconds", "predicted", "exact")
        return asdict(self) | {name: getattr(self, name) for name in names}


def products_without_grad(factors: int, products: int) -> int:
    """Return F1 of an op: its forward products, once for each of its two factors that needs no gradient.

    Examples
    --------
    >>> products_without_grad(2, 100), products_without_grad(1, 100), products_without_grad(0, 100)
    (0, 100, 200)
    """
    return max(2 - factors, 0) * products


def ratio_of(rows: Iterable[Any], forward_ns: int = 0, backward_ns: int = 0) -> Ratio:
    """Return the ratio over rows, each of one op."""
    r = Ratio(forward_seconds=forward_ns / 1e9, backward_seconds=backward_ns / 1e9)
    others = {}
    for row in rows:
        r.forward += row.flops_forward
        r.backward += row.flops_backward
        r.products_forward += row.products_forward
        r.products_backward += row.products_backward
        r.products_first += row.products_first
        if row.products_backward != 2 * row.products_forward - row.products_first:
            others[row.op] = True
    r.others = list(others)
    return r


def verdict(r: Ratio) -> str:
    """Return a sentence that compares the counted products with the prediction.

    Examples
    --------
    >>> verdict(Ratio(products_forward=100, products_backward=150, products_first=50))
    'Counted: 250, equal.'
    """
    counted = r.products_forward + r.products_backward
    if r.exact and not r.others:
        return f"Counted: {counted:,}, equal."
    return f"Counted: {counted:,}, not equal because of {', '.join(r.others)}: {EXCEPT}."
