"""Losses and optimizers at random."""

from __future__ import annotations

from tests.cases.optimizers import CASES

# Losses of the library: options by choice, what a target is, and whether the loss is the same in PyTorch

LOSSES = {
    "CrossEntropyLoss": (["", "label_smoothing=0.1", "weight=[1, 2, 0.5, 1][:{k}]", "ignore_index=0", "ignore_index=0, weight=[1, 2, 0.5, 1][:{k}]", "reduction='sum'"], "labels"),
    "NLLLoss": (["", "weight=[1, 2, 0.5, 1][:{k}]", "ignore_index=1", "reduction='sum'"], "labels"),
    "MSELoss": (["", "", "reduction='sum'"], "floats"),
    "L1Loss": (["", "reduction='sum'"], "floats"),
    "HuberLoss": (["", "0.7"], "floats"),
    "HingeLoss": ([""], "signs"),
    "BCEWithLogitsLoss": (["", "weight=[1, 2, 3, 4][:{k}]", "pos_weight=2.0", "pos_weight=[1, 2, 3, 4][:{k}]"], "shares"),
    "KLDivLoss": ([""], "distributions"),
    "PoissonNLLLoss": (["", "full=True"], "counts"),
    "CosineEmbeddingLoss": (["", "margin=0.2"], "row signs"),
    "TripletMarginLoss": (["", "swap=True"], "pairs"),
    "GaussianNLLLoss": (["", "full=True", "eps=0.3"], "pairs"),
}  # fmt: skip

LOSS_SETTINGS = {
    "CrossEntropyLoss": ["label_smoothing = {0}", "ignore_index = 2", "ignore_index = None", "reduction = 'sum'"],
    "HuberLoss": ["delta = {0}"],
    "MSELoss": ["reduction = 'sum'", "reduction = 'mean'"],
    "CosineEmbeddingLoss": ["margin = {0}"],
    "TripletMarginLoss": ["margin = {0}", "swap = True"],
}


def library_loss(d):
    """Write a loss of the library; return how many outputs the model needs."""
    kind = d.choice(
        [
            k
            for k in LOSSES
            if not d.peer or k not in ("HingeLoss", "TripletMarginLoss", "CosineEmbeddingLoss", "GaussianNLLLoss")
        ]
    )
    options, d.target = LOSSES[kind]
    k = 4 if d.target in ("row signs", "pairs") else d.integer(2, 4)
    d.line(f"loss = nn.{kind}({d.choice(options).format(k=k)})")
    if kind in ("NLLLoss", "KLDivLoss"):
        d.last = "nn.LogSoftmax()"
    if kind == "GaussianNLLLoss":
        d.line("def criterion(out, y): return loss((out[:, :2], np.logaddexp(out[:, 2:], 0)), y)")
    elif d.target in ("row signs", "pairs"):
        d.line("def criterion(out, y): return loss(out[:, :2], out[:, 2:], y)")
    else:
        d.line("criterion = loss")
    if kind in LOSS_SETTINGS and not d.peer:
        d.offer("setting of a loss", lambda: f"loss.{d.choice(LOSS_SETTINGS[kind]).format(d.number(0.1, 0.9))}")
    return k


