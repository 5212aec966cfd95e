"""The engine: gradient mode, the graph, Tensors, ops, the backward pass, derivatives of functions."""

from typing import TYPE_CHECKING

from microfw._lazy import on_use

if TYPE_CHECKING:
    from microfw.autograd.functional import grad, jvp, value_and_grad, vjp
    from microfw.autograd.graph import Leaf, Node
    from microfw.autograd.mode import Observer, StepTimer
    from microfw.autograd.op import Cost, Op, each, moves
else:
    __getattr__ = on_use(
        "microfw.autograd",
        {
            "functional": "grad jvp value_and_grad vjp",
            "graph": "Leaf Node",
            "mode": "Observer StepTimer",
            "op": "Cost Op each moves",
        },
    )

__all__ = [
    "Cost",
    "Leaf",
    "Node",
    "Observer",
    "Op",
    "StepTimer",
    "each",
    "grad",
    "jvp",
    "moves",
    "value_and_grad",
    "vjp",
]


def __dir__() -> list[str]:
    return __all__
