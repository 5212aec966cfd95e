# What the package exports; `microfw._lazy.attach` reads it, too.

from microfw.serialization.models import load as load, save as save

__all__: list[str]
