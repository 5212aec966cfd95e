"""A small recurrent net on digits, in each library.

An image is read row by row: 8 steps of 8 pixels through gated recurrent units with a state of 32, then a dense layer
from the last state to 10. In each step, with the state ``h`` (zeros at first), and with ``a = x @ V + c`` and
``u = h @ U + d`` cut into three blocks::

    r = sigmoid(a_r + u_r)
    z = sigmoid(a_z + u_z)
    n = tanh(a_n + r * u_n)
    h = (1 - z) * n + z * h

as in PyTorch's ``nn.GRU``. The libraries have only the network here; `columns` has their steps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from columns import LR, MOMENTUM, Step

PIXELS, HIDDEN = 8, 32


def initial_sequences() -> list[np.ndarray]:
    """Return V, c, U, d of the units, and the dense layer's W, b."""
    rng = np.random.default_rng(7)

    def drawn(n: int, m: int) -> np.ndarray:
        return (rng.standard_normal((n, m)) * np.sqrt(1 / n)).astype(np.float32)

    V, c = drawn(PIXELS, 3 * HIDDEN), np.zeros(3 * HIDDEN, np.float32)
    U, d = drawn(HIDDEN, 3 * HIDDEN), np.zeros(3 * HIDDEN, np.float32)
    return [V, c, U, d, drawn(HIDDEN, 10), np.zeros(10, np.float32)]


def hand_written_sequences() -> Step:
    """NumPy as one would write it to be read: new arrays everywhere, one time step after the other."""
    V, c, U, d, W, b = parameters = initial_sequences()
    speeds = [np.zeros_like(p) for p in parameters]
    H = HIDDEN

    def step(X: Any, y: Any) -> float:
        n, steps, _ = X.shape
        A = X @ V + c
        h = np.zeros((n, H), np.float32)
        states = []
        for t in range(steps):
            a, u = A[:, t], h @ U + d
            gates = 1 / (1 + np.exp(-(a[:, : 2 * H] + u[:, : 2 * H])))
            r, z = gates[:, :H], gates[:, H:]
            new = np.tanh(a[:, 2 * H :] + r * u[:, 2 * H :])
            states.append((h, gates, new, u[:, 2 * H :]))
            h = (1 - z) * new + z * h
        out = h @ W + b

        rows = np.arange(n)
        shifted = out - out.max(axis=1, keepdims=True)
        exps = np.exp(shifted)
        sums = exps.sum(axis=1, keepdims=True)
        loss = (np.log(sums[:, 0]) - shifted[rows, y]).mean()

        delta = exps / sums
        delta[rows, y] -= 1
        delta /= n
        dW, db = h.T @ delta, delta.sum(axis=0)
        dh = delta @ W.T
        dA = np.empty_like(A)
        dU, dd = np.zeros_like(U), np.zeros_like(d)
        for t in range(steps - 1, -1, -1):
            h, gates, new, un = states[t]
            r, z = gates[:, :H], gates[:, H:]
            da = dA[:, t]
            da[:, 2 * H :] = dh * (1 - z) * (1 - new * new)
            da[:, :H] = da[:, 2 * H :] * un
            da[:, H : 2 * H] = dh * (h - new)
            da[:, : 2 * H] *= gates * (1 - gates)
            du = np.concatenate((da[:, : 2 * H], da[:, 2 * H :] * r), axis=1)
            dU += h.T @ du
            dd += du.sum(axis=0)
            dh = dh * z + du @ U.T
        dA = dA.reshape(n * steps, -1)
        dV, dc = X.reshape(n * steps, -1).T @ dA, dA.sum(axis=0)
        for p, v, g in zip(parameters, speeds, (dV, dc, dU, dd, dW, db), strict=True):
            v *= MOMENTUM
            v += g
            p -= LR * v
        return float(loss)

    return step


