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
"""Run the quick suite as other machines would: other kernels, threads, order of tests and Python.

    make test-portable                                           # all variations; each takes as long as `make test`
    make test-portable NEMO=2.4 VARIATIONS="avx2 shuffled"       # some of them, on the newer NeMo
    make test-portable PYTEST_ARGS=tests/unit/losses             # a part of the suite under each

Each variation is a `make test` of its own, whose log stays in runs/portable/. One that fails does not stop the others;
one that this machine cannot run is said to be NOT RUN. Exit status: 0 all that ran passed; 1 some failed, or none ran.
"""

# ruff: noqa: T201

import argparse
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.10", "3.11")
OWN = "{}.{}".format(*sys.version_info[:2])
AVX512 = ("avx512f", "avx512vl", "avx512bw", "avx512dq")
PROBE = "import torch; print(torch.backends.cpu.get_cpu_capability(), torch.get_num_threads())"
"""Shows in each log which kernels and how many threads were taken in truth."""


@dataclass(frozen=True)
class Variation:
    """A `make test` with another environment, number of threads, pytest arguments or Python."""

    environment: dict[str, str] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    """What the processor must have, by the names of /proc/cpuinfo."""
    threads: int = 1
    pytest_args: str = ""
    python: str = OWN
    shows: str = ""
    """What PROBE must print for the variation to be what its name says; a regular expression."""


VARIATIONS = {
    "default": Variation({"ATEN_CPU_CAPABILITY": "default"}, shows=r"^(DEFAULT|NO AVX) "),
    "avx2": Variation({"ATEN_CPU_CAPABILITY": "avx2"}, flags=("avx2", "fma"), shows="^AVX2 "),
    "avx512": Variation({"ATEN_CPU_CAPABILITY": "avx512"}, flags=AVX512, shows="^AVX512 "),
    "onednn-avx2": Variation({"ONEDNN_MAX_CPU_ISA": "AVX2"}, flags=("avx2",)),
    "mkl-compatible": Variation({"MKL_CBWR": "COMPATIBLE"}),
    "one-thread": Variation(shows=" 1$"),
    "two-threads": Variation(threads=2, shows=" 2$"),
    "shuffled": Variation(pytest_args="--random-order --random-order-seed={seed}"),
    **{f"python{version}": Variation(python=version) for version in PYTHONS if version != OWN},
}
"""The Python of the environment at hand runs all but the last; `one-thread` is `make test` as it is."""


@dataclass(frozen=True)
class Result:
    """How a variation went: `passed`, `FAILED` or `NOT RUN`, with the last word of pytest or the reason."""

    status: str
    word: str
    seconds: float = 0.0


def find_python(version: str, line: str, given: list[str]) -> str | None:
    """Return the first command, given or usual, that is this Python and can build a line's environment."""
    question = f"import sys; sys.exit(sys.version_info[:2] != ({version.replace('.', ', ')}))"
    for command in [*given, f"python{version}", "python3", "python"]:
        if not shutil.which(command) or subprocess.run([command, "-c", question], capture_output=True).returncode:
            continue
        check = [command, "requirements/check_machine.py", line]
        if not subprocess.run(check, cwd=ROOT, capture_output=True).returncode:
            return command
    return None


def find_flags() -> set[str]:
    """Return the instruction sets of the processor by the names of /proc/cpuinfo; none where there is no such file."""
    try:
        found = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text("utf-8"), re.MULTILINE)
    except OSError:
        return set()
    return set(found.group(1).split()) if found else set()


def last_word(log: str) -> str:
    """Return pytest's closing line without its frame, or the last line that says anything."""
    lines = [line.strip(" =") for line in log.splitlines() if line.strip(" =")]
    closing = [line for line in lines if re.search(r"\d+ (passed|failed|error|skipped|deselected)\b.* in \d", line)]
    return (closing or lines or ["no output"])[-1]


