"""Small models of other kinds, in microfw, PyTorch and JAX: embeddings, recurrent units, attention, convolutions.

The data are random: what a step takes does not depend on them. All libraries start from the same float32 arrays, which
have microfw's names and shapes. `columns` has the steps, except those in hand-tuned NumPy, which are in files of their
families.
"""

from __future__ import annotations

import importlib
from typing import Any, ClassVar

import numpy as np

Arrays = dict[str, np.ndarray]


def _dense(name: str, n: int, m: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (n, m), f"{name}.bias": (m,)}


class Network:
    """A network: batches of random data, its first arrays, and the model in each library."""

    loss = "CrossEntropyLoss"
    batch = 32
    shape: tuple[int, ...]  # of one example
    numbers = 0  # how many different tokens; 0 if the inputs are floats
    classes = 10
    arrays: ClassVar[dict[str, tuple[int, ...]]]
    tuned: tuple[str, str]  # module and name of the step in tuned NumPy

    def data(self, count: int) -> list[tuple[Any, Any]]:
        """Return batches of inputs and targets."""
        rng = np.random.default_rng(3)
        size = (count, self.batch, *self.shape)
        X = rng.integers(self.numbers, size=size) if self.numbers else rng.standard_normal(size).astype(np.float32)
        y = X if self.loss == "MSELoss" else rng.integers(self.classes, size=(count, self.batch))
        return list(zip(X, y, strict=True))

    def parameters(self) -> Arrays:
        """Return the initial arrays: ones for the scales of normalizations, zeros for biases."""
        rng = np.random.default_rng(7)
        found: Arrays = {}
        for name, shape in self.arrays.items():
            if len(shape) == 1:
                found[name] = np.full(shape, float(name.endswith("weight")), np.float32)
            else:
                fan = int(np.prod(shape[1:])) if len(shape) > 2 else shape[0]
                found[name] = (rng.standard_normal(shape) / np.sqrt(fan)).astype(np.float32)
        return found

    def microfw(self) -> Any:
        """Return a model of microfw with the initial arrays."""
        model = self.build()
        start = self.parameters()
        for (_, p), value in zip(model.named_parameters(), start.values(), strict=True):
            p.data = value
        return model

    def hand_tuned(self) -> Any:
        """Return the preallocated step, from the module of the network's family."""
        module, name = self.tuned
        return getattr(importlib.import_module(module), name)(self.parameters(), self.batch)

    def torch(self) -> Any:
        """Return a model of PyTorch with the initial arrays."""
        import torch

        model = self.build_torch(torch.nn)
        with torch.no_grad():
            for p, value in zip(self.ordered(model), self.parameters().values(), strict=True):
                p.copy_(torch.tensor(value.T.copy() if p.ndim == 2 and p.T.shape == value.shape else value))
        return model

    def ordered(self, model: Any) -> Any:
        """Return the parameters of PyTorch's model in microfw's order."""
        return list(model.parameters())

    def build(self) -> Any:
        """Return the model of microfw."""
        raise NotImplementedError

    def build_torch(self, nn: Any) -> Any:
        """Return the model of PyTorch."""
        raise NotImplementedError


class EmbeddingMLP(Network):
    """The next letter from three: 27 → 3 × 10 → 200 → 27, tanh."""

    shape, numbers, classes = (3,), 27, 27
    tuned = ("tuned_models", "embedding")
    arrays: ClassVar = {"0.weight": (27, 10), **_dense("2", 30, 200), **_dense("4", 200, 27)}

    def build(self) -> Any:
        """Return the model of microfw."""
        from microfw import nn

        parts = nn.Embedding(27, 10, rng=0), nn.Flatten(), nn.Dense(30, 200, rng=0), nn.Tanh(), nn.Dense(200, 27, rng=0)
        return nn.Sequential(*parts)

    def build_torch(self, nn: Any) -> Any:
        """Return the model of PyTorch."""
        return nn.Sequential(nn.Embedding(27, 10), nn.Flatten(), nn.Linear(30, 200), nn.Tanh(), nn.Linear(200, 27))

    def jax(self, p: Any, X: Any) -> Any:
        """Return the logits."""
        import jax.numpy as jnp

        h = jnp.tanh(p["0.weight"][X].reshape(len(X), -1) @ p["2.weight"] + p["2.bias"])
        return h @ p["4.weight"] + p["4.bias"]


