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
"""Progress: a bar on a terminal, whole lines now and then in a log."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from nemo_distill.support.progress_bar import LINE, VARIABLE, line_of, progress_bar

ROOT = Path(__file__).parents[3]
STATE = {"prefix": "training", "n": 300, "initial": 100, "total": 500, "elapsed": 100.0, "unit": " steps"}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "training: 300 of 500 steps (60 %), 1 min 40 s left, 2.0 steps/s"),
        ({"postfix": "loss=2.1"}, "training: 300 of 500 steps (60 %), 1 min 40 s left, 2.0 steps/s, loss=2.1"),
        ({"n": 500}, "training: 500 of 500 steps (100 %), in 1 min 40 s, 4.0 steps/s"),
        ({"n": 499, "elapsed": 1000.0}, "training: 499 of 500 steps (99 %), 2 s left, 2.5 s each"),
        ({"total": None}, "training: 300 steps, 2.0 steps/s"),
        ({"n": 100}, "training: 100 of 500 steps (20 %)"),
        (
            {"n": 2e6, "initial": 0, "total": 4e6, "unit": "B"},
            "training: 2.0 MB of 4.0 MB (50 %), 1 min 40 s left, 20.0 kB/s",
        ),
    ],
)
def test_a_line_says_how_far_and_how_long(changes, line):
    assert line_of(STATE | changes) == line


def test_what_has_long_gone_on_is_read_from_a_line():
    found = LINE.match(line_of(STATE))
    assert (found["what"], found["done"], found["total"]) == ("training", "300", "500")
    assert LINE.match("[NeMo I 2026-01-01 06:44:13 x] validation set 0: 3 of 4 parts") is None


def test_a_log_gets_whole_lines(capfd, monkeypatch):
    """It got a bar every tenth of a second, one behind the other on a line without an end."""
    monkeypatch.setenv(VARIABLE, "1e-9")
    with progress_bar("selecting", 3, "lines") as bar:
        for number in range(3):
            bar.set_postfix_str(f"{number} kept", refresh=False)
            bar.update()
    lines = capfd.readouterr().err.split("\n")
    assert [line.partition(" (")[0] for line in lines] == [
        *(f"selecting: {number} of 3 lines" for number in range(4)),
        "",
    ]
    assert lines[2].endswith(", 1 kept")
    assert not set("".join(lines)) & set("\r\x1b█")


def test_a_log_says_nothing_of_what_is_done_at_once(capfd, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert list(progress_bar("selecting", 3, "lines", iterable="abc")) == ["a", "b", "c"]
    monkeypatch.setenv(VARIABLE, "never")
    with progress_bar("selecting", 3) as bar:
        bar.update(3)
    assert capfd.readouterr().err == ""


def test_the_last_line_has_the_end(capfd, monkeypatch):
    monkeypatch.setenv(VARIABLE, "0.05")
    with progress_bar("selecting", 9) as bar:
        bar.update(4)
        bar.update(5)
    assert capfd.readouterr().err.splitlines()[-1].startswith("selecting: 9 of 9 lines (100 %), in 0 s")


def test_a_terminal_gets_a_bar():
    code = "from nemo_distill.support.progress_bar import progress_bar\n"
    code += "with progress_bar('selecting', 3) as bar: bar.update(3)"
    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    subprocess.run([sys.executable, "-c", code], stderr=theirs, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    os.close(theirs)
    said = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert "\rselecting: 100%|" in said
    assert "3/3" in said


@pytest.mark.parametrize("shown", [True, False])
def test_a_closed_stream_and_one_that_is_not_asked_for(shown, monkeypatch, capfd):
    if shown:
        monkeypatch.setattr(sys, "stderr", None)
    with progress_bar("selecting", 1, shown=shown) as bar:
        bar.update()
    assert capfd.readouterr().err == ""