class Sequences:
    """The network in each library."""

    shape = (8, PIXELS)

    def parameters(self) -> Any:
        """Return the initial arrays."""
        return initial_sequences()

    def hand_written(self) -> Step:
        """Return the readable step."""
        return hand_written_sequences()

    def hand_tuned(self) -> Step:
        """Return the preallocated step."""
        from tuned_recurrent import gru

        return gru(initial_sequences(), 8, 32)

    def microfw(self) -> Any:
        """Return a model of microfw."""
        from microfw import nn

        class Reader(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.units, self.head = nn.GRU(PIXELS, HIDDEN, rng=0), nn.Dense(HIDDEN, 10, rng=0)

            def forward(self, x: Any) -> Any:
                _, state = self.units(x)
                return self.head(state)

        model = Reader()
        units, head = model.units, model.head
        owners = (units.weight_ih, units.bias, units.weight_hh, units.bias_hh, head.weight, head.bias)
        for p, value in zip(owners, initial_sequences(), strict=True):
            p.data = value
        return model

    def torch(self) -> Any:
        """Return a model of PyTorch."""
        import torch

        class Reader(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.units = torch.nn.GRU(PIXELS, HIDDEN, batch_first=True)
                self.head = torch.nn.Linear(HIDDEN, 10)

            def forward(self, x: Any) -> Any:
                _, state = self.units(x)
                return self.head(state[0])

        model = Reader()
        units, head = model.units, model.head
        owners = (
            units.weight_ih_l0, units.bias_ih_l0, units.weight_hh_l0, units.bias_hh_l0, head.weight, head.bias,
        )  # fmt: skip
        with torch.no_grad():
            for p, value in zip(owners, initial_sequences(), strict=True):
                p.copy_(torch.tensor(value.T.copy()))
        return model

    def torch_to_compile(self) -> Any:
        """Return the model with the units written out: PyTorch's compiler leaves its ``nn.GRU`` as it is."""
        import torch

        class Reader(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                arrays = initial_sequences()
                self.arrays = torch.nn.ParameterList([torch.nn.Parameter(torch.tensor(a)) for a in arrays])

            def forward(self, x: Any) -> Any:
                V, c, U, d, W, b = self.arrays
                h = torch.zeros(len(x), HIDDEN)
                for a in (x @ V + c).unbind(1):
                    ar, az, an = a.chunk(3, dim=1)
                    ur, uz, un = (h @ U + d).chunk(3, dim=1)
                    r, z = torch.sigmoid(ar + ur), torch.sigmoid(az + uz)
                    h = (1 - z) * torch.tanh(an + r * un) + z * h
                return h @ W + b

        return Reader()

    def jax(self, parameters: Any, X: Any) -> Any:
        """Return the logits; time is a scan, as JAX advises for a loop over steps."""
        import jax
        import jax.numpy as jnp

        V, c, U, d, W, b = parameters

        def cell(h: Any, x: Any) -> Any:
            ar, az, an = jnp.split(x @ V + c, 3, axis=1)
            ur, uz, un = jnp.split(h @ U + d, 3, axis=1)
            r, z = jax.nn.sigmoid(ar + ur), jax.nn.sigmoid(az + uz)
            return (1 - z) * jnp.tanh(an + r * un) + z * h, None

        state, _ = jax.lax.scan(cell, jnp.zeros((len(X), HIDDEN)), X.swapaxes(0, 1))
        return state @ W + b

    def mygrad(self, parameters: Any, X: Any) -> Any:
        """Return the logits; of operations, since MyGrad's layer of gated units has other equations."""
        import mygrad as mg
        from mygrad.nnet.activations import sigmoid

        V, c, U, d, W, b = parameters
        h, H = np.zeros((len(X), HIDDEN), np.float32), HIDDEN
        for t in range(X.shape[1]):
            a, u = mg.matmul(X[:, t], V) + c, mg.matmul(h, U) + d
            r = sigmoid(a[:, :H] + u[:, :H])
            z = sigmoid(a[:, H : 2 * H] + u[:, H : 2 * H])
            h = (1 - z) * mg.tanh(a[:, 2 * H :] + r * u[:, 2 * H :]) + z * h
        return mg.matmul(h, W) + b

    def autograd(self, parameters: Any, X: Any) -> Any:
        """Return the logits; the loop over steps as in autograd's own examples of recurrent nets."""
        import autograd.numpy as anp

        def sigmoid(x: Any) -> Any:
            return 0.5 * (anp.tanh(0.5 * x) + 1)

        V, c, U, d, W, b = parameters
        h, H = np.zeros((len(X), HIDDEN), np.float32), HIDDEN
        for t in range(X.shape[1]):
            a, u = anp.dot(X[:, t], V) + c, anp.dot(h, U) + d
            r = sigmoid(a[:, :H] + u[:, :H])
            z = sigmoid(a[:, H : 2 * H] + u[:, H : 2 * H])
            h = (1 - z) * anp.tanh(a[:, 2 * H :] + r * u[:, 2 * H :]) + z * h
        return anp.dot(h, W) + b
