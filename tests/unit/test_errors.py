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
import os
import subprocess
import sys

import pytest

from nemo_distill.errors import InputError, NonFiniteError, StorageError, reported_errors


def caused(error: Exception, cause: BaseException) -> Exception:
    """Return an error as Python 3.11 and libraries make it of one that comes in their imports."""
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (InputError("give another"), 2, "give another"),
        (StorageError("no room"), 1, "no room"),
        (NonFiniteError("NaN"), 1, "NaN"),
        (ConnectionError("no network"), 1, "no network"),
        (TimeoutError("rank 1 has stopped"), 1, "rank 1 has stopped"),
        (OSError(errno.ENOSPC, "No space left on device", "a/b"), 1, "No space left on device 'a/b'; mend that, then"),
        (OSError(errno.EROFS, "Read-only file system"), 1, "Read-only file system; mend that"),
        (PermissionError(errno.EACCES, "Permission denied", b"x"), 1, "Permission denied"),
        (MemoryError(), 1, "out of memory"),
        (caused(RuntimeError("Error calling __set_name__"), KeyboardInterrupt()), 130, "interrupted; run the same"),
        (
            caused(InputError("no model"), caused(ImportError("x"), KeyboardInterrupt())),
            130,
            "interrupted; run the same",
        ),
        (KeyboardInterrupt(), 130, "interrupted; run the same command again, and it goes on"),
    ],
)
def test_what_a_user_can_mend_is_one_line(error, status, message, capfd):
    with pytest.raises(SystemExit) as end, reported_errors("program"):
        raise error
    said = capfd.readouterr().err
    assert end.value.code == status
    assert said.startswith(f"program: {message}")
    assert said.count("\n") == 1


def test_a_fault_of_the_program_has_its_traceback():
    with pytest.raises(KeyError), reported_errors("program"):
        raise KeyError("x")


def test_a_message_cannot_steer_the_terminal(capfd):
    with pytest.raises(SystemExit), reported_errors("program"):
        raise InputError("file \x1b]0;title\x07 \x9b31m \u202eabc\r gone\nwarning: ok\n  an item\n x")
    assert capfd.readouterr().err == "program: file ?]0;title? ?31m ?abc? gone warning: ok\n  an item  x\n"


def test_the_reader_of_a_pipe_goes_away():
    code = (
        "from nemo_distill.errors import reported_errors\nwith reported_errors('program'):\n    print('a' * 1_000_000)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    os.read(process.stdout.fileno(), 1)
    process.stdout.close()
    assert (process.wait(), process.stderr.read()) == (141, b"")


@pytest.mark.parametrize(
    ("end", "status", "message"),
    [
        (">&-", 0, ""),
        (">&- 2>&-", 0, ""),
        (
            "> /dev/full",
            1,
            "program: standard output cannot be written (No space left on device); what is printed there is lost\n",
        ),
    ],
)
def test_standard_output_that_is_closed_or_full(end, status, message):
    code = "from nemo_distill.errors import reported_errors\nwith reported_errors('program'): print('a')"
    command = ["sh", "-c", f'exec env -u PYTHONUNBUFFERED "$0" -c "$1" {end}', sys.executable, code]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (status, message)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_errors_without_standard_error(unbuffered, monkeypatch):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    code = "from nemo_distill.errors import *\nwith reported_errors('program'): raise InputError('x')"
    for end in ("2>&-", "2> /dev/full", ">&- 2>&-"):
        done = subprocess.run(["sh", "-c", f'exec "$0" -c "$1" {end}', sys.executable, code], capture_output=True)
        assert (done.returncode, done.stdout) == (2, b"")
