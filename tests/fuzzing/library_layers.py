"""Layers of the library at random: each function writes one, and returns the shape of a row behind it.

A row's shape tells its kind: ``(C,)`` features, ``(T, C)`` a sequence, ``(C, H, W)`` an image. What a program may
change of a layer between steps is offered to the draw.
"""

from __future__ import annotations


def activation(d):
    return d.choice(
        [
            "nn.ReLU()",
            "nn.Tanh()",
            "nn.Sigmoid()",
            f"nn.LeakyReLU({d.choice(['0.1', '0.3', 'np.float64(0.2)'])})",
            f"nn.ELU({d.choice(['1.0', '0.7'])})",
            f"nn.GELU({d.choice(['', repr('tanh')])})",
            "nn.SiLU()",
            "nn.Mish()",
            "nn.Softplus()",
            "nn.Softsign()",
            "nn.PReLU()",
            "nn.Softmax()",
            "nn.LogSoftmax()",
            "nn.Identity()",
        ]
    )


def activate(d, shape):
    text = activation(d)
    name = d.layer(text)
    if "LeakyReLU" in text:
        d.offer("setting of a layer", lambda: f"{name}.slope = {d.number(0.05, 0.4)}")
    if "nn.ELU" in text:
        d.offer("setting of a layer", lambda: f"{name}.alpha = {d.number(0.5, 1.3)}")
    d.activations.append(name)
    return name, shape


def channels_prelu(d, shape):
    return d.layer(f"nn.PReLU({shape[0]})"), shape


def dense(d, shape):
    width = d.integer(1, 6)
    bias = d.choice(["", "", ", bias=False"])
    name = d.layer(f"nn.Dense({shape[-1]}, {width}{bias}, rng={d.seed()})")
    if not bias and not d.peer:
        d.offer("a bias replaced", lambda: f"{name}.bias.data = {name}.bias.data * 0.5")
    return name, (*shape[:-1], width)


def dropout(d, shape):
    name = d.layer(
        f"nn.Dropout({d.choice(['0.5', '0.3', '0.0', 'np.float64(0.25)', 'np.float32(0.5)'])}, rng={d.seed()})"
    )
    d.offer(
        "dropout",
        lambda: (
            f"{name}.p = {d.choice(['0.1', '0.6', 'np.float64(0.4)', 'np.float32(0.2)', '0', 'np.linspace(.5, .1, 5)[2]'])}"
        ),
    )
    d.offer("generator replaced", lambda: f"{name}.rng = np.random.default_rng({d.seed()})")
    return name, shape


def batch_norm_rows(d, shape):
    return batch_norm(d, "BatchNorm1D", shape[0], shape)


def batch_norm_image(d, shape):
    return batch_norm(d, "BatchNorm2D", shape[0], shape)


def batch_norm(d, kind, features, shape):
    options = d.choice(["", "", ", affine=False", ", momentum=0.3", ", eps=1e-3"])
    name = d.layer(f"nn.{kind}({features}{options})")
    d.offer(
        "setting of a layer",
        lambda: f"{name}.{d.choice(['momentum = 0.4', 'eps = 0.01', 'momentum = np.float64(0.2)'])}",
    )
    d.offer("train and eval", lambda: f"{name}.{d.choice(['train', 'eval'])}()")
    d.smallest = max(d.smallest, 2)
    return name, shape


def layer_norm(d, shape):
    over = shape if len(shape) < 3 and d.chance(0.3) else shape[-1:]
    size = over[0] if len(over) == 1 else over
    return d.layer(f"nn.LayerNorm({size}{d.choice(['', '', ', affine=False'])})"), shape


