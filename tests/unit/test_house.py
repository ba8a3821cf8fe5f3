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
import platform
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
OWN_LINE = "1.23" if platform.machine() == "x86_64" else "2.4"  # what `make` takes where nothing is said
PYTHONS = ("3.10", "3.11")
BUILD_TOOLS = {"pip", "setuptools", "wheel", "cython"}
DEVELOPMENT = ROOT / "requirements/development.txt"


def lock_path(line: str) -> Path:
    return ROOT / f"requirements/nemo-{line}.txt"


def read_pins(path: Path, python: str) -> dict[str, Requirement]:
    """Return the requirements of a file of pins for one Python version, by canonical name."""
    texts = [text.partition("#")[0].strip() for text in path.read_text("utf-8").splitlines()]
    found = {}
    for requirement in (Requirement(text) for text in texts if text):
        if requirement.marker is None or requirement.marker.evaluate({"python_version": python}):
            name = canonicalize_name(requirement.name)
            assert name not in found, f"{name} is locked twice for Python {python}"
            found[name] = requirement
    return found


def locked(line: str, python: str) -> dict[str, Requirement]:
    """Return what `make install` installs: the lock of a NeMo line and what only tests and style need."""
    running, testing = read_pins(lock_path(line), python), read_pins(DEVELOPMENT, python)
    for name in running.keys() & testing.keys():
        assert running[name].specifier == testing[name].specifier, f"{name} is locked in two versions"
    return running | testing


def setup_keywords(line: str | None = None) -> dict:
    """Return what setup.py hands to setuptools."""
    given = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", lambda **keywords: given.update(keywords))
        patch.setenv("NEMO", line) if line else patch.delenv("NEMO", raising=False)
        runpy.run_path(str(ROOT / "setup.py"))
    return given


def read_setup(line: str | None) -> tuple[list[Requirement], list[Requirement]]:
    """Return what setup.py asks for, and its development tools."""
    given = setup_keywords(line)
    return [Requirement(text) for text in given["install_requires"]], [
        Requirement(text) for text in given["extras_require"]["dev"]
    ]


def asked(line: str | None) -> list[Requirement]:
    """Return what setup.py asks for, the development tools included."""
    running, testing = read_setup(line)
    return running + testing


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


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("line", LINES)
def test_what_runs_is_locked_without_what_tests_need(line, python):
    running, testing = read_pins(lock_path(line), python), read_pins(DEVELOPMENT, python)
    needed, tools = read_setup(line)
    assert running.keys() >= {canonicalize_name(requirement.name) for requirement in needed}
    assert testing.keys() >= {canonicalize_name(requirement.name) for requirement in tools}
    shared = running.keys() & testing.keys()
    assert shared <= {"pygments", "markdown-it-py", "mdurl"}, "locked as what runs, and only tests need it"
    assert not shared or "rich" in running  # which asks for pygments, as pytest does


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
    # for ja-mecab alone, as in NeMo, which does not ask for them either; README.md of such an export names them
    assert missing <= {"exported_program.py: MeCab", "exported_program.py: ipadic"}


def test_the_stubs_that_the_doors_read_are_shipped():
    given, stubs = setup_keywords(), set((ROOT / "nemo_distill").rglob("*.pyi"))
    folders = {ROOT / package.replace(".", "/") for package in given["packages"]}
    assert stubs == {path for folder in folders for path in folder.glob(given["package_data"][""][0])} != set()


