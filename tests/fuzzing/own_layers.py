"""Layers of a user's own at random, with what may change of them between steps."""

from __future__ import annotations

from tests.fuzzing.library_layers import activation


def lambda_(d, shape):
    name = d.layer(
        f"nn.Lambda({d.choice(['np.sin', 'half', 'bend', 'lambda x: x * 0.5 + 0.1', 'np.abs', 'lambda x: x[..., ::-1]'])})"
    )
    d.offer(
        "function replaced", lambda: f"{name}.function = {d.choice(['np.tanh', 'half', 'bend', 'lambda x: x * 0.9'])}"
    )
    return name, shape


def custom_op(d, shape):
    text = d.choice(
        [
            "cube",
            "lambda x: bent(x, slope=0.2)",
            "lambda x: blend(x, np.tanh(x))",
            "root_of",
            "lambda x: cube(x * 0.5) + x",
        ]
    )
    return d.layer(f"Apply({text})"), shape


def unroll(d, shape):
    hidden = d.integer(1, 4)
    return d.layer(f"Unroll({shape[1]}, {hidden}, rng={d.seed()})"), (hidden,)


def over_time(d, shape):
    return d.layer("nn.Lambda(lambda x: x.mean(axis=1))"), shape[1:]


def swap(d, shape):
    return d.layer("nn.Lambda(lambda x: np.swapaxes(x, 1, 2))"), shape[::-1]


# Layers with settings, control flow and structure of a user's own


def times(d, shape):
    value = d.choice(
        [
            "1.0",
            "2",
            "True",
            "np.float64(1.5)",
            "np.float32(0.5)",
            "np.int64(2)",
            "np.array(0.5, dtype)",
            f"np.ones({shape[-1]}, dtype)",
        ]
    )
    name = d.layer(f"Times({value})")
    if value.startswith("np.array") or value.startswith("np.ones"):
        d.offer("array changed in place", lambda: f"{name}.value[...] = {d.number(0.3, 1.5)}")
        d.offer("array replaced", lambda: f"{name}.value = {name}.value * {d.number(0.5, 1.5)}")
    d.offer(
        "number of a module",
        lambda: (
            f"{name}.value = {d.choice(['0.5', '3', 'False', 'np.float64(0.7)', 'np.float32(1.2)', 'np.int64(1)', 'np.float64(1.5)', '2.0'])}"
        ),
    )
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
    name = d.layer(
        f"TimesAttribute({d.choice(['types.SimpleNamespace(scale=1.0)', 'Plain()', 'Slotted()', 'Dynamic()'])})"
    )
    d.offer("attribute of an object", lambda: f"{name}.box.scale = {d.number(0.3, 1.6)}")
    return name, shape


def times_nested(d, shape):
    name = d.layer("TimesNested()")
    d.offer(
        "value deep in containers",
        lambda: f"{name}.value['parts'][{d.choice(['0].value', '1][0].scale'])} = {d.number(0.3, 1.6)}",
    )
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
    name = d.layer(
        f"Apply({d.choice(['np.tanh', 'half', 'bend', 'lambda x: x * 0.7', 'functools.partial(np.multiply, 0.5)'])})"
    )
    d.offer(
        "function replaced",
        lambda: (
            f"{name}.function = {d.choice(['np.sin', 'half', 'bend', 'lambda x: x * 0.3', 'functools.partial(np.multiply, 0.8)'])}"
        ),
    )
    return name, shape


def slot(d, shape):
    name = d.layer(f"Slot({d.choice(['None', 'nn.ReLU()', 'nn.Tanh()'])})")
    d.offer(
        "module replaced",
        lambda: f"{name}.act = None; {name}.act = {d.choice(['nn.Tanh()', 'nn.ReLU()', 'nn.Sigmoid()', 'None'])}",
    )
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
    name = d.layer(
        d.choice(
            [f"Coin(rng={d.seed()})", f"Noise(rng={d.seed()})", f"Apply(Jitter(rng={d.seed()}))", f"Dice({d.seed()})"]
        )
    )
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
