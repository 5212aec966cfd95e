"""Elementwise ops, in a file for each idea; here all of them by name."""

from microfw.ops.elementwise.activations import *
from microfw.ops.elementwise.activations import _sigmoid as _sigmoid
from microfw.ops.elementwise.arithmetic import *
from microfw.ops.elementwise.choices import *
from microfw.ops.elementwise.functions import *
from microfw.ops.elementwise.smooth import *
from microfw.ops.elementwise.steps import *
