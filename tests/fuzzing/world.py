"""A run of a program: its namespace, its state to the last bit, and what each step left."""

from __future__ import annotations

import contextlib
import copy
import functools
import pickle
import types
import warnings
from pathlib import Path

import numpy as np

import microfw as mf
from microfw import nn, optim
from tests.fuzzing import custom_ops

FILES = [Path(__file__).parent / "user_code" / f"{name}.py" for name in ("settings", "layers", "losses")]
CODE = [compile(path.read_text(encoding="utf-8"), str(path), "exec", dont_inherit=True) for path in FILES]
NAMES = {
    "np": np, "mf": mf, "nn": nn, "optim": optim, "copy": copy, "functools": functools, "pickle": pickle, "types": types,
    **{name: value for name, value in vars(custom_ops).items() if hasattr(value, "op")},
}  # fmt: skip

SCALARS = (bool, int, float, str, np.generic, type(None))


class World(dict):
    """The namespace in which a program runs."""

    def __init__(self, program) -> None:
        super().__init__(__name__=f"program_{program.seed}", __builtins__=__builtins__)
        for code in CODE:
            exec(code, self)
        self.update(NAMES)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exec(compile(program.setup, f"<program {program.seed}>", "exec"), self)

    def change(self, step, X, y, skip=()) -> None:
        """Do what is to change before a step; the batch is at hand as ``X`` and ``y``."""
        self["X"], self["y"] = mf.Tensor(X), mf.Tensor(y)
        for statement, kind in zip(step.changes, [*step.kinds, "mended"], strict=False):
            if kind not in skip:
                exec(compile(statement, "<change>", "exec"), self)

    def modules(self):
        """Return (name, module) of the model's and the loss's parts."""
        roots = [(name, self[name]) for name in ("model", "loss") if isinstance(self.get(name), nn.Module)]
        return [(f"{root}.{path}" if path else root, m) for root, top in roots for path, m in top.named_modules()]

    def state(self):
        """Return (name, bits) of parameters, gradients, buffers, optimizers, generators and Python's own settings."""
        rows, seen = [], set()
        for name, module in self.modules():
            rows.append((f"setting {name}.training", repr(module.training)))  # of the class, if nothing set it
            for key, value in vars(module).items():
                if key == "training":
                    continue
                if isinstance(value, mf.Tensor):
                    found = [(key, value)]
                elif isinstance(value, np.random.Generator):
                    rows.append((f"generator {name}.{key}", repr(value.bit_generator.state)))
                    continue
                elif isinstance(value, SCALARS):
                    rows.append((f"setting {name}.{key}", repr(value)))
                    continue
                elif isinstance(value, list):
                    rows.append((f"setting {name}.{key}", repr([v for v in value if isinstance(v, SCALARS)])))
                    found = [(f"{key}.{k}", v) for k, v in enumerate(value) if isinstance(v, mf.Tensor)]
                else:
                    continue
                for place, tensor in found:
                    if id(tensor) not in seen:
                        seen.add(id(tensor))
                        grad = tensor.grad if tensor._leaf is not None else None
                        rows.append((f"value of {name}.{place}", bits(tensor.data)))
                        rows.append((f"gradient of {name}.{place}", None if grad is None else bits(grad)))
        for name in ("optimizer", "other"):
            if name in self:
                rows += flat(name, self[name].state_dict())
        return rows

    def close(self) -> None:
        """Detach what a change has attached."""
        while self["profilers"]:
            with contextlib.suppress(Exception):
                self["profilers"].pop().__exit__(None, None, None)


def bits(array):
    """Return an array's dtype, shape and bytes."""
    return array.dtype.char, array.shape, array.tobytes()


def flat(name, value):
    """Return (name, bits) of all arrays and numbers in nested containers."""
    if isinstance(value, dict):
        return [row for k, v in value.items() for row in flat(f"{name}[{k!r}]", v)]
    if isinstance(value, list | tuple):
        return [row for k, v in enumerate(value) for row in flat(f"{name}[{k}]", v)]
    return [(name, bits(value) if isinstance(value, np.ndarray) else repr(value))]


def first_difference(one, two):
    """Return the name of the first entry that differs between two states, and both values; None if none does."""
    if one == two:
        return None
    for (name, a), (other, b) in zip(one, two, strict=False):
        if name != other:
            return f"{name} in the one, {other} in the other"
        if a != b:
            return f"{name}: {shown(a)} in the one, {shown(b)} in the other"
    return f"{len(one)} entries in the one, {len(two)} in the other"


def shown(value):
    """Return bits as numbers."""
    if isinstance(value, tuple) and len(value) == 3 and isinstance(value[2], bytes):
        numbers = np.frombuffer(value[2], value[0])
        return f"{value[0]}{value[1]} " + np.array2string(numbers[:4], precision=9)
    return str(value)[:200]
