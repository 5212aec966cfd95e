"""Writes the random training program of a seed."""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.fuzzing.layers import draw_layer
from tests.fuzzing.library_layers import activation
from tests.fuzzing.objectives import lbfgs, library_loss, optimizer, own_loss
from tests.fuzzing.program import Program, Step

FAULTS = ("label", "nan", "features")

CONTEXTS = (
    "np.errstate(all='ignore')",
    "np.errstate(over='raise', invalid='raise')",
    "np.errstate(all='raise')",
    "np.errstate(divide='raise')",
    "mf.detect_anomaly()",
    "mode(observer=Observer())",
)
"""What a step may run in."""

COMMON = {"lr", "train and eval", "frozen", "thawed", "load_state_dict"}
"""Changes that PyTorch understands too."""


class Draw:
    """Random choices, the lines written so far, and the changes that they offer."""

    def __init__(self, seed: int, peer: bool = False) -> None:
        self.rng = random.Random(seed)
        self.extra = random.Random(-seed - 1)
        self.peer = peer
        self.lines: list[str] = []
        self.after: list[str] = []
        self.names: list[str] = []
        self.keeping: list[tuple[str, tuple[int, ...]]] = []
        self.activations: list[str] = []
        self.fragile: list[str] = []
        self.offers: list[tuple[str, Callable[[], str], float]] = []
        self.free = True
        self.smallest = 1
        self.target = "floats"
        self.last = ""

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    def choice(self, options):
        return self.rng.choice(options)

    def integer(self, low: int, high: int) -> int:
        return self.rng.randint(low, high)

    def number(self, low: float, high: float) -> str:
        return f"{self.rng.uniform(low, high):.3g}"

    def seed(self) -> int:
        return self.rng.randrange(1000)

    def line(self, text: str) -> None:
        self.lines.append(text)

    def layer(self, text: str) -> str:
        """Write a layer under a name of its own."""
        name = f"a{len(self.names)}"
        self.names.append(name)
        self.line(f"{name} = {text}")
        return name

    def used(self, name: str) -> None:
        self.names.append(name)

    def offer(self, kind: str, make: Callable[[], str], weight: float = 1.0) -> None:
        """Offer a change between steps, which ``make`` writes."""
        if not self.peer or kind in COMMON:
            self.offers.append((kind, make, weight))


def draw_model(d: Draw, shape: tuple[int, ...], outputs: int, layers: list[str]) -> None:
    """Write layers from rows of a shape to rows of a number of outputs, and the model; ``layers`` are the first ones."""
    for _ in range(d.integer(0, 4)):
        name, shape = draw_layer(d, shape)
        layers.append(name)
    if len(shape) == 3 and d.chance(0.4):
        layers.append(d.layer("nn.GlobalAvgPool2D()"))
        shape = shape[:1]
    elif len(shape) > 1:
        layers.append(d.layer("nn.Flatten()"))
        size = 1
        for n in shape:
            size *= n
        shape = (size,)
    for _ in range(d.integer(0, 2)):
        name, shape = draw_layer(d, shape)
        layers.append(name)
        if len(shape) > 1:
            raise AssertionError(f"rows of shape {shape} behind a layer of features")
    layers.append(d.layer(f"nn.Dense({shape[0]}, {outputs}, rng={d.seed()})"))
    head = layers[-1]
    if d.last:
        layers.append(d.layer(d.last))
    kind = "Sequential" if d.peer else d.choice(["Sequential", "Sequential", "nested", "Chain"])
    if kind == "nested" and len(layers) > 2:
        cut = d.integer(1, len(layers) - 1)
        d.line(f"body = nn.Sequential({', '.join(layers[:cut])})")
        d.line(f"model = nn.Sequential(body, {', '.join(layers[cut:])})")
    else:
        d.line(f"model = {'Chain' if kind == 'Chain' else 'nn.Sequential'}({', '.join(layers)})")
    d.layers, d.head, d.kind = layers, head, kind


def draw_input(d: Draw) -> tuple[tuple[int, ...], int]:
    """Return a row's shape, and how many tokens there are, 0 for floats."""
    kind = d.choice(["features"] * 5 + ["sequence"] * 2 + ["image"] * 2 + ["tokens"])
    if kind == "features":
        return (d.integer(1, 6),), 0
    if kind == "sequence":
        return (d.integer(2, 4), d.integer(1, 4)), 0
    if kind == "image":
        return (d.integer(1, 3), d.integer(3, 6), d.integer(3, 6)), 0
    return (d.integer(2, 4),), d.integer(4, 9)


