"""Programs in PyTorch: its functions under this library's names, with parameters of this library's shapes."""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch.nn import functional as F


class Module(torch.nn.Module):
    """A module with this library's methods."""

    def parameters(self, recurse=True):
        return list(super().parameters(recurse))

    def astype(self, dtype):
        return self

    def weights(self, **shapes):
        for name, shape in shapes.items():
            value = None if shape is None else torch.nn.Parameter(torch.zeros(shape, dtype=torch.float64))
            self.register_parameter(name, value)


class Sequential(Module, torch.nn.Sequential):
    pass


class Function(Module):
    """A layer without parameters."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *args):
        return self.function(*args)


def fixed(function):
    """Return what makes a layer of a function."""
    return lambda *args, **options: Function(lambda x: function(x, *args, **options))


class Dense(Module):
    def __init__(self, n, m, bias=True, rng=None):
        super().__init__()
        self.weights(weight=(n, m), bias=(m,) if bias else None)

    def forward(self, x):
        return F.linear(x, self.weight.T, self.bias)


class Embedding(Module):
    def __init__(self, rows, features, padding_idx=None, rng=None):
        super().__init__()
        self.weights(weight=(rows, features))
        self.padding = padding_idx

    def forward(self, x):
        found = F.embedding(x.long(), self.weight)
        return found if self.padding is None else found * (x != self.padding)[..., None]


class PReLU(Module):
    def __init__(self, features=1):
        super().__init__()
        self.weights(weight=(features,))

    def forward(self, x):
        return F.prelu(x, self.weight)


def same_pads(sizes, kernel, stride, dilation):
    pads = []
    for n in reversed(sizes):
        total = max((-(-n // stride) - 1) * stride + dilation * (kernel - 1) + 1 - n, 0)
        pads += [total // 2, total - total // 2]
    return pads


class Conv2D(Module):
    axes = 2

    def __init__(self, n, m, kernel, stride=1, padding=0, dilation=1, groups=1, bias=True, rng=None):
        super().__init__()
        self.settings = kernel, stride, padding, dilation, groups
        self.weights(weight=(m, n // groups, *[kernel] * self.axes), bias=(m,) if bias else None)

    def forward(self, x):
        kernel, stride, padding, dilation, groups = self.settings
        if padding == "same":
            x, padding = F.pad(x, same_pads(x.shape[2:], kernel, stride, dilation)), 0
        conv = F.conv2d if self.axes == 2 else F.conv1d
        return conv(x, self.weight, self.bias, stride, padding, dilation, groups)


class Conv1D(Conv2D):
    axes = 1


class BatchNorm1D(Module):
    def __init__(self, features, eps=1e-5, momentum=0.1, affine=True):
        super().__init__()
        self.weights(weight=(features,) if affine else None, bias=(features,) if affine else None)
        self.register_buffer("running_mean", torch.zeros(features, dtype=torch.float64))
        self.register_buffer("running_var", torch.ones(features, dtype=torch.float64))
        self.settings = momentum, eps

    def forward(self, x):
        statistics = self.running_mean, self.running_var
        return F.batch_norm(x, *statistics, self.weight, self.bias, self.training, *self.settings)


class LayerNorm(Module):
    def __init__(self, shape, affine=True):
        super().__init__()
        self.shape = (shape,) if isinstance(shape, int) else shape
        self.weights(weight=self.shape if affine else None, bias=self.shape if affine else None)

    def forward(self, x):
        return F.layer_norm(x, self.shape, self.weight, self.bias)


class GroupNorm(Module):
    def __init__(self, groups, features, affine=True):
        super().__init__()
        self.groups = groups
        self.weights(weight=(features,) if affine else None, bias=(features,) if affine else None)

    def forward(self, x):
        return F.group_norm(x, self.groups, self.weight, self.bias)


class Residual(Module):
    def __init__(self, module, shortcut=None):
        super().__init__()
        self.module = module
        self.shortcut = shortcut

    def forward(self, x):
        return self.module(x) + (x if self.shortcut is None else self.shortcut(x))


class Recurrent(Module):
    gates = 1

    def __init__(self, n, h, bias=True, nonlinearity="tanh", rng=None):
        super().__init__()
        self.hidden, self.act = h, nonlinearity
        self.weights(
            weight_ih=(n, self.gates * h), weight_hh=(h, self.gates * h), bias=(self.gates * h,) if bias else None
        )
        if isinstance(self, GRU):
            self.weights(bias_hh=(3 * h,) if bias else None)

    def forward(self, x):
        kind = {1: "RNN", 3: "GRU", 4: "LSTM"}[self.gates]
        options = {"nonlinearity": self.act} if kind == "RNN" else {}
        layer = getattr(torch.nn, kind)(
            x.shape[2], self.hidden, bias=self.bias is not None, batch_first=True, **options
        ).double()
        values = {"weight_ih_l0": self.weight_ih.T, "weight_hh_l0": self.weight_hh.T}
        if self.bias is not None:
            second = self.bias_hh if kind == "GRU" else torch.zeros_like(self.bias)
            values |= {"bias_ih_l0": self.bias, "bias_hh_l0": second}
        outputs, state = torch.func.functional_call(layer, values, (x,))
        return outputs, tuple(s[0] for s in state) if kind == "LSTM" else state[0]


class RNN(Recurrent):
    pass


class GRU(Recurrent):
    gates = 3


class LSTM(Recurrent):
    gates = 4


class MultiHeadAttention(Module):
    def __init__(self, n, heads, bias=True, causal=False, rng=None):
        super().__init__()
        self.heads, self.causal = heads, causal
        self.query, self.key, self.value, self.out = (Dense(n, n, bias) for _ in range(4))

    def forward(self, x):
        q, k, v = (m(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for m in (self.query, self.key, self.value))
        made = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out(made.transpose(1, 2).flatten(-2))


def weighed(kind, **fixed_options):
    """Return a loss of PyTorch whose weights are arrays."""

    def make(*args, weight=None, pos_weight=None, **options):
        for name, value in (("weight", weight), ("pos_weight", pos_weight)):
            if value is not None:
                options[name] = torch.tensor(value, dtype=torch.float64)
        loss = kind(*args, **fixed_options, **options)
        return lambda out, y: loss(
            out, y.long() if "CrossEntropy" in kind.__name__ or kind.__name__[:3] == "NLL" else y
        )

    return make


class nn:
    """The layers and losses."""

    Sequential, Dense, Embedding, PReLU, Residual = Sequential, Dense, Embedding, PReLU, Residual
    Conv1D, Conv2D, BatchNorm1D, BatchNorm2D = Conv1D, Conv2D, BatchNorm1D, BatchNorm1D
    LayerNorm, GroupNorm, MultiHeadAttention, RNN, GRU, LSTM = LayerNorm, GroupNorm, MultiHeadAttention, RNN, GRU, LSTM
    Lambda = Function
    ReLU, Tanh, Sigmoid, SiLU, Mish = (fixed(f) for f in (F.relu, F.tanh, F.sigmoid, F.silu, F.mish))
    Softplus, Softsign, ELU, Identity = (fixed(f) for f in (F.softplus, F.softsign, F.elu, lambda x: x))
    LeakyReLU = fixed(lambda x, slope: F.leaky_relu(x, float(slope)))
    GELU = fixed(lambda x, approximate="none": F.gelu(x, approximate=approximate))
    Softmax, LogSoftmax = fixed(lambda x: F.softmax(x, -1)), fixed(lambda x: F.log_softmax(x, -1))
    Flatten = fixed(lambda x: x.flatten(1))
    MaxPool2D, AvgPool2D = fixed(F.max_pool2d), fixed(F.avg_pool2d)
    GlobalAvgPool2D = fixed(lambda x: x.mean((2, 3)))
    CrossEntropyLoss, NLLLoss = weighed(torch.nn.CrossEntropyLoss), weighed(torch.nn.NLLLoss)
    MSELoss, L1Loss = weighed(torch.nn.MSELoss), weighed(torch.nn.L1Loss)
    BCEWithLogitsLoss = weighed(torch.nn.BCEWithLogitsLoss)
    KLDivLoss = weighed(torch.nn.KLDivLoss, reduction="batchmean")
    PoissonNLLLoss = weighed(torch.nn.PoissonNLLLoss)

    @staticmethod
    def HuberLoss(delta=1.0):
        return torch.nn.HuberLoss(delta=delta)


class Optimizer:
    """An optimizer of PyTorch with one rate for all groups to follow."""

    def __init__(self, kind, parameters, lr, **options):
        if "initial" in options:
            options["initial_accumulator_value"] = options.pop("initial")
        self._lr = lr
        self.inner = getattr(torch.optim, kind)(parameters, lr=lr, **options)

    @property
    def lr(self):
        return self._lr

    @lr.setter
    def lr(self, value):
        for group in self.inner.param_groups:
            group["lr"] = group["lr"] / self._lr * value
        self._lr = value

    def zero_grad(self):
        self.inner.zero_grad()

    def step(self):
        self.inner.step()


class optim:
    """The optimizers."""

    SGD, Adam, AdamW, RMSprop, Adagrad = (
        functools.partial(Optimizer, kind) for kind in ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad")
    )


class TorchWorld(dict):
    """A program's namespace in PyTorch, with the parameters of a world of this library."""

    def __init__(self, program, world):
        from tests.fuzzing.world import CODE, NAMES

        super().__init__(__name__=f"torch_{program.seed}")
        for code in CODE:
            exec(code, self)
        self.update(NAMES | {"nn": nn, "optim": optim})
        exec(program.setup, self)
        with torch.no_grad():
            for ours, theirs in zip(world["model"].parameters(), self["model"].parameters(), strict=True):
                theirs.copy_(torch.tensor(ours.data))

    def change(self, step):
        with torch.no_grad():
            for statement in step.changes:
                exec(statement, self)


