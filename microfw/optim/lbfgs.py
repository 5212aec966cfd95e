"""L-BFGS: steps that use an estimate of the inverse Hessian, for deterministic losses."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from time import perf_counter_ns
from typing import Any

import numpy as np

from microfw.autograd.mode import MODE
from microfw.autograd.phases import OTHER, UPDATE
from microfw.errors import ArgumentError, NonFiniteError
from microfw.optim.checks import as_list, as_state, is_integer, require_entries
from microfw.optim.flat import Array
from microfw.optim.hyperparameter import AT_LEAST_0, POSITIVE, Hyperparameter
from microfw.optim.linesearch import Point, search
from microfw.optim.optimizer import Optimizer


def _counting(value: Any) -> bool:
    return is_integer(value, 1)


class LBFGS(Optimizer):
    """Limited-memory BFGS, with a line search for the strong Wolfe conditions.

    An iteration moves the parameters ``x`` along ``d = -H g``. ``H`` estimates the inverse Hessian from the last
    pairs ``s = x' - x`` and ``y = g' - g``, starting from ``s·y / y·y`` times the identity. One `step` runs up to
    ``iterations`` iterations, each with several evaluations of the loss.

    Parameters
    ----------
    parameters : iterable of Tensor
        ``model.parameters()``; no groups.
    lr : float
        First length that the line search tries, above 0. Without a line search, the length of every iteration.
    iterations : int
        Iterations of a step, at most.
    memory : int
        Number of pairs kept.
    line_search : bool
        Whether to search for the length. Without it the loss may rise.
    gradient_tolerance : float
        A step ends when no entry of the gradient is larger.
    change_tolerance : float
        A step ends when the loss changes by less, or no parameter by more.

    Raises
    ------
    ArgumentError
        If a hyperparameter is out of range, or ``parameters`` is empty or has groups.

    Notes
    -----
    A parameter without a gradient is not changed. Both gradients of a pair come from the same call of `step`, so the
    batch may change between steps; within a step the closure must compute the same loss each time. An exception, or
    Ctrl-C, restores parameters and pairs as they were before the step. Vectors are float64. Source: Nocedal and Wright,
    "Numerical optimization", 2006, algorithms 7.4 and 7.5.

    Examples
    --------
    >>> import microfw as mf
    >>> p = mf.tensor([1.0, 2.0], requires_grad=True)
    >>> optimizer = mf.optim.LBFGS([p])
    >>> def closure():
    ...     optimizer.zero_grad()
    ...     loss = (p * p).sum()
    ...     loss.backward()
    ...     return loss
    >>> optimizer.step(closure)
    5.0
    >>> bool(abs(p.data).max() < 1e-6)
    True
    """

    lr = Hyperparameter(*POSITIVE)
    iterations = Hyperparameter("to be an integer of at least 1", _counting)
    memory = Hyperparameter("to be an integer of at least 1", _counting)
    line_search = Hyperparameter()
    gradient_tolerance = Hyperparameter(*AT_LEAST_0)
    change_tolerance = Hyperparameter(*AT_LEAST_0)

    takes_closure = True

    def __init__(
        self,
        parameters: Iterable[Any],
        lr: float = 1.0,
        iterations: int = 20,
        memory: int = 10,
        *,
        line_search: bool = True,
        gradient_tolerance: float = 1e-7,
        change_tolerance: float = 1e-9,
    ) -> None:
        parameters = as_list(parameters, "LBFGS", "at least one parameter")
        if any(isinstance(p, dict) for p in parameters):
            raise ArgumentError("LBFGS", "parameters, without groups", "groups", "pass model.parameters()")
        super().__init__(
            parameters,
            lr=lr,
            iterations=iterations,
            memory=memory,
            line_search=line_search,
            gradient_tolerance=gradient_tolerance,
            change_tolerance=change_tolerance,
        )
        self.pairs: list[tuple[Array, Array]] = []
        self.present = np.zeros(len(self.flat.leaves), bool)

    def step(self, closure: Callable[[], Any] | None = None) -> float:  # type: ignore[override]
        """Run up to ``iterations`` iterations.

        Parameters
        ----------
        closure : callable
            Sets the gradients to None, computes the loss, calls ``loss.backward()`` and returns the loss.

        Returns
        -------
        float
            The loss before the step.

        Raises
        ------
        ArgumentError
            Without a closure, or if a hyperparameter was set to an invalid value.
        GraphError
            If another optimizer has taken a parameter over.
        NonFiniteError
            If the loss or a gradient is NaN or infinite before the step; then no parameter has changed.
        """
        if closure is None:
            fix = "pass a function that computes the loss, calls backward and returns it"
            raise ArgumentError("LBFGS.step", "a closure", "none", fix)
        self._check(self.settings)
        timer = self._timer = MODE.get().timer
        if timer is not None:
            timer.switch(UPDATE)
        before = self.flat.values.copy(), self.pairs.copy(), self.present
        try:
            return self._minimise(closure)
        except BaseException:
            if not self.flat.owner.taken_by:  # else the values are those of another optimizer
                self.flat.write(before[0])
            self.pairs, self.present = before[1:]
            raise
        finally:
            self._timer = None
            if timer is not None:
                timer.on_update(self, perf_counter_ns())

    def _minimise(self, closure: Callable[[], Any]) -> float:
        f, g = self._evaluate(closure)
        self.flat.ready()
        if not math.isfinite(f):
            raise NonFiniteError("LBFGS.step", "a finite loss", f, "no parameter was changed")
        present = np.array([leaf.grad is not None for leaf in self.flat.leaves])
        if (present != self.present).any():  # pairs of other parameters are useless
            self.pairs, self.present = [], present
        # float64: s and y are small differences of large numbers.
        first, x = f, self.flat.values.astype(np.float64)
        for _ in range(self.iterations):
            if np.abs(g).max(initial=0) <= self.gradient_tolerance:
                break
            d = self._direction(g)
            start = Point(0.0, f, g, float(np.dot(g, d)))
            if start.slope > -self.change_tolerance:
                break
            # Without pairs H is the identity, and the length of g says nothing about the length of a good step.
            t = self.lr if self.pairs else min(1.0, 1 / float(np.abs(g).sum())) * self.lr
            found = self._along(closure, x, d, start, t)
            if found is None:  # the pairs no longer describe the loss here
                self.flat.write(x)
                self.pairs = []
                break
            s, y = found.t * d, found.g - g
            if np.dot(s, y) > 1e-10:  # else H would not be positive definite, and d might point uphill
                self.pairs = [*self.pairs, (s, y)][-self.memory :]
            x, change, f, g = x + s, abs(found.f - f), found.f, found.g
            self.flat.write(x)
            if change < self.change_tolerance or np.abs(s).max() <= self.change_tolerance:
                break
        return first

    def _along(self, closure: Callable[[], Any], x: Array, d: Array, start: Point, t: float) -> Point | None:
        def evaluate(t: float) -> tuple[float, Array]:
            self.flat.write(x + t * d)
            return self._evaluate(closure)

        if self.line_search:
            return search(evaluate, d, start, t)
        f, g = evaluate(t)
        if not math.isfinite(f) or not np.isfinite(g).all():
            got = f"{f} at length {t:.3g}"
            raise NonFiniteError("LBFGS.step", "a finite loss", got, "lower lr, or use the line search")
        return Point(t, f, g, math.nan)

    def _evaluate(self, closure: Callable[[], Any]) -> tuple[float, Array]:
        """Return loss and gradient. The closure's time is not counted as update."""
        if self._timer is not None:
            self._timer.switch(OTHER)
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                loss = closure()
        finally:
            if self._timer is not None:
                self._timer.switch(UPDATE)
        if loss is None:
            fix = "end it with `return loss`"
            raise ArgumentError("LBFGS.step", "a closure that returns the loss", "None", fix)
        if np.size(value := getattr(loss, "data", loss)) != 1:
            got, fix = f"one of shape {np.shape(value)}", "end the loss with .mean() or .sum()"
            raise ArgumentError("LBFGS.step", "a closure that returns a loss of one number", got, fix)
        g = np.zeros(self.flat.values.size)
        for leaf, span in zip(self.flat.leaves, self.flat.spans, strict=True):
            if leaf.grad is not None:
                g[span] = leaf.grad.ravel()
        f = float(np.asarray(value).item())  # of a Tensor, an array or a number
        return (f if np.isfinite(g).all() else math.nan), g

    def _direction(self, g: Array) -> Array:
        """Return ``-H g`` by the two-loop recursion."""
        q, alphas = -g, []
        for s, y in reversed(self.pairs):
            alphas.append(np.dot(s, q) / np.dot(s, y))
            q -= alphas[-1] * y
        if self.pairs:
            s, y = self.pairs[-1]
            q *= np.dot(s, y) / np.dot(y, y)
        for (s, y), alpha in zip(self.pairs, reversed(alphas), strict=True):
            q += (alpha - np.dot(y, q) / np.dot(s, y)) * s
        return q

    def state_dict(self) -> dict[str, Any]:
        """Return copies of hyperparameters and pairs."""
        shape = (len(self.pairs), self.flat.values.size)
        found = {name: np.array([pair[k] for pair in self.pairs]).reshape(shape) for k, name in enumerate("sy")}
        return super().state_dict() | found | {"present": self.present.copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what `state_dict` returned. Raise, with nothing changed, if an entry is missing or does not fit."""
        where = "LBFGS.load_state_dict"
        self.flat.check_same_parameters(state, where)
        require_entries(state, ("s", "y", "present"), where)
        s, y = (as_state(state[name], np.dtype(np.float64), where, name) for name in "sy")
        present = as_state(state["present"], np.dtype(bool), where, "present")
        shapes, size = (s.shape, y.shape, present.shape), self.flat.values.size
        if shapes != ((*s.shape[:1], size), (*s.shape[:1], size), self.present.shape):
            raise ArgumentError(where, f"s and y of shape (pairs, {size}), and present", shapes)
        super().load_state_dict(state)
        self.pairs, self.present = list(zip(s, y, strict=True)), present
