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
"""Temporary directories of processes that were killed go away; those of living ones stay."""

import subprocess
import sys
import tempfile

import pytest

from nemo_distill.support.temporary import TemporaryDirectory

CHILD = """
from nemo_distill.support.temporary import TemporaryDirectory
directory = TemporaryDirectory()
(directory.path / "model.bin").write_bytes(b"weights")
print(directory.name, flush=True)
input()
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The directory of temporary files, here and in processes that are started."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def test_a_directory_goes_with_its_block(place):
    with TemporaryDirectory() as directory:
        (directory / "file").write_text("text")
        assert place in directory.parents
        with TemporaryDirectory() as other:
            assert other != directory
        assert (directory / "file").exists()
    assert not list(place.iterdir())


def test_what_a_killed_process_left_is_removed(place):
    child = subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    directory = child.stdout.readline().strip()
    with TemporaryDirectory():
        assert len(list(place.iterdir())) == 2  # its process lives
    child.kill()
    child.wait()
    assert [str(path) for path in place.iterdir()] == [directory]
    with TemporaryDirectory() as own:
        assert list(place.iterdir()) == [own.parent]


def test_what_others_put_there_stays(place):
    (place / "nemo_distill_report").mkdir()
    (place / "nemo_distill_notes").write_text("text")
    with TemporaryDirectory():
        assert len(list(place.iterdir())) == 3
