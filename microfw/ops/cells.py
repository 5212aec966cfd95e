"""The cells of recurrent layers: a step of each, its derivatives, and the loops over all steps."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from microfw.autograd.op import Array
from microfw.ops.mapping import empty


def block(x: Any, k: int, of: int, to: int | None = None) -> Any:
    """Return block ``k``, or blocks ``k`` up to ``to``, of the last axis."""
    width = x.shape[-1] // of
    return x[..., k * width : (k + 1 if to is None else to) * width]


def _join(*parts: Any) -> Any:
    return np.concatenate(parts, axis=-1)


def _steps(x: Any) -> list[Any]:
    return [x[t] for t in range(len(x))]


@lru_cache(maxsize=16)
def _halves(n: int, h: int, char: str) -> tuple[Array, Array]:
    """Return 1 / 2 for the gates i, f and o and 1 for g, and 1 less that, for all rows."""
    half = np.full((n, 4 * h), 0.5, char)
    half[:, 2 * h : 3 * h] = 1
    half.setflags(write=False)
    rest = 1 - half
    rest.setflags(write=False)
    return half, rest


class Cell:
    """A plain cell, ``h = tanh(a + u)``: ``a`` comes from the input, ``u`` from the last output.

    ``gates``, ``states`` and ``kept`` count blocks of the width of ``h``: in ``a`` and ``u``, in the state, of
    which ``h`` is the first, and in what `activate` returns. The methods work on arrays and on Tensors.
    """

    gates: ClassVar[int] = 1
    states: ClassVar[int] = 1
    bias: ClassVar[bool] = False
    """Whether a bias is added to ``u``."""
    operations: ClassVar[tuple[int, int]] = (2, 4)
    """Scalar operations for each entry of ``h``, forward and backward, products apart."""

    walk: ClassVar[Any] = None
    """``walk(a, w, bias, s0, states, acts)``: the loop of arrays of floats, without an array for each step, or None."""
    back: ClassVar[Any] = None
    """``back(g, w, s0, y, act, da)``: the loop of their gradients."""

    @staticmethod
    def activate(a: Any, u: Any) -> Any:
        """Return the gates; for all steps at once it serves as well."""
        return np.tanh(a + u)

    @staticmethod
    def advance(act: Any, s: Any) -> Any:
        """Return the new state."""
        return act

    @staticmethod
    def slopes(act: Any, before: Any, after: Any) -> tuple[Any, ...]:
        """Return the factors that `pull` and `push` need, for all steps at once."""
        return (1 - act * act,)

    @staticmethod
    def pull(g: Any, k: Sequence[Any], w: Any) -> tuple[Any, Any, Any]:
        """Return the gradients of ``a``, of ``u`` and of the old state, given the new state's; ``w`` is turned."""
        da = g * k[0]
        return da, da, da @ w

    @staticmethod
    def push(da: Any, du: Any, ds: Any, k: Sequence[Any]) -> Any:
        """Return the tangent of the new state; ``ds`` is the old state's, or None."""
        return (da + du) * k[0]


class ReLUCell(Cell):
    """A plain cell, ``h = max(a + u, 0)``."""

    operations = (2, 3)

    @staticmethod
    def activate(a: Any, u: Any) -> Any:
        """Return what is positive."""
        p = a + u
        return np.where(p > 0, p, 0)

    @staticmethod
    def slopes(act: Any, before: Any, after: Any) -> tuple[Any, ...]:
        """Return where the slope is 1."""
        return (act > 0,)


