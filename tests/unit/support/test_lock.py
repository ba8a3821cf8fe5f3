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

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from nemo_distill.errors import InputError
from nemo_distill.support import files
from nemo_distill.support.lock import LOCK, locked, locked_file
from nemo_distill.support.share import Share

HOLDER = """
import sys, time
from nemo_distill.support.lock import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the directory `out`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "out")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_process_is_refused_and_told_who_works_there(holder, tmp_path):
    with (
        pytest.raises(InputError, match=f"is in use: process {holder.pid} on '{socket.gethostname()}' since 20"),
        locked(tmp_path / "out"),
    ):
        pass


def test_the_lock_of_a_killed_process_is_taken_over(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "out" / LOCK).exists()
    with locked(tmp_path / "out"):
        assert json.loads((tmp_path / "out" / LOCK).read_text())["process"] == os.getpid()
    assert not list((tmp_path / "out").iterdir())


def test_what_is_in_the_directory_stays(tmp_path):
    with locked(tmp_path / "a" / "b") as directory:
        (directory / "file").write_text("text")
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["file"]
    with pytest.raises(RuntimeError), locked(tmp_path / "c" / "d"):
        raise RuntimeError
    assert not (tmp_path / "c").exists()


def test_the_processes_of_one_job_hold_it_together(tmp_path):
    with locked(tmp_path, Share(0, 2)), locked(tmp_path, Share(1, 2)):
        for share in (Share(0, 2), Share(1, 2), Share(0, 1)):
            with pytest.raises(InputError, match="is in use"), locked(tmp_path, share):
                pass
    assert not list(tmp_path.iterdir())
    with locked(tmp_path), pytest.raises(InputError, match="is in use"), locked(tmp_path, Share(1, 2)):
        pass


def test_what_a_killed_process_was_writing_goes_and_nothing_else(tmp_path):
    code = "import sys\nfrom nemo_distill.support import files\nwith files.atomic_path(sys.argv[1]) as path:\n" + (
        "    path.write_text('half')\n    print('written', flush=True)\n    sys.stdin.read()\n"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "a.txt")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert writer.stdout.readline()
    writer.kill()
    writer.wait()
    (left,) = tmp_path.iterdir()
    assert files.is_unfinished(left)
    (tmp_path / ".mine.tmp").write_text("text")
    (tmp_path / f".b.nemo_distill-{'0' * 8}.tmp").symlink_to(tmp_path / ".mine.tmp")
    (tmp_path / f".c.nemo_distill-{'0' * 8}.tmp").mkdir()
    with locked(tmp_path):
        assert not left.exists()
    assert len(list(tmp_path.iterdir())) == 3


def test_a_pipe_or_a_link_in_the_place_of_the_lock(tmp_path):
    os.mkfifo(tmp_path / LOCK)
    begin = time.monotonic()
    with pytest.raises(InputError, match=r"\.lock' is no regular file; remove it"), locked(tmp_path):
        pass
    (tmp_path / LOCK).unlink()
    (tmp_path / "mine").write_text("text")
    (tmp_path / LOCK).symlink_to(tmp_path / "mine")
    with pytest.raises(InputError, match=r"cannot be locked: .*\.lock'.*remove that file"), locked(tmp_path):
        pass
    assert (tmp_path / "mine").read_text() == "text"
    assert time.monotonic() - begin < 10


def test_the_place_of_a_file(tmp_path):
    with locked_file(tmp_path / "new" / "model.nemo") as path:
        with pytest.raises(InputError, match="model.nemo' is in use"), locked_file(path):
            pass
        path.write_bytes(b"weights")
    assert [each.name for each in (tmp_path / "new").iterdir()] == ["model.nemo"]


def test_a_lock_file_of_somebody_else_stays(tmp_path):
    for content in ("mine", '{"host": 1}', "[]", '{"host": "a"' + " " * 1000):
        (tmp_path / LOCK).write_text(content)
        with pytest.raises(InputError, match=r"\.lock' is not of this library; give another output"), locked(tmp_path):
            pass
        assert (tmp_path / LOCK).read_text() == content


def test_processes_of_a_job_are_named_too(tmp_path):
    with locked(tmp_path, Share(0, 2)), pytest.raises(InputError, match=f"process {os.getpid()} on"), locked(tmp_path):
        pass


def test_a_note_that_a_full_disk_cut_short(tmp_path):
    (tmp_path / LOCK).write_text('{"host": "no')
    with locked(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["process"] == os.getpid()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_disk_without_room_for_the_lock(tmp_path, monkeypatch, number):
    """The hidden lock is nothing to remove."""

    def refuse(path, *arguments):
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OSError, match=os.strerror(number)) as error, locked(tmp_path):
        pass
    assert error.value.filename == str(tmp_path)


def test_a_directory_in_which_nothing_can_be_made(tmp_path, monkeypatch):
    """As `/proc`, and the working directory once somebody has removed it."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(InputError, match="cannot be locked: no file can be made there"), locked_file("report.tsv"):
        pass
