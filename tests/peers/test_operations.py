"""Operations in products against PyTorch's flop counter, for every audited model that can be built of its layers."""

from __future__ import annotations

import pytest

from microfw import nn
from tests.audit.models import MODELS

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]
torch = pytest.importorskip("torch")
counter = pytest.importorskip("torch.utils.flop_counter")


def conv(kind):
    return lambda m: kind(
        m.in_channels, m.out_channels, m.weight.shape[2:], stride=m.settings["stride"],
        padding=tuple(before for before, _ in m.settings["padding"]), dilation=m.settings["dilation"], groups=m.settings["groups"],
    )  # fmt: skip


KINDS = {
    nn.Dense: lambda m: torch.nn.Linear(*m.weight.shape),
    nn.Conv1D: conv(torch.nn.Conv1d),
    nn.Conv2D: conv(torch.nn.Conv2d),
    nn.MaxPool2D: lambda m: torch.nn.MaxPool2d(2),
    nn.AvgPool2D: lambda m: torch.nn.AvgPool2d(2),
    nn.GlobalAvgPool2D: lambda m: torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()),
    nn.Flatten: lambda m: torch.nn.Flatten(),
    nn.Embedding: lambda m: torch.nn.Embedding(*m.weight.shape),
    nn.Softmax: lambda m: torch.nn.Softmax(-1),
    **dict.fromkeys((nn.ReLU, nn.Tanh, nn.GELU, nn.SiLU, nn.Softplus, nn.ELU, nn.Mish, nn.PReLU, nn.Softsign,
                     nn.LogSoftmax, nn.Dropout, nn.LayerNorm, nn.BatchNorm1D, nn.BatchNorm2D),
                    lambda m: torch.nn.Tanh()),  # no products in these
}  # fmt: skip


def theirs(module):
    """Return PyTorch's module of the same shapes, or None where there is no layer to layer counterpart."""
    if isinstance(module, nn.Sequential):
        parts = [theirs(layer) for layer in module]
        return None if None in parts else torch.nn.Sequential(*parts)
    if type(module) not in KINDS:
        return None
    made = KINDS[type(module)](module)
    made.requires_grad_(all(p.requires_grad for p in module.parameters()))
    return made


# PyTorch's counter does not divide by the groups in backward: 124,416 for the 44,928 of the formula.
BUILT = [case for case in MODELS if case.name != "groups" and theirs(case.make()) is not None]


def test_most_models_have_a_counterpart():
    assert len(BUILT) >= 24


@pytest.mark.parametrize("case", BUILT, ids=lambda case: case.name)
def test_products_are_those_of_pytorchs_flop_counter(case):
    model, (x, _) = theirs(case.make()), case.data()
    with counter.FlopCounterMode(display=False) as forward:
        output = model(torch.tensor(x))
    with counter.FlopCounterMode(display=False) as backward:
        (output * output).mean().backward()
    assert (forward.get_total_flops(), backward.get_total_flops()) == case.products
