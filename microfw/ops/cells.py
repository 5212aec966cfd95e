"""The cells of recurrent layers: a step of each, its derivatives, and the loops over all steps.

Blocks, such as the gates, are on the first axis: each is an array without gaps. In a third axis of (N, 3 H) they would
be columns, and an operation on 32 rows of 128 of 192 columns takes 4.8 µs in the place of 1.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from microfw.ops.mapping import empty

LARGEST = {"f": 88, "d": 709}
"""The largest whole number whose exponential does not overflow."""


def by_step(blocks: int, like: Any) -> Any:
    """Return an array (blocks, T, N, H) in which the blocks of a step are one run of memory.

    Operations on two blocks of 32 × 32 that are apart take 1.8 to 3.9 µs, on neighbours .7 to 3.
    """
    _, steps, *each = like.shape
    return empty((steps, blocks, *each), like).transpose((1, 0, 2, 3))


def _join(*parts: Any) -> Any:
    return np.concatenate(parts, axis=0)


def _sigmoid(x: Any) -> Any:
    return 0.5 * np.tanh(0.5 * x) + 0.5  # exp cannot overflow


def _limit(gates: int, like: Any) -> Any:
    """Return an array of the largest exponents, for the ``gates`` of a step of ``like``.

    NumPy's minimum takes 4.2 µs for 6,144 entries and a number, and 1.7 for two arrays.
    """
    limit = empty((gates, *like.shape[2:]), like)
    limit[...] = LARGEST[like.dtype.char]
    return limit


def _sigmoid_of_minus(x: Any, limit: Any) -> None:
    """Replace ``x`` by ``sigmoid(-x)``: 9 µs for 4,096 entries, where a tanh and two sums take 14."""
    np.minimum(x, limit, out=x)
    np.exp(x, out=x)
    x += 1
    np.reciprocal(x, out=x)


def _through(du: Any, w: Any) -> Any:
    """Return the gradient of the last output; ``w`` holds the transposed blocks of the weight."""
    parts = np.matmul(du, w)
    total = parts[:1]
    for k in range(1, len(w)):
        total = total + parts[k : k + 1]
    return total


class Cell:
    """A plain cell, ``h = tanh(a + u)``: ``a`` comes from the input, ``u`` from the last output.

    ``gates`` and ``states`` count the blocks of ``a`` and ``u``, and of the state, of which ``h`` is the first. Arrays
    are (blocks, N, H) for one step, and (blocks, T, N, H) for all. The methods `step`, `slopes`, `pull` and `push` work
    on arrays and on Tensors.
    """

    gates: ClassVar[int] = 1
    states: ClassVar[int] = 1
    kept: ClassVar[int] = 1
    """Blocks that a step keeps for its derivatives."""
    bias: ClassVar[bool] = False
    """Whether a bias is added to ``u``."""
    operations: ClassVar[tuple[int, int]] = (2, 4)
    """Scalar operations for each entry of ``h``, forward and backward, products apart."""

    walk: ClassVar[Any] = None
    """``walk(a, w, bias, s0, states, kept)``: the loop of arrays of floats, without an array for each step, or None."""
    back: ClassVar[Any] = None
    """``back(g, w, s0, y, kept, da)``: the loop of their gradients; ``w`` holds the transposed blocks."""

    @staticmethod
    def step(a: Any, u: Any, s: Any) -> tuple[Any, Any]:
        """Return what is kept, and the new state; for all steps at once it serves as well."""
        h = np.tanh(a + u)
        return h, h

    @staticmethod
    def slopes(kept: Any, before: Any) -> tuple[Any, ...]:
        """Return the factors that `pull` and `push` need, for all steps at once, from the states before them."""
        return (1 - kept * kept,)

    @staticmethod
    def pull(g: Any, k: Sequence[Any], w: Any) -> tuple[Any, Any, Any]:
        """Return the gradients of ``a``, of ``u`` and of the old state, given the new state's; ``w`` as in `back`."""
        da = g * k[0]
        return da, da, _through(da, w)

    @staticmethod
    def push(da: Any, du: Any, ds: Any, k: Sequence[Any]) -> Any:
        """Return the tangent of the new state; ``ds`` is the old state's, or None."""
        return (da + du) * k[0]


class ReLUCell(Cell):
    """A plain cell, ``h = max(a + u, 0)``."""

    operations = (2, 3)

    @staticmethod
    def step(a: Any, u: Any, s: Any) -> tuple[Any, Any]:
        """Return what is positive, twice."""
        p = a + u
        h = np.where(p > 0, p, 0)
        return h, h

    @staticmethod
    def slopes(kept: Any, before: Any) -> tuple[Any, ...]:
        """Return where the slope is 1."""
        return (kept > 0,)


