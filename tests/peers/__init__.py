"""The optional suites against other frameworks; run with ``pytest -m peers``."""