def group_norm(d, shape):
    least = 2 if d.peer and len(shape) == 1 else 1  # rounding decides on a side of a kink where all is constant
    groups = d.choice(
        [g for g in range(1, shape[0] + 1) if shape[0] % g == 0 and shape[0] // g >= min(least, shape[0])]
    )
    return d.layer(f"nn.GroupNorm({groups}, {shape[0]}{d.choice(['', '', ', affine=False'])})"), shape


def residual(d, shape):
    width = shape[-1]
    if d.chance(0.7):
        inner = f"nn.Sequential(nn.Dense({width}, {width}, rng={d.seed()}), {activation(d)})"
        return d.layer(f"nn.Residual({inner})"), shape
    after = d.integer(1, 5)
    text = f"nn.Residual(nn.Dense({width}, {after}, rng={d.seed()}), nn.Dense({width}, {after}, bias=False, rng={d.seed()}))"
    return d.layer(text), (*shape[:-1], after)


def flatten(d, shape):
    size = 1
    for n in shape:
        size *= n
    return d.layer("nn.Flatten()"), (size,)


# Sequences


def recurrent(d, shape):
    hidden = d.integer(1, 4)
    kind = d.choice(["RNN", "GRU", "LSTM"])
    options = d.choice(["", "", ", bias=False", ", nonlinearity='relu'" if kind == "RNN" else ""])
    last = d.chance(0.4)
    width = hidden
    if not d.peer and d.extra.random() < 0.4:
        options += ", num_layers=2" + d.extra.choice(["", ", dropout=0.3"])
    if not d.peer and d.extra.random() < 0.3:
        options, width = f"{options}, bidirectional=True", 2 * hidden
    pick = "nn.Lambda(lambda made: made[:, -1])" if last else "nn.Identity()"
    text = f"nn.Sequential(nn.{kind}({shape[1]}, {hidden}{options}, rng={d.seed()}), {pick})"
    return d.layer(text), (width,) if last else (shape[0], width)


def attention(d, shape):
    heads = d.choice([h for h in (1, 2, 3) if shape[1] % h == 0])
    options = d.choice(["", "", ", causal=True", ", bias=False", "" if d.peer else ", dropout=0.2"])
    name = d.layer(f"nn.MultiHeadAttention({shape[1]}, {heads}{options}, rng={d.seed()})")
    if not d.peer:
        d.offer("setting of a layer", lambda: f"{name}.causal = {d.choice(['True', 'False'])}")
    return name, shape


def conv1d(d, shape):
    channels, width = shape
    if d.chance(0.25):
        kernel, padding, stride = 1, 0, d.choice([1, 1, 2])
    else:
        kernel, padding, stride = d.integer(2, 3), d.choice([0, 1, "'same'"]), d.choice([1, 1, 2])
    after = d.integer(1, 4)
    if padding != "'same'" and (width + 2 * padding - kernel) < 0:
        padding = "'same'"
    long = -(-width // stride) if padding == "'same'" else (width + 2 * padding - kernel) // stride + 1
    text = (
        f"nn.Conv1D({channels}, {after}, {kernel}, {stride}, {padding}{d.choice(['', ', bias=False'])}, rng={d.seed()})"
    )
    return d.layer(text), (after, long)


# Images


def conv2d(d, shape):
    channels, *sides = shape
    groups = d.choice([g for g in (1, 1, 2, 3) if channels % g == 0])
    after = groups * d.integer(1, 2)
    if d.chance(0.3):
        kernel, stride, padding, dilation = 1, d.choice([1, 1, 2]), 0, 1
    else:
        kernel, stride = d.choice([2, 3]), d.choice([1, 1, 2])
        padding, dilation = d.choice([0, 1, "'same'"]), d.choice([1, 1, 2])
    reach = dilation * (kernel - 1) + 1
    if padding != "'same'" and min(sides) + 2 * padding < reach:
        padding = "'same'"
    if padding == "'same'":
        sides = [-(-n // stride) for n in sides]
    else:
        sides = [(n + 2 * padding - reach) // stride + 1 for n in sides]
    options = f"{kernel}, {stride}, {padding}, {dilation}, groups={groups}{d.choice(['', ', bias=False'])}"
    return d.layer(f"nn.Conv2D({channels}, {after}, {options}, rng={d.seed()})"), (after, *sides)


def pool(d, shape):
    if min(shape[1:]) < 2:
        return global_pool(d, shape)
    kind = d.choice(["MaxPool2D", "AvgPool2D"])
    size, stride, padding = d.choice([(2, 2, 0), (2, 1, 0), (2, 2, 1), (2, 1, 1)])
    sides = [(n + 2 * padding - size) // stride + 1 for n in shape[1:]]
    return d.layer(f"nn.{kind}({size}, {stride}, {padding})"), (shape[0], *sides)


def global_pool(d, shape):
    return d.layer("nn.GlobalAvgPool2D()"), shape[:1]
