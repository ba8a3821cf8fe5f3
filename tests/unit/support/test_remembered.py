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

import os
import time

import pytest

from nemo_distill.errors import InputError
from nemo_distill.support import files
from nemo_distill.support.remembered import remembered


@pytest.fixture
def asked():
    """The paths that were really read, and a function that remembers."""
    paths = []

    def read(path) -> str:
        paths.append(str(path))
        return files.sha256(path)

    return paths, remembered(read)


def aged(path, seconds: float = 60) -> None:
    """Let a file look old; its change time, which nobody can set, has to come of age by itself."""
    os.utime(path, (time.time() - seconds,) * 2)


def test_an_old_file_is_read_once(asked, tmp_path, monkeypatch):
    paths, find = asked
    (tmp_path / "text").write_text("die Lampe\n")
    aged(tmp_path / "text")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 10)
    assert find(tmp_path / "text") == find(str(tmp_path / "text")) == files.sha256(tmp_path / "text")
    assert len(paths) == 1
    (tmp_path / "text").write_text("die Lampe!\n")
    assert find(tmp_path / "text") == files.sha256(tmp_path / "text")
    assert len(paths) == 2


def test_a_young_file_is_read_again(asked, tmp_path):
    """Another content may come without another time or size."""
    paths, find = asked
    (tmp_path / "text").write_text("die Lampe\n")
    aged(tmp_path / "text")
    assert find(tmp_path / "text") == find(tmp_path / "text")
    assert len(paths) == 2


def test_errors_are_not_remembered(asked, tmp_path):
    _, find = asked
    for _ in range(2):
        with pytest.raises(InputError, match="missing|no file|not exist|there is no"):
            find(tmp_path / "nothing")
