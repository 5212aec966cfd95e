"""
Train a model and read what its backward pass costs
===================================================

Backpropagation is often explained in one sentence: *it computes all derivatives in about N + P steps,
where going without the graph would take about N × P.* This page trains a network, counts N and P on it, and
checks every part of that sentence, the fine print included.

You need to know what a derivative is and to read a little Python. It takes a quarter of an hour. The page is
a script; take it, and put a model of your own in.

.. admonition:: Common misreadings

   - **"N is the number of neurons."** No: N is the number of nodes of the graph of computations. A neuron is
     several of them: its dot product, its bias, its activation.
   - **"P is the number of features."** No: P is the number of trainable scalars, the entries of all weights
     and biases. The features are constants; no derivative is computed for them.
   - **"The derivatives are computed in the forward pass."** No: forward computes values, and keeps some of
     them. Derivatives are computed on the way back.
   - **"N × P is what other methods cost."** It is an upper bound. Whoever shares less than backpropagation
     still need not redo everything.
"""

# %%
# Train
# -----
#
# The data are scikit-learn's digits, 64 pixels each. The profiler is attached as a hook. To count it does not
# estimate: the engine tells it of each op as it runs, and of each node as it is walked backward.

import numpy as np

import microfw as mf
from microfw import nn, optim

