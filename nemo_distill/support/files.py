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
"""Hashes of files, and files written so that no reader ever sees half of one."""

import contextlib
import ctypes
import errno
import json
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from nemo_distill.errors import InputError, StorageError
from nemo_distill.support.incoming import Hashing, open_regular
from nemo_distill.support.quoting import is_legible
from nemo_distill.support.remembered import remembered
from nemo_distill.support.temporary import TemporaryDirectory

LOCK = ".lock"
"""Name of the lock of a directory; that of a file is `.NAME.lock` beside it. See `lock`."""
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_BLOCK_BYTES, _NAME_BYTES = 1 << 20, 255
_UNFINISHED = re.compile(r"\.(?P<name>.+)\.nemo_distill-[0-9a-f]{8}\.tmp", re.DOTALL)
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of linux/fcntl.h and linux/fs.h


def sha256(path: str | os.PathLike) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits.

    Raises:
        InputError: it is missing, no regular file, or cannot be read.
    """
    with open_regular(path) as raw:
        stream = Hashing(raw)
        while stream.read(_BLOCK_BYTES):
            pass
    return stream.sha256()


known_sha256 = remembered(sha256)
"""The same, of a large file that a process reads more than once."""


def is_sha256(text: str) -> bool:
    """Return whether a text is a SHA-256 as `sha256` returns it."""
    return re.fullmatch("[0-9a-f]{64}", text) is not None


def is_file_name(name: str) -> bool:
    """Return whether a text can be the name of a file in a directory, by what file systems hold and `is_legible`."""
    return is_legible(name) and "/" not in name and name not in ("", ".", "..") and len(name.encode()) <= _NAME_BYTES


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Give the block a temporary name beside `path`; when the block ends well, sync that file and rename it to `path`.

    If the block raises, the temporary file is removed and an older `path` is left as it was. Missing parent
    directories are made.

    Raises:
        InputError: a device, a FIFO or a directory is in the place: it is not replaced.
        OSError: from the block or the system; it names `path`, unless it names another file.

    Example:
        >>> with atomic_path("runs/model.bin") as temporary:  # doctest: +SKIP
        ...     save(temporary)
    """
    path = Path(path)
    make_directory(path.parent)
    if path.exists() and not path.is_file():
        raise InputError(f"'{path}' is not a regular file, so it stays; give another name")
    temporary = path.with_name(f".{path.name}.nemo_distill-{secrets.token_hex(4)}.tmp")
    with _errors_naming(path, temporary):
        try:
            yield temporary
            with open(temporary, "rb+") as stream:
                os.fsync(stream.fileno())
            os.replace(temporary, path)
            _sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _errors_naming(path: Path, temporary: Path) -> Iterator[None]:
    """Context whose OSErrors name what is written, where they name no other file; what reads one names that."""
    try:
        yield
    except OSError as error:
        if error.filename is None or os.fsdecode(error.filename).startswith(str(temporary)):
            error.filename = str(path)
        raise


def is_plain(path: Path) -> bool:
    """Return whether a path is a regular file, and no link to one.

    Raises:
        OSError: nothing is there, or it cannot be told.
    """
    return stat.S_ISREG(path.lstat().st_mode)


def is_unfinished(path: Path) -> bool:
    """Return whether a file is what `atomic_path` leaves where its process is killed: by name, kind and owner."""
    if not _UNFINISHED.fullmatch(path.name):
        return False
    with contextlib.suppress(OSError):
        found = path.lstat()
        return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
    return False


def remove_unfinished(directory: Path, name: str | None = None) -> None:
    """Remove what killed processes left in a directory that no other process writes to, see `is_unfinished`.

    Args:
        directory: not those below it.
        name: only what was to become the file of this name; None: all but the files that are locked by themselves.
    """
    for path in directory.glob(".*.tmp"):
        if is_unfinished(path):
            file = _UNFINISHED.fullmatch(path.name)["name"]
            if file == name or (name is None and not os.path.lexists(directory / f".{file}{LOCK}")):
                path.unlink(missing_ok=True)


@contextlib.contextmanager
def reported_storage(
    place: str | os.PathLike, advice: str = "make room there, then run the same command again"
) -> Iterator[None]:
    """Context in which whatever the system says of writing names the place and what to do; reading has its own errors.

    Args:
        place: what is written to.
        advice: for the message.

    Raises:
        StorageError: no room, no permission, a broken disk.
    """
    try:
        yield
    except OSError as error:
        raise StorageError(f"'{place}' cannot be written ({error.strerror or error}); {advice}") from error