def offer_general(d: Draw) -> None:
    """Offer what may change in any program."""
    trained = [
        n for n, text in ((line.split(" = ")[0], line) for line in d.lines) if "nn.Dense(" in text and n in d.names
    ]
    d.offer("lr", lambda: f"optimizer.lr = optimizer.lr * {d.number(0.4, 1.2)}", 2)
    d.offer("train and eval", lambda: f"model.{d.choice(['train', 'eval'])}()", 2)
    d.offer(
        "frozen",
        lambda: d.choice([f"{d.choice(d.names)}.requires_grad_(False)", f"{d.head}.weight.requires_grad = False"]),
        1.5,
    )
    d.offer("thawed", lambda: f"{d.choice(['model', *d.names])}.requires_grad_(True)", 1.5)
    d.offer(
        "load_state_dict", lambda: "model.load_state_dict({k: v * 0.9 for k, v in model.state_dict().items()})", 1.5
    )
    if d.peer:
        return
    d.offer("optimizer's load_state_dict", lambda: "optimizer.load_state_dict(optimizer.state_dict())")
    d.offer("zero_grad", lambda: f"{d.choice(['model', 'optimizer'])}.zero_grad()")
    d.offer("gradients from elsewhere", lambda: "add_gradients(f, X, y)")
    d.offer("parameter written", lambda: f"{d.head}.weight.data = {d.head}.weight.data * {d.number(0.5, 1.2)}")
    d.offer("gradient removed", lambda: f"{d.head}.weight.grad = None", 0.5)
    d.offer(
        "hook added",
        lambda: f"handles.append({d.choice(trained or [d.head])}.parameters()[0].register_hook(lambda g: g * 0.5))",
        0.7,
    )
    d.offer("hooks removed", lambda: "[handle.remove() for handle in handles]; handles.clear()", 0.7)
    d.offer("parameter replaced", lambda: f"{d.head}.weight = nn.Parameter({d.head}.weight.data * 0.9, dtype)", 0.3)
    d.offer("evaluation", lambda: "evaluate(model, X)", 1)
    d.offer("profiler attached", lambda: "profilers.append(mf.Profiler(model)); profilers[-1].__enter__()", 0.4)
    d.offer("profiler detached", lambda: "profilers and profilers.pop().__exit__(None, None, None)", 0.6)
    d.offer(
        "copy",
        lambda: f"{d.choice(['copy.deepcopy(model)', 'copy.deepcopy(optimizer)', 'pickle.dumps(optimizer)'])}",
        0.3,
    )
    if d.kind == "Sequential" and d.activations:
        name = d.choice(d.activations)
        d.offer(
            "layer replaced",
            lambda: (
                f"{name}_new = {activation(d)}; model.layers = tuple({name}_new if m is {name} else m for m in model.layers)"
            ),
            1,
        )
    if d.kind == "Chain":
        places = [k for k, name in enumerate(d.layers) if name in d.activations]
        if places:
            d.offer("layer in a list replaced", lambda: f"model.layers[{d.choice(places)}] = {activation(d)}")


def offer_other(d: Draw) -> None:
    """Offer steps and gradients of the other optimizer."""
    d.offer("another optimizer's step", lambda: "other.step()", 2)
    d.offer("another optimizer's zero_grad", lambda: "other.zero_grad()", 2)
    d.offer("another optimizer's gradients", lambda: "np.square(model(X)).mean().backward()", 2)


def draw_optimizers(d: Draw) -> None:
    """Write the optimizer, of all parameters or some, and perhaps another one of the rest."""
    kind = d.choice(["all"] * 6 + ["two", "two", "head", "frozen body"]) if not d.peer else "all"
    d.closure = not d.peer and d.target != "row signs" and d.chance(0.03)
    if d.closure:
        lbfgs(d)
    elif kind == "two":
        d.line(f"head = {d.head}.parameters()")
        d.line("rest = [p for p in model.parameters() if not any(p is q for q in head)]")
        first, second = d.choice([("head", "rest or head[:1]"), ("rest or head", "head if rest else head[:1]")])
        names = ["optimizer", "other"]
        for name, parameters in d.rng.sample(list(zip(names, (first, second), strict=True)), 2):
            optimizer(d, name, parameters, groups=False)
        offer_other(d)
    elif kind == "head":
        optimizer(d, "optimizer", f"{d.head}.parameters()")
    elif kind == "frozen body":
        d.line("model.requires_grad_(False)")
        d.line(f"{d.head}.requires_grad_(True)")
        optimizer(d, "optimizer", d.choice(["model.parameters()", f"{d.head}.parameters()"]))
    else:
        optimizer(d, "optimizer", "model.parameters()")


