"""Weight averaging: a moving average of the parameters, for evaluation."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from microfw.autograd._tensor_base import writable
from microfw.errors import ArgumentError, described
from microfw.optim.checks import as_state, is_real, require_entries
from microfw.optim.optimizer import Optimizer

Array = np.ndarray[Any, Any]


class Average:
    """An exponential moving average of an optimizer's parameters.

    With parameters ``p``, at each `update`::

        a = decay * a + (1 - decay) * p

    Parameters
    ----------
    optimizer : Optimizer
        Optimizer of the parameters. The average starts with their values.
    decay : float
        Weight of the old average in an update, from 0 to below 1.

    Attributes
    ----------
    values : ndarray
        The average, shape (P,), in the order of ``optimizer.flat.values``.

    Notes
    -----
    Sources: Ruppert, "Efficient estimations from a slowly convergent Robbins-Monro process", 1988; Polyak and
    Juditsky, "Acceleration of stochastic approximation by averaging", 1992; the exponential weights as in
    Szegedy et al., "Rethinking the Inception architecture", 2016, section 8.

    Examples
    --------
    >>> import numpy as np, microfw as mf
    >>> p = mf.tensor([0.0], requires_grad=True)
    >>> optimizer = mf.optim.SGD([p], lr=1.0)
    >>> average = mf.optim.Average(optimizer, decay=0.5)
    >>> p.data = [4.0]
    >>> average.update()
    >>> with average.swapped():
    ...     print(p)
    tensor([2.], requires_grad=True)
    >>> p
    tensor([4.], requires_grad=True)
    """

    def __init__(self, optimizer: Any, decay: float = 0.999) -> None:
        if not isinstance(optimizer, Optimizer):
            raise ArgumentError("Average", "an optimizer", type(optimizer).__name__)
        check_decay("Average", decay)
        self.optimizer = optimizer
        self.decay = decay
        self.values = optimizer.flat.values.copy()
        self._away: Array | None = None

    def __repr__(self) -> str:
        return f"Average({described(self.optimizer)}, decay={self.decay})"

    @property
    def replaced(self) -> Array | None:
        """The parameters while the average is in their place, shape (P,); else None."""
        return self._away

    def update(self) -> None:
        """Add the present parameters to the average. Call after each step."""
        if self._away is not None:
            raise ArgumentError("Average.update", "the parameters in place", "the average", "swap back first")
        self.optimizer.flat.check_owned("Average.update")
        self.values += (1 - self.decay) * (self.optimizer.flat.values - self.values)

    def swap(self) -> None:
        """Exchange parameters and average: first the average becomes the parameters, the next call restores them."""
        flat = self.optimizer.flat
        if self._away is None:
            before = flat.values.copy()
            flat.write(self.values)  # raises if another optimizer has taken the parameters; then nothing has changed
            self._away = before
        else:
            flat.write(self._away)
            self._away = None

    @contextlib.contextmanager
    def swapped(self) -> Iterator[None]:
        """Run a block with the average as parameters, and restore the parameters, also after an error."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state | {"values": writable(state["values"])})

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of the average, the decay, and the names and shapes of the parameters."""
        parameters = self.optimizer.flat.named_shapes()
        return {"decay": self.decay, "values": self.values.copy(), "parameters": parameters}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what `state_dict` returned. Raise, with nothing changed, if it is of other parameters."""
        where = "Average.load_state_dict"
        if self._away is not None:
            raise ArgumentError(where, "the parameters in place", "the average", "swap back first")
        require_entries(state, ("decay", "values"), where)
        check_decay(where, state["decay"])
        self.optimizer.flat.check_same_parameters(state, where)
        values = as_state(state["values"], self.values.dtype, where, "values")
        if values.shape != self.values.shape:
            raise ArgumentError(where, f"shape {self.values.shape}", values.shape)
        self.decay, self.values = state["decay"], values


def check_decay(where: str, decay: Any) -> None:
    """Raise unless a decay is a number from 0 to below 1."""
    if not is_real(decay) or not 0 <= decay < 1:
        raise ArgumentError(where, "decay from 0 to below 1", repr(decay))
