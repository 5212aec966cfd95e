# What the package exports; `microfw._lazy.attach` reads it, too.

from microfw.serialization.models import load as load, save as save
from microfw.serialization.torch_weights import import_torch as import_torch

__all__: list[str]
