"""Files: models and checkpoints, saved durably and loaded with care."""

from microfw.files.models import load, save

__all__ = ["load", "save"]
