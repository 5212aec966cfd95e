"""PyTorch's function for each op, as ``function(torch, *tensors, **params)``, or the reason why there is none.

The row of a new op gives it as ``torch=``.
"""

from __future__ import annotations

import numpy as np

from tests.cases.ops import CASES
from tests.peers.torch_conv import CONVOLUTIONS


def named(name, *modules):
    """Return PyTorch's function of the same name; it lives in ``torch`` or in a module of it."""

    def call(torch, *tensors, **params):
        home = torch
        for module in modules:
            home = getattr(home, module)
        return getattr(home, name)(*tensors, **params)

    return call


def dims(x, axis):
    """Return an axis argument as the tuple that PyTorch takes."""
    return tuple(range(x.ndim)) if axis is None else axis if isinstance(axis, tuple) else (axis,)


def reduction(name):
    def call(torch, x, axis=None, keepdims=False, **params):
        if not x.ndim:
            return getattr(torch, name)(x.reshape(1), dim=(0,), **params)
        return getattr(torch, name)(x, dim=dims(x, axis), keepdim=keepdims, **params)

    return call


def spread(name):
    def call(torch, x, axis=None, ddof=0, keepdims=False):
        if not x.ndim:
            return getattr(torch, name)(x.reshape(1), dim=(0,), correction=ddof)
        return getattr(torch, name)(x, dim=dims(x, axis), correction=ddof, keepdim=keepdims)

    return call


def one_by_one(name):
    """Return a reduction that PyTorch has for one axis only, applied to several from the last to the first."""

    def call(torch, x, axis=None, keepdims=False):
        for d in sorted((a % x.ndim for a in dims(x, axis)), reverse=True):
            x = getattr(torch, name)(x, dim=d, keepdim=True)
        gone = tuple(a % x.ndim for a in dims(x, axis))
        return x if keepdims else x.reshape([n for k, n in enumerate(x.shape) if k not in gone])

    return call


def winner(name):
    def call(torch, x, axis=None, keepdims=False):
        if axis is None:
            y = getattr(torch, name)(x)
            return y.reshape((1,) * x.ndim) if keepdims else y
        return getattr(torch, name)(x, dim=axis, keepdim=keepdims)

    return call


def along(name):
    def call(torch, x, axis=-1):
        if axis is None:
            x, axis = x.reshape(-1), 0
        return getattr(torch, name)(x, dim=axis)

    return call


def key(torch, key):
    keys = key if isinstance(key, tuple) else (key,)
    return tuple(torch.as_tensor(k) if isinstance(k, np.ndarray) else k for k in keys)


def getitem(torch, x, key_):
    keys = key_ if isinstance(key_, tuple) else (key_,)
    flips = [k.step for k in keys if isinstance(k, slice) and k.step is not None and k.step < 0]
    if flips or not x.ndim:  # PyTorch has no negative steps, and no keys for a single number
        index = np.arange(x.numel()).reshape(x.shape)[key_]
        return x.reshape(-1)[torch.as_tensor(index.copy())]
    return x[key(torch, key_)]


def put(torch, x, shape, key):
    index = torch.as_tensor(np.arange(int(np.prod(shape))).reshape(shape)[key].copy())
    zeros = torch.zeros(int(np.prod(shape)), dtype=x.dtype)
    return zeros.index_add(0, index.reshape(-1), x.reshape(-1)).reshape(shape)


