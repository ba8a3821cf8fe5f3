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
"""Odd files, full disks: one line, within seconds, and the same call goes on."""

import errno
import os
from pathlib import Path

import pytest
from damage import odd_files, small_disk, time_limit

from nemo_distill import cli
from nemo_distill.decoding.engine import SearchSettings
from nemo_distill.errors import InputError, reported_errors
from nemo_distill.labels.labelling import label
from nemo_distill.labels.leak_check import check_leaks
from nemo_distill.labels.selection import select
from nemo_distill.labels.settings import SelectionSettings
from nemo_distill.labels.teachers import pseudo_label

KINDS = ("fifo", "directory", "device", "dangling", "loop", "missing")
OPTIONS = {"teacher": {"teachers": ["words"]}, "shard_lines": 2, "progress": False}
ODD = "odd/.*' (does not exist|is a directory|is not a regular file|cannot be opened)"


@pytest.fixture
def text(tmp_path) -> Path:
    """A text of nine lines."""
    path = tmp_path / "input.de"
    path.write_text("".join(f"Satz {number} ist gut\n" for number in range(9)))
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_odd_files_in_the_place_of_inputs(word_engine, text, tmp_path, kind):
    odd = odd_files(tmp_path / "odd")[kind]
    search = SearchSettings(num_hypotheses=2)
    gold, test = SelectionSettings("closest-chrf", odd), SelectionSettings(tests=[odd])
    label(word_engine, text, tmp_path / "labels", search, **OPTIONS)
    calls = [
        lambda: label(word_engine, odd, tmp_path / "out", **OPTIONS),
        lambda: label(word_engine, text, tmp_path / "out", search, gold, **OPTIONS),
        lambda: label(word_engine, text, tmp_path / "out", search, test, **OPTIONS),
        lambda: pseudo_label([odd], text, tmp_path / "out"),
        lambda: select(tmp_path / "labels", tmp_path / "out", gold, progress=False),
        lambda: select(tmp_path / "labels", tmp_path / "out", test, progress=False),
        lambda: check_leaks([odd], [text]),
        lambda: check_leaks([text], [odd]),
    ]
    for call in calls:
        with time_limit(10), pytest.raises(InputError, match=ODD) as error:
            call()
        assert "\n" not in str(error.value)
    with time_limit(10), pytest.raises(InputError, match="holds no finished n-best lists"):
        select(odd, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", KINDS[:-1])
@pytest.mark.parametrize("name", ["nbest.jsonl", "source.txt", "manifest.json"])
def test_odd_files_in_a_finished_directory(word_engine, text, tmp_path, kind, name):
    label(word_engine, text, tmp_path / "labels", **OPTIONS)
    (tmp_path / "labels" / name).unlink()
    odd_files(tmp_path / "odd")[kind].rename(tmp_path / "labels" / name)
    with time_limit(10), pytest.raises(InputError):
        select(tmp_path / "labels", tmp_path / "out", progress=False)
    with time_limit(10), pytest.raises(InputError):
        label(word_engine, text, tmp_path / "labels", **OPTIONS)


@pytest.mark.parametrize("kind", KINDS)
def test_odd_files_in_the_place_of_outputs(word_engine, text, tmp_path, capsys, kind):
    odd = odd_files(tmp_path / "odd")[kind]
    command = ["leak-check", "--train", str(text), "--test", str(text), "--report", str(odd)]
    (tmp_path / "test.de").write_text("Satz\n")
    command[command.index("--test") + 1] = str(tmp_path / "test.de")
    with time_limit(10):
        status = cli.main(command)
    error = capsys.readouterr().err
    assert status == (0 if kind == "missing" else 2), error
    assert len(error.splitlines()) == (0 if kind == "missing" else 1)
    if kind == "directory":
        assert cli.main([*command, "--overwrite"]) == 2
        assert "is a directory; give another name" in capsys.readouterr().err
    elif kind != "missing":
        with time_limit(10), pytest.raises((InputError, OSError)):
            label(word_engine, text, odd, **OPTIONS)


@pytest.mark.parametrize("size", [100, 420, 700])
def test_a_full_disk(word_engine, text, tmp_path, capsys, size):
    """The request, a shard or the merged lists find no room; with room, the same call gives all files."""
    label(word_engine, text, tmp_path / "undisturbed", **OPTIONS)
    with pytest.raises(SystemExit) as stopped, small_disk(size), reported_errors("test"):
        label(word_engine, text, tmp_path / "labels", **OPTIONS)
    error = capsys.readouterr().err
    assert stopped.value.code == 1
    assert error.startswith(f"test: {os.strerror(errno.EFBIG)}")
    assert len(error.splitlines()) == 1
    assert not list(Path(tmp_path).rglob("*.tmp"))
    label(word_engine, text, tmp_path / "labels", **OPTIONS)
    names = sorted(path.name for path in (tmp_path / "undisturbed").iterdir())
    assert sorted(path.name for path in (tmp_path / "labels").iterdir()) == names
    for name in names:
        assert (tmp_path / "labels" / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()


def test_a_full_disk_under_select(word_engine, text, tmp_path):
    label(word_engine, text, tmp_path / "labels", **OPTIONS)
    with pytest.raises(OSError, match="File too large"), small_disk(100):
        select(tmp_path / "labels", tmp_path / "chosen", progress=False)
    assert not (tmp_path / "chosen/manifest.json").exists()
    assert (tmp_path / "chosen/.started.json").exists()
    select(tmp_path / "labels", tmp_path / "chosen", progress=False)
    assert (tmp_path / "chosen/source.txt").read_bytes() == (tmp_path / "labels/source.txt").read_bytes()


def test_a_finished_directory_that_cannot_be_written(word_engine, text, tmp_path, monkeypatch):
    """It is verified; nothing is made anew in it."""
    label(word_engine, text, tmp_path / "labels", **OPTIONS)
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: access(path, mode) and not (mode & os.W_OK and Path(path).name == "labels")
    )
    assert label(word_engine, text, tmp_path / "labels", **OPTIONS)[1]
    with pytest.raises(InputError, match="labels' cannot be written"):
        label(word_engine, text, tmp_path / "labels", overwrite=True, **OPTIONS)
