"""PyTorch's side of windows, convolutions and poolings: the input padded as we mean it, then PyTorch's own functions."""

from __future__ import annotations

import math

from tests.cases.convolution import per_axis


def padded(torch, x, kernel, stride, padding, dilation, value=0.0):
    """Return the input with its padding written out, as PyTorch has no stride with "same", and no pair of unequal pads."""
    size = x.shape[2:]
    axes = len(size)
    kernel, stride, dilation = (per_axis(v, axes) for v in (kernel, stride, dilation))
    if padding == "same":
        pads = []
        for n, k, s, d in zip(size, kernel, stride, dilation, strict=True):
            total = max((math.ceil(n / s) - 1) * s + d * (k - 1) + 1 - n, 0)
            pads.append((total // 2, total - total // 2))
    else:
        pads = [per_axis(p, 2) for p in per_axis(0 if padding == "valid" else padding, axes)]
    flat = [n for pair in reversed(pads) for n in pair]
    return torch.nn.functional.pad(x, flat, value=value), kernel, stride, dilation


def conv(torch, x, w, b=None, *, stride=1, padding=0, dilation=1, groups=1):
    x, _, stride, dilation = padded(torch, x, w.shape[2:], stride, padding, dilation)
    function = getattr(torch.nn.functional, f"conv{w.ndim - 2}d")
    return function(x, w, b, stride=stride, dilation=dilation, groups=groups)


def windows(torch, x, *, kernel, stride=1, padding=0, dilation=1, value=0.0):
    x, kernel, stride, dilation = padded(torch, x, kernel, stride, padding, dilation, value)
    for k, (taps, step, apart) in enumerate(zip(kernel, stride, dilation, strict=True)):
        x = x.unfold(2 + k, apart * (taps - 1) + 1, step)
        x = x.index_select(x.ndim - 1, torch.arange(0, apart * (taps - 1) + 1, apart))
    axes = len(kernel)
    return x.permute(0, 1, *range(2 + axes, 2 + 2 * axes), *range(2, 2 + axes))


def transposed(forward):
    """Return the transpose of a linear function of an image, by PyTorch's own derivative of it."""

    def call(torch, x, *others, size, **params):
        axes = (x.ndim - 2) // (2 if forward is windows else 1)
        channels = x.shape[1] if forward is windows else others[0].shape[1] * params.get("groups", 1)
        image = torch.zeros((x.shape[0], channels, *per_axis(size, axes)), dtype=x.dtype, requires_grad=True)
        if forward is windows:
            params["kernel"] = tuple(x.shape[2 : 2 + axes])
        y = forward(torch, image, *others, **params)
        return torch.autograd.grad(y, image, x, create_graph=True)[0]

    return call


def conv_transpose(torch, x, w, *, size=None, stride=1, padding=0, dilation=1, groups=1):
    if size is None:
        axes = x.ndim - 2
        steps, apart = per_axis(stride, axes), per_axis(dilation, axes)
        if padding == "same":
            size = [n * s for n, s in zip(x.shape[2:], steps, strict=True)]
        else:
            pads = [per_axis(p, 2) for p in per_axis(0 if padding == "valid" else padding, axes)]
            size = [
                (n - 1) * s + d * (k - 1) + 1 - sum(p)
                for n, s, d, k, p in zip(x.shape[2:], steps, apart, w.shape[2:], pads, strict=True)
            ]
    return transposed(conv)(
        torch, x, w, size=tuple(size), stride=stride, padding=padding, dilation=dilation, groups=groups
    )


def pool(value, reduce):
    def call(torch, x, *, kernel, stride=None, padding=0):
        axes = x.ndim - 2
        seen = windows(
            torch, x, kernel=kernel, stride=kernel if stride is None else stride, padding=padding, value=value
        )
        return reduce(seen, tuple(range(2, 2 + axes)))

    return call


CONVOLUTIONS = {
    "windows": windows,
    "fold": transposed(windows),
    "conv": conv,
    "conv_transpose": conv_transpose,
    "max_pool": pool(float("-inf"), lambda seen, axes: seen.amax(axes)),
    "avg_pool": pool(0.0, lambda seen, axes: seen.mean(axes)),
}
