"""Layers at random: each function writes one, and returns the shape of a row behind it.

A row's shape tells its kind: ``(C,)`` features, ``(T, C)`` a sequence, ``(C, H, W)`` an image. What a program may
change of a layer between steps is offered to the draw.
"""

from __future__ import annotations

ANY, ROWS, SEQUENCE, IMAGE = (1, 2, 3), (1,), (2,), (3,)


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
    for kind, attribute, values in (("LeakyReLU", "slope", (0.05, 0.4)), ("ELU", "alpha", (0.5, 1.3))):
        if kind in text:
            d.offer("setting of a layer", lambda: f"{name}.{attribute} = {d.number(*values)}")
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
    name = d.layer(f"nn.Dropout({d.choice(['0.5', '0.3', '0.0', 'np.float64(0.25)', 'np.float32(0.5)'])}, rng={d.seed()})")
    d.offer("dropout", lambda: f"{name}.p = {d.choice(['0.1', '0.6', 'np.float64(0.4)', 'np.float32(0.2)', '0', 'np.linspace(.5, .1, 5)[2]'])}")
    d.offer("generator replaced", lambda: f"{name}.rng = np.random.default_rng({d.seed()})")
    return name, shape


def batch_norm_rows(d, shape):
    return batch_norm(d, "BatchNorm1D", shape[0], shape)


def batch_norm_image(d, shape):
    return batch_norm(d, "BatchNorm2D", shape[0], shape)


def batch_norm(d, kind, features, shape):
    options = d.choice(["", "", ", affine=False", ", momentum=0.3", ", eps=1e-3"])
    name = d.layer(f"nn.{kind}({features}{options})")
    d.offer("setting of a layer", lambda: f"{name}.{d.choice(['momentum = 0.4', 'eps = 0.01', 'momentum = np.float64(0.2)'])}")
    d.offer("train and eval", lambda: f"{name}.{d.choice(['train', 'eval'])}()")
    d.smallest = max(d.smallest, 2)
    return name, shape


def layer_norm(d, shape):
    over = shape if len(shape) < 3 and d.chance(0.3) else shape[-1:]
    size = over[0] if len(over) == 1 else over
    return d.layer(f"nn.LayerNorm({size}{d.choice(['', '', ', affine=False'])})"), shape


