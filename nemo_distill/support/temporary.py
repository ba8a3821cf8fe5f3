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
import os
import shutil
import stat
import tempfile
from pathlib import Path

TEMPORARY_ADVICE = "make room there, or set TMPDIR to a directory with more"
_PREFIX, _LOCK, _CONTENT = "nemo_distill_", "lock", "content"
_MARK = b"A temporary directory of nemo_distill. While its process lives, this file is locked.\n"


class TemporaryDirectory(tempfile.TemporaryDirectory):
    """A temporary directory that holds a locked file while its process lives.

    A process that is killed leaves its directory behind, without the lock: the next one to make such a directory in
    the same place removes it, if it is of the same user and holds nothing else. `path`, a directory inside, is for the
    caller.

    Args:
        place: where to make it; by default the directory of temporary files.

    Example:
        >>> with TemporaryDirectory() as directory:
        ...     number = (directory / "file").write_text("text")
    """

    def __init__(self, place: str | os.PathLike | None = None) -> None:
        prefix = _PREFIX if place is None else f".{_PREFIX}"
        _remove_left_behind(Path(place or tempfile.gettempdir()), prefix)
        super().__init__(prefix=prefix, dir=place)
        # locked under another name first: what is called `lock` and is free was left behind
        unnamed = Path(self.name, f"{_LOCK}.new")
        self._lock = open(unnamed, "wb")  # noqa: SIM115
        with contextlib.suppress(OSError):  # a file system without locks: nobody will remove what is left
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            self._lock.write(_MARK)
            self._lock.flush()
            unnamed.rename(Path(self.name, _LOCK))
        self.path = Path(self.name, _CONTENT)
        self.path.mkdir()

    def __enter__(self) -> Path:
        return self.path

    def cleanup(self) -> None:
        """Remove the directory."""
        super().cleanup()
        self._lock.close()


def remove_left_behind(place: str | os.PathLike) -> None:
    """Remove the temporary directories that killed processes left in a place of their choice."""
    _remove_left_behind(Path(place), f".{_PREFIX}")


def temporary_place() -> str:
    """Return the directory of temporary files, for messages; what TMPDIR says where there is none that can be written.

    Example:
        >>> temporary_place()  # doctest: +SKIP
        '/tmp'
    """
    try:
        return tempfile.gettempdir()
    except OSError:
        return os.environ.get("TMPDIR", "/tmp")


def _remove_left_behind(place: Path, prefix: str) -> None:
    """Remove the directories whose processes are gone."""
    for directory in place.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):  # another's, in use, or going away
            _remove_if_free(directory)


def _remove_if_free(directory: Path) -> None:
    """Remove a directory that proves to be one of ours: owner, mode, content, the mark and no lock on it."""
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) != 0o700:
        return
    if not set(os.listdir(directory)) <= {_LOCK, _CONTENT}:
        return
    with open(os.open(directory / _LOCK, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as lock:
        if not stat.S_ISREG(os.fstat(lock.fileno()).st_mode) or lock.read(len(_MARK) + 1) != _MARK:
            return
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(directory)
