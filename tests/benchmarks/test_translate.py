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
"""How soon does an int8 export answer, and how many lines a second? Run with `make bench`, with nothing else running.

`nemo-distill translate` and the program of the export: lines that are written one by one, each after the answer to the
one before, and the whole text from standard input. See conftest.py for a real model and real text.
"""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nemo_distill.decoding.exporting import export

ONE_BY_ONE = 1000
BESIDE_TORCH = """
import runpy, sys
import numpy, torch
torch.ones(512, 512) @ torch.ones(512, 512)  # its threads run
sys.argv[:] = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def exported(translation_model, tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("export")
    if "BENCH_MODEL" in os.environ:
        archive = os.environ["BENCH_MODEL"]
    else:
        archive = place / "model.nemo"
        translation_model.save_to(str(archive))
    export(archive, place / "int8", "int8")
    return place / "int8"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["nemo-distill translate", "translate.py", "translate.py beside torch"])
def test_lines_per_second(kind: str, exported: Path, sentences: list[str], tmp_path: Path, capsys) -> None:
    verb = [sys.executable, "-m", "nemo_distill.cli", "translate", str(exported)]
    before = ["-c", BESIDE_TORCH] if kind.endswith("torch") else []
    command = verb if kind.startswith("nemo") else [sys.executable, *before, str(exported / "translate.py")]
    lines = [f"{sentence}\n".encode() for sentence in sentences]
    options = {"stderr": subprocess.DEVNULL, "env": {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}}
    times, answers = [], []
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, **options) as process:
        start = time.perf_counter()
        for line in lines[:ONE_BY_ONE]:
            process.stdin.write(line)
            process.stdin.flush()
            answers.append(process.stdout.readline())
            times.append(time.perf_counter() - start)
            start = time.perf_counter()
        process.stdin.close()
    (tmp_path / "text").write_bytes(b"".join(lines))
    start = time.perf_counter()
    with open(tmp_path / "text", "rb") as stream:
        done = subprocess.run(command, stdin=stream, stdout=pipe, check=True, **options)
    seconds = time.perf_counter() - start
    assert done.stdout.splitlines(keepends=True)[:ONE_BY_ONE] == answers
    rest = sorted(times[1:])
    with capsys.disabled():
        print(
            f"\n{kind}: first answer after {times[0]:.2f} s; one by one {1000 * statistics.median(rest):.2f} ms, "
            f"p95 {1000 * rest[int(0.95 * len(rest))]:.2f} ms, {len(rest) / sum(rest):.0f} lines/s; "
            f"{len(lines)} lines at once {len(lines) / seconds:.0f} lines/s, start included"
        )
