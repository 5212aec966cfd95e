"""Reductions, in a file for each idea; here all of them by name."""

from microfw.ops.reduction.exponentials import *
from microfw.ops.reduction.extremes import *
from microfw.ops.reduction.products import *
from microfw.ops.reduction.sums import *