class GRUCell(Cell):
    """``r, z = sigmoid(a + u)``, ``n = tanh(a + r * u)``, ``h = (1 - z) * n + z * h``; the blocks are r, z, n."""

    gates = 3
    bias = True
    operations = (19, 22)

    @staticmethod
    def activate(a: Any, u: Any) -> Any:
        """Return r, z, n, and the block of ``u`` that r weighs."""
        # sigmoid(x) = tanh(x / 2) / 2 + 1 / 2: one call, and exp cannot overflow
        rz = 0.5 * np.tanh(0.5 * (block(a, 0, 3, 2) + block(u, 0, 3, 2))) + 0.5
        un = block(u, 2, 3)
        return _join(rz, np.tanh(block(a, 2, 3) + block(rz, 0, 2) * un), un)

    @staticmethod
    def advance(act: Any, s: Any) -> Any:
        """Return ``n + z * (h - n)``."""  # one product less than (1 - z) * n + z * h
        n = block(act, 2, 4)
        return n + block(act, 1, 4) * (s - n)

    @staticmethod
    def slopes(act: Any, before: Any, after: Any) -> tuple[Any, ...]:
        """Return z, and the slopes by ``a`` and by ``u``."""
        r, z, n, un = (block(act, k, 4) for k in range(4))
        kn = (1 - z) * (1 - n * n)
        kr, kz = kn * un * r * (1 - r), (before - n) * z * (1 - z)
        return z, _join(kr, kz, kn), _join(kr, kz, kn * r)

    @staticmethod
    def pull(g: Any, k: Sequence[Any], w: Any) -> tuple[Any, Any, Any]:
        """Return the gradients of ``a``, of ``u`` and of the old state."""
        z, ka, ku = k
        three = _join(g, g, g)
        du = three * ku
        return three * ka, du, g * z + du @ w

    @staticmethod
    def walk(a: Any, w: Any, bias: Any, s0: Any, states: Any, acts: Any) -> None:
        """Write the states, and r, z, n and the block of ``u`` that r weighs, for all steps."""
        s, h = s0, s0.shape[1]
        u, shift = empty(a.shape[1:], a), empty(a.shape[1:], a)
        shift[...] = bias  # once, since broadcasting a row takes longer than adding a matrix
        for at, act, new in zip(_steps(a), _steps(acts), _steps(states), strict=True):
            rz, n, un = act[:, : 2 * h], act[:, 2 * h : 3 * h], act[:, 3 * h :]
            np.matmul(s, w, out=u)
            u += shift
            np.add(at[:, : 2 * h], u[:, : 2 * h], out=rz)
            rz *= 0.5
            np.tanh(rz, out=rz)
            rz *= 0.5
            rz += 0.5
            un[...] = u[:, 2 * h :]
            np.multiply(rz[:, :h], un, out=n)
            n += at[:, 2 * h :]
            np.tanh(n, out=n)
            np.subtract(s, n, out=new)
            new *= rz[:, h:]
            new += n
            s = new

    @staticmethod
    def back(g: Any, w: Any, s0: Any, y: Any, act: Any, da: Any) -> Any:
        """Write the gradients of ``a`` for all steps, and return those of ``u``."""
        h = s0.shape[1]
        r, z, n, un = (block(act, k, 4) for k in range(4))
        du, gs = empty(da.shape, da), empty(y.shape, da)
        kr, kz, kn = (block(du, k, 3) for k in range(3))
        da_n = block(da, 2, 3)
        np.subtract(s0, n[0], out=kz[0])
        np.subtract(y[:-1], n[1:], out=kz[1:])
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
        three = du.reshape((*du.shape[:2], 3, h))
        ds: Any = None
        for t in reversed(range(len(y))):
            gt = gs[t]
            if ds is None:
                gt[...] = g[t]
            else:
                np.add(g[t], ds, out=gt)
            three[t] *= gt[:, None]
            if t:
                ds = gt * z[t]
                ds += du[t] @ w
        da_n *= gs
        da[:, :, : 2 * h] = du[:, :, : 2 * h]
        return du

    @staticmethod
    def push(da: Any, du: Any, ds: Any, k: Sequence[Any]) -> Any:
        """Return the tangent of ``h``."""
        z, ka, ku = k
        d = da * ka + du * ku
        dh = block(d, 0, 3) + block(d, 1, 3) + block(d, 2, 3)
        return dh if ds is None else dh + z * ds


