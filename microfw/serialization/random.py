"""States of random generators, by the paths of the modules that have them."""

from __future__ import annotations

from typing import Any

import numpy as np

from microfw.nn import Module
from microfw.serialization.strict import FormatError, listed, short, table

KINDS = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")


def generators(module: Any) -> dict[str, np.random.Generator]:
    """Return the Generators that are attributes of a module or its submodules, by path."""
    if not isinstance(module, Module):
        return {}
    return {
        f"{name}.{key}" if name else key: value
        for name, part in module.named_modules()
        for key, value in vars(part).items()
        if isinstance(value, np.random.Generator)
    }


def states(found: dict[str, np.random.Generator]) -> list[dict[str, Any]]:
    """Return the state of each Generator, with all its names."""
    # by identity: layers that share a Generator must share it again, or they would draw equal numbers
    groups: dict[int, dict[str, Any]] = {}
    for name, generator in found.items():
        group = groups.setdefault(id(generator), {"names": [], "state": generator.bit_generator.state})
        group["names"].append(name)
    return list(groups.values())


def restore(saved: Any, found: dict[str, np.random.Generator]) -> None:
    """Restore states into Generators with the same names, shared by the same modules."""
    groups = checked(saved)
    mine = [group["names"] for group in states(found)]
    if [group["names"] for group in groups] != mine:
        fix = "share Generators between layers and fit as they were shared"
        raise FormatError(f"random generators {[group['names'] for group in groups]}"[:120], f"{mine}"[:120], fix)
    for group in groups:
        put(found[group["names"][0]], group["state"])


def put(generator: np.random.Generator, state: Any) -> None:
    """Restore the state of one Generator."""
    try:
        generator.bit_generator.state = state
    except (TypeError, ValueError, KeyError, OverflowError, IndexError) as error:
        raise FormatError(f"a state of {type(generator.bit_generator).__name__}", str(error)[:80]) from None


def made(state: Any) -> np.random.Generator:
    """Return a new Generator with a state."""
    kind = table(state).get("bit_generator")
    if not isinstance(kind, str) or kind not in KINDS:
        raise FormatError(f"a random generator among {', '.join(KINDS)}", short(kind))
    # KINDS above keep a file from naming any other attribute of numpy.random
    generator = np.random.Generator(getattr(np.random, kind)(0))
    put(generator, state)
    return generator


def checked(saved: Any) -> list[dict[str, Any]]:
    """Return the value of `states`, checked."""
    groups = [table(group, "names", "state") for group in listed(saved)]
    for group in groups:
        if not listed(group["names"], str):
            raise FormatError("names of random generators", "none")
    return groups
