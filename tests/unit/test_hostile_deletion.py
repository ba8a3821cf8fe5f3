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
"""What is removed proves itself ours: owner, mode, mark, and nothing unknown inside."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from damage import time_limit, tree

from nemo_distill.support.files import replaced_directory
from nemo_distill.support.temporary import TemporaryDirectory

LEFT = """
import os
from nemo_distill.support.temporary import TemporaryDirectory
directory = TemporaryDirectory()
(directory.path / "model.bin").write_bytes(b"weights")
print(directory.name, flush=True)
os._exit(9)
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The directory of temporary files, here and in processes that are started."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def left(place) -> Path:
    """What a process that ended without a word has left."""
    done = subprocess.run([sys.executable, "-c", LEFT], stdout=subprocess.PIPE, text=True)
    return Path(done.stdout.strip())


def test_what_was_left_goes(left, place):
    with TemporaryDirectory():
        assert not left.exists()


CHANGES = {
    "a file of the user's beside": lambda left: (left / "thesis.tex").write_text("text"),
    "another mark": lambda left: (left / "lock").write_text("mine"),
    "an empty mark": lambda left: (left / "lock").write_text(""),
    "no mark": lambda left: (left / "lock").unlink(),
    "readable by others": lambda left: left.chmod(0o755),
    "a link to a mark": lambda left: (
        (left / "lock").rename(left.parent / "mark") and (left / "lock").symlink_to(left.parent / "mark")
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_not_ours_stays(left, place, change):
    CHANGES[change](left)
    before = tree(left)
    with TemporaryDirectory():
        assert tree(left) == before


def test_a_directory_of_another_user_stays(left, place, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with TemporaryDirectory():
        assert left.exists()


def test_a_pipe_in_the_place_of_the_mark_stops_nobody(left, place):
    (left / "lock").unlink()
    os.mkfifo(left / "lock")
    with time_limit(20), TemporaryDirectory():
        assert left.exists()


def test_a_link_to_a_directory_is_not_followed(left, place, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "mine"
    left.rename(elsewhere)
    (place / "nemo_distill_link").symlink_to(elsewhere)
    with TemporaryDirectory():
        assert (elsewhere / "content/model.bin").exists()


def test_a_directory_is_replaced_in_one_step(tmp_path, monkeypatch):
    """At no moment is there nothing: whoever looks sees the older one or the newer one."""
    path = tmp_path / "model"
    with replaced_directory(path) as new:
        (new / "version").write_text("1")
    seen = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *names: (seen.append(path.exists()), replace(*names)))
    with replaced_directory(path) as new:
        (new / "version").write_text("2")
        assert (path / "version").read_text() == "1"
    assert (path / "version").read_text() == "2"
    assert not seen or sys.platform != "linux"  # exchanged, not moved away and put back
    with pytest.raises(RuntimeError), replaced_directory(path):
        raise RuntimeError
    assert [each.name for each in tmp_path.iterdir()] == ["model"]


KILLED = """
import os, sys
from nemo_distill.support.files import replaced_directory
with replaced_directory(sys.argv[1]) as new:
    (new / "version").write_text("2")
    os._exit(9)
"""


def test_killed_while_a_directory_is_replaced(tmp_path):
    path = tmp_path / "model"
    with replaced_directory(path) as new:
        (new / "version").write_text("1")
    subprocess.run([sys.executable, "-c", KILLED, str(path)])
    assert len(list(tmp_path.iterdir())) == 2
    assert (path / "version").read_text() == "1"
    with replaced_directory(path) as new:
        (new / "version").write_text("3")
    assert [each.name for each in tmp_path.iterdir()] == ["model"]
    assert (path / "version").read_text() == "3"
