"""
A custom op and a custom layer
==============================

An op declares its value and its derivatives in one place. A layer is a class with a ``forward`` method. Both work
everywhere: in models, in the profiler's report, in forward mode, and in derivatives of derivatives.
"""

# %%
# An op
# -----
#
# Swish is ``x * sigmoid(beta * x)``. The decorated function computes the value on plain NumPy arrays. ``vjp`` has one
# function for each input. It gets ``g``, the gradient with respect to the output, and returns the gradient with
# respect to its input. Its arguments after ``g`` name the arrays that the op saves: here the inputs and ``s``. The
# value returns ``s`` as a second result, so the backward pass need not compute it again.
#
# A rule need not care about broadcasting. If ``beta`` is one number for a whole array, the engine sums the gradient.

import numpy as np

import microfw as mf
from microfw import nn, optim
from microfw.autograd import elementwise_cost


def sigmoid(x, beta):
    return 1 / (1 + np.exp(-beta * x))


@mf.op(
    vjp=(
        lambda g, x, beta, s: g * (s + beta * x * s * (1 - s)),
        lambda g, x, s: g * (x * x * s * (1 - s)),
    ),
    aux={"s": sigmoid},
    cost=elementwise_cost(5, 6, 5),  # scalar operations for each entry: forward, and each derivative
)
def swish(x, beta):
    """Swish: x times the sigmoid of beta times x."""
    s = sigmoid(x, beta)
    return x * s, s


x = mf.tensor([-2.0, 0.0, 2.0], requires_grad=True)
beta = mf.tensor(1.5, requires_grad=True)
y = swish(x, beta)
y.sum().backward()
print("value          ", y.numpy().round(4))
print("gradient, x    ", x.grad.round(4))
print("gradient, beta ", beta.grad.round(4))

# %%
# Check the op
# ------------
#
# ``check_op`` runs the checks of the library's own ops: the value, memory layouts, the backward pass and forward mode
# against central differences in float64, second derivatives, float32, and the form of the cost.

rng = np.random.default_rng(0)
points = rng.standard_normal((4, 3))
mf.testing.check_op(swish, points, 1.5)
mf.testing.check_op(swish, points, rng.standard_normal(3))
print("check_op of swish: ok")

# %%
# ``gradcheck`` compares the derivatives of any function in the same way. It returns the largest relative error.

error = mf.gradcheck(lambda x, beta: swish(x, beta).sum(), points, np.array(1.5))
print(f"gradcheck of swish: ok, relative error {error:.0e}")

# %%
# Both find mistakes. In this op the second term of the derivative is missing:


@mf.op(vjp=lambda g, s: g * s, aux={"s": lambda x: sigmoid(x, 1.0)})
def swish_wrong(x):
    """Swish with a wrong derivative."""
    s = sigmoid(x, 1.0)
    return x * s, s


try:
    mf.testing.check_op(swish_wrong, points)
except mf.errors.GradientError as mistake:
    print(mistake)

# %%
# A layer
# -------
#
# Set parameters and other modules as attributes. The base class finds them, and names them by their path. The layer
# below learns ``beta``. The block adds its input to the output of its body.


class Swish(nn.Module):
    """Swish with a learned beta."""

    beta: nn.Parameter  # ()

    def __init__(self):
        self.beta = nn.Parameter(1.0)

    def forward(self, x):
        return swish(x, self.beta)


class Residual(nn.Module):
    """The input plus the output of the body."""

    def __init__(self, *body):
        self.body = nn.Sequential(*body)

    def forward(self, x):
        return x + self.body(x)


model = nn.Sequential(
    nn.Dense(4, 16, rng=rng),
    Residual(nn.Dense(16, 16, rng=rng), Swish()),
    nn.Dense(16, 3, rng=rng),
)
print(model)

# %%
# Errors and profiles use the same names. Here is an error for a wrong number of features:

try:
    model[1](np.ones((2, 5), np.float32))
except mf.errors.ShapeError as mistake:
    print(mistake)

# %%
# Train and profile the model like any other. The report has the layers of the body by their paths, and the addition in
# the row of the block.

train, test = mf.data.load("iris", rng=0)
profiler = mf.Profiler(name="iris")
optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
trainer = mf.Trainer(model, nn.CrossEntropyLoss(), optimizer, metrics=["accuracy"], hooks=[profiler])
trainer.fit(train, epochs=20, batch_size=16, rng=rng, progress=False)
print(f"test accuracy: {trainer.evaluate(test)['accuracy']:.1%}, learned beta: {model[1].body[1].beta.item():.3f}")
print()
print(profiler.report(by="layer"))

# %%
# A figure, if Matplotlib is installed: the op and its derivative. One ``mf.vjp`` computes the derivative for all
# points.

try:
    import matplotlib.pyplot as plt
except ImportError:
    print('No figure: it needs Matplotlib, pip install ".[plot]"')
else:
    figure, axes = plt.subplots(figsize=(5.5, 3.2), layout="constrained")
    axis = np.linspace(-5, 5, 201)
    for beta, color, style in ((0.5, "#0072b2", ":"), (1.0, "#d55e00", "--"), (4.0, "#009e73", "-")):
        value, pull = mf.vjp(lambda x, beta=beta: swish(x, beta), axis)
        axes.plot(axis, value, color=color, linestyle=style, label=f"beta {beta}")
        axes.plot(axis, pull(np.ones_like(axis))[0], color=color, linestyle=style, alpha=0.35)
    axes.set(xlabel="x", title="Swish, and (pale) its derivative")
    axes.legend()
    plt.show()