class GRUCell(Cell):
    """``r, z = sigmoid(a + u)``, ``n = tanh(a + r * u)``, ``h = (1 - z) * n + z * h``; the blocks are r, z, n."""

    gates = 3
    kept = 4
    bias = True
    operations = (19, 24)

    @staticmethod
    def step(a: Any, u: Any, s: Any) -> tuple[Any, Any]:
        """Return r, z, the block of ``u`` that r weighs, and n; and ``n + z * (h - n)``."""
        rz, un = _sigmoid(a[:2] + u[:2]), u[2:]
        n = np.tanh(a[2:] + rz[:1] * un)
        return _join(rz, un, n), n + rz[1:] * (s - n)  # one product less than (1 - z) * n + z * h

    @staticmethod
    def slopes(kept: Any, before: Any) -> tuple[Any, ...]:
        """Return z, and the slopes by ``a`` and by ``u``."""
        r, z, un, n = (kept[k : k + 1] for k in range(4))
        kn = (1 - z) * (1 - n * n)
        kr, kz = kn * un * r * (1 - r), (before - n) * z * (1 - z)
        return z, _join(kr, kz, kn), _join(kr, kz, kn * r)

    @staticmethod
    def pull(g: Any, k: Sequence[Any], w: Any) -> tuple[Any, Any, Any]:
        """Return the gradients of ``a``, of ``u`` and of the old state."""
        z, ka, ku = k
        du = g * ku
        return g * ka, du, g * z + _through(du, w)

    @staticmethod
    def walk(a: Any, w: Any, bias: Any, s0: Any, states: Any, kept: Any) -> None:
        """Write the states, and r, z, the block of ``u`` that r weighs, and n, for all steps."""
        s, w, shift = s0[0], w.copy(), empty((3, *s0.shape[1:]), a)
        shift[...] = bias  # once, since broadcasting a row takes longer than adding a matrix
        minus, limit = by_step(2, a), _limit(2, a)
        for x, y in ((a, minus), (w, w), (shift, shift)):  # exact: in each step sigmoid needs no change of sign
            np.negative(x[:2], out=y[:2])
        for t in range(a.shape[1]):
            u, rz, un, n, new = kept[:3, t], kept[:2, t], kept[2, t], kept[3, t], states[0, t]
            np.matmul(s, w, out=u)
            u += shift
            rz += minus[:, t]
            _sigmoid_of_minus(rz, limit)
            np.multiply(rz[0], un, out=n)
            n += a[2, t]
            np.tanh(n, out=n)
            np.subtract(s, n, out=new)
            new *= rz[1]
            new += n
            s = new

    @staticmethod
    def back(g: Any, w: Any, s0: Any, y: Any, kept: Any, da: Any) -> Any:
        """Write the gradients of ``a`` for all steps, and return those of ``u``."""
        r, z, un, n = kept[0], kept[1], kept[2], kept[3]
        du, gs, parts = empty(da.shape, da), empty(n.shape, da), empty((3, *n.shape[1:]), da)
        kr, kz, kn, da_n = du[0], du[1], du[2], da[2]
        np.subtract(s0[0], n[0], out=kz[0])
        np.subtract(y[0, :-1], n[1:], out=kz[1:])
        slope = 1 - z
        kz *= z
        kz *= slope
        np.multiply(n, n, out=da_n)
        np.subtract(1, da_n, out=da_n)
        da_n *= slope
        np.multiply(da_n, r, out=kn)
        np.multiply(kn, un, out=kr)
        np.subtract(1, r, out=slope)
        kr *= slope
        ds: Any = None
        for t in reversed(range(len(n))):
            gt, dut = gs[t], du[:, t]
            if ds is None:
                gt[...] = g[0, t]
            else:
                np.add(g[0, t], ds, out=gt)
            dut *= gt
            if t:
                np.matmul(dut, w, out=parts)
                ds = parts[0]
                ds += parts[1]
                ds += parts[2]
                np.multiply(gt, z[t], out=parts[1])
                ds += parts[1]
        da_n *= gs
        da[:2] = du[:2]
        return du

    @staticmethod
    def push(da: Any, du: Any, ds: Any, k: Sequence[Any]) -> Any:
        """Return the tangent of ``h``."""
        z, ka, ku = k
        d = da * ka + du * ku
        dh = d[:1] + d[1:2] + d[2:]
        return dh if ds is None else dh + z * ds