def make_command(variation: Variation, given: argparse.Namespace, *targets: str) -> list[str] | None:
    """Return the `make` of a variation, or None where its Python is not to be had."""
    command = ["make", "--no-print-directory", *targets, f"NEMO={given.nemo}", f"THREADS={variation.threads}"]
    if variation.python == OWN:
        return [*command, f"VENV={given.venv}"]
    python = find_python(variation.python, given.nemo, given.python)
    if python is None:
        return None
    return [*command, f"VENV=.venv-{given.nemo}-python{variation.python}", f"PYTHON={python}"]


def run(variation: Variation, given: argparse.Namespace, log: Path) -> Result:
    """Run the suite under one variation; the log begins with the command that repeats it."""
    if missing := sorted(set(variation.flags) - find_flags()):
        return Result("NOT RUN", f"this processor has no {', '.join(missing)}")
    command = make_command(variation, given, "test")
    if command is None:
        return Result(
            "NOT RUN", f"no Python {variation.python} that can build it; name one: OTHER_PYTHON=/path/to/python"
        )
    pytest_args = f"{variation.pytest_args.format(seed=given.seed)} {given.pytest_args}".strip()
    command += [f"PYTEST_ARGS={pytest_args}"] if pytest_args else []
    environment = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    environment |= variation.environment
    if variation.python == OWN:
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(variation.threads))  # as `make test`
        said = subprocess.run([sys.executable, "-c", PROBE], env=environment | threads, capture_output=True, text=True)
        if not re.search(variation.shows, said.stdout.strip()):
            return Result("NOT RUN", f"torch did not take it: {(said.stdout or said.stderr).strip()[-120:]}")
    start = time.monotonic()
    with log.open("w", encoding="utf-8") as file:
        settings = [f"{name}={value}" for name, value in variation.environment.items()]
        file.write(f"$ {shlex.join([*settings, *command])}\n")
        file.write(f"kernels and threads of torch: {said.stdout}" if variation.python == OWN else "")
        file.flush()
        done = subprocess.run(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    word = last_word(log.read_text("utf-8", "replace"))
    return Result("FAILED" if done.returncode else "passed", word, time.monotonic() - start)


def run_all(given: argparse.Namespace, run: Callable[..., Result] = run) -> int:
    """Run the variations one after the other, print the table and return the exit status."""
    names = given.variations
    folder = given.logs / given.nemo
    folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, Result] = {}
    try:
        for name in names:
            print(f"{name}: running, log in {folder / name}.log", flush=True)
            results[name] = run(VARIATIONS[name], given, folder / f"{name}.log")
            print(f"{name}: {results[name].status}: {results[name].word}", flush=True)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
    print(f"\nNeMo {given.nemo}, Python {OWN}, order's seed {given.seed}; logs in {folder}")
    for name in names:
        result = results.get(name, Result("NOT RUN", "stopped before"))
        print(f"  {name:<15} {result.status:<8} {result.seconds / 60:5.1f} min  {result.word}")
    statuses = [result.status for result in results.values()]
    passed, failed = statuses.count("passed"), statuses.count("FAILED")
    print(f"  {passed} variations passed, {failed} failed, {len(names) - passed - failed} not run")
    stopped = len(results) < len(names)
    return 1 if failed or not passed or stopped else 0


def read_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return what the command line says; the variations are all unless it names some."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "variations", nargs="*", metavar="VARIATION", help=f"of {', '.join(VARIATIONS)}; all unless named"
    )
    parser.add_argument("--nemo", default="1.23", help="the line of NeMo")
    parser.add_argument("--venv", default=".venv", help="the environment of the Python that runs this")
    parser.add_argument("--python", action="append", default=[], metavar="COMMAND", help="where another Python is")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of the shuffled order")
    parser.add_argument("--logs", type=Path, default=Path("runs/portable"))
    parser.add_argument("--pytest-args", default="", help="added to each variation's own")
    given = parser.parse_args(arguments)
    if unknown := [name for name in given.variations if name not in VARIATIONS]:
        parser.error(f"no variation {', '.join(unknown)}; there are {', '.join(VARIATIONS)}")
    given.variations = given.variations or list(VARIATIONS)
    return given


def main(arguments: list[str] | None = None) -> int:
    """Run the variations named, or all."""
    return run_all(read_arguments(arguments))


if __name__ == "__main__":
    sys.exit(main())
