# What the package exports; `microfw._lazy.attach` reads it, too.

from microfw import (
    data as data,
    errors as errors,
    estimators as estimators,
    nn as nn,
    ops as ops,
    optim as optim,
    profiler as profiler,
    replay as replay,
    testing as testing,
    training as training,
)
from microfw.autograd.anomaly import detect_anomaly as detect_anomaly
from microfw.autograd.functional import grad as grad, jvp as jvp, value_and_grad as value_and_grad, vjp as vjp
from microfw.autograd.gradcheck import gradcheck as gradcheck, gradgradcheck as gradgradcheck
from microfw.autograd.mode import no_grad as no_grad
from microfw.autograd.op import op as op
from microfw.autograd.tensor import Tensor as Tensor, tensor as tensor
from microfw.derivatives.checkpoint import checkpoint as checkpoint
from microfw.derivatives.jacobian import hessian as hessian, hvp as hvp, jacobian as jacobian
from microfw.profiler import Profiler as Profiler, summary as summary
from microfw.replay import compile as compile
from microfw.serialization import import_torch as import_torch, load as load, save as save
from microfw.training import Hook as Hook, Trainer as Trainer
from microfw.visualization import draw as draw

__version__: str
__all__: list[str]
