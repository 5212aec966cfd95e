"""Second derivatives at singular points, derivatives at very large and small numbers, and the right values."""

from __future__ import annotations

import numpy as np

import microfw as mf
from microfw.autograd.registry import OPS

LOG2, LOG3 = np.log(2), np.log(3)
CURVED = (
    np.array([[1, -1], [-1, 1]]) * 2**-1.5
)  # second derivatives of the length of (1, 1), and of its first direction
TURNED = np.array([[-3, 1], [1, 1]]) * 2**-2.5
MANY = np.sin(np.arange(1 << 14))


def _entries(*shape, seed):
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(float)


def _large_convolution(left):
    """Return a convolution that is made by rows of outputs, its transpose, and their gradients."""
    x, w, v = (mf.tensor(_entries(*LARGE[k], seed=k), requires_grad=True) for k in (0, 1, 1))
    padding = (0, 0), (left, 0)
    y = OPS["conv"].call(x, w, 0, padding=padding)
    g = _entries(*y.shape, seed=2)
    y.backward(g)
    z = OPS["conv_transpose"].call(g, v, size=x.shape[2:], padding=padding)
    z.backward(x.data)
    return np.concatenate([a.ravel() for a in (y.data, x.grad, w.grad, z.data, v.grad)])


def _by_taps(left):
    """Return the same, one tap of the kernel after the other."""
    x, w = (_entries(*shape, seed=k) for k, shape in enumerate(LARGE))
    width = 17 + left
    x, g = np.pad(x, ((0, 0), (0, 0), (0, 0), (left, 0))), _entries(72, 3, 19, width, seed=2)
    y, dx, dw = np.zeros(g.shape), np.zeros(x.shape), np.zeros(w.shape)
    for i, j in np.ndindex(3, 2):
        seen = np.s_[:, :, i : i + 19, j : j + width]
        y += np.einsum("nchw,oc->nohw", x[seen], w[:, :, i, j])
        dx[seen] += np.einsum("nohw,oc->nchw", g, w[:, :, i, j])
        dw[:, :, i, j] = np.einsum("nchw,nohw->oc", x[seen], g)
    dx = dx[..., left:]
    return np.concatenate([a.ravel() for a in (y, dx, dw, dx, dw)])


