# What the package exports; `microfw._lazy.attach` reads it, too.

from microfw.visualization.drawing import Drawing as Drawing, draw as draw

__all__: list[str]
