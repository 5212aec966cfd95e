"""ArithmeticMixin: Python's operators on Tensors. Each is an op, found by its name."""

from __future__ import annotations

from typing import Any, Generic

from microfw.autograd.registry import OPS
from microfw.autograd.types import ResultT


class ArithmeticMixin(Generic[ResultT]):
    """The operators of `Tensor`. In place they make a new Tensor, or write to a leaf under `no_grad`."""

    __slots__ = ()

    # Arithmetic

    def __add__(self, other: Any) -> ResultT:
        return OPS["add"].call(self, other)

    def __radd__(self, other: Any) -> ResultT:
        return OPS["add"].call(other, self)

    def __sub__(self, other: Any) -> ResultT:
        return OPS["subtract"].call(self, other)

    def __rsub__(self, other: Any) -> ResultT:
        return OPS["subtract"].call(other, self)

    def __mul__(self, other: Any) -> ResultT:
        return OPS["multiply"].call(self, other)

    def __rmul__(self, other: Any) -> ResultT:
        return OPS["multiply"].call(other, self)

    def __truediv__(self, other: Any) -> ResultT:
        return OPS["divide"].call(self, other)

    def __rtruediv__(self, other: Any) -> ResultT:
        return OPS["divide"].call(other, self)

    def __floordiv__(self, other: Any) -> ResultT:
        return OPS["floor_divide"].call(self, other)

    def __rfloordiv__(self, other: Any) -> ResultT:
        return OPS["floor_divide"].call(other, self)

    def __mod__(self, other: Any) -> ResultT:
        return OPS["remainder"].call(self, other)

    def __rmod__(self, other: Any) -> ResultT:
        return OPS["remainder"].call(other, self)

    def __pow__(self, other: Any) -> ResultT:
        return OPS["power"].call(self, other)

    def __rpow__(self, other: Any) -> ResultT:
        return OPS["power"].call(other, self)

    def __matmul__(self, other: Any) -> ResultT:
        return OPS["matmul"].call(self, other)

    def __rmatmul__(self, other: Any) -> ResultT:
        return OPS["matmul"].call(other, self)

    def __neg__(self) -> ResultT:
        return OPS["negative"].call(self)

    def __pos__(self) -> ResultT:
        return self  # type: ignore[return-value]

    def __abs__(self) -> ResultT:
        return OPS["abs"].call(self)

    # Masks

    def __invert__(self) -> ResultT:
        return OPS["invert"].call(self)

    def __and__(self, other: Any) -> ResultT:
        return OPS["bitwise_and"].call(self, other)

    def __rand__(self, other: Any) -> ResultT:
        return OPS["bitwise_and"].call(other, self)

    def __or__(self, other: Any) -> ResultT:
        return OPS["bitwise_or"].call(self, other)

    def __ror__(self, other: Any) -> ResultT:
        return OPS["bitwise_or"].call(other, self)

    def __xor__(self, other: Any) -> ResultT:
        return OPS["bitwise_xor"].call(self, other)

    def __rxor__(self, other: Any) -> ResultT:
        return OPS["bitwise_xor"].call(other, self)

    # Comparisons

    def __lt__(self, other: Any) -> ResultT:
        return OPS["less"].call(self, other)

    def __le__(self, other: Any) -> ResultT:
        return OPS["less_equal"].call(self, other)

    def __gt__(self, other: Any) -> ResultT:
        return OPS["greater"].call(self, other)

    def __ge__(self, other: Any) -> ResultT:
        return OPS["greater_equal"].call(self, other)

    def __eq__(self, other: object) -> ResultT:  # type: ignore[override]
        return OPS["equal"].call(self, other)

    def __ne__(self, other: object) -> ResultT:  # type: ignore[override]
        return OPS["not_equal"].call(self, other)

    __hash__ = object.__hash__
