"""What a console completes after a module's dot: its public names, and nothing else."""

from __future__ import annotations

import importlib
import inspect
import types

import pytest

import microfw as mf


def public_modules():
    """Return microfw and the modules that it shows, directly or through others, without the families of ops."""
    found, waiting = {}, [mf]
    while waiting:
        module = waiting.pop()
        found[module.__name__] = module
        for name in dir(module):
            value = getattr(module, name)
            family = module is mf.ops
            if isinstance(value, types.ModuleType) and not family and value.__name__ not in found:
                waiting.append(value)
    for name in ("autograd", "law", "serialization", "visualization"):
        found[f"microfw.{name}"] = importlib.import_module(f"microfw.{name}")
    return found


MODULES = public_modules()


def test_the_public_modules_are_those_of_the_reference():
    rooms = ["autograd", "data", "errors", "estimators", "law", "nn", "nn.initializers", "ops", "optim"]
    rooms += ["optim.schedules", "profiler", "replay", "serialization", "testing", "training", "training.metrics"]
    assert sorted(MODULES) == ["microfw", *(f"microfw.{name}" for name in [*rooms, "visualization"])]


@pytest.mark.parametrize("name", MODULES)
def test_dir_lists_public_names_only(name):
    module = MODULES[name]
    names = dir(module)
    assert names and len(set(names)) == len(names)
    assert set(names) >= set(module.__all__)
    for public in names:
        value = getattr(module, public)
        home = value.__name__ if isinstance(value, types.ModuleType) else inspect.getmodule(value).__name__
        assert not public.startswith("_") and home.startswith("microfw"), public
