# What the package exports; `microfw._lazy.attach` reads it, too.

from microfw.data.batching import batches as batches
from microfw.data.dataset import Dataset as Dataset
from microfw.data.streaming import stream as stream
from microfw.data.toys import load as load, names as names

__all__: list[str]
