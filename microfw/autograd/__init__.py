"""The engine: gradient mode, the graph, Tensors, ops, the backward pass, derivatives of functions.

In reading order: `types`, `scope`, `graph`, `observer`, `mode`, `registry`, `backward`, the files of Tensor, `op`.
"""

from typing import TYPE_CHECKING

from microfw._lazy import attach

if TYPE_CHECKING:
    from microfw.autograd.functional import grad, jvp, value_and_grad, vjp
    from microfw.autograd.graph import Leaf, Node
    from microfw.autograd.observer import Observer, StepTimer
    from microfw.autograd.op import Cost, Op, elementwise_cost, zero_cost
else:
    __getattr__ = attach(
        "microfw.autograd",
        {
            "functional": "grad jvp value_and_grad vjp",
            "graph": "Leaf Node",
            "observer": "Observer StepTimer",
            "op": "Cost Op elementwise_cost zero_cost",
        },
    )

__all__ = [
    "Cost",
    "Leaf",
    "Node",
    "Observer",
    "Op",
    "StepTimer",
    "elementwise_cost",
    "grad",
    "jvp",
    "value_and_grad",
    "vjp",
    "zero_cost",
]


def __dir__() -> list[str]:
    return __all__