def test_what_the_package_reads_is_shipped():
    package, given = ROOT / "nemo_distill", setup_keywords()
    read = {path for path in package.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyi", ".pyc")}
    shipped = {
        path
        for name, patterns in given["package_data"].items()
        if name
        for pattern in patterns
        for path in (ROOT / name.replace(".", "/")).glob(pattern)
    }
    assert read
    assert read <= shipped  # and more: `configs` is a link, which rglob does not follow


def test_version_is_in_the_changelog():
    from nemo_distill import __version__

    assert re.search(rf"^## \[?{re.escape(__version__)}\b", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)


@pytest.fixture
def bare_tree(tmp_path):
    """Copy what `make install` reads first; the copy has no environment."""
    for name in ("Makefile", "setup.py", "requirements"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    return tmp_path


def make_install(
    tree: Path, *arguments: str, path: str, target: str = "install", own: tuple[str, ...] = ("VENV=.venv",)
) -> tuple[int, list[str]]:
    """Run `make install` with another PATH, in .venv; return status and own lines, without make's last word."""
    environment = {key: value for key, value in os.environ.items() if key not in ("CC", "CXX", "PYTHON", "MAKEFLAGS")}
    make = shutil.which("make")
    if make is None:
        pytest.skip("make is not installed")
    done = subprocess.run(
        [make, "--no-print-directory", target, *own, *arguments],
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
    ("change", "fault"),
    [
        (
            "get = sysconfig.get_paths; sysconfig.get_paths = lambda *a, **k: {**get(*a, **k), 'include': '/nowhere'}",
            r"/nowhere/Python\.h is missing; install it",
        ),
        ("sys.modules['ensurepip'] = None", "cannot make virtual environments; install them"),
        ("sys.modules['venv'] = None", "cannot make virtual environments; install them"),
        ("platform.libc_ver = lambda: ('glibc', '2.17')", r"the C library is glibc 2\.17; .* glibc 2\.28 or newer"),
        ("platform.libc_ver = lambda: ('', '')", "the C library is not glibc; the lock file's wheels are for Linux"),
        (
            "platform.machine = lambda: 'aarch64'; sys.argv[-1] = '1.23'",
            "Linux on aarch64; the lock file's wheels are for Linux on x86_64 with .* `make NEMO=2.4` has them",
        ),
        (
            "platform.machine = lambda: 's390x'; sys.argv[-1] = '2.4'",
            r"Linux on s390x; the lock file's wheels are for Linux on x86_64 or aarch64 .* newer\. `pip install \.`",
        ),
    ],
)
def test_machine_that_lacks_something_gets_one_line(bare_tree, change, fault):
    python = bare_tree / "python"
    code = f"import platform, runpy, sys, sysconfig; {change}; sys.argv = sys.argv[1:]; "
    code += "runpy.run_path(sys.argv[0], run_name='__main__')"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{code}" "$@"\n')
    python.chmod(0o755)
    status, lines = make_install(bare_tree, f"PYTHON={python}", path=os.environ["PATH"])
    assert status == 2
    assert len(lines) == 1
    assert re.search(fault, lines[0])
    assert not (bare_tree / ".venv").exists()


@pytest.mark.parametrize(
    ("arguments", "environment", "line"),
    [
        ([], {"1.23": ".venv", "2.4": ".venv-2.4"}[OWN_LINE], OWN_LINE),
        (["NEMO=1.23"], ".venv", "1.23"),
        (["NEMO=2.4"], ".venv-2.4", "2.4"),
        (["NEMO=2.4", "VENV=.venv"], ".venv", "2.4"),
    ],
)
def test_a_second_install_does_nothing(bare_tree, arguments, environment, line):
    (bare_tree / environment).mkdir()
    for path in (lock_path(line), DEVELOPMENT):
        (bare_tree / environment / f".installed-{path.name}").touch()
    status, lines = make_install(bare_tree, *arguments, path=os.environ["PATH"], own=())
    assert status == 0
    assert "Nothing to be done" in lines[0]


@pytest.fixture
def recorded_tree(bare_tree):
    """A tree whose environment has a Python that writes down what it is asked, and cannot install YouTokenToMe."""
    python = bare_tree / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(
        f'#!/bin/sh\necho "$*" >> "{bare_tree}/asked"\n'
        f'echo "$OMP_NUM_THREADS ${{VENV-}}${{NEMO-}}${{PYTEST_ARGS-}}" > "{bare_tree}/environment"\n'
        'case "$*" in *youtokentome*) [ -e refused ] && echo "ERROR: No matching distribution" >&2 && exit 1;; esac\n'
        "exit 0\n"
    )
    python.chmod(0o755)
    return bare_tree


@pytest.mark.parametrize(("target", "has_tools"), [("install", True), ("install-runtime", False), ("demo", False)])
def test_only_tests_and_style_get_their_tools(recorded_tree, target, has_tools):
    status, _ = make_install(recorded_tree, f"PYTHON={sys.executable}", path=os.environ["PATH"], target=target)
    asked = (recorded_tree / "asked").read_text("utf-8")
    assert status == 0
    assert f"--requirement requirements/nemo-{OWN_LINE}.txt" in asked
    assert ("--requirement requirements/development.txt" in asked) is has_tools


def test_tests_do_not_find_what_make_was_told(recorded_tree):
    settings = (f"NEMO={OWN_LINE}", "VENV=.venv", "THREADS=2", "PYTEST_ARGS=tests/unit", f"PYTHON={sys.executable}")
    status, _ = make_install(recorded_tree, *settings, path=os.environ["PATH"], target="test")
    assert status == 0
    assert (
        (recorded_tree / "asked").read_text("utf-8").endswith(" --dist loadfile --no-loadscope-reorder tests/unit\n")
    )
    assert (recorded_tree / "environment").read_text("utf-8") == "2 \n"


@pytest.mark.skipif(OWN_LINE != "1.23", reason="YouTokenToMe is of NeMo 1.23")
def test_refused_source_package_gets_one_line_before_the_big_ones(recorded_tree):
    (recorded_tree / "refused").touch()
    status, lines = make_install(recorded_tree, f"PYTHON={sys.executable}", path=os.environ["PATH"])
    assert status == 2
    assert lines[-2] == "ERROR: No matching distribution"
    assert re.match(r"make: some of these could not be got or built; .*youtokentome==1\.0\.6", lines[-1])
    assert not (recorded_tree / ".venv/.installed-nemo-1.23.txt").exists()
    assert "torch" not in (recorded_tree / "asked").read_text("utf-8")


def test_another_python_than_the_environment_has_gets_one_line(bare_tree):
    environment = bare_tree / ".venv/bin/python"
    environment.parent.mkdir(parents=True)
    environment.write_text("#!/bin/sh\necho '(3, 9)'\n")
    environment.chmod(0o755)
    status, lines = make_install(bare_tree, f"PYTHON={sys.executable}", path=os.environ["PATH"])
    assert status == 2
    assert re.search(r"PYTHON=\S+: \.venv was made with another Python; `make clean` removes it", lines[0])
    for target in ("help", "clean"):  # what it advises is not refused
        status, _ = make_install(bare_tree, f"PYTHON={sys.executable}", path=os.environ["PATH"], target=target)
        assert status == 0
    environment.parent.mkdir(parents=True)
    environment.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')  # the same: nothing to say
    environment.chmod(0o755)
    for path in (lock_path(OWN_LINE), DEVELOPMENT):
        (bare_tree / ".venv" / f".installed-{path.name}").touch()
    assert make_install(bare_tree, f"PYTHON={sys.executable}", path=os.environ["PATH"])[0] == 0


def test_unknown_nemo_gets_one_line(bare_tree):
    status, lines = make_install(bare_tree, "NEMO=3", path=os.environ["PATH"])
    assert status == 2
    assert "NEMO=3: no lock file requirements/nemo-3.txt; give NEMO=1.23 or NEMO=2.4" in "\n".join(lines)
