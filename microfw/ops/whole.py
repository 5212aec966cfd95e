"""Imports all families of ops."""

from importlib import import_module

from microfw.ops import FAMILIES

for family in FAMILIES:
    import_module(f"microfw.ops.{family}")
