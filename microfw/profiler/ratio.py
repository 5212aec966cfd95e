"""Backward against forward: in scalar operations, in matrix products, and in seconds.

A matrix product of two factors is followed in backward by one product for each factor that needs a gradient. So
products take 3F - F1 operations, with F forward, and F1 the forward products of factors that need none: the data
of a first layer. That is exact, and held against the count of each epoch.
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
    "Seconds may differ, even from the bounds: those count operations, while in a small model Python's work for each "
    "node, and moving memory, take longer than the arithmetic."
)

EXCEPT = (
    "the law is for products of two factors that run once; a checkpoint runs forward again, and a few ops, such as a "
    "recurrence or an inverse, are no single product"
)


@dataclass
class Ratio:
    """Backward against forward. Operations are scalar ones, products those of them in matrix products.

    ``products_first`` is F1: the products forward of those ops that have a factor without a gradient, as in a first
    layer, whose data need none; twice, where neither has one. ``others`` names the ops whose products are not
    what the law says.
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
        """Forward and backward over forward, in scalar operations."""
        return 1 + self.backward / self.forward if self.forward else None

    @property
    def products(self) -> float | None:
        """The same in matrix products."""
        return 1 + self.products_backward / self.products_forward if self.products_forward else None

    @property
    def seconds(self) -> float | None:
        """The same in seconds."""
        return 1 + self.backward_seconds / self.forward_seconds if self.forward_seconds else None

    @property
    def predicted(self) -> int:
        """3F - F1, what products forward and backward should take together."""
        return 3 * self.products_forward - self.products_first

    @property
    def exact(self) -> bool:
        """Whether they do."""
        return self.products_forward + self.products_backward == self.predicted

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers, for JSON."""
        names = ("operations", "products", "seconds", "predicted", "exact")
        return asdict(self) | {name: getattr(self, name) for name in names}


def products_without_grad(factors: int, products: int) -> int:
    """Return F1 of an op: its products forward, for each of its two factors that needs no gradient.

    Examples
    --------
    >>> products_without_grad(2, 100), products_without_grad(1, 100), products_without_grad(0, 100)
    (0, 100, 200)
    """
    return max(2 - factors, 0) * products


def ratio_of(rows: Iterable[Any], forward_ns: int = 0, backward_ns: int = 0) -> Ratio:
    """Return the ratio of rows, which each count an op."""
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
    """Say whether products are what the law says, in one sentence.

    Examples
    --------
    >>> verdict(Ratio(products_forward=100, products_backward=150, products_first=50))
    'Counted, it is 250: equal.'
    """
    counted = r.products_forward + r.products_backward
    if r.exact and not r.others:
        return f"Counted, it is {counted:,}: equal."
    return f"Counted, it is {counted:,}, not the same because of {', '.join(r.others)}: {EXCEPT}."