class LSTMCell(Cell):
    """``i, f, o = sigmoid(a + u)``, ``g = tanh(a + u)``, ``c = f * c + i * g``, ``h = o * tanh(c)``.

    The blocks of ``a`` and ``u`` are i, f, g, o, as in PyTorch; a step keeps i, f, o, g and ``tanh(c)``: of
    neighbours the sigmoid takes fewer calls.
    """

    gates = 4
    states = 2
    kept = 5
    operations = (22, 27)

    @staticmethod
    def step(a: Any, u: Any, s: Any) -> tuple[Any, Any]:
        """Return i, f, o, g and ``tanh(c)``; and h and c."""
        p = a + u
        i_f, g, o = _sigmoid(p[:2]), np.tanh(p[2:3]), _sigmoid(p[3:])
        c = i_f[1:] * s[1:] + i_f[:1] * g
        t = np.tanh(c)
        return _join(i_f, o, g, t), _join(o * t, c)

    @staticmethod
    def slopes(kept: Any, before: Any) -> tuple[Any, ...]:
        """Return f, the slope of h by c, those of c by i, f and g, and that of h by o, all before their gates."""
        i, f, o, g, t = (kept[k : k + 1] for k in range(5))
        gates = _join(g * i * (1 - i), before[1:] * f * (1 - f), i * (1 - g * g), t * o * (1 - o))
        return f, o * (1 - t * t), gates

    @staticmethod
    def pull(g: Any, k: Sequence[Any], w: Any) -> tuple[Any, Any, Any]:
        """Return the gradients of ``a``, of ``u`` and of the old state."""
        f, hc, gates = k
        dh = g[:1]
        dc = g[1:] + dh * hc
        da = _join(dc * gates[:3], dh * gates[3:])
        return da, da, _join(_through(da, w), dc * f)

    @staticmethod
    def walk(a: Any, w: Any, bias: Any, s0: Any, states: Any, kept: Any) -> None:
        """Write the states, and i, f, o, g and ``tanh(c)``, for all steps."""
        turned, minus, limit = empty(w.shape, w), by_step(4, a), _limit(3, a)
        for x, y in ((w, turned), (a, minus)):  # exact: in each step sigmoid needs no change of sign
            np.negative(x[:2], out=y[:2])
            np.negative(x[3], out=y[2])
            y[3] = x[2]
        h, c = s0[0], s0[1]
        for t in range(a.shape[1]):
            gates, i, f, o, g = kept[:4, t], kept[0, t], kept[1, t], kept[2, t], kept[3, t]
            np.matmul(h, turned, out=gates)
            gates += minus[:, t]
            _sigmoid_of_minus(kept[:3, t], limit)
            np.tanh(g, out=g)
            old, h, c = c, states[0, t], states[1, t]
            np.multiply(f, old, out=c)
            np.multiply(i, g, out=h)
            c += h
            np.multiply(np.tanh(c, out=kept[4, t]), o, out=h)

    @staticmethod
    def back(g: Any, w: Any, s0: Any, y: Any, kept: Any, da: Any) -> Any:
        """Write the gradients of ``a`` for all steps, and return them: those of ``u`` are the same."""
        i, o, c, t_c, (ki, kf, kc, ko) = kept[0], kept[2], kept[3], kept[4], (da[k] for k in range(4))
        np.subtract(1, kept[:2], out=da[:2])
        da[:2] *= kept[:2]
        ki *= c
        np.multiply(c, c, out=kc)
        np.subtract(1, kc, out=kc)
        kc *= i
        np.subtract(1, o, out=ko)
        ko *= o
        np.multiply(kf[0], s0[1], out=kf[0])
        np.multiply(kf[1:], y[1, :-1], out=kf[1:])  # kf[1:] *= … would also assign it, which a capture refuses if empty
        ko *= t_c
        hc = t_c * t_c
        np.subtract(1, hc, out=hc)
        hc *= o
        parts, dc = empty((4, *c.shape[1:]), da), empty(c.shape[1:], da)
        dh: Any = None
        for t in reversed(range(len(c))):
            if dh is None:
                dh = g[0, t]
                np.multiply(dh, hc[t], out=dc)
            else:
                dh += g[0, t]
                dc *= kept[1, t + 1]
                np.multiply(dh, hc[t], out=parts[1])
                dc += parts[1]
            dc += g[1, t]
            dat, three, last = da[:, t], da[:3, t], da[3, t]
            three *= dc
            last *= dh
            if t:
                np.matmul(dat, w, out=parts)
                dh = parts[0]
                for k in (1, 2, 3):
                    dh += parts[k]
        return da

    @staticmethod
    def push(da: Any, du: Any, ds: Any, k: Sequence[Any]) -> Any:
        """Return the tangents of h and c."""
        f, hc, gates = k
        d = (da + du) * gates
        dc = d[:1] + d[1:2] + d[2:3]
        dc = dc if ds is None else dc + f * ds[1:]
        return _join(d[3:] + hc * dc, dc)


CELLS: dict[str, type[Cell]] = {"tanh": Cell, "relu": ReLUCell, "gru": GRUCell, "lstm": LSTMCell}