rng = np.random.default_rng(0)
train, test = mf.data.load("digits", rng=0)
rows = 32 * (len(train) // 32)  # whole batches only, so that every step is of one size
train = mf.data.Dataset(train.X[:rows], train.y[:rows])

model = nn.Sequential(nn.Dense(64, 64, rng=rng), nn.ReLU(), nn.Dense(64, 10, rng=rng))
profiler = mf.Profiler(name="digits")
trainer = mf.Trainer(
    model,
    nn.CrossEntropyLoss(),
    optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
    metrics=["accuracy"],
    hooks=[profiler],
)
history = trainer.fit(train, epochs=8, batch_size=32, validation=test, rng=rng, progress=False)
print(f"test accuracy: {history[-1]['val_accuracy']:.1%}")

# %%
# On the command line ``microfw profile digits --epochs 8`` does much the same. This is the report that this page
# explains:

print(profiler.report())

# %%
# N: a neuron is several nodes
# ----------------------------
#
# Take one neuron with three inputs, ``tanh(w · x + b)``, and compute it number by number. Each operation on
# numbers is a node. The profiler counts them. So that it sees a step, the neuron gets an optimizer, and its output
# stands in for a loss.

features = [0.5, -1.0, 2.0]
weights = [nn.Parameter(w) for w in (0.1, 0.2, 0.3)]
bias = nn.Parameter(0.4)
optimizer = optim.SGD([*weights, bias], lr=0.1)

with mf.Profiler() as watch:
    so_far = bias
    for w, x in zip(weights, features, strict=True):
        so_far = so_far + w * x
    neuron = np.tanh(so_far)
    neuron.backward()
    optimizer.step()

one_neuron = watch.session.epochs[0]
for row in one_neuron.rows:
    print(f"{row.op:9} {row.nodes} nodes, {row.accumulated} gradients added into parameters")
print(f"neurons 1, features {len(features)}, N {one_neuron.sum().nodes}, P {one_neuron.parameters}")

# %%
# One neuron, and yet N counts the products, the sums and the activation. P counts the weights and the bias.
#
# A framework does not compute number by number. It has nodes for whole arrays: the dot products and biases of a
# layer's every neuron, on every row of the batch, are one node. So there are two honest ways to count, and the
# report shows both, never mixed: **in tensors** (op nodes, and parameter arrays) and **in scalars** (the scalar
# operations in those nodes, and trainable numbers).

total = profiler.session.total()
steps = total.observed
step = total.sum()
N, P = step.nodes // steps, total.parameter_tensors
N_scalars, P_scalars = step.flops_forward // steps, total.parameters
print(f"in tensors: N = {N}, P = {P}")
print(f"in scalars: N = {N_scalars:,}, P = {P_scalars:,}")
print(f"P from the model itself: {sum(p.size for p in model.parameters()):,}")

# %%
# In scalars N grows with the batch, for each row is computed anew. P does not.
#
# Forward computes no derivative
# ------------------------------
#
# The forward pass applies each op once and reads each parameter: about N + P steps. It computes values, and it
# keeps those that the derivatives will need (the column *saved*). To watch it, here is an op that says when its
# value is computed, and when its derivative is. Its output is then used three times.


def derivative(g):
    print("    its derivative is computed")
    return g


@mf.op(vjp=derivative)
def spoken(x):
    """Pass a number on, and say so."""
    print("    its value is computed")
    return x.copy()


x = mf.tensor(3.0, requires_grad=True)
print("forward")
y = spoken(x)
z = y * y + y
print("backward")
z.backward()
print("gradient:", x.grad)

# %%
# Backward visits each node once
# ------------------------------
#
# From the loss, the walk goes back over the nodes, newest first. A node is visited when everything that used its
# output has been visited; then its gradient is complete, its rule is called, once, and the result is passed on.
# Nothing is differentiated twice, however many paths lead through a node.
#
# To see why that matters, double a number again and again. With each doubling the number of paths from the end
# back to the start doubles. The number of rules called grows by one.

start = nn.Parameter(1.0)
optimizer = optim.SGD([start], lr=1e-12)
for doublings in (1, 2, 10, 40):
    optimizer.zero_grad()
    with mf.Profiler() as watch:
        end = start
        for _ in range(doublings):
            end = end + end
        end.backward()
        optimizer.step()
    counted = watch.session.epochs[0].sum()
    paths = 2**doublings
    print(f"{doublings:2} doublings: {paths:,} paths, {counted.rules} rules called, gradient {start.grad:,.0f}")

# %%
# The gradient is right, since shares that arrive over different paths are added up before the node is
# visited. That is all there is to backpropagation's thrift.
#
# N + P
# -----
#
# So one backward pass calls one rule for each of the N nodes, and adds gradients into P arrays. That is N + P,
# and in this model nothing is shared, so each array is added to once:

rules, added = step.rules // steps, step.accumulated // steps
print(f"N + P = {N} + {P} = {N + P}")
print(f"counted: {rules} rules called + {added} gradients added = {rules + added}")
assert (rules, added) == (N, P)

# %%
# It is a cap for a model that uses each parameter once. What does not lead to the loss, or needs no gradient
# because it is frozen or data, is not visited, and the count is lower. A parameter that is used several times
# gets as many shares, and each share more is one addition more.
#
# Counted in scalars the sum is of the same size, but no longer exact, since a derivative may take another number
# of operations than the value: a product of two matrices, for one, has two products as its derivatives.

backward_scalars = step.flops_backward // steps
print(f"N + P in scalars: {N_scalars + P_scalars:,}")
print(f"operations of one backward pass: {backward_scalars:,}")
print(f"{backward_scalars / (N_scalars + P_scalars):.2f} times as many")

# %%
# The cost of a backward pass is a small multiple of the forward's, *whatever P is*. That is the claim that
# holds in general; the sum N + P is its simplest form.
#
# Without the graph: N × P, as a bound
# ------------------------------------
#
# Without a graph each derivative is computed on its own. Central or forward differences change one
# parameter and compute everything again: N operations for each of P parameters.

print(f"N × P in scalars: {N_scalars * P_scalars:,}")
print(f"{N_scalars * P_scalars / backward_scalars:,.0f} times the backward pass")

# %%
# This is a product of two counts, not something that was run, which is why the report labels it *predicted*. And it
# is an upper bound. To change a weight of the last layer does not change the first layer's output, so who is
# careful computes only what comes after the parameter. On this model:

layers = total.layers()  # in the order in which they ran
careful = 0
for k, layer in enumerate(layers):
    own = sum(p.size for p in model[int(layer.layer)].parameters()) if layer.layer.isdigit() else 0
    after = sum(later.flops_forward // steps for later in layers[k:])
    print(f"{layer.layer:17} {own:5,} parameters, each with {after:9,} operations from here to the loss")
    careful += own * after
print(f"redoing only what comes after: {careful:,}, {careful / (N_scalars * P_scalars):.0%} of N × P")
print(f"that is {careful / backward_scalars:,.0f} times the backward pass")

import matplotlib.pyplot as plt

ways = {
    "forward, counted": N_scalars,
    "backward, counted": backward_scalars,
    "N + P": N_scalars + P_scalars,
    "redoing what comes after": careful,
    "N × P": N_scalars * P_scalars,
}
figure, axes = plt.subplots(figsize=(7, 2.8), layout="constrained")
bars = axes.barh(list(ways), list(ways.values()), color=["#0072b2", "#0072b2", "#56b4e9", "#e69f00", "#d55e00"])
axes.bar_label(bars, labels=[f"{count:,}" for count in ways.values()], padding=4)
axes.set(xscale="log", xlabel="scalar operations for one training step", xlim=(1e4, 1e11))
axes.invert_yaxis()
plt.show()

# %%
# How far N × P is from the truth depends on the model; that
# the one grows with the product and the other with the sum does not.
#
# The two give the same derivatives. Here is one weight, by differences, with one forward pass for each side:

double = nn.Sequential(nn.Dense(64, 64, rng=1), nn.ReLU(), nn.Dense(64, 10, rng=2)).astype(np.float64)
X, y = train.X[:32].astype(np.float64), train.y[:32]
loss_function = nn.CrossEntropyLoss()
loss_function(double(X), y).backward()
weight, h = double[0].weight, 1e-5
values, sides = weight.data.copy(), []
for sign in (1, -1):
    moved = values.copy()
    moved[20, 3] += sign * h
    weight.data = moved
    with mf.no_grad():
        sides.append(loss_function(double(X), y).item())
print(f"by the graph {weight.grad[20, 3]:.9f}, by differences {(sides[0] - sides[1]) / (2 * h):.9f}")

# %%
# Reading the report, column by column
# ------------------------------------
#
# **Epochs.** *forward* is the time in the model and the loss, *backward* that in ``loss.backward()``, *update*
# that in ``optimizer.step()``, *data* what passes between one step and the next, and *total* the whole epoch,
# validation included. *bwd/fwd* is the ratio of their times, *in FLOP* that of their operations, and *3F-F1* says
# whether the matrix products are as many as a law has it: the last section but one counts them.
#
# **Counts.** The sums of the sections above, for one step, in tensors and in scalars. *E* is the number of edges
# along which a gradient went, from a node to one of its inputs.
#
# **Layers.** A row for each layer, per step. *nodes* and *P* are its own. The first *forward* and *backward* are
# times; a layer's backward time is that of its own nodes, measured in the engine. *share* is its share of the
# backward pass. The second *forward* and *backward* are operations, a multiply-add counted as two. *FLOP/P* is
# what one trainable number costs in a step, and *reuse* how often a step uses each weight in a product: in a dense
# layer once for each row of the batch. *saved* is what was kept for the way back, each array counted where it was
# kept first: a layer whose input another layer has kept already shows 0.
#
# *The walk itself* is what is left: ``backward`` as a whole is timed apart from its nodes, and the time that no
# node accounts for is spent between them. So nothing is left out and nothing is counted twice:

for row in total.layers():
    print(f"{row.layer:17} {row.backward_ns:11,} ns")
print(f"{'between nodes':17} {total.untagged_backward_ns:11,} ns")
print(f"{'backward':17} {total.backward_ns:11,} ns")
assert total.untagged_backward_ns >= 0

# %%
# The profile itself takes time. The last lines of the report say how much it took on this machine.
#
# Backward / forward
# ------------------
#
# A rule of thumb says that backward costs twice as much as forward. Each matrix product of the forward pass needs
# two on the way back: one for the weight's gradient, one for the gradient with respect to the layer's input. But
# the input of the *first* layer is data, of which no gradient is wanted. In a small network that is a large part:

print(f"in operations: {step.flops_backward / step.flops_forward:.2f}")
print(f"in seconds:    {total.backward_ns / total.forward_ns:.2f}")
for row in total.layers():
    if row.products_forward:
        print(f"layer {row.layer}: {row.products_backward / row.products_forward:.0f} products back for one forward")

# %%
# Seconds do not follow operations in a model of this size. Calling NumPy costs as much as the arithmetic,
# and checks of labels, shapes and NaN are made on the way forward.
#
# 3F − F₁
# -------
#
# So the matrix products of a training step can be predicted: F operations forward, 2F backward, less F₁, which
# the first layer spares. Predict them from the shapes alone, and compare with what the engine counted:

batch = 32
forward_products = {name: 2 * batch * w.shape[0] * w.shape[1] for name, w in model.named_parameters() if w.ndim == 2}
F, F1 = sum(forward_products.values()), next(iter(forward_products.values()))
counted = (step.products_forward + step.products_backward) // steps
print(f"predicted: 3F - F1 = 3 × {F:,} - {F1:,} = {3 * F - F1:,}")
print(f"counted:             {counted:,}")
assert counted == 3 * F - F1

# %%
# The limits of all this
# ----------------------
#
# - N + P counts steps. How long one takes depends on its size: a node may be a scalar or a million of them. That
#   is why times are measured, and not computed from counts.
# - Backward buys its speed with memory: what forward *saved* has to be kept until then.
# - The thrift is in derivatives of *one* output. For m outputs there are m walks, or forward mode
#   (``mf.jvp``), which costs about a forward pass for each *input*.
#
# Exercises
# ---------
#
# Guess first, then run.
#
# 1. Make the batch four times as large. Which of N and P, in tensors and in scalars, change?
# 2. Put a third ``Dense`` layer in. What becomes of *bwd/fwd* in operations, and why?
# 3. Freeze the first layer with ``model[0].requires_grad_(False)``. What becomes of N, P, E and of 3F − F₁?
#    :ref:`sphx_glr_gallery_examples_plot_5_profile_your_own_loop.py` has the answer.
