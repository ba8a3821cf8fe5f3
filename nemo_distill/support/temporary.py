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
"""Temporary directories that do not outlive a killed process for long."""

import contextlib
import fcntl
import shutil
import tempfile
from pathlib import Path

_PREFIX, _LOCK = "nemo_distill_", "lock"


class TemporaryDirectory(tempfile.TemporaryDirectory):
    """A temporary directory that holds a locked file while its process lives.

    A process that is killed leaves its directory behind, without the lock: the next one to make such a directory
    removes it. `path`, a directory inside, is for the caller.

    Example:
        >>> with TemporaryDirectory() as directory:
        ...     number = (directory / "file").write_text("text")
    """

    def __init__(self) -> None:
        _remove_left_behind()
        super().__init__(prefix=_PREFIX)
        # locked under another name first: what is called `lock` and is free was left behind
        unnamed = Path(self.name, f"{_LOCK}.new")
        self._lock = open(unnamed, "wb")  # noqa: SIM115
        with contextlib.suppress(OSError):  # a file system without locks: nobody will remove what is left
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            unnamed.rename(Path(self.name, _LOCK))
        self.path = Path(self.name, "content")
        self.path.mkdir()

    def __enter__(self) -> Path:
        return self.path

    def cleanup(self) -> None:
        """Remove the directory."""
        super().cleanup()
        self._lock.close()


def _remove_left_behind() -> None:
    """Remove the directories whose processes are gone."""
    for directory in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            with open(directory / _LOCK, "rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(directory)
        except OSError:  # another's, in use, or going away
            continue
