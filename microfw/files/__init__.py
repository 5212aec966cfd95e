"""Files: models and checkpoints, saved durably and loaded with care."""

from typing import TYPE_CHECKING

from microfw.lazy import on_use

if TYPE_CHECKING:
    from microfw.files.models import load, save
else:
    __getattr__ = on_use(
        "microfw.files",
        {
            "models": "load save",
        },
    )

__all__ = ["load", "save"]


def __dir__() -> list[str]:
    return __all__
