"""Recorder of a training run: observes ops, times phases, adds both up."""
