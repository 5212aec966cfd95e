"""Well-known small programs, written as their authors would, against PyTorch or JAX; run with ``pytest -m peers``."""