def draw_function(d: Draw) -> None:
    """Write the step's function."""
    d.line(
        d.choice(
            [
                "def f(X, y): return criterion(model(X), y)",
                "def f(X, y):\n    out = model(X)\n    return criterion(out, y), out",
                "f = lambda X, y: criterion(model(X), y)",
                "f = Task(model, criterion)",
                "f = Task(model, criterion).both",
                "f = functools.partial(compute, model, criterion)",
                "f = make_f(model, criterion)",
                *(["f = penalized(model, criterion)"] if d.slopes and d.chance(0.3) else []),
            ]
        )
    )


def draw_steps(d: Draw, count: int) -> list[Step]:
    """Draw the steps, with changes before some of them."""
    rows = d.choice([3, 4, 5, 6])
    steps: list[Step] = []
    weights = [weight for _, _, weight in d.offers]
    often = d.choice([0.0, 0.1, 0.2, 0.3])
    shapes = d.chance(0.3)
    faults = [f for f in FAULTS if (f == "label") == (d.target == "labels") or f == "features"]
    spoiled = d.integer(4, count - 2) if d.chance(0.2) and not d.peer else -1
    for k in range(count):
        if shapes and d.chance(0.25):
            rows = max(d.integer(1, 7), d.smallest)
        step = Step(rows, d.seed())
        if k > 2 and d.chance(often):
            for kind, make, _ in d.rng.choices(d.offers, weights, k=d.choice([1, 1, 2])):
                step.changes.append(make())
                step.kinds.append(kind)
        if k == spoiled:
            spoil(d, step, faults)
        if k == spoiled + 1 and d.fragile and spoiled >= 0:
            step.changes.append(f"{d.fragile[0]}.broken = False")
        if not d.peer and d.chance(0.02):
            step.context = d.choice(CONTEXTS)
        steps.append(step)
    return steps


def spoil(d: Draw, step: Step, faults: list[str]) -> None:
    """Let a step fail in its middle."""
    if d.fragile and d.chance(0.8):
        error = d.choice(["ValueError", "KeyboardInterrupt"])
        step.changes.append(f"{d.fragile[0]}.broken = True; {d.fragile[0]}.error = {error}")
        step.kinds.append("exception in the middle")
    else:
        step.fault = d.choice(faults)


def draw_trainer(d: Draw) -> dict | None:
    """Return options of a Trainer, or None for a program that none runs."""
    if d.target == "row signs" or not (d.closure or d.chance(0.25)):
        return None
    scores = ["accuracy" if d.target == "labels" else "r2"]
    clip = [] if d.closure else [{"clip_norm": 0.5}, {"clip_value": 0.1}, {"accumulate": 2}]
    options = d.choice([{}, {}, {}, {"metrics": scores}, {"validation": True}, {"profiler": True}, *clip])
    rows = d.choice([8, 10, 11, 14])
    return {**options, "rows": rows, "epochs": d.integer(4, 7), "batch_size": 4}


def write(seed: int, peer: bool = False) -> Program:
    """Write the program of a seed; with ``peer`` one of what PyTorch has too."""
    d = Draw(seed, peer)
    shape, vocabulary = draw_input(d)
    d.slopes = not vocabulary and not peer
    dtype = "float64" if peer else d.choice(["float32", "float32", "float64"])
    d.line(f"dtype = np.{dtype}")
    d.line("handles, profilers = [], []")
    outputs = library_loss(d) if peer or d.chance(0.6) else own_loss(d)
    if vocabulary:
        features = d.integer(1, 4)
        padding = d.choice(["", f", padding_idx={d.integer(0, vocabulary - 1)}"])
        first = [d.layer(f"nn.Embedding({vocabulary}, {features}{padding}, rng={d.seed()})")]
        draw_model(d, (*shape, features), outputs, first)
    else:
        draw_model(d, shape, outputs, [])
    d.lines += d.after
    d.line("model.astype(dtype)")
    if not peer and d.chance(0.15):
        d.line(f"{d.choice(d.names[:-1] or d.names)}.requires_grad_(False)")
        d.line(f"{d.head}.requires_grad_(True)")
    draw_optimizers(d)
    draw_function(d)
    offer_general(d)
    count = d.choice([8, 12, 12, 16, 22]) if not peer else 8
    steps = draw_steps(d, count)
    trainer = None if peer else draw_trainer(d)
    setup = "\n".join(d.lines) + "\n"
    return Program(seed, setup, steps, shape, vocabulary, outputs, d.target, dtype, d.free, trainer, not d.closure)