class LSTMCell(Cell):
    """``i, f, o = sigmoid(a + u)``, ``g = tanh(a + u)``, ``c = f * c + i * g``, ``h = o * tanh(c)``: i, f, g, o."""

    gates = 4
    states = 2
    operations = (25, 25)

    @staticmethod
    def activate(a: Any, u: Any) -> Any:
        """Return i, f, g and o."""
        # One tanh does all, since sigmoid(x) = tanh(x / 2) / 2 + 1 / 2: factors of 1 for g, of 1 / 2 for the others.
        p = a + u
        half = np.full(p.shape[-1], 0.5, p.dtype)
        half[p.shape[-1] // 2 : 3 * (p.shape[-1] // 4)] = 1
        return np.tanh(p * half) * half + (1 - half)

    @staticmethod
    def advance(act: Any, s: Any) -> Any:
        """Return h and c."""
        c = block(act, 1, 4) * block(s, 1, 2) + block(act, 0, 4) * block(act, 2, 4)
        return _join(block(act, 3, 4) * np.tanh(c), c)

    @staticmethod
    def slopes(act: Any, before: Any, after: Any) -> tuple[Any, ...]:
        """Return f, the slope of h by c, those of c by i, f and g, and that of h by o, all before their gates."""
        i, f, g, o = (block(act, k, 4) for k in range(4))
        t = np.tanh(block(after, 1, 2))
        gates = _join(g * i * (1 - i), block(before, 1, 2) * f * (1 - f), i * (1 - g * g), t * o * (1 - o))
        return f, o * (1 - t * t), gates

    @staticmethod
    def pull(g: Any, k: Sequence[Any], w: Any) -> tuple[Any, Any, Any]:
        """Return the gradients of ``a``, of ``u`` and of the old state."""
        f, hc, gates = k
        dh = block(g, 0, 2)
        dc = block(g, 1, 2) + dh * hc
        da = _join(dc, dc, dc, dh) * gates
        return da, da, _join(da @ w, dc * f)

    @staticmethod
    def walk(a: Any, w: Any, bias: Any, s0: Any, states: Any, acts: Any) -> None:
        """Write the states, and i, f, g and o, for all steps."""
        h = w.shape[0]
        half, rest = _halves(a.shape[1], h, a.dtype.char)
        before, c = s0[:, :h], s0[:, h:]
        for at, act, new in zip(_steps(a), _steps(acts), _steps(states), strict=True):
            np.matmul(before, w, out=act)
            act += at
            act *= half
            np.tanh(act, out=act)
            act *= half
            act += rest
            before, old, c = new[:, :h], c, new[:, h:]
            np.multiply(act[:, h : 2 * h], old, out=c)
            c += act[:, :h] * act[:, 2 * h : 3 * h]
            np.multiply(np.tanh(c), act[:, 3 * h :], out=before)

    @staticmethod
    def back(g: Any, w: Any, s0: Any, y: Any, act: Any, da: Any) -> Any:
        """Write the gradients of ``a`` for all steps, and return them: those of ``u`` are the same."""
        h = w.shape[1]
        i, f, c, o = (block(act, k, 4) for k in range(4))
        ki, kf, kc, ko = (block(da, k, 4) for k in range(4))
        np.subtract(1, act, out=da)
        da[:, :, : 2 * h] *= act[:, :, : 2 * h]
        ko *= o
        kc *= 1 + c
        ki *= c
        kc *= i
        kf[0] *= s0[:, h:]
        kf[1:] *= y[:-1, :, h:]
        hc = np.tanh(y[:, :, h:])
        ko *= hc
        np.multiply(hc, hc, out=hc)
        np.subtract(1, hc, out=hc)
        hc *= o
        three = da.reshape((*da.shape[:2], 4, h))[:, :, :3]
        dh = dc = None
        for t in reversed(range(len(y))):
            gh, gc = g[t, :, :h], g[t, :, h:]
            dh = gh if dh is None else gh + dh
            dct = dh * hc[t]
            dct += gc
            if dc is not None:
                dct += dc
            three[t] *= dct[:, None]
            da[t, :, 3 * h :] *= dh
            if t:
                dh, dc = da[t] @ w, dct * f[t]
        return da

    @staticmethod
    def push(da: Any, du: Any, ds: Any, k: Sequence[Any]) -> Any:
        """Return the tangents of h and c."""
        f, hc, gates = k
        d = (da + du) * gates
        dc = block(d, 0, 4) + block(d, 1, 4) + block(d, 2, 4)
        dc = dc if ds is None else dc + f * block(ds, 1, 2)
        return _join(block(d, 3, 4) + hc * dc, dc)


CELLS: dict[str, type[Cell]] = {"tanh": Cell, "relu": ReLUCell, "gru": GRUCell, "lstm": LSTMCell}