def close(a, b, tolerance=1e-8):
    """Whether two arrays are equal up to rounding."""
    scale = max(1.0, float(np.abs(a).max(initial=0)))
    return a.shape == b.shape and bool(np.abs(a - b).max(initial=0) <= tolerance * scale)


def examine_torch(program):
    """Run a program here and in PyTorch; return the first difference, and how many steps were compared."""
    from tests.fuzzing.batches import batch
    from tests.fuzzing.runner import Way, hand_written

    way = Way(program, hand_written)
    other = TorchWorld(program, way.world)
    ours, theirs = way.world["model"].parameters(), other["model"].parameters()
    for k, step in enumerate(program.steps):
        way.take(step)
        if way.error is not None:  # what is refused here, such as labels that are all ignored, PyTorch may accept
            return "", k
        other.change(step)
        X, y = (torch.tensor(a) for a in batch(program, step))
        other["optimizer"].zero_grad()
        made = other["f"](X, y)
        loss = made[0] if isinstance(made, tuple) else made
        loss.backward()
        other["optimizer"].step()
        rows = [("loss", np.asarray(way.losses[-1]), loss.detach().numpy())]
        for j, (p, q) in enumerate(zip(ours, theirs, strict=True)):
            rows.append((f"parameter {j}", p.data, q.detach().numpy()))
            if p.grad is None or q.grad is None:
                if (p.grad is None) != (q.grad is None):
                    return f"step {k}: gradient {j} is there only in one", k
                continue
            rows.append((f"gradient {j}", p.grad, q.grad.numpy()))
        for name, a, b in rows:
            if math.isfinite(way.losses[-1]) and not close(a, b):
                return f"step {k}: {name}: {a.ravel()[:4]} here, {b.ravel()[:4]} in PyTorch", k
    return "", len(program.steps)