LARGE = (72, 2, 21, 18), (3, 2, 3, 2)
FIXED = {
    "a large convolution": (lambda: _large_convolution(0), _by_taps(0)),
    "a large convolution with padding": (lambda: _large_convolution(1), _by_taps(1)),
    "power, exponent 0": (lambda: mf.hessian(lambda v: v[0] ** v[1])(np.array([2.0, 0.0])), [[0, 0.5], [0.5, LOG2**2]]),
    "power, exponent 1": (
        lambda: mf.hessian(lambda v: v[0] ** v[1])(np.array([3.0, 1.0])),
        [[0, 1 + LOG3], [1 + LOG3, 3 * LOG3**2]],
    ),
    "power, exponent 2 at 0": (lambda: mf.hessian(lambda x: x**2.0)(np.array(0.0)), 2.0),
    "norm at 0": (lambda: mf.hessian(lambda x: np.linalg.norm(x))(np.zeros(2)), np.full((2, 2), np.nan)),
    "power, exponents 0 at 0": (lambda: mf.grad(lambda a: (a ** np.zeros(1)).sum())(np.zeros(1)), [0.0]),
    "powers at 0 and 0": (
        lambda: mf.hessian(lambda v: (v[:1] ** v[1:]).sum())(np.zeros(2)),
        [[0, np.nan], [np.nan, np.nan]],
    ),
    "logaddexp of nothing": (
        lambda: mf.hessian(lambda v: np.logaddexp(v[0], v[1]))(np.full(2, -np.inf)),
        np.full((2, 2), np.nan),
    ),
    "0 ** v at 0": (lambda: mf.hessian(lambda v: 0**v)(np.array(0.0)), np.nan),
    "0 ** v at 2": (lambda: mf.hessian(lambda v: 0**v)(np.array(2.0)), 0.0),
    "powers by their exponent": (
        lambda: mf.hessian(lambda v: (np.array([0.0, 2.0]) ** v).sum())(np.array([3.0, 1.0])),
        [[0, 0], [0, 2 * LOG2**2]],
    ),
    "hypot at the origin": (
        lambda: mf.hessian(lambda v: np.hypot(v[:2], v[2:]).sum())(np.array([0.0, 3.0, 0.0, 4.0])),
        [[np.nan, 0, np.nan, 0], [0, 0.128, 0, -0.096], [np.nan, 0, np.nan, 0], [0, -0.096, 0, 0.072]],
    ),
    "logaddexp of one": (
        lambda: mf.grad(lambda v: np.logaddexp(v[0], v[1]))(np.array([-np.inf, 1.0])),
        [0, 1],
    ),
    **{
        f"{name} outside": (
            lambda name=name, x=x: mf.hessian(lambda v: getattr(np, name)(v).sum())(np.array([x, 0.5])),
            [[np.nan, 0], [0, second]],
        )
        for name, x, second in [
            ("log", -1.0, -4.0),
            ("log2", -1.0, -4.0 / LOG2),
            ("log10", -1.0, -4.0 / np.log(10)),
            ("log1p", -2.0, -1 / 2.25),
            ("arctanh", 2.0, 1 / 0.75**2),
        ]
    },
    **{
        f"{name} by rows": (
            lambda f=f, x=x, others=others: mf.hessian(lambda v: f(v.reshape((2, 2))).sum())(np.array([x, x, *others])),
            np.block([[np.full((2, 2), np.nan), np.zeros((2, 2))], [np.zeros((2, 2)), np.array(second)]]),
        )
        for name, f, x, others, second in [
            ("norm", lambda v: np.linalg.norm(v, axis=1), 0.0, (1, 1), CURVED),
            ("length", lambda v: OPS["length"].call(v), 0.0, (1, 1), CURVED),
            ("unit", lambda v: OPS["unit"].call(v) @ [1.0, 0.0], 0.0, (1, 1), TURNED),
            ("max", lambda v: np.max(v, axis=1), np.nan, (3, 4), [[0, 0], [0, 0]]),
            ("logsumexp", lambda v: mf.ops.logsumexp(v, axis=1), -np.inf, (3, 3), [[0.25, -0.25], [-0.25, 0.25]]),
        ]
    },
    "length of a vector with a zero": (
        lambda: mf.hessian(lambda v: OPS["length"].call(v).sum())(np.array([3.0, 0.0, 4.0])),
        [[0.128, 0, -0.096], [0, 0.2, 0], [-0.096, 0, 0.072]],
    ),
    # infinite gradients above the diagonal, where the factor is 0, count for nothing
    "roots of a Cholesky factor": (
        lambda: mf.grad(lambda a: np.sqrt(np.linalg.cholesky(a)).sum())(np.array([[4.0, 1.0], [1.0, 3.0]])),
        [[0.0515109624, 0], [0.2950190821, 0.1170686171]],  # by differences of the three roots
    ),
    "relu of many": (lambda: mf.grad(lambda v: (OPS["relu"].call(v) * MANY).sum())(MANY), np.maximum(MANY, 0)),
    "norm of large": (lambda: mf.grad(np.linalg.norm)(np.array([1e20, 1], np.float32)), [1, 1e-20]),
    "norm of small": (lambda: mf.grad(np.linalg.norm)(np.array([3e-30, 4e-30], np.float32)), [0.6, 0.8]),
    "layer norm of large": (lambda: mf.nn.LayerNorm(3)(np.full((1, 3), 1e6 + 0.1, np.float32)).numpy(), [[0, 0, 0]]),
}