def own_loss(d):
    """Write a loss of a user's own; return how many outputs the model needs."""
    d.target = "floats"
    kind = d.choice(
        [
            "function",
            "object",
            "method",
            "closure",
            "global",
            "list",
            "penalty",
            "lambda",
            "partial",
            "array",
            "picked",
            "by value",
        ]
    )
    if kind == "function":
        d.line(f"criterion = {d.choice(['squares', 'clipped', 'weighted_by_target'])}")
        d.offer("loss replaced", lambda: f"criterion = {d.choice(['squares', 'clipped', 'weighted_by_target'])}")
    elif kind == "array":
        d.line("criterion = weighted_by_array")
        d.offer("global array changed in place", lambda: f"WEIGHTS[{d.integer(0, 3)}] = {d.number(0.3, 1.6)}")
    elif kind == "picked":
        d.target = "labels"
        d.line("criterion = picked")
    elif kind in ("object", "method"):
        d.line("objective = Objective(1.0)")
        d.line("criterion = objective" + (".compute" if kind == "method" else ""))
        number = lambda: d.number(0.3, 1.6)  # noqa: E731
        d.offer("attribute of a loss", lambda: f"objective.beta = {d.choice([number(), f'np.float64({number()})'])}")
        d.offer("container of a loss", lambda: f"objective.options['power'] = {d.choice([1, 2, 3])}")
        d.offer("namespace of a loss", lambda: f"objective.box.scale = {number()}")
        if kind == "method":
            d.offer("class attribute of a loss", lambda: f"Objective.share = {number()}")
            d.offer("container of a loss", lambda: f"objective.options['weights'][0] = {number()}")
    elif kind == "closure":
        d.line("criterion = make_loss(1.0)")
        d.offer("variable of a closure", lambda: f"criterion.change({d.number(0.3, 1.6)})")
    elif kind == "global":
        d.line("criterion = weighted_by_global")
        d.offer("global variable", lambda: f"SCALE = {d.number(0.3, 1.6)}")
        d.offer("entry of a global dict", lambda: f"TABLE['shift'] = {d.number(0.01, 0.2)}")
    elif kind == "list":
        d.line("criterion = annealed")
        d.offer("list appended to", lambda: f"STEPS.append({d.number(0.3, 1.6)})")
    elif kind == "lambda":
        d.line("factor = 1.0")
        d.line("criterion = lambda out, y: np.square(out - y).mean() * factor")
        d.offer("global variable", lambda: f"factor = {d.number(0.3, 1.6)}")
    elif kind == "partial":
        d.line("weigh = {'by': 1.0}")
        d.line("criterion = functools.partial(lambda weigh, out, y: abs(out - y).mean() * weigh['by'], weigh)")
        d.offer("container of a loss", lambda: f"weigh['by'] = {d.number(0.3, 1.6)}")
    elif kind == "penalty":
        d.after.append("criterion = Penalty(model)")
        d.offer("attribute of a loss", lambda: f"criterion.size = {d.number(0.001, 0.05)}")
    else:
        d.free = False
        name = d.choice(["by_value", "masked", "chosen"])
        d.target = "floats" if name == "by_value" else "sparse"
        d.line(f"criterion = {name}")
    return d.integer(2 if kind == "picked" else 1, 4)


# Optimizers

OPTIMIZERS = {name: row.program for name, row in CASES.items() if row.program is not None}
"""Options by choice, and what may change between steps."""


def lbfgs(d):
    """Write an optimizer that evaluates the loss itself, as a Trainer alone can ask it to."""
    d.line(
        f"optimizer = optim.LBFGS(model.parameters(), {d.choice(['lr=0.5', 'iterations=3', 'memory=2, iterations=2', 'line_search=False, lr=0.1'])})"
    )


def optimizer(d, name, parameters, groups=True):
    """Write an optimizer of the parameters that an expression gives."""
    kind = d.choice(list(OPTIMIZERS))
    options, changes = OPTIMIZERS[kind]
    options = d.choice(options)
    rate = d.choice(["0.1", "0.03", "0.01"] if kind == "SGD" else ["0.01", "0.003"])
    if groups and d.chance(0.25):
        own = d.choice(["'lr': 0.02", "'weight_decay': 0.1", "'lr': 0.004, 'weight_decay': 0.01"])
        d.line(f"parts = {parameters}")
        parameters = f"[{{'params': parts[:1], {own}}}, {{'params': parts[1:]}}] if len(parts) > 1 else parts"
        if not d.peer:
            d.offer("rate of a group", lambda: f"{name}.groups[0]['lr'] = {d.number(0.001, 0.02)}")
    if d.peer and kind != "SGD":  # a gradient of rounding errors alone would be scaled up to the size of the rate
        options = ", ".join([o for o in options.split(", ") if o and "eps" not in o] + ["eps=1e-3"])
    d.line(f"{name} = optim.{kind}({parameters}, lr={rate}{', ' + options if options else ''})")
    if d.peer:
        return
    if "nesterov" in options:
        changes = [c for c in changes if "momentum" not in c]
    for weight in (1, 2):
        d.offer("setting of an optimizer", lambda: f"{name}.{d.choice(changes).format(d.number(0.002, 0.03))}", weight)
