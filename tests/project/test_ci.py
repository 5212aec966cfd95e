"""What the project's own checks rely on: floors, the second configuration of pytest, and what a warning does."""

from __future__ import annotations

import configparser
import shlex
import subprocess
import sys
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.helpers.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
STRICT = ROOT / ".ci" / "pytest.ini"

pytestmark = pytest.mark.skipif(not STRICT.exists(), reason="needs the directory .ci of a clone")


def test_the_floors_that_are_tried_are_those_of_the_project():
    extras = PROJECT["project"]["optional-dependencies"]
    admitted = [*PROJECT["project"]["dependencies"], *extras["test"], *extras["plot"], *extras["safetensors"]]
    least = {}
    for text in admitted:
        requirement = Requirement(text)
        (least[requirement.name],) = (Version(s.version) for s in requirement.specifier if s.operator == ">=")
    pinned = {}
    for line in (ROOT / ".ci" / "floors.txt").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            name, version = line.split("==")
            pinned[name] = Version(version)
    assert pinned == least
    assert PROJECT["project"]["requires-python"] == ">=3.11"  # with which .ci/run tries them


def test_the_configuration_of_ci_differs_in_warnings_only():
    config = configparser.ConfigParser(interpolation=None)
    config.read(STRICT, encoding="utf-8")
    strict = dict(config["pytest"])
    lists = {name: strict.pop(name).strip().splitlines() for name in ("markers", "filterwarnings")}
    theirs = dict(PROJECT["tool"]["pytest"]["ini_options"])
    assert lists["filterwarnings"] == ["error", *theirs.pop("filterwarnings")]
    assert lists["markers"] == theirs.pop("markers")
    assert shlex.split(strict.pop("addopts")) == theirs.pop("addopts")
    assert strict.pop("testpaths").split() == theirs.pop("testpaths")
    assert strict == {name: str(value).lower() for name, value in theirs.items()}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["DeprecationWarning", "FutureWarning", "RuntimeWarning"])
def test_a_warning_fails_the_checks_of_ci_only(kind, tmp_path):
    (tmp_path / "test_it.py").write_text(f"import warnings\ndef test_it():\n    warnings.warn('next year', {kind})\n")

    def outcome(configuration):
        options = ["-c", str(configuration), "--rootdir", str(tmp_path), "-p", "no:cacheprovider", "-q", "-n0"]
        command = [sys.executable, "-m", "pytest", *options, str(tmp_path / "test_it.py")]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)

    plain, strict = outcome(ROOT / "pyproject.toml"), outcome(STRICT)
    assert plain.returncode == 0 and "1 passed, 1 warning" in plain.stdout
    assert strict.returncode == 1 and f"{kind}: next year" in strict.stdout
