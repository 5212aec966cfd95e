"""All checks, each in a fresh environment: ``nox --list`` shows them, ``nox -s lint types`` runs two.

``.ci/run`` runs the same sessions after what the README says.
"""

from __future__ import annotations

import datetime
import re
from pathlib import Path

import nox

PYTHONS = ["3.11", "3.12", "3.13"]
STRICT = ("-c", ".ci/pytest.ini", "--rootdir=.")  # a warning is an error
VERSION = Path("microfw/__init__.py")
CHANGES = Path("CHANGELOG.md")

nox.options.sessions = ["lint", "types", "tests"]
nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = False


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the default tests with the newest dependencies."""
    session.install(".[test]")
    session.run("pytest", *STRICT, *session.posargs)


@nox.session(python=PYTHONS[0])
def floors(session: nox.Session) -> None:
    """Run the default tests with the oldest dependencies."""
    session.install(".[test,plot,safetensors]", "-c", ".ci/floors.txt")
    session.run("pytest", *STRICT, *session.posargs)


@nox.session
def slow(session: nox.Session) -> None:
    """Run the slow tests: mutants, random programs, threads, pages in a browser."""
    session.install(".[dev,dask,mpi]")
    session.run("pytest", *STRICT, "-m", "slow", *session.posargs)


@nox.session
def peers(session: nox.Session) -> None:
    """Compare with PyTorch and JAX."""
    session.install(".[test]", "torch", "jax")
    session.run("pytest", *STRICT, "-m", "peers", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check the style."""
    session.install("ruff>=0.12")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types."""
    session.install(".[dev]")
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation, which runs every example in it, and run the notebooks."""
    session.install(".[docs,plot,dask,safetensors,notebook]")
    notebooks = sorted(map(str, Path("examples/notebooks").glob("*.ipynb")))
    session.run("jupyter", "nbconvert", "--execute", "--to", "html", "--output-dir", session.create_tmp(), *notebooks)
    session.run("sphinx-build", "-W", "--keep-going", "-q", "-b", "html", "docs", "docs/_build/html")


@nox.session
def benchmarks(session: nox.Session) -> None:
    """Check that the benchmarks run; ``nox -s benchmarks -- --rounds 31`` measures."""
    session.install(".[test]")
    options = session.posargs or ["--rounds", "3", "--workloads", "tiny"]
    session.run("python", "benchmarks/bench_step.py", *options)
    if not session.posargs:
        session.run("python", "benchmarks/bench_estimators.py", "--rounds", "2", "--jobs", "digits small")


@nox.session(venv_backend="none")
def release(session: nox.Session) -> None:
    """Release a version: ``nox -s release -- 0.2.0`` sets it, dates the changelog, commits and tags."""
    if len(session.posargs) != 1 or not re.fullmatch(r"\d+\.\d+\.\d+", session.posargs[0]):
        session.error("expected a version such as 0.2.0: nox -s release -- 0.2.0")
    (new,) = session.posargs
    if session.run("git", "status", "--porcelain", external=True, silent=True):
        session.error("expected a clean checkout, got uncommitted changes")
    changes = CHANGES.read_text(encoding="utf-8")
    if "## Unreleased\n" not in changes:
        session.error("expected a section '## Unreleased' in CHANGELOG.md, got none")
    today = datetime.date.today().isoformat()
    dated = f"## Unreleased\n\n## {new} - {today}\n"
    CHANGES.write_text(changes.replace("## Unreleased\n", dated, 1), encoding="utf-8")
    text = re.sub(r'__version__ = "[^"]+"', f'__version__ = "{new}"', VERSION.read_text(encoding="utf-8"))
    VERSION.write_text(text, encoding="utf-8")
    session.run("git", "commit", "-am", f"Release {new}", external=True)
    session.run("git", "tag", f"v{new}", external=True)
