"""One pass of training steps over the batches, for each library and any network.

A step is forward, softmax cross-entropy, backward, SGD with momentum, and the loss as a Python number. The networks
are in `dense_columns`, `image_columns`, `sequence_columns` and `model_columns`; this file has the loop of each library, as its
documentation shows it. All columns start from the same float32 weights, use the same rates and give the same losses.
Each library is imported in its builder only.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np

LR, MOMENTUM = 0.01, 0.9
Step = Callable[[Any, Any], float]
Batches = list[tuple[Any, Any]]
Pass = Callable[[], list[float]]


def stepwise(step: Step, batches: Batches) -> Pass:
    """Return a pass that takes one step after the other and reads each loss."""
    return lambda: [step(X, y) for X, y in batches]


def hand_written(network: Any, batches: Batches) -> Pass:
    """NumPy as one would write it to be read."""
    return stepwise(network.hand_written(), batches)


def hand_tuned(network: Any, batches: Batches) -> Pass:
    """NumPy with every array allocated once, ``out=`` everywhere, flat parameters."""
    return stepwise(network.hand_tuned(), batches)


def loss_of(network: Any, nn: Any) -> Any:
    """Return the network's loss from the layers of a library; microfw's and PyTorch's have one name."""
    return getattr(nn, getattr(network, "loss", "CrossEntropyLoss"))()


def microfw(network: Any, batches: Batches) -> Pass:
    """Build what a user of microfw would."""
    from microfw import nn, optim

    model, loss_fn = network.microfw(), loss_of(network, nn)
    optimizer = optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM)

    def step(X: Any, y: Any) -> float:
        optimizer.zero_grad()
        loss = loss_fn(model(X), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return stepwise(step, batches)


def microfw_replay(network: Any, batches: Batches) -> Pass:
    """Build the same with a step that is replayed."""
    from microfw import compile, nn, optim

    model, loss_fn = network.microfw(), loss_of(network, nn)
    replayed = compile(lambda X, y: loss_fn(model(X), y), optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM))
    return stepwise(lambda X, y: replayed(X, y).item(), batches)


