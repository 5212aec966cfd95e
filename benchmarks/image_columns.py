"""A small convolutional net on digits, in each library.

1×8×8 - convolution 3×3 to 8 channels, same - ReLU - max pooling 2×2 - convolution 3×3 to 16 channels, same - ReLU -
flatten - dense to 10. The libraries have only the network here; `columns` has their steps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from columns import LR, MOMENTUM, Step


def initial_images() -> dict[str, np.ndarray]:
    """Return kernels (out, in, height, width), the dense weight for features in the order C, H, W, and biases."""
    rng = np.random.default_rng(7)

    def drawn(shape: tuple[int, ...], fan_in: int) -> np.ndarray:
        return (rng.standard_normal(shape) * np.sqrt(2 / fan_in)).astype(np.float32)

    return {
        "K1": drawn((8, 1, 3, 3), 9), "c1": np.zeros(8, np.float32),
        "K2": drawn((16, 8, 3, 3), 72), "c2": np.zeros(16, np.float32),
        "W": drawn((256, 10), 256), "b": np.zeros(10, np.float32),
    }  # fmt: skip


def patches(images: np.ndarray) -> np.ndarray:
    """Return a row for each place of images (N, H, W, C): the 3 × 3 × C entries around it, zeros outside."""
    n, h, w, c = images.shape
    framed = np.zeros((n, h + 2, w + 2, c), np.float32)
    framed[:, 1:-1, 1:-1] = images
    row, column, entry = framed.strides[1], framed.strides[2], framed.itemsize
    shape, strides = (n, h, w, 3, 3 * c), (framed.strides[0], row, column, row, entry)
    return np.lib.stride_tricks.as_strided(framed, shape, strides).reshape(n * h * w, 9 * c)


def hand_written_images() -> Step:
    """NumPy as one would write it to be read: images N, H, W, C, convolutions as products with patches."""
    start = initial_images()
    K1, K2 = (start[k].transpose(2, 3, 1, 0).reshape(-1, len(start[k])).copy() for k in ("K1", "K2"))
    W = start["W"].reshape(16, 4, 4, 10).transpose(1, 2, 0, 3).reshape(256, 10).copy()
    c1, c2, b = start["c1"], start["c2"], start["b"]
    parameters = [K1, c1, K2, c2, W, b]
    speeds = [np.zeros_like(p) for p in parameters]

    def step(X: Any, y: Any) -> float:
        n = len(X)
        seen1 = patches(X.reshape(n, 8, 8, 1))
        h1 = np.maximum(seen1 @ K1 + c1, 0).reshape(n, 4, 2, 4, 2, 8)
        top = np.maximum(h1[:, :, 0, :, 0], h1[:, :, 0, :, 1])
        bottom = np.maximum(h1[:, :, 1, :, 0], h1[:, :, 1, :, 1])
        pooled = np.maximum(top, bottom)
        seen2 = patches(pooled)
        h2 = np.maximum(seen2 @ K2 + c2, 0)
        flat = h2.reshape(n, 256)
        out = flat @ W + b

        rows = np.arange(n)
        shifted = out - out.max(axis=1, keepdims=True)
        exps = np.exp(shifted)
        sums = exps.sum(axis=1, keepdims=True)
        loss = (np.log(sums[:, 0]) - shifted[rows, y]).mean()

        delta = exps / sums
        delta[rows, y] -= 1
        delta /= n
        dW, db = flat.T @ delta, delta.sum(axis=0)
        delta = (delta @ W.T).reshape(-1, 16) * (h2 > 0)
        dK2, dc2 = seen2.T @ delta, delta.sum(axis=0)
        flipped = K2.reshape(3, 3, 8, 16)[::-1, ::-1].transpose(0, 1, 3, 2).reshape(144, 8)
        delta = (patches(delta.reshape(n, 4, 4, 16)) @ flipped).reshape(n, 4, 4, 8)
        spread = np.empty_like(h1)
        upper = delta * (top >= bottom)  # the first of equal ones gets all
        for i, best, g in ((0, top, upper), (1, bottom, delta - upper)):
            left = g * (h1[:, :, i, :, 0] >= best)
            spread[:, :, i, :, 0], spread[:, :, i, :, 1] = left, g - left
        delta = spread.reshape(-1, 8) * (h1.reshape(-1, 8) > 0)
        dK1, dc1 = seen1.T @ delta, delta.sum(axis=0)
        for p, v, g in zip(parameters, speeds, (dK1, dc1, dK2, dc2, dW, db), strict=True):
            v *= MOMENTUM
            v += g
            p -= LR * v
        return float(loss)

    return step


class Images:
    """The network in each library."""

    shape = (1, 8, 8)

    def parameters(self) -> Any:
        """Return the initial arrays."""
        return list(initial_images().values())

    def hand_written(self) -> Step:
        """Return the readable step."""
        return hand_written_images()

    def hand_tuned(self) -> Step:
        """Return the preallocated step."""
        from tuned_convolutions import images

        return images(initial_images(), 64)

    def microfw(self) -> Any:
        """Return a model of microfw."""
        from microfw import nn

        model = nn.Sequential(
            nn.Conv2D(1, 8, 3, padding="same", rng=0), nn.ReLU(), nn.MaxPool2D(2),
            nn.Conv2D(8, 16, 3, padding="same", rng=0), nn.ReLU(), nn.Flatten(), nn.Dense(256, 10, rng=0),
        )  # fmt: skip
        for p, value in zip(model.parameters(), self.parameters(), strict=True):
            p.data = value
        return model

    def torch(self) -> Any:
        """Return a model of PyTorch."""
        import torch

        model = torch.nn.Sequential(
            torch.nn.Conv2d(1, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
            torch.nn.Conv2d(8, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(256, 10),
        )  # fmt: skip
        with torch.no_grad():
            for p, value in zip(model.parameters(), self.parameters(), strict=True):
                p.copy_(torch.tensor(value if value.shape != (256, 10) else value.T.copy()))
        return model

    def jax(self, parameters: Any, X: Any) -> Any:
        """Return the logits; images N, H, W, C."""
        import jax
        import jax.numpy as jnp

        def convolved(images: Any, kernel: Any) -> Any:
            axes = ("NHWC", "OIHW", "NHWC")
            return jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=axes)

        K1, c1, K2, c2, W, b = parameters
        h = jax.nn.relu(convolved(X.reshape(-1, 8, 8, 1), K1) + c1)
        h = jax.lax.reduce_window(h, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        h = jax.nn.relu(convolved(h, K2) + c2)
        return h.transpose(0, 3, 1, 2).reshape(len(X), 256) @ W + b

    def mygrad(self, parameters: Any, X: Any) -> Any:
        """Return the logits."""
        import mygrad as mg
        from mygrad.nnet.activations import relu
        from mygrad.nnet.layers import conv_nd, max_pool

        K1, c1, K2, c2, W, b = parameters
        h = max_pool(relu(conv_nd(X, K1, stride=1, padding=1) + c1.reshape(8, 1, 1)), (2, 2), 2)
        h = relu(conv_nd(h, K2, stride=1, padding=1) + c2.reshape(16, 1, 1))
        return mg.matmul(h.reshape(len(X), 256), W) + b

    def autograd(self, parameters: Any, X: Any) -> Any:
        """Return the logits; convolution and pooling as in autograd's own example of a convolutional net."""
        import autograd.numpy as anp
        from autograd.scipy.signal import convolve

        def convolved(images: Any, kernel: Any) -> Any:
            framed = anp.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)), "constant")
            turned = kernel[:, :, ::-1, ::-1]  # what `convolve` turns back
            return convolve(framed, turned, axes=([2, 3], [2, 3]), dot_axes=([1], [1]), mode="valid")

        def relu(x: Any) -> Any:
            return x * (x > 0)  # of `maximum`, ties get half a derivative each, and here there are some

        K1, c1, K2, c2, W, b = parameters
        h = relu(convolved(X, K1) + c1.reshape(8, 1, 1)).reshape(-1, 8, 4, 2, 4, 2)
        h = relu(convolved(anp.max(anp.max(h, axis=3), axis=4), K2) + c2.reshape(16, 1, 1))
        return anp.dot(h.reshape(len(X), 256), W) + b
