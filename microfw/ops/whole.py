"""All families of ops, also those that wait for their first use."""

from importlib import import_module

from microfw.ops import FAMILIES

for family in FAMILIES:
    import_module(f"microfw.ops.{family}")
