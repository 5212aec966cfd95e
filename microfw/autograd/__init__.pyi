# What the package exports; `microfw._lazy.attach` reads it, too.

from microfw.autograd.functional import grad as grad, jvp as jvp, value_and_grad as value_and_grad, vjp as vjp
from microfw.autograd.graph import Leaf as Leaf, Node as Node
from microfw.autograd.observer import Observer as Observer, StepTimer as StepTimer
from microfw.autograd.op import Cost as Cost, Op as Op, elementwise_cost as elementwise_cost, zero_cost as zero_cost

__all__: list[str]