def torch_train(network: Any, model: Any, **options: Any) -> Callable[[Any, Any], Any]:
    """Return the training step of PyTorch's tutorials, on one thread. ``options``: of its SGD."""
    import torch

    torch.set_num_threads(1)
    loss_fn = loss_of(network, torch.nn)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM, **options)

    def train(X: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = loss_fn(model(X), y)
        loss.backward()
        optimizer.step()
        return loss

    return train


def torch_eager(network: Any, batches: Batches, **options: Any) -> Pass:
    """Take PyTorch's step as it is."""
    import torch

    train = torch_train(network, network.torch(), **options)
    return stepwise(lambda X, y: train(torch.from_numpy(X), torch.from_numpy(y)).item(), batches)


def torch_fused(network: Any, batches: Batches) -> Pass:
    """Take the same step with the update in one call, which PyTorch's documentation calls the fastest."""
    return torch_eager(network, batches, fused=True)


def torch_compile(network: Any, batches: Batches) -> Pass:
    """Compile PyTorch's step, optimizer included: its documentation advises the highest function without the loop."""
    import torch

    cache = tempfile.mkdtemp()  # an empty one: what an earlier run compiled must not shorten this one
    atexit.register(shutil.rmtree, cache, ignore_errors=True)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
    model = network.torch_to_compile() if hasattr(network, "torch_to_compile") else network.torch()
    train = torch.compile(torch_train(network, model))
    return stepwise(lambda X, y: train(torch.from_numpy(X), torch.from_numpy(y)).item(), batches)


def jax_parts(network: Any) -> tuple[Any, Any]:
    """Return a step as a pure function, ``update(state, batch) -> state, loss``, and its first state."""
    import jax
    import jax.numpy as jnp

    def compare(p: Any, X: Any, y: Any) -> Any:
        outputs = network.jax(p, X)
        if getattr(network, "loss", "") == "MSELoss":
            return ((outputs - y) ** 2).mean()
        logs = jax.nn.log_softmax(outputs)
        return -jnp.take_along_axis(logs, y[:, None], axis=1).mean()

    def update(state: Any, batch: Any) -> Any:
        p, speeds = state
        loss, gradients = jax.value_and_grad(compare)(p, *batch)
        speeds = jax.tree.map(lambda v, g: MOMENTUM * v + g, speeds, gradients)
        return (jax.tree.map(lambda a, v: a - LR * v, p, speeds), speeds), loss

    parameters = jax.tree.map(jnp.asarray, network.parameters())
    return update, (parameters, jax.tree.map(jnp.zeros_like, parameters))


def jax_jit(network: Any, batches: Batches, **options: Any) -> Pass:
    """Jit one step in JAX; the loss is read after every step."""
    import jax

    update, state = jax_parts(network)
    update = jax.jit(update, **options)

    def step(X: Any, y: Any) -> float:
        nonlocal state
        state, loss = update(state, (X, y))
        return float(loss)

    return stepwise(step, batches)


def jax_donated(network: Any, batches: Batches) -> Pass:
    """Jit the same step so that the new state may use the memory of the old one."""
    return jax_jit(network, batches, donate_argnums=0)


def jax_scan(network: Any, batches: Batches) -> Pass:
    """Jit a whole pass in JAX, one call for all batches, stacked before; the losses are read at its end only."""
    import jax

    update, state = jax_parts(network)
    epoch = jax.jit(lambda state, stacked: jax.lax.scan(update, state, stacked))
    stacked = tuple(map(np.stack, zip(*batches, strict=True)))

    def run() -> list[float]:
        nonlocal state
        state, losses = epoch(state, stacked)
        return np.asarray(losses).tolist()

    return run


def leaves(tree: Any) -> list[Any]:
    """Return what lists and tuples of lists and tuples hold."""
    return [leaf for part in tree for leaf in leaves(part)] if isinstance(tree, list | tuple) else [tree]


def mygrad(network: Any, batches: Batches) -> Pass:
    """Build a step in MyGrad, with the update by hand: it has no optimizer for several parameters."""
    import mygrad as mg
    from mygrad.nnet.losses import softmax_crossentropy

    def tensors(tree: Any) -> Any:
        return mg.tensor(tree) if isinstance(tree, np.ndarray) else [tensors(part) for part in tree]

    nested = tensors(network.parameters())
    parameters = leaves(nested)
    speeds = [np.zeros_like(p.data) for p in parameters]

    def step(X: Any, y: Any) -> float:
        loss = softmax_crossentropy(network.mygrad(nested, X), y)
        loss.backward()
        for p, v in zip(parameters, speeds, strict=True):
            v *= MOMENTUM
            v += p.grad
            p.data -= LR * v
            p.null_grad()
        return float(loss.item())

    return stepwise(step, batches)


def autograd(network: Any, batches: Batches) -> Pass:
    """Build a step in autograd, with one-hot targets and logsumexp as in its examples, and the update by hand."""
    import autograd.numpy as anp
    from autograd import value_and_grad
    from autograd.scipy.special import logsumexp

    nested = network.parameters()
    parameters = leaves(nested)
    speeds, one_hot = [np.zeros_like(p) for p in parameters], np.eye(10, dtype=np.float32)

    def loss_of(nested: Any, X: Any, targets: Any) -> Any:
        logits = network.autograd(nested, X)
        logs = logits - logsumexp(logits, axis=1, keepdims=True)
        return -anp.sum(logs * targets) / len(targets)

    derive = value_and_grad(loss_of)

    def step(X: Any, y: Any) -> float:
        loss, gradients = derive(nested, X, one_hot[y])
        for p, v, g in zip(parameters, speeds, leaves(gradients), strict=True):
            v *= MOMENTUM
            v += g
            p -= LR * v
        return float(loss)

    return stepwise(step, batches)


def sklearn_mlp(network: Any, batches: Batches) -> Pass:
    """Call ``partial_fit`` of scikit-learn's MLPClassifier, a batch at a time."""
    model = network.sklearn(batches[0])
    return stepwise(lambda X, y: model.partial_fit(X, y).loss_, batches)


COLUMNS: dict[str, tuple[str, Callable[[Any, Batches], Pass]]] = {  # what to import first, what to build
    "hand-written NumPy": ("numpy", hand_written),
    "hand-tuned NumPy": ("numpy", hand_tuned),
    "microfw eager": ("microfw", microfw),
    "microfw replay": ("microfw", microfw_replay),
    "PyTorch eager": ("torch", torch_eager),
    "PyTorch fused SGD": ("torch", torch_fused),
    "torch.compile": ("torch", torch_compile),
    "JAX jit": ("jax", jax_jit),
    "JAX jit donated": ("jax", jax_donated),
    "JAX scan": ("jax", jax_scan),
    "MyGrad": ("mygrad", mygrad),
    "autograd": ("autograd.scipy.special", autograd),
    "scikit-learn MLP": ("sklearn.neural_network", sklearn_mlp),
}