@contextlib.contextmanager
def replaced_directory(path: str | os.PathLike) -> Iterator[Path]:
    """Give the block a temporary directory beside `path`; when the block ends well, sync it and put it at `path`.

    If the block raises, an older `path` is left as it was. Where there is one, the two change places in one step (on
    Linux; elsewhere a killed process may leave the older one in a hidden directory beside). Whether it may be replaced
    is for the caller to know.

    Args:
        path: a directory, or nothing.
    """
    path = Path(path)
    make_directory(path.parent)
    with TemporaryDirectory(path.parent) as temporary, _errors_naming(path, temporary):
        yield temporary
        for file in [*temporary.rglob("*"), temporary]:
            _sync(file)
        if path.exists():
            temporary.chmod(stat.S_IMODE(path.stat().st_mode))
        if not path.exists():
            os.replace(temporary, path)
        elif not _exchange(temporary, path):
            os.replace(path, old := temporary.with_name("old"))
            try:
                os.replace(temporary, path)
            except OSError:
                os.replace(old, path)
                raise
        _sync(path.parent)


def _exchange(one: Path, two: Path) -> bool:
    """Let two paths change places in one step; return False where the system or the file system cannot."""
    try:
        rename = ctypes.CDLL(None).renameat2
    except AttributeError:
        return False
    return rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(two), _RENAME_EXCHANGE) == 0


def write_text_atomic(path: str | os.PathLike, text: str) -> None:
    """Write `text` as UTF-8, line ends as they are, through `atomic_path`."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(text.encode("utf-8"))


def write_lines_atomic(path: str | os.PathLike, lines: Iterable[str]) -> None:
    """Write one line per item; a `\\n` inside an item is a ValueError, since it would shift all later lines."""
    lines = list(lines)
    for number, line in enumerate(lines, start=1):
        if "\n" in line:
            raise ValueError(f"item {number} for '{path}' holds a line break: {line!r}")
    with atomic_path(path) as temporary:
        temporary.write_bytes(line_bytes(lines))


def line_bytes(lines: Iterable[str]) -> bytes:
    """Return the bytes of a file of these lines."""
    return "".join(f"{line}\n" for line in lines).encode()


def write_json_atomic(path: str | os.PathLike, content: Any) -> None:
    """Write `content` through `atomic_path`, see `json_text`."""
    write_text_atomic(path, json_text(content))


def json_text(content: Any) -> str:
    """Return `content` as the text of a file of indented, strict JSON (no NaN)."""
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def prepare_output_dir(path: str | os.PathLike, overwrite: bool = False, holds: Iterable[str] | None = None) -> Path:
    """Make a directory for the output of one run and refuse one that already holds another.

    Args:
        path: directory to make; parents are made too.
        overwrite: accept a directory that holds a run. Nothing is deleted here: the caller replaces its own files.
        holds: names that mark a run. By default any entry does, save hidden ones (left by an interrupted run).

    Raises:
        InputError: `path` is a file, cannot be written, or holds a run and `overwrite` is False.
    """
    path = Path(path)
    make_directory(path)
    if not os.access(path, os.W_OK | os.X_OK):
        raise InputError(f"'{path}' cannot be written; give another output directory or change its permissions")
    present = sorted(entry.name for entry in path.iterdir())
    wanted = None if holds is None else set(holds)
    taken = [name for name in present if (not name.startswith(".") if wanted is None else name in wanted)]
    if taken and not overwrite:
        shown = ", ".join(taken[:5]) + (", ..." if len(taken) > 5 else "")
        raise InputError(
            f"'{path}' already holds another run ({shown}); give another output directory, or --overwrite"
        )
    return path


def check_no_file(path: Path) -> None:
    """Refuse a path of a directory where a file, or a link to nothing, is in its way, before it is to be made.

    Raises:
        InputError: as `make_directory`.
    """
    if (there := _nearest_there(path)) is not None and not there.is_dir():
        make_directory(path)  # which says why it cannot be one


def make_directory(path: Path) -> None:
    """Make a directory and its parents.

    Raises:
        InputError: one of them is a file, or may not be made.
        OSError: the disk is full.
    """
    if "\0" in str(path) or any(0xD800 <= ord(character) < 0xE000 for character in str(path)):
        raise InputError(f"{ascii(str(path))[:300]}: an output needs a name in UTF-8; give another path")
    if path.is_symlink() and not path.exists():
        raise InputError(f"'{path}' cannot be a directory: it is a link to nothing; give another path")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        file = _nearest_there(path)  # error.filename may be below it
        raise InputError(f"'{path}' cannot be a directory: '{file}' is a file; give another path") from error
    except PermissionError as error:
        raise InputError(f"'{path}' cannot be made: no permission; give another path") from error
    except OSError as error:
        if error.errno in NO_ROOM:  # of the machine: another path may be no better
            raise
        raise InputError(f"{str(path)[:300]!r} cannot be made: {error.strerror}; give another path") from error


def _nearest_there(path: Path) -> Path | None:
    """Return what there is of a path: itself, or the nearest of its parents."""
    return next((each for each in (path, *path.parents) if os.path.lexists(each)), None)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
