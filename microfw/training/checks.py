"""The parts and the settings of a Trainer: checks that they fit together, and the hooks of a run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from microfw.errors import ArgumentError, check_count, check_flags
from microfw.nn import CrossEntropyLoss, Module
from microfw.optim.checks import as_list, is_real
from microfw.training.checkpoint import Checkpoint
from microfw.training.clipping import Clip
from microfw.training.csv_logger import CSVLogger
from microfw.training.evaluation import is_sum
from microfw.training.hooks import Hooks, check_hooks
from microfw.training.progress import progress as progress_hook

# A test that passes for good arguments comes first; what is wrong is only looked for after it has failed.


def check_settings(trainer: Any) -> None:
    """Raise unless the parts and the settings of a Trainer fit together."""
    check_parts(trainer.model, trainer.loss, trainer.optimizer)
    check_count("Trainer", "accumulate", trainer.accumulate)
    averages = getattr(trainer.optimizer, "takes_denominator", False)
    if averages or trainer.accumulate > 1 or trainer.clip_norm is not None or trainer.clip_value is not None:
        _check_combination(trainer, averages)
    if trainer.compile is not None and not isinstance(trainer.compile, bool):
        raise ArgumentError("Trainer", "compile to be True, False or None", repr(trainer.compile))
    if not isinstance(trainer.hooks, list):
        trainer.hooks = as_list(trainer.hooks, "Trainer", "hooks", "pass a list of them")
    check_hooks(trainer.hooks)
    check_paths(trainer.hooks)


def _check_combination(trainer: Any, averages: bool) -> None:
    """Raise unless loss, optimizer, accumulation and clipping can be combined; ``averages``: over ranks."""
    loss, kind = trainer.loss, type(trainer.optimizer).__name__
    if averages and is_sum(loss):
        got, fix = f"{type(loss).__name__} with reduction='sum'", "use reduction='mean'"
        raise ArgumentError("Trainer", f"a mean with {kind}", got, fix)
    if (averages or trainer.accumulate > 1) and smooths_weight_0(loss):
        got, fix = "one of 0", "leave label_smoothing out, or join no batches, as by accumulate"
        raise ArgumentError("Trainer", "class weights above 0 with label_smoothing in joined batches", got, fix)
    for name, limit in (("clip_norm", trainer.clip_norm), ("clip_value", trainer.clip_value)):
        if limit is None:
            continue
        if not is_real(limit) or limit <= 0:
            raise ArgumentError("Trainer", f"{name} above 0, finite", repr(limit))
        if getattr(trainer.optimizer, "takes_closure", False):
            raise ArgumentError("Trainer", f"no {name} with {kind}", limit, "its line search needs the true gradients")


def smooths_weight_0(loss: Any) -> bool:
    """Return True for a loss that smooths labels, of which some have weight 0.

    A part of such labels alone adds to the loss by smoothing, but nothing to the sum of weights it is divided by.
    """
    smooth = isinstance(loss, CrossEntropyLoss) and loss.label_smoothing and loss.weight is not None
    return bool(smooth) and not loss.weight._array.all()


def check_paths(hooks: Sequence[Any]) -> None:
    """Raise if two hooks write the same file: each would replace that of the other."""
    paths = [os.path.abspath(hook.path) for hook in hooks if isinstance(hook, Checkpoint | CSVLogger)]
    twice = next((path for k, path in enumerate(paths) if path in paths[:k]), None)
    if twice is not None:
        raise ArgumentError("Trainer", "hooks that write different files", f"{twice} twice", "pass another path to one")


def check_options(epochs: Any, batch_size: Any, **flags: Any) -> None:
    """Raise unless ``epochs`` and ``batch_size`` are integers in range, and all flags are True or False."""
    check_count("Trainer.fit", "epochs", epochs, 0)
    check_count("Trainer.fit", "batch_size", batch_size, fix="32 is a good start")
    check_flags("Trainer.fit", **flags)


def run_hooks(trainer: Any, progress: bool, policy: Any, steps: int) -> Hooks:
    """Return the hooks of a run: for clipping, the Trainer's, and for progress."""
    norm, value = trainer.clip_norm, trainer.clip_value
    clips = [] if norm is None and value is None else [Clip(norm, value)]
    bar = [progress_hook(None if policy is None else policy.why_eager, steps)] if progress else []
    return Hooks([*clips, *trainer.hooks, *bar])


def check_parts(model: Any, loss: Any, optimizer: Any) -> None:
    """Raise unless model, loss and optimizer are of the right kind, and the optimizer has the model's parameters."""
    able = hasattr(optimizer, "step") and hasattr(optimizer, "zero_grad") and not isinstance(optimizer, type)
    if not able or not isinstance(model, Module) or not _is_loss(loss):
        _refuse_part(model, loss, optimizer, able)
    stepped = getattr(getattr(optimizer, "flat", None), "parameters", None)
    if stepped is not None and list(map(id, stepped)) != list(map(id, model.parameters())):
        _check_owned(model, loss, stepped)


def _check_owned(model: Any, loss: Any, stepped: list[Any]) -> None:
    """Raise if the optimizer has none of the model's parameters, or those from before a layer was replaced."""
    held, own = {id(p) for p in stepped}, {id(p) for p in model.parameters()}
    if held.isdisjoint(own):
        expected, fix = "an optimizer of the model's parameters", "make it with model.parameters()"
        raise ArgumentError("Trainer", expected, "others", fix)
    known = own | {id(p) for p in (loss.parameters() if isinstance(loss, Module) else ())}
    left = [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in held]
    gone = [p for p in stepped if id(p) not in known]
    if left and gone:
        expected = f"an optimizer of {', '.join(left[:4])}{', …' if len(left) > 4 else ''}"
        got = f"one of other parameters, of shapes {', '.join(str(p.shape) for p in gone[:4])}"
        raise ArgumentError("Trainer", expected, got, "make it after the model is changed")


def _is_loss(loss: Any) -> bool:
    """Return True for a callable that is no class, and no loss of PyTorch, which takes no Tensors of microfw."""
    theirs = str(getattr(loss, "__module__", "")).startswith("torch.")
    return callable(loss) and not isinstance(loss, type) and not theirs


def _refuse_part(model: Any, loss: Any, optimizer: Any, able: bool) -> None:
    for name, part, good, expected, example in (
        ("model", model, isinstance(model, Module), "a Module", ""),
        ("loss", loss, _is_loss(loss), "a loss such as nn.MSELoss()", "one of microfw.nn, or a function"),
        ("optimizer", optimizer, able, "an optimizer", "optim.SGD(model.parameters(), lr=0.1)"),
    ):
        if isinstance(part, type):
            arguments = "(model.parameters())" if part is optimizer else "()"
            got, fix = f"the class {part.__name__}", f"call it: {part.__name__}{arguments}"
            raise ArgumentError("Trainer", f"{name} to be {expected}", got, fix)
        if not good:
            fix = f"pass {example}" if example else ""
            raise ArgumentError("Trainer", f"{name} to be {expected}", type(part).__name__, fix)