def group_norm(d, shape):
    least = 2 if d.peer and len(shape) == 1 else 1  # rounding decides on a side of a kink where all is constant
    groups = d.choice([g for g in range(1, shape[0] + 1) if shape[0] % g == 0 and shape[0] // g >= min(least, shape[0])])
    return d.layer(f"nn.GroupNorm({groups}, {shape[0]}{d.choice(['', '', ', affine=False'])})"), shape


def residual(d, shape):
    width = shape[-1]
    if d.chance(0.7):
        inner = f"nn.Sequential(nn.Dense({width}, {width}, rng={d.seed()}), {activation(d)})"
        return d.layer(f"nn.Residual({inner})"), shape
    after = d.integer(1, 5)
    text = f"nn.Residual(nn.Dense({width}, {after}, rng={d.seed()}), nn.Dense({width}, {after}, bias=False, rng={d.seed()}))"
    return d.layer(text), (*shape[:-1], after)


def lambda_(d, shape):
    name = d.layer(f"nn.Lambda({d.choice(['np.sin', 'half', 'bend', 'lambda x: x * 0.5 + 0.1', 'np.abs', 'lambda x: x[..., ::-1]'])})")
    d.offer("function replaced", lambda: f"{name}.function = {d.choice(['np.tanh', 'half', 'bend', 'lambda x: x * 0.9'])}")
    return name, shape


def custom_op(d, shape):
    text = d.choice(
        ["cube", "lambda x: bent(x, slope=0.2)", "lambda x: blend(x, np.tanh(x))", "root_of", "lambda x: cube(x * 0.5) + x"]
    )
    return d.layer(f"Apply({text})"), shape


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
    pick = "lambda made: made[0]" if not last else "lambda made: made[1][0]" if kind == "LSTM" else "lambda made: made[1]"
    text = f"nn.Sequential(nn.{kind}({shape[1]}, {hidden}{options}, rng={d.seed()}), nn.Lambda({pick}))"
    return d.layer(text), (hidden,) if last else (shape[0], hidden)


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
    text = f"nn.Conv1D({channels}, {after}, {kernel}, {stride}, {padding}{d.choice(['', ', bias=False'])}, rng={d.seed()})"
    return d.layer(text), (after, long)


def unroll(d, shape):
    hidden = d.integer(1, 4)
    return d.layer(f"Unroll({shape[1]}, {hidden}, rng={d.seed()})"), (hidden,)


def over_time(d, shape):
    return d.layer("nn.Lambda(lambda x: x.mean(axis=1))"), shape[1:]


def swap(d, shape):
    return d.layer("nn.Lambda(lambda x: np.swapaxes(x, 1, 2))"), shape[::-1]


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


# Layers with settings, control flow and structure of a user's own


def times(d, shape):
    value = d.choice(["1.0", "2", "True", "np.float64(1.5)", "np.float32(0.5)", "np.int64(2)", "np.array(0.5, dtype)", f"np.ones({shape[-1]}, dtype)"])
    name = d.layer(f"Times({value})")
    if value.startswith("np.array") or value.startswith("np.ones"):
        d.offer("array changed in place", lambda: f"{name}.value[...] = {d.number(0.3, 1.5)}")
        d.offer("array replaced", lambda: f"{name}.value = {name}.value * {d.number(0.5, 1.5)}")
    d.offer("number of a module", lambda: f"{name}.value = {d.choice(['0.5', '3', 'False', 'np.float64(0.7)', 'np.float32(1.2)', 'np.int64(1)', 'np.float64(1.5)', '2.0'])}")
    return name, shape


def times_item(d, shape):
    value, key, change = d.choice(
        [
            ("(1.0, 2.0)", "0", "{0}.value = ({1}, 2.0)"),
            ("[1.0, 2.0]", "1", "{0}.value[1] = {1}"),
            ("[1.0, [2.0]]", "0", "{0}.value = [{1}]"),
            ("{'scale': 1.0}", "'scale'", "{0}.value['scale'] = {1}"),
            ("{'scale': np.float64(1.0)}", "'scale'", "{0}.value = {{'scale': {1}}}"),
            ("np.ones(3, dtype)", "1", "{0}.value[1] = {1}"),
        ]
    )
    name = d.layer(f"TimesItem({value}, {key})")
    d.offer("container of a module", lambda: change.format(name, d.number(0.3, 1.6)))
    return name, shape


def times_sum(d, shape):
    name = d.layer("TimesSum([1.0])")
    d.offer("list appended to", lambda: f"{name}.values.append({d.number(0.2, 1.5)})")
    return name, shape


def times_attribute(d, shape):
    name = d.layer(f"TimesAttribute({d.choice(['types.SimpleNamespace(scale=1.0)', 'Plain()', 'Slotted()', 'Dynamic()'])})")
    d.offer("attribute of an object", lambda: f"{name}.box.scale = {d.number(0.3, 1.6)}")
    return name, shape


def times_nested(d, shape):
    name = d.layer("TimesNested()")
    d.offer("value deep in containers", lambda: f"{name}.value['parts'][{d.choice(['0].value', '1][0].scale'])} = {d.number(0.3, 1.6)}")
    return name, shape


def times_config(d, shape):
    name = d.layer("TimesConfig(Config())")
    d.offer("dataclass replaced", lambda: f"{name}.config = Config({d.number(0.3, 1.6)})")
    return name, shape


def times_context(d, shape):
    d.offer("context variable", lambda: f"LEVEL.set({d.number(0.3, 1.6)})")
    return d.layer("TimesContext()"), shape


def flags(d, shape):
    name = d.layer(f"Flags({d.choice(['', repr('double'), repr('tanh')])})")
    d.offer("set changed", lambda: f"{name}.flags.{d.choice(['add', 'discard'])}({d.choice(['double', 'tanh'])!r})")
    return name, shape


def times_class(d, shape):
    name = d.layer("TimesClass()")
    d.offer("attribute of a class", lambda: f"{d.choice(['TimesClass', name])}.scale = {d.number(0.3, 1.6)}")
    return name, shape


def times_method(d, shape):
    name = d.layer("TimesMethod(Plain())")
    d.offer("value behind a method", lambda: f"{name}.box.value = {d.number(0.3, 1.6)}")
    d.offer("method replaced", lambda: f"{name}.box.read = lambda: {d.number(0.3, 1.6)}")
    return name, shape


def times_property(d, shape):
    name = d.layer("TimesProperty(0)")
    d.offer("value behind a property", lambda: f"{name}.level = {d.number(0.1, 1.0)}")
    return name, shape


def times_global(d, shape):
    d.offer("global variable", lambda: f"SCALE = {d.number(0.3, 1.6)}")
    d.offer("entry of a global dict", lambda: f"TABLE[{d.choice(['scale', 'shift'])!r}] = {d.number(0.3, 1.6)}")
    return d.layer("TimesGlobal()"), shape


def times_closure(d, shape):
    name = d.layer("TimesClosure(1.0)")
    d.offer("variable of a closure", lambda: f"{name}.write({d.number(0.3, 1.6)})")
    return name, shape


def times_default(d, shape):
    d.offer("default argument", lambda: f"TimesDefault.forward.__defaults__[0][0] = {d.number(0.3, 1.6)}")
    return d.layer("TimesDefault()"), shape


def apply(d, shape):
    name = d.layer(f"Apply({d.choice(['np.tanh', 'half', 'bend', 'lambda x: x * 0.7', 'functools.partial(np.multiply, 0.5)'])})")
    d.offer("function replaced", lambda: f"{name}.function = {d.choice(['np.sin', 'half', 'bend', 'lambda x: x * 0.3', 'functools.partial(np.multiply, 0.8)'])}")
    return name, shape


def slot(d, shape):
    name = d.layer(f"Slot({d.choice(['None', 'nn.ReLU()', 'nn.Tanh()'])})")
    d.offer("module replaced", lambda: f"{name}.act = None; {name}.act = {d.choice(['nn.Tanh()', 'nn.ReLU()', 'nn.Sigmoid()', 'None'])}")
    return name, shape


def control(d, shape):
    kind = d.choice(["Double", "Deep", "Choice", "ByMode", "BySize"])
    if kind == "Double":
        name = d.layer(f"Double({d.choice(['True', 'False'])})")
        d.offer("branch on a setting", lambda: f"{name}.on = {d.choice(['True', 'False', '1', '[]', 'None'])}")
    elif kind == "Deep":
        name = d.layer(f"Deep(nn.Dense({shape[-1]}, {shape[-1]}, rng={d.seed()}), {d.integer(1, 2)})")
        d.offer("loop by a setting", lambda: f"{name}.count = {d.integer(0, 3)}")
    elif kind == "Choice":
        name = d.layer(f"Choice({d.choice(['tanh', 'half', 'abs'])!r})")
        d.offer("text as a setting", lambda: f"{name}.kind = {d.choice(['tanh', 'half', 'abs'])!r}")
    else:
        name = d.layer(f"{kind}()")
        if kind == "ByMode":
            d.offer("train and eval", lambda: f"{name}.{d.choice(['train', 'eval'])}()")
    return name, shape


def by_value(d, shape):
    d.free = False
    return d.layer(d.choice(["BySign()", "Positive()", "Largest()"])), shape


def by_generator(d, shape):
    d.free = False
    name = d.layer(d.choice([f"Coin(rng={d.seed()})", f"Noise(rng={d.seed()})", f"Apply(Jitter(rng={d.seed()}))", f"Dice({d.seed()})"]))
    return name, shape


def by_count(d, shape):
    d.free = False  # the step itself changes what it depends on
    return d.layer(d.choice(["Countdown()", "Cycle()", f"WarmUp({d.integer(1, 6)})", f"Moving({shape[-1]})"])), shape


def fragile(d, shape):
    name = d.layer("Fragile()")
    d.fragile.append(name)
    return name, shape


def concat(d, shape):
    a, b = d.integer(1, 3), d.integer(1, 3)
    branches = [f"nn.Dense({shape[-1]}, {n}, rng={d.seed()})" for n in (a, b)]
    if d.chance(0.3):
        branches[1] = f"nn.Sequential({branches[1]}, {activation(d)})"
    if d.chance(0.2):
        branches.append("nn.Identity()")
        b += shape[-1]
    name = d.layer(f"Concat({', '.join(branches)})")
    d.offer("module in a list replaced", lambda: f"{name}.branches[0].requires_grad_({d.choice(['True', 'False'])})")
    return name, (*shape[:-1], a + b)


def add(d, shape):
    width = d.integer(1, 4)
    parts = [f"{n}=nn.Dense({shape[-1]}, {width}, rng={d.seed()})" for n in ("left", "right")]
    return d.layer(f"Sum({', '.join(parts)})"), (*shape[:-1], width)


def tied(d, shape):
    return d.layer(f"Tied({shape[-1]}, rng={d.seed()})"), shape


def gate(d, shape):
    return d.layer(f"Gate({shape[-1]})"), shape


def split(d, shape):
    return d.layer("Split()"), shape


def inside(d, shape):
    kind = d.choice(["Remember", "Frozen"])
    return d.layer(f"{kind}(nn.Dense({shape[-1]}, {shape[-1]}, rng={d.seed()}))"), shape


def again(d, shape):
    """Use an earlier layer that keeps this shape once more."""
    name = d.choice([name for name, kept in d.keeping if kept == shape] or [None])
    if name is None:
        return dense(d, shape)
    d.used(name)
    return name, shape


# What can follow a row of a rank: function, weight, whether PyTorch has it too

LAYERS = [
    (dense, ANY, 12, True),
    (activate, ANY, 10, True),
    (dropout, ANY, 4, False),
    (layer_norm, ANY, 3, True),
    (residual, ANY, 3, True),
    (lambda_, ANY, 3, False),
    (custom_op, ANY, 3, False),
    (batch_norm_rows, (1, 2), 4, True),
    (group_norm, ANY, 3, True),
    (channels_prelu, ANY, 2, True),
    (flatten, (2, 3), 3, True),
    (recurrent, SEQUENCE, 8, True),
    (attention, SEQUENCE, 6, True),
    (conv1d, SEQUENCE, 8, True),
    (unroll, SEQUENCE, 3, False),
    (over_time, SEQUENCE, 2, False),
    (swap, SEQUENCE, 2, False),
    (conv2d, IMAGE, 16, True),
    (pool, IMAGE, 10, True),
    (global_pool, IMAGE, 3, True),
    (batch_norm_image, IMAGE, 6, True),
    (times, ANY, 3, False),
    (times_item, ANY, 3, False),
    (times_sum, ANY, 1, False),
    (times_attribute, ANY, 2, False),
    (times_nested, ANY, 1, False),
    (times_config, ANY, 1, False),
    (times_context, ANY, 1, False),
    (flags, ANY, 1, False),
    (times_class, ANY, 1, False),
    (times_method, ANY, 2, False),
    (times_property, ANY, 1, False),
    (times_global, ANY, 1, False),
    (times_closure, ANY, 1, False),
    (times_default, ANY, 1, False),
    (apply, ANY, 2, False),
    (slot, ANY, 2, False),
    (control, ANY, 4, False),
    (by_value, ANY, 1, False),
    (by_generator, ANY, 1, False),
    (by_count, ANY, 1, False),
    (fragile, ANY, 2, False),
    (concat, ANY, 4, False),
    (add, ANY, 2, False),
    (tied, ROWS, 1, False),
    (gate, ANY, 2, False),
    (split, ANY, 1, False),
    (inside, ANY, 1, False),
    (again, ANY, 4, True),
]


def draw_layer(d, shape):
    """Write one layer that takes rows of a shape; return its name, and the shape behind it."""
    fitting = [row for row in LAYERS if len(shape) in row[1] and (row[3] or not d.peer)]
    function = d.rng.choices([row[0] for row in fitting], [row[2] for row in fitting])[0]
    name, after = function(d, shape)
    if after == shape:
        d.keeping.append((name, shape))
    return name, after