def take(torch, x, indices, axis=None, signed=True):
    if axis is None:
        x, axis = x.reshape(-1), 0
    axis %= x.ndim
    flat = x.contiguous().index_select(axis, indices.long().reshape(-1) % x.shape[axis])
    return flat.reshape((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


def roll(torch, x, shift, axis=None):
    if isinstance(axis, tuple) != isinstance(shift, tuple):  # one for several
        axis = axis if isinstance(axis, tuple) else (axis,) * len(shift)
        shift = shift if isinstance(shift, tuple) else (shift,) * len(axis)
    return torch.roll(x, shift, dims=axis)


def slogdet(torch, x):
    return torch.stack(tuple(torch.linalg.slogdet(x)))


def cholesky(torch, x):
    """Read only the lower triangle, as the op does, so that only it has a gradient."""
    return torch.linalg.cholesky(torch.tril(x) + torch.tril(x, -1).mT)


def norm(torch, x, axis=None, keepdims=False):
    return torch.linalg.vector_norm(x, dim=dims(x, axis) if x.ndim else None, keepdim=keepdims)


def normalize(torch, x, weight, bias, axes, eps, running=None, momentum=0.0):
    variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
    return (x - mean) / torch.sqrt(variance + eps) * weight + bias


def masked_softmax(torch, x, mask, scale=1.0):
    """A row in which nothing takes part is 0, and NaN in PyTorch; so it is given something, and then blanked."""
    some = mask.any(-1, keepdim=True)
    z = (x * scale).masked_fill(~(mask | ~some), -torch.inf)
    return torch.softmax(z, -1) * some


UNARY = [
    "negative",
    "reciprocal",
    "abs",
    "sign",
    "exp",
    "exp2",
    "expm1",
    "log",
    "log2",
    "log10",
    "log1p",
    "sqrt",
    "square",
    "sin",
    "cos",
    "tan",
    "arcsin",
    "arccos",
    "arctan",
    "sinh",
    "cosh",
    "tanh",
    "arcsinh",
    "arccosh",
    "arctanh",
    "sigmoid",
    "erf",
    "floor",
    "ceil",
    "trunc",
    "isnan",
    "isfinite",
    "isinf",
    "relu",
    "signbit",
    "logical_not",
    "det",
]
BINARY = [
    "add",
    "subtract",
    "multiply",
    "divide",
    "maximum",
    "minimum",
    "arctan2",
    "hypot",
    "logaddexp",
    "less",
    "less_equal",
    "greater",
    "greater_equal",
    "logical_and",
    "logical_or",
    "logical_xor",
    "floor_divide",
    "remainder",
    "fmod",
    "matmul",
    "bitwise_and",
    "bitwise_or",
    "bitwise_xor",
    "where",
]

TORCH = {name: named(name) for name in UNARY + BINARY} | {
    "power": named("pow"),
    "power_log": lambda torch, a, b, n=1: a**b * torch.log(a) ** n,
    "equal": named("eq"),
    "not_equal": named("ne"),
    "rint": named("round"),
    "invert": named("bitwise_not"),
    "round": lambda torch, x, decimals=0: torch.round(x, decimals=decimals),
    "cbrt": lambda torch, x: torch.sign(x) * torch.abs(x) ** (1 / 3),
    "softplus": lambda torch, x: torch.logaddexp(x, torch.zeros_like(x)),
    "clip": lambda torch, x, low=None, high=None: torch.clip(x, low, high),
    "astype": lambda torch, x, dtype: x.to(getattr(torch, np.dtype(dtype).name)),
    "identity": lambda torch, x: x.clone(),
    "elu": lambda torch, x, alpha=1.0: torch.nn.functional.elu(x, alpha),
    "silu": named("silu", "nn", "functional"),
    "mish": named("mish", "nn", "functional"),
    "sum": reduction("sum"),
    "mean": reduction("mean"),
    "max": reduction("amax"),
    "min": reduction("amin"),
    "logsumexp": reduction("logsumexp"),
    "var": spread("var"),
    "std": spread("std"),
    "norm": norm,
    "prod": one_by_one("prod"),
    "any": lambda torch, x, **params: one_by_one("any")(torch, x != 0, **params),
    "all": lambda torch, x, **params: one_by_one("all")(torch, x != 0, **params),
    "count_nonzero": lambda torch, x, axis=None, keepdims=False: reduction("sum")(
        torch, (x != 0).long(), axis, keepdims
    ),
    "argmax": winner("argmax"),
    "argmin": winner("argmin"),
    "argsort": along("argsort"),
    "argwhere": named("argwhere"),
    "cumsum": along("cumsum"),
    "cumprod": along("cumprod"),
    "softmax": along("softmax"),
    "log_softmax": along("log_softmax"),
    "reshape": lambda torch, x, shape: x.reshape(shape),
    "transpose": lambda torch, x, axes=None: x.permute(tuple(range(x.ndim))[::-1] if axes is None else axes),
    "broadcast_to": lambda torch, x, to: torch.broadcast_to(x, to),
    "concatenate": lambda torch, *xs, axis=0: torch.cat(xs, dim=axis),
    "stack": lambda torch, *xs, axis=0: torch.stack(xs, dim=axis),
    "roll": roll,
    "getitem": lambda torch, x, key: getitem(torch, x, key),
    "put": put,
    "gather": lambda torch, x, indices: x[tuple(indices.long())],
    "take": take,
    "scatter": lambda torch, x, indices, to, axis=0: torch.zeros(to, dtype=x.dtype).index_add(
        axis,
        indices.long().reshape(-1) % to[axis],
        x.reshape((*to[: axis % len(to)], indices.numel(), *to[axis % len(to) + 1 :])),
    ),
    "take_along_axis": lambda torch, x, indices, axis=-1: torch.take_along_dim(
        x, indices, dim=axis if axis is None else axis % x.ndim
    ),
    "normalize": normalize,
    "masked_softmax": masked_softmax,
    "unit": lambda torch, x: torch.nn.functional.normalize(x, dim=-1),
    "length": lambda torch, x: torch.linalg.vector_norm(x, dim=-1),
    "linear": lambda torch, x, w, b: torch.nn.functional.linear(x, w.T, b),
    "inv": named("inv", "linalg"),
    "solve": named("solve", "linalg"),
    "cholesky": cholesky,
    "slogdet": slogdet,
    "cross_entropy": named("cross_entropy", "nn", "functional"),
    "squared_error": named("mse_loss", "nn", "functional"),
    "bce_with_logits": lambda torch, z, t: torch.nn.functional.binary_cross_entropy_with_logits(
        *torch.broadcast_tensors(z, t), reduction="none"
    ),
    "weighted_bce": lambda torch, z, ones, zeros: (
        ones * torch.nn.functional.softplus(-z) + zeros * torch.nn.functional.softplus(z)
    ),
    **CONVOLUTIONS,
}

NONE: dict[str, str] = {
    "dropout_mask": "it draws from NumPy's generators, whose numbers PyTorch does not make",
    "undefined": "it marks where a slope was chosen; PyTorch differentiates its choices as if they were slopes",
    "pure_callback": "it calls any function of arrays, and has no gradient",
    "recur_masked": "PyTorch's packed sequences are compared with the layers",
    "recur": "PyTorch's recurrent layers multiply their input inside, so that the layers are compared and not the op",
    "recurrent_inputs": "PyTorch's recurrent layers do the same inside",
}
"""Ops without a counterpart, each with the reason."""

for _case in CASES:
    if _case.torch:
        (NONE if isinstance(_case.torch, str) else TORCH)[_case.name] = _case.torch
