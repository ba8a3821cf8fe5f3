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
"""What is promised about platforms: pins asked of an index, images, and the suite under other kernels."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHONS = tuple(
    ".".join(map(str, each)) for each in runpy.run_path(str(ROOT / "requirements/check_machine.py"))["VERSIONS"]
)


@pytest.fixture
def index(tmp_path):
    """Return a function that makes a package index in a folder, from file names and the Python each requires."""

    def make(**packages: dict[str, str]) -> str:
        for name, files in ({"pip": {"pip-1.0-py3-none-any.whl": ""}} | packages).items():
            page = tmp_path / "simple" / name / "index.html"
            page.parent.mkdir(parents=True)
            links = [f'<a href="{file}" data-requires-python="{python}">{file}</a>' for file, python in files.items()]
            page.write_text("<!DOCTYPE html><html><body>" + "\n".join(links) + "</body></html>", "utf-8")
        return (tmp_path / "simple").as_uri()

    return make


def check_pins(folder: Path, pins: str, address: str, extra: str = "") -> subprocess.CompletedProcess:
    """Run the checker on a file of pins, with no configuration of pip but this index, or these two."""
    (folder / "pins.txt").write_text(pins, "utf-8")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PIP_")}
    environment |= {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": address, "PIP_RETRIES": "0", "PIP_TIMEOUT": "5"}
    environment |= {"PIP_EXTRA_INDEX_URL": extra} if extra else {}
    return subprocess.run(
        [sys.executable, ROOT / "requirements/check_pins.py", "--machine=x86_64", folder / "pins.txt"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_pins_that_some_python_cannot_have_are_named(index, tmp_path):
    address = index(
        young={"young-1.0-py3-none-any.whl": "&gt;=3.10", "young-2.0-py3-none-any.whl": "&gt;=3.11"},
        half={"half-1.0-cp311-cp311-manylinux_2_28_x86_64.whl": ""},
        newer={"newer-1.0-cp310-abi3-manylinux_2_34_x86_64.whl": ""},
        source={"source-1.0.tar.gz": ""},
    )
    done = check_pins(tmp_path, "young==2.0\nhalf==1.0\nnewer==1.0\nsource==1.0\n", address)
    assert done.returncode == 1
    assert done.stdout.splitlines()[:6] == [
        "half==1.0, Python 3.10, x86_64: no such release for it; none has a wheel",
        *(f"newer==1.0, Python {python}, x86_64: no such release for it; none has a wheel" for python in PYTHONS),
        *(
            f"source==1.0, Python {python}, x86_64: only a source package; pin another version, or end its line in "
            "`# built from source`"
            for python in PYTHONS
        ),
        "young==2.0, Python 3.10, x86_64: no such release for it; the newest with a wheel is 1.0",
    ]
    assert "6 cannot be had" in done.stdout


@pytest.mark.slow
def test_pins_that_every_python_can_have_pass(index, tmp_path):
    address = index(
        old={"old-1.0-py3-none-any.whl": "", "old-nonsense.tar.gz": ""},
        half={"half-1.0-cp310-cp310-manylinux2014_x86_64.whl": ""},
        source={"source-1.0.tar.gz": ""},
    )
    pins = 'old==1.0\nhalf==1.0; python_version < "3.11"\nsource==1.0  # built from source\n'
    done = check_pins(tmp_path, pins, address)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 pins of pins.txt" in done.stdout
    assert "built from source: source\n" in done.stdout


@pytest.mark.slow
def test_each_lock_is_asked_for_the_processors_of_its_line(index, tmp_path):
    """The lock of NeMo 1.23 is for x86_64 alone; where a processor is named, every file is asked for it."""
    address = index(only={"only-1.0-cp310-abi3-manylinux_2_28_x86_64.whl": ""})
    environment = {**os.environ, "PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": address, "PIP_RETRIES": "0"}
    environment.pop("PIP_EXTRA_INDEX_URL", None)
    for name, options, faults in (("1.23", [], 0), ("2.4", [], 1), ("1.23", ["--machine=aarch64"], 1)):
        pins = tmp_path / f"nemo-{name}.txt"
        pins.write_text("only==1.0\n", "utf-8")
        command = [sys.executable, ROOT / "requirements/check_pins.py", f"--python={PYTHONS[-1]}", *options, pins]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert f": {faults} cannot be had" in done.stdout, done.stderr
        assert done.stdout.count("aarch64: no such release") == faults


def test_silent_index_is_no_pass(index, tmp_path):
    silent = "http://127.0.0.1:9/simple"
    done = check_pins(tmp_path, "six==1.0\n", silent)
    assert done.returncode == 2
    assert done.stderr.startswith("check_pins: the package index does not answer: connection error: ")
    address = index(six={"six-1.0-py3-none-any.whl": ""})
    done = check_pins(tmp_path, "six==1.0\n", address, extra=silent)
    assert done.returncode == 2, "one index answers, the other does not"
    assert done.stderr.startswith("check_pins: the package index does not answer: connection error: ")
    assert len(done.stderr.splitlines()) == 1


def test_no_index_at_all_is_no_pass(tmp_path):
    (tmp_path / "empty").mkdir()
    done = check_pins(tmp_path, "six==1.0\n", (tmp_path / "empty").as_uri())
    assert done.returncode == 2
    assert done.stderr == "check_pins: pip has no package index: `pip index versions pip` finds nothing\n"


@pytest.mark.parametrize("line", ["six>=1.0", "six", "six==1.0,!=1.1", "six = 1.0"])
def test_what_is_no_pin_is_refused(tmp_path, line):
    done = check_pins(tmp_path, f"# pins\n{line}\n", "http://127.0.0.1:9/simple")
    assert done.returncode == 2
    assert re.match(rf"check_pins: {re.escape(str(tmp_path))}/pins\.txt:2: ", done.stderr)


def read_dockerfiles() -> dict[str, str]:
    """Return the instructions of each Dockerfile, without comments."""
    texts = {path.name: path.read_text("utf-8") for path in ROOT.glob("Dockerfile*")}
    assert texts
    return {name: re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE) for name, text in texts.items()}


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.nemo-2.4"])
def test_images_have_a_python_of_the_lock(name):
    text = read_dockerfiles()[name]
    named = set(re.findall(r"python(3\.\d+)", text)) | set(re.findall(r"PYTHON_VERSION=(3\.\d+)", text))
    assert len(named) == 1
    assert named <= set(PYTHONS)
    python = named.pop()
    assert re.search(rf"PYTHON=\S+/python{re.escape(python)}\n", text)
    if "uv python install" not in text:  # the system's Python comes without these
        assert f"python{python}-dev python{python}-venv" in text
    assert "g++ make" in text


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.nemo-2.4"])
def test_images_install_what_runs_alone(name):
    targets = set(re.findall(r"\bmake ([a-z][\w-]*) ?", read_dockerfiles()[name].replace("g++ make python", "")))
    assert targets == {"install-runtime"}


def test_every_lock_says_its_processors():
    machines = runpy.run_path(str(ROOT / "requirements/check_machine.py"))["MACHINES"]
    assert {f"nemo-{line}.txt" for line in machines} == {path.name for path in ROOT.glob("requirements/nemo-*.txt")}


def test_setup_promises_the_pythons_of_the_lock():
    text = (ROOT / "setup.py").read_text("utf-8")
    assert re.findall(r"Programming Language :: Python :: (3\.\d+)", text) == list(PYTHONS)
    last = int(PYTHONS[-1].partition(".")[2])
    assert f'python_requires=">={PYTHONS[0]},<3.{last + 1}"' in text
    for page in ("README.md", "CONTRIBUTING.md", "docs/getting-started.md"):
        words = " ".join((ROOT / page).read_text("utf-8").split())
        assert f"Python {' or '.join(PYTHONS)}" in words, page


@pytest.fixture
def portable(monkeypatch):
    """Return tests/portable.py as a module."""
    monkeypatch.syspath_prepend(str(ROOT / "tests"))
    import portable

    return portable


def test_variations_are_those_promised(portable):
    assert PYTHONS == portable.PYTHONS
    text = (ROOT / "docs/platforms.md").read_text("utf-8")
    for name in portable.VARIATIONS:
        assert f"`{name}`" in text or name.startswith("python"), f"docs/platforms.md does not name {name}"


def test_a_variation_is_a_make_test_that_can_be_repeated(portable, tmp_path, monkeypatch):
    (tmp_path / "make").write_text('#!/bin/sh\necho "$ONEDNN_MAX_CPU_ISA $MAKEFLAGS"\necho "= 3 passed in 1.0s ="\n')
    (tmp_path / "make").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("MAKEFLAGS", "-- THREADS=9")
    monkeypatch.setenv("MKL_NUM_THREADS", "1")  # the user's, which torch takes before that of OpenMP
    variation = portable.Variation({"ONEDNN_MAX_CPU_ISA": "AVX2"}, threads=2, pytest_args="--seed={seed}", shows=" 2$")
    given = portable.read_arguments(["--seed=7", "--venv=.venv x", "--pytest-args=tests/unit"])
    result = portable.run(variation, given, tmp_path / "log")
    assert (result.status, result.word) == ("passed", "3 passed in 1.0s")
    lines = (tmp_path / "log").read_text("utf-8").splitlines()
    assert lines[0] == (
        "$ ONEDNN_MAX_CPU_ISA=AVX2 make --no-print-directory test NEMO=1.23 THREADS=2 'VENV=.venv x' "
        "'PYTEST_ARGS=--seed=7 tests/unit'"
    )
    assert lines[2] == "AVX2 "


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"flags": ("avx9000",)}, "this processor has no avx9000"),
        ({"python": "3.99"}, "no Python 3.99 that can build it"),
        ({"shows": "^AVX9000 "}, "torch did not take it"),
    ],
)
def test_a_variation_that_cannot_run_says_so(portable, tmp_path, monkeypatch, options, word):
    monkeypatch.setattr(portable, "PROBE", "print('AVX2 1')")  # in place of torch
    result = portable.run(portable.Variation(**options), portable.read_arguments([]), tmp_path / "log")
    assert result.status == "NOT RUN"
    assert word in result.word


@pytest.mark.parametrize(
    ("statuses", "status", "summary"),
    [
        (["passed", "passed"], 0, "2 variations passed, 0 failed, 0 not run"),
        (["FAILED", "passed"], 1, "1 variations passed, 1 failed, 0 not run"),
        (["NOT RUN", "passed"], 0, "1 variations passed, 0 failed, 1 not run"),
        (["NOT RUN", "NOT RUN"], 1, "0 variations passed, 0 failed, 2 not run"),
    ],
)
def test_all_variations_run_and_are_summed_up(portable, tmp_path, capsys, statuses, status, summary):
    names = ["default", "shuffled"]
    left = [portable.Result(each, "word") for each in statuses]
    given = portable.read_arguments([f"--logs={tmp_path}", *names])
    assert portable.run_all(given, run=lambda *_: left.pop(0)) == status
    assert not left
    assert summary in capsys.readouterr().out


def test_unknown_variation_is_refused(portable, capsys):
    with pytest.raises(SystemExit):
        portable.main(["avx3"])
    assert "no variation avx3; there are default, avx2, avx512" in capsys.readouterr().err
