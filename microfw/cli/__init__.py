"""The command line: ``microfw train``, ``profile``, ``report``, ``compare`` and ``law``."""
