"""Table of the layers in files, with their settings. A new layer needs one new row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from microfw import nn


class Row:
    """Row of a layer.

    Parameters
    ----------
    kind : type
        Class of the layer.
    settings : str
        Names of the constructor parameters, without those of initial values and randomness. Each is an attribute of
        the same name. ``*name``: passed by position. ``name?``: the attribute is an array or None, and the parameter is
        whether there is an array, as for ``bias=True``.
    **read : callable
        Functions to read parameters that are not attributes.
    """

    def __init__(self, kind: type[nn.Module], settings: str = "", **read: Callable[[Any], Any]) -> None:
        self.kind = kind
        self.star = settings.removeprefix("*") if settings.startswith("*") else ""
        self.read: dict[str, Callable[[Any], Any]] = {}
        for word in settings.split():
            name = word.strip("*?")
            self.read[name] = read.get(name) or _attribute(name, word.endswith("?"))

    def settings(self, module: Any) -> dict[str, Any]:
        """Return the settings of a layer."""
        return {name: read(module) for name, read in self.read.items()}

    def make(self, settings: dict[str, Any]) -> Any:
        """Return a layer with some settings."""
        return self.kind(*settings[self.star]) if self.star else self.kind(**settings)


def _attribute(name: str, presence: bool) -> Callable[[Any], Any]:
    return lambda module: getattr(module, name) is not None if presence else getattr(module, name)


def _affine(module: Any) -> bool:
    return module.weight is not None


def _setting(name: str) -> Callable[[Any], Any]:
    return lambda module: module.settings[name]


SLIDE = {name: _setting(name) for name in ("stride", "padding", "dilation", "groups")}
POOL = {"kernel_size": _setting("kernel"), "stride": _setting("stride"), "padding": _setting("padding")}

ROWS = {
    f"nn.{row.kind.__name__}": row
    for row in (
        Row(nn.BCEWithLogitsLoss, "weight pos_weight reduction"),
        Row(nn.AvgPool2D, "kernel_size stride padding", **POOL),
        Row(nn.BatchNorm1D, "features eps momentum affine", affine=_affine),
        Row(nn.BatchNorm2D, "features eps momentum affine", affine=_affine),
        Row(nn.Conv1D, "in_channels out_channels kernel_size stride padding dilation groups bias?", **SLIDE),
        Row(nn.Conv2D, "in_channels out_channels kernel_size stride padding dilation groups bias?", **SLIDE),
        Row(nn.CosineEmbeddingLoss, "margin reduction"),
        Row(nn.CrossEntropyLoss, "weight label_smoothing reduction ignore_index"),
        Row(nn.Dense, "in_features out_features bias?"),
        Row(nn.Dropout, "p"),
        Row(nn.ELU, "alpha"),
        Row(nn.Embedding, "rows features padding_idx"),
        Row(nn.Flatten),
        Row(nn.GELU, "approximate"),
        Row(nn.GRU, "in_features hidden bias?"),
        Row(nn.GlobalAvgPool2D),
        Row(nn.GroupNorm, "groups features eps affine", affine=_affine),
        Row(nn.HingeLoss, "reduction"),
        Row(nn.HuberLoss, "delta reduction"),
        Row(nn.Identity),
        Row(nn.KLDivLoss, "reduction log_target"),
        Row(nn.L1Loss, "reduction"),
        Row(nn.LSTM, "in_features hidden bias?"),
        Row(nn.Lambda, "function"),
        Row(nn.LayerNorm, "shape eps affine", affine=_affine),
        Row(nn.LeakyReLU, "slope"),
        Row(nn.LogSoftmax, "axis"),
        Row(nn.MSELoss, "reduction"),
        Row(nn.MaxPool2D, "kernel_size stride padding", **POOL),
        Row(nn.Mish),
        Row(
            nn.MultiHeadAttention,
            "embed_dim num_heads bias causal dropout",
            bias=lambda module: module.query.bias is not None,
            dropout=lambda module: module.dropout.p,
        ),
        Row(nn.NLLLoss, "weight reduction ignore_index"),
        Row(nn.PReLU, "features"),
        Row(nn.PoissonNLLLoss, "log_input full eps reduction"),
        Row(nn.RNN, "in_features hidden bias? nonlinearity"),
        Row(nn.ReLU),
        Row(nn.Residual, "module shortcut"),
        Row(nn.Sequential, "*layers"),
        Row(nn.SiLU),
        Row(nn.Sigmoid),
        Row(nn.Softmax, "axis"),
        Row(nn.Softplus),
        Row(nn.Softsign),
        Row(nn.Tanh),
        Row(nn.TripletMarginLoss, "margin swap reduction"),
    )
}