class Recurrent(Network):
    """A classifier of sequences: 20 steps of 12 numbers, 64 units, the last state to 10 classes."""

    shape = (20, 12)

    def __init__(self, kind: str) -> None:
        self.kind = kind
        gates = {"GRU": 3, "LSTM": 4}[kind] * 64
        self.arrays = {"units.weight_ih": (12, gates), "units.weight_hh": (64, gates), "units.bias": (gates,)}
        if kind == "GRU":
            self.arrays["units.bias_hh"] = (gates,)
        self.arrays |= _dense("head", 64, 10)

    def build(self) -> Any:
        """Return the model of microfw."""
        from microfw import nn

        class Reader(nn.Module):
            def __init__(self, kind: str) -> None:
                super().__init__()
                self.units, self.head = getattr(nn, kind)(12, 64, rng=0), nn.Dense(64, 10, rng=0)

            def forward(self, x: Any) -> Any:
                _, state = self.units(x)
                return self.head(state[0] if isinstance(state, tuple) else state)

        return Reader(self.kind)

    def hand_tuned(self) -> Any:
        """Return the preallocated step."""
        from tuned_recurrent import gru, lstm

        if self.kind == "LSTM":
            return lstm(list(self.parameters().values()), self.shape[0], self.batch)
        V, U, c, d, W, b = self.parameters().values()
        return gru([V, c, U, d, W, b], self.shape[0], self.batch)

    def build_torch(self, nn: Any) -> Any:
        """Return the model of PyTorch."""

        class Reader(nn.Module):  # type: ignore[misc,name-defined]
            def __init__(self, kind: str) -> None:
                super().__init__()
                self.units, self.head = getattr(nn, kind)(12, 64, batch_first=True), nn.Linear(64, 10)
                nn.init.zeros_(self.units.bias_hh_l0)

            def forward(self, x: Any) -> Any:
                _, state = self.units(x)
                return self.head(state[0][0] if isinstance(state, tuple) else state[0])

        return Reader(self.kind)

    def ordered(self, model: Any) -> Any:
        """Return the parameters of PyTorch's model in microfw's order; an LSTM of PyTorch has a second bias."""
        units = model.units
        biases = [units.bias_ih_l0, *([units.bias_hh_l0] if self.kind == "GRU" else [])]
        if self.kind == "LSTM":
            units.bias_hh_l0.requires_grad_(False)
        return [units.weight_ih_l0, units.weight_hh_l0, *biases, model.head.weight, model.head.bias]

    def jax(self, p: Any, X: Any) -> Any:
        """Return the logits; time is a scan, as JAX advises for a loop over steps."""
        import jax
        import jax.numpy as jnp

        U = p["units.weight_hh"]
        inputs = (X @ p["units.weight_ih"] + p["units.bias"]).swapaxes(0, 1)

        def gru(h: Any, a: Any) -> Any:
            ar, az, an = jnp.split(a, 3, axis=1)
            ur, uz, un = jnp.split(h @ U + p["units.bias_hh"], 3, axis=1)
            r, z = jax.nn.sigmoid(ar + ur), jax.nn.sigmoid(az + uz)
            return (1 - z) * jnp.tanh(an + r * un) + z * h, None

        def lstm(state: Any, a: Any) -> Any:
            h, c = state
            i, f, g, o = jnp.split(a + h @ U, 4, axis=1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            return (jax.nn.sigmoid(o) * jnp.tanh(c), c), None

        h = jnp.zeros((len(X), 64))
        state = jax.lax.scan(gru, h, inputs)[0] if self.kind == "GRU" else jax.lax.scan(lstm, (h, h), inputs)[0][0]
        return state @ p["head.weight"] + p["head.bias"]


class Transformer(Network):
    """A classifier of 16 tokens: two pre-norm blocks of width 32 with 4 heads and 128 units, the mean to 10 classes."""

    batch, shape, numbers = 16, (16,), 27
    tuned = ("tuned_transformer", "transformer")
    arrays: ClassVar = {
        "embed.weight": (27, 32),
        **{
            f"block{k}.{name}": shape
            for k in (1, 2)
            for part in (
                {"norm1.weight": (32,), "norm1.bias": (32,)},
                *(_dense(f"attention.{name}", 32, 32) for name in ("query", "key", "value", "out")),
                {"norm2.weight": (32,), "norm2.bias": (32,)}, _dense("linear1", 32, 128), _dense("linear2", 128, 32),
            )
            for name, shape in part.items()
        },
        "norm.weight": (32,), "norm.bias": (32,), **_dense("head", 32, 10),
    }  # fmt: skip

    def build(self) -> Any:
        """Return the model of microfw."""
        from microfw import nn

        class Block(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.norm1, self.attention = nn.LayerNorm(32), nn.MultiHeadAttention(32, 4, rng=0)
                self.norm2 = nn.LayerNorm(32)
                self.linear1, self.gelu, self.linear2 = nn.Dense(32, 128, rng=0), nn.GELU(), nn.Dense(128, 32, rng=0)

            def forward(self, x: Any) -> Any:
                x = x + self.attention(self.norm1(x))
                rows = self.norm2(x).reshape(-1, 32)
                return x + self.linear2(self.gelu(self.linear1(rows))).reshape(x.shape)

        class Classifier(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.embed, self.block1, self.block2 = nn.Embedding(27, 32, rng=0), Block(), Block()
                self.norm, self.head = nn.LayerNorm(32), nn.Dense(32, 10, rng=0)

            def forward(self, x: Any) -> Any:
                return self.head(self.norm(self.block2(self.block1(self.embed(x)))).mean(axis=1))

        return Classifier()

    def build_torch(self, nn: Any) -> Any:
        """Return the model of PyTorch."""

        class Classifier(nn.Module):  # type: ignore[misc,name-defined]
            def __init__(self) -> None:
                super().__init__()
                options = {"dropout": 0.0, "activation": "gelu", "norm_first": True, "batch_first": True}
                self.embed = nn.Embedding(27, 32)
                self.blocks = nn.ModuleList([nn.TransformerEncoderLayer(32, 4, 128, **options) for _ in range(2)])
                self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, 10)

            def forward(self, x: Any) -> Any:
                x = self.embed(x)
                for block in self.blocks:
                    x = block(x)
                return self.head(self.norm(x).mean(1))

        return Classifier()

    def ordered(self, model: Any) -> Any:
        """Return views of PyTorch's parameters in microfw's order."""
        found = [model.embed.weight]
        for block in model.blocks:
            attention = block.self_attn
            found += [block.norm1.weight, block.norm1.bias]
            pairs = zip(attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3), strict=True)
            found += [part for pair in pairs for part in pair]
            for part in (attention.out_proj, block.norm2, block.linear1, block.linear2):
                found += [part.weight, part.bias]
        return [*found, model.norm.weight, model.norm.bias, model.head.weight, model.head.bias]

    def torch(self) -> Any:
        """Return a model of PyTorch with the initial arrays, square ones transposed, too."""
        import torch

        model = self.build_torch(torch.nn)
        with torch.no_grad():
            for p, (name, value) in zip(self.ordered(model), self.parameters().items(), strict=True):
                p.copy_(torch.tensor(value.T.copy() if p.ndim == 2 and name != "embed.weight" else value))
        return model

    def jax(self, p: Any, X: Any) -> Any:
        """Return the logits."""
        import jax
        import jax.numpy as jnp

        def dense(x: Any, name: str) -> Any:
            return x @ p[f"{name}.weight"] + p[f"{name}.bias"]

        def norm(x: Any, name: str) -> Any:
            d = x - x.mean(-1, keepdims=True)
            return d / jnp.sqrt((d * d).mean(-1, keepdims=True) + 1e-5) * p[f"{name}.weight"] + p[f"{name}.bias"]

        def heads(x: Any) -> Any:
            return x.reshape(*x.shape[:2], 4, 8).swapaxes(1, 2)

        x = p["embed.weight"][X]
        for name in ("block1", "block2"):
            h = norm(x, f"{name}.norm1")
            q, k, v = (heads(dense(h, f"{name}.attention.{part}")) for part in ("query", "key", "value"))
            mixed = jax.nn.softmax(q @ k.swapaxes(2, 3) / np.sqrt(8).astype(np.float32)) @ v
            x = x + dense(mixed.swapaxes(1, 2).reshape(x.shape), f"{name}.attention.out")
            h = jax.nn.gelu(dense(norm(x, f"{name}.norm2"), f"{name}.linear1"), approximate=False)
            x = x + dense(h, f"{name}.linear2")
        return dense(norm(x, "norm").mean(1), "head")


def _convolved(x: Any, kernel: Any, bias: Any, padding: int) -> Any:
    """Return a convolution in JAX, one or two axes."""
    import jax

    axes = "HW"[: x.ndim - 2]
    numbers = (f"NC{axes}", f"OI{axes}", f"NC{axes}")
    pads = [(padding, padding)] * len(axes)
    y = jax.lax.conv_general_dilated(x, kernel, (1,) * len(axes), pads, dimension_numbers=numbers)
    return y + bias.reshape(1, -1, *(1 for _ in axes))


class LeNet(Network):
    """LeNet with ReLU on images of 28×28."""

    shape, tuned = (1, 28, 28), ("tuned_lenet", "lenet")
    arrays: ClassVar = {
        "0.weight": (6, 1, 5, 5), "0.bias": (6,), "3.weight": (16, 6, 5, 5), "3.bias": (16,),
        **_dense("7", 400, 120), **_dense("9", 120, 84), **_dense("11", 84, 10),
    }  # fmt: skip

    def build(self) -> Any:
        """Return the model of microfw."""
        from microfw import nn

        return nn.Sequential(
            nn.Conv2D(1, 6, 5, padding="same", rng=0), nn.ReLU(), nn.MaxPool2D(2),
            nn.Conv2D(6, 16, 5, rng=0), nn.ReLU(), nn.MaxPool2D(2), nn.Flatten(),
            nn.Dense(400, 120, rng=0), nn.ReLU(), nn.Dense(120, 84, rng=0), nn.ReLU(), nn.Dense(84, 10, rng=0),
        )  # fmt: skip

    def build_torch(self, nn: Any) -> Any:
        """Return the model of PyTorch."""
        return nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
        )  # fmt: skip

    def jax(self, p: Any, X: Any) -> Any:
        """Return the logits."""
        import jax
        import jax.numpy as jnp

        h = X
        for name, padding in (("0", 2), ("3", 0)):
            h = jax.nn.relu(_convolved(h, p[f"{name}.weight"], p[f"{name}.bias"], padding))
            h = jax.lax.reduce_window(h, -jnp.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
        h = h.reshape(len(X), -1)
        for name in ("7", "9"):
            h = jax.nn.relu(h @ p[f"{name}.weight"] + p[f"{name}.bias"])
        return h @ p["11.weight"] + p["11.bias"]


class Conv1D(Network):
    """Two convolutions of 16 channels on 3 × 48 numbers."""

    shape, tuned = (3, 48), ("tuned_convolutions", "conv1d")
    arrays: ClassVar = {
        "0.weight": (16, 3, 3), "0.bias": (16,), "3.weight": (16, 16, 3), "3.bias": (16,), **_dense("6", 16, 10),
    }  # fmt: skip

    def build(self) -> Any:
        """Return the model of microfw."""
        from microfw import nn

        return nn.Sequential(
            nn.Conv1D(3, 16, 3, padding="same", rng=0), nn.ReLU(), nn.MaxPool1D(2),
            nn.Conv1D(16, 16, 3, padding="same", rng=0), nn.ReLU(), nn.GlobalAvgPool1D(), nn.Dense(16, 10, rng=0),
        )  # fmt: skip

    def build_torch(self, nn: Any) -> Any:
        """Return the model of PyTorch."""
        return nn.Sequential(
            nn.Conv1d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool1d(2),
            nn.Conv1d(16, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(16, 10),
        )  # fmt: skip

    def jax(self, p: Any, X: Any) -> Any:
        """Return the logits."""
        import jax

        h = jax.nn.relu(_convolved(X, p["0.weight"], p["0.bias"], 1))
        h = h.reshape(len(X), 16, 24, 2).max(3)
        return jax.nn.relu(_convolved(h, p["3.weight"], p["3.bias"], 1)).mean(2) @ p["6.weight"] + p["6.bias"]


class BatchNormed(Network):
    """30-64-64-2 with batch normalization and dropout, for which each library draws other numbers; not in JAX."""

    shape, classes = (30,), 2
    tuned = ("tuned_models", "batchnorm")
    arrays: ClassVar = {
        **_dense("0", 30, 64), "1.weight": (64,), "1.bias": (64,),
        **_dense("4", 64, 64), "5.weight": (64,), "5.bias": (64,), **_dense("8", 64, 2),
    }  # fmt: skip

    def build(self) -> Any:
        """Return the model of microfw."""
        from microfw import nn

        parts: list[Any] = []
        for n in (30, 64):
            parts += [nn.Dense(n, 64, rng=0), nn.BatchNorm1D(64), nn.ReLU(), nn.Dropout(0.2, rng=0)]
        return nn.Sequential(*parts, nn.Dense(64, 2, rng=0))

    def build_torch(self, nn: Any) -> Any:
        """Return the model of PyTorch."""
        parts: list[Any] = []
        for n in (30, 64):
            parts += [nn.Linear(n, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.2)]
        return nn.Sequential(*parts, nn.Linear(64, 2))


class Autoencoder(Network):
    """64-32-8-32-64 with ReLU; the targets are the inputs."""

    shape, loss, sizes = (64,), "MSELoss", (64, 32, 8, 32, 64)
    tuned = ("tuned_models", "autoencoder")
    arrays: ClassVar = {
        name: shape
        for k, (n, m) in enumerate(((64, 32), (32, 8), (8, 32), (32, 64)))
        for name, shape in _dense(str(2 * k), n, m).items()
    }

    def build(self) -> Any:
        """Return the model of microfw."""
        from microfw import nn

        pairs = zip(self.sizes, self.sizes[1:], strict=False)
        return nn.Sequential(*[part for n, m in pairs for part in (nn.Dense(n, m, rng=0), nn.ReLU())][:-1])

    def build_torch(self, nn: Any) -> Any:
        """Return the model of PyTorch."""
        pairs = zip(self.sizes, self.sizes[1:], strict=False)
        return nn.Sequential(*[part for n, m in pairs for part in (nn.Linear(n, m), nn.ReLU())][:-1])

    def jax(self, p: Any, X: Any) -> Any:
        """Return the reconstruction."""
        import jax

        for k in (0, 2, 4):
            X = jax.nn.relu(X @ p[f"{k}.weight"] + p[f"{k}.bias"])
        return X @ p["6.weight"] + p["6.bias"]


MODELS: dict[str, Any] = {
    "embedding": EmbeddingMLP,
    "lstm": lambda: Recurrent("LSTM"),
    "gru": lambda: Recurrent("GRU"),
    "transformer": Transformer,
    "lenet": LeNet,
    "conv1d": Conv1D,
    "batchnorm": BatchNormed,
    "autoencoder": Autoencoder,
}
