"""The engine: gradient mode, the graph, Tensors, ops, the backward pass, derivatives of functions.

In reading order: `types`, `scope`, `graph`, `observer`, `mode`, `registry`, `backward`, the files of Tensor, `op`.
"""

from microfw._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
