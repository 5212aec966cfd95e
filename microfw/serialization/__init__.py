"""Files of models and checkpoints: written atomically, read strictly."""

from typing import TYPE_CHECKING

from microfw._lazy import attach

if TYPE_CHECKING:
    from microfw.serialization.models import load, save
else:
    __getattr__ = attach(
        "microfw.serialization",
        {
            "models": "load save",
        },
    )

__all__ = ["load", "save"]


def __dir__() -> list[str]:
    return __all__
