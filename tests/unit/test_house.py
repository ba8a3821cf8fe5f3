# Copyright 2026 The nemo_distill Authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""The lock, the package's requirements and the Makefile's first words fit together."""

import ast
import os
import re
import runpy
import shutil
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import setuptools
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LINES = ("1.23", "2.4")
PYTHONS = ("3.10", "3.11")
BUILD_TOOLS = {"pip", "setuptools", "wheel", "cython"}


def lock_path(line: str) -> Path:
    return ROOT / f"requirements/nemo-{line}.txt"


def locked(line: str, python: str) -> dict[str, Requirement]:
    """Return the requirements of a NeMo line's lock for one Python version, by canonical name."""
    texts = [text.partition("#")[0].strip() for text in lock_path(line).read_text("utf-8").splitlines()]
    found = {}
    for requirement in (Requirement(text) for text in texts if text):
        if requirement.marker is None or requirement.marker.evaluate({"python_version": python}):
            name = canonicalize_name(requirement.name)
            assert name not in found, f"{name} is locked twice for Python {python}"
            found[name] = requirement
    return found


def asked(line: str | None) -> list[Requirement]:
    """Return what setup.py asks for, the development tools included."""
    given = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", lambda **keywords: given.update(keywords))
        patch.setenv("NEMO", line) if line else patch.delenv("NEMO", raising=False)
        runpy.run_path(str(ROOT / "setup.py"))
    return [Requirement(text) for text in given["install_requires"] + given["extras_require"]["dev"]]


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("line", LINES)
def test_lock_pins_every_line(line, python):
    lock = locked(line, python)
    loose = [str(item) for item in lock.values() if [each.operator for each in item.specifier] != ["=="]]
    assert not loose
    assert lock.keys() >= BUILD_TOOLS


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("line", LINES)
def test_lock_has_what_setup_asks_for(line, python):
    lock = locked(line, python)
    for requirement in asked(line):
        pin = lock.get(canonicalize_name(requirement.name))
        assert pin is not None, f"setup.py asks for {requirement}, the lock has none for Python {python}"
        version = next(iter(pin.specifier)).version
        assert requirement.specifier.contains(version, prereleases=True), f"{pin} is outside setup.py's {requirement}"


@pytest.mark.parametrize("line", LINES)
def test_both_pythons_lock_the_same_packages(line):
    assert locked(line, "3.10").keys() - locked(line, "3.11").keys() <= {"exceptiongroup", "tomli", "async-timeout"}
    assert not locked(line, "3.11").keys() - locked(line, "3.10").keys()


def test_setup_asks_for_the_line_it_is_told():
    assert asked(None) == asked("1.23") != asked("2.4")
    with pytest.raises(SystemExit, match="NEMO=2.5: give one of 1.23, 2.4"):
        asked("2.5")


def test_setup_asks_for_what_the_package_imports():
    names_asked = {canonicalize_name(requirement.name) for line in LINES for requirement in asked(line)}
    owners = packages_distributions()
    missing = set()
    for path in (ROOT / "nemo_distill").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            for top in {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - {"nemo_distill"}:
                if not {canonicalize_name(owner) for owner in owners.get(top, [top])} & names_asked:
                    missing.add(f"{path.name}: {top}")
    assert not missing


def test_version_is_in_the_changelog():
    from nemo_distill import __version__

    assert re.search(rf"^## \[?{re.escape(__version__)}\b", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/*.md"])
def test_links_lead_somewhere(page):
    pages = list(ROOT.glob(page))
    assert pages
    for path in pages:
        for target in re.findall(r"\]\((?!https?://|#)([^)#\s]+)", path.read_text("utf-8")):
            assert (path.parent / target).exists(), f"{path.name} links to {target}, which does not exist"


@pytest.fixture
def bare_tree(tmp_path):
    """Copy what `make install` reads first; the copy has no environment."""
    for name in ("Makefile", "setup.py", "requirements"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    return tmp_path


def make_install(tree: Path, *arguments: str, path: str) -> tuple[int, list[str]]:
    """Run `make install` with another PATH; return its status and its own lines, without make's last word."""
    environment = {key: value for key, value in os.environ.items() if key not in ("CC", "CXX", "PYTHON", "MAKEFLAGS")}
    make = shutil.which("make")
    if make is None:
        pytest.skip("make is not installed")
    done = subprocess.run(
        [make, "--no-print-directory", "install", *arguments],
        cwd=tree,
        env={**environment, "PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )
    lines = (done.stdout + done.stderr).splitlines()
    return done.returncode, [line for line in lines if not re.match(r"make(\[\d+\])?: \*\*\*", line)]


def test_missing_python_gets_one_line(bare_tree):
    status, lines = make_install(bare_tree, "PYTHON=/nonexistent", path=os.environ["PATH"])
    assert status == 2
    assert len(lines) == 1
    assert "no working Python 3.10 or 3.11 among: /nonexistent" in lines[0]
    assert not (bare_tree / ".venv").exists()


def test_wrong_python_gets_one_line(bare_tree):
    old = bare_tree / "python"
    old.write_text('#!/bin/sh\necho "old (Python 3.8.1): Python 3.10 or 3.11 is needed"\nexit 2\n')
    old.chmod(0o755)
    status, lines = make_install(bare_tree, f"PYTHON={old}", path=os.environ["PATH"])
    assert status == 2
    assert lines == ["make: old (Python 3.8.1): Python 3.10 or 3.11 is needed"]
    assert not (bare_tree / ".venv").exists()


def test_missing_compiler_gets_one_line(bare_tree):
    (bare_tree / "bin").mkdir()
    base = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    status, lines = make_install(bare_tree, f"PYTHON={base}", path=str(bare_tree / "bin"))
    assert status == 2
    assert len(lines) == 1
    assert re.search(r"compiler `\S+` is missing; install one", lines[0])
    assert not (bare_tree / ".venv").exists()


@pytest.mark.parametrize(
    ("arguments", "environment", "line"),
    [([], ".venv", "1.23"), (["NEMO=2.4"], ".venv-2.4", "2.4"), (["NEMO=2.4", "VENV=.venv"], ".venv", "2.4")],
)
def test_a_second_install_does_nothing(bare_tree, arguments, environment, line):
    stamp = bare_tree / environment / f".installed-{lock_path(line).name}"
    stamp.parent.mkdir()
    stamp.touch()
    status, lines = make_install(bare_tree, *arguments, path=os.environ["PATH"])
    assert status == 0
    assert "Nothing to be done" in lines[0]


def test_unknown_nemo_gets_one_line(bare_tree):
    status, lines = make_install(bare_tree, "NEMO=3", path=os.environ["PATH"])
    assert status == 2
    assert "NEMO=3: no lock file requirements/nemo-3.txt; give NEMO=1.23 or NEMO=2.4" in "\n".join(lines)
