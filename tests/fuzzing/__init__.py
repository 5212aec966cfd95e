"""Random training programs, run in all ways that must give the same bits.

`generator.write(seed)` writes a program as Python text; `runner.examine` runs it as a hand-written loop, as a
compiled step and in a Trainer, and returns the first difference. ``python -m tests.fuzzing --help`` runs many.
"""
