"""The engine: gradient mode, the graph, Tensors, ops, the backward pass, derivatives of functions.

In reading order: `types`, `scope`, `graph`, `phases`, `observer`, `mode`, `registry`, `backward`, `tensor`, `apply`,
`codegen` (skip it at first), `op`, `functional`. docs/architecture.md has a line for each file.
"""

from microfw._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
