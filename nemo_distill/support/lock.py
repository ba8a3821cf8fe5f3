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
"""One process at a time in an output directory, and what it removes of those that were killed there.

The lock is `flock` on a hidden file, which goes with its process however that ends. Over NFS it holds between machines
as far as the server has locks; where a file system has none, a warning says so and the work goes on.
"""

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from nemo_distill.errors import InputError, InUseError
from nemo_distill.support import files, incoming
from nemo_distill.support.files import LOCK
from nemo_distill.support.quoting import plain_text
from nemo_distill.support.records import read_record
from nemo_distill.support.share import Share
from nemo_distill.support.warned import marked_logger

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
_NO_ROOM = (*files.NO_ROOM, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE)
_MOST_MISSED = 1000  # times that a directory may go before a file is made in it
_NOTE_BYTES, _START = 1000, b'{"host": "'
_logger = marked_logger(__name__)
_descriptors: set[int] = set()  # of the locks that this process holds


@dataclasses.dataclass(frozen=True)
class _Note:
    """Who holds a lock."""

    host: str
    process: int
    since: str


@contextlib.contextmanager
def locked(directory: str | os.PathLike, share: Share | None = None) -> Iterator[Path]:
    """Keep an output directory to this process, or to the processes of one job.

    The directory is made; if nothing is in it at the end, it goes again. What killed processes left of files that they
    were writing is removed. A directory that cannot be written is not locked: nothing happens in it.

    Args:
        directory: of the output.
        share: which of several processes of one job this is. They hold it together, and each its own rank.

    Raises:
        InUseError: another process works in it; the message names host and process.
        InputError: it cannot be a directory.

    Example:
        >>> with locked("labels") as directory:  # doctest: +SKIP
        ...     files.write_text_atomic(directory / "source.txt", "Guten Tag")
    """
    directory, share = Path(directory), share or Share()
    with _made(directory), contextlib.ExitStack() as stack:
        alone = share.world_size == 1
        if _can_write(directory):
            stack.enter_context(_held(directory / LOCK, directory, alone))
            if not alone:
                stack.enter_context(_held(directory / f"{LOCK}.{share.rank}", directory))
            if share.rank == 0:  # in the directory itself only the first process of a job writes
                files.remove_unfinished(directory)
        yield directory


def is_locked(directory: str | os.PathLike) -> bool:
    """Return whether a process works in an output directory; nothing is made or changed there."""
    try:
        descriptor = os.open(Path(directory, LOCK), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    finally:
        os.close(descriptor)
    return False


@contextlib.contextmanager
def locked_file(path: str | os.PathLike) -> Iterator[Path]:
    """Keep the place of one output file, or of a directory that is replaced as a whole, to this process; see `locked`.

    Raises:
        InUseError: another process writes it.
    """
    path = Path(path)
    if path.name in ("", ".."):
        raise InputError(f"'{path}' is a directory; give the name of a file in it")
    with _made(path.parent), contextlib.ExitStack() as stack:
        if _can_write(path.parent):
            stack.enter_context(_held(path.with_name(f".{path.name}{LOCK}"), path))
            files.remove_unfinished(path.parent, path.name)
        yield path


@contextlib.contextmanager
def _made(directory: Path) -> Iterator[None]:
    """Make the directory; if this made it and it is empty at the end, remove it."""
    new = [each for each in (directory, *directory.parents) if not each.exists()]
    files.make_directory(directory)
    try:
        yield
    finally:
        for each in new:
            with contextlib.suppress(OSError):  # something is in it
                each.rmdir()


def _can_write(directory: Path) -> bool:
    return os.access(directory, os.W_OK | os.X_OK)


@contextlib.contextmanager
def _held(path: Path, of: Path, alone: bool = True) -> Iterator[None]:
    descriptor = _take(path, of, alone)
    owner = os.getpid()
    _descriptors.add(descriptor)
    try:
        if alone:
            note = _Note(socket.gethostname(), os.getpid(), time.strftime("%Y-%m-%d %H:%M:%S"))
            with contextlib.suppress(OSError):  # a full disk: the lock holds, without a name
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, json.dumps(dataclasses.asdict(note)).encode(), 0)
        yield
    finally:
        if os.getpid() == owner:
            with contextlib.suppress(OSError):  # others of the job hold it
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if path.name == LOCK:
                    _remove_rank_locks(path.parent)
                path.unlink(missing_ok=True)
            _descriptors.discard(descriptor)
            os.close(descriptor)


def _close_in_child() -> None:
    """A forked process, such as a data worker, has the descriptors too: with it the lock would outlive its owner."""
    while _descriptors:
        os.close(_descriptors.pop())


os.register_at_fork(after_in_child=_close_in_child)


def _remove_rank_locks(directory: Path) -> None:
    """Remove the locks of processes of a job that were killed, once nobody works in the directory."""
    for path in directory.glob(f"{LOCK}.*"):
        found = path.lstat()
        if not (path.suffix[1:].isdecimal() and stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()):
            continue
        with contextlib.suppress(InputError):
            content = incoming.read_bytes(path, _NOTE_BYTES)
            if _is_ours(content):
                path.unlink(missing_ok=True)


def _take(path: Path, of: Path, alone: bool) -> int:
    """Return the descriptor of the lock file, locked."""
    missed = 0
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
        except FileNotFoundError as error:  # another process that had made the directory has removed it
            missed += 1
            if missed > _MOST_MISSED:
                raise InputError(f"'{of}' cannot be locked: no file can be made there; give another path") from error
            files.make_directory(path.parent)
            continue
        except OSError as error:
            if error.errno in _NO_ROOM:
                error.filename = str(of)
                raise
            fix = "give a shorter name" if error.errno == errno.ENAMETOOLONG else "remove that file"
            raise InputError(f"'{of}' cannot be locked: '{path}': {error.strerror}; {fix}") from error
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise InputError(f"'{of}' cannot be locked: '{path}' is no regular file; remove it")
            content = os.pread(descriptor, _NOTE_BYTES, 0)
            if not _is_ours(content):
                raise InputError(f"'{of}' cannot be locked: '{path}' is not of this library; give another output")
            try:
                fcntl.flock(descriptor, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InUseError(_in_use(path, of)) from error
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    error.filename = str(of)
                    raise
                _logger.warning("'%s': this file system has no locks; start no second process there", of)
                return descriptor
            if _is_at(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its owner removed it meanwhile


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def _in_use(path: Path, of: Path) -> str:
    owner = "another process"
    for each in (path, path.with_name(f"{LOCK}.0")):  # processes of one job note who they are by their ranks
        with contextlib.suppress(OSError, InputError):
            note = _read_note(incoming.read_bytes(each, _NOTE_BYTES))
            if note is not None:
                owner = f"process {note.process} on '{plain_text(note.host, 80)}' since {plain_text(note.since, 19)}"
                break
    return f"'{of}' is in use: {owner} works there; wait until it has ended, or give another output"


def _is_ours(content: bytes) -> bool:
    """Return whether this may be a lock file of ours: empty, or a note, cut short where the disk was full."""
    return content[: len(_START)] == _START[: len(content)] and len(content) < _NOTE_BYTES


def _read_note(content: bytes) -> _Note | None:
    """Return what a lock file says; None where it is no lock file of ours."""
    with contextlib.suppress(ValueError):
        return read_record(_Note, incoming.parse_json(content), "lock")
    return None
