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
"""Reading text files strictly and writing files so that no reader ever sees half of one.

A line ends at `\\n` alone: the other characters that `str.splitlines` breaks at (U+2028, U+0085, form feed ...) occur
inside sentences, and breaking there would shift every later line against the other language.
"""

import codecs
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
from nemo_distill.support.incoming import (
    GZIP_ERRORS,
    LINE_BYTES,
    CappedGzip,
    Hashing,
    TooLargeError,
    open_regular,
)
from nemo_distill.support.remembered import remembered
from nemo_distill.support.temporary import TemporaryDirectory

LOCK = ".lock"
"""Name of the lock of a directory; that of a file is `.NAME.lock` beside it. See `lock`."""
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_BLOCK_BYTES = 1 << 20
_UNFINISHED = re.compile(r"\.(?P<name>.+)\.nemo_distill-[0-9a-f]{8}\.tmp", re.DOTALL)
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of linux/fcntl.h and linux/fs.h


def read_lines(path: str | os.PathLike, sha256: str | None = None) -> list[str]:
    """Return the lines of a UTF-8 text file without their line ends; see `iterate_lines`.

    Example:
        >>> read_lines("test.de")  # doctest: +SKIP
        ['Guten Tag', 'Bis morgen']
    """
    return list(iterate_lines(path, sha256))


def iterate_lines(path: str | os.PathLike, sha256: str | None = None) -> Iterator[str]:
    """Yield the lines of a UTF-8 text file without their line ends; a name in `.gz` is decompressed.

    Lines end at `\\n` only; a `\\r` before it and a byte-order mark at the start of the file are dropped. Empty
    lines stay.

    Args:
        path: of the file.
        sha256: what the file must have: compared at its end with what was read, so that a file that is changed
            meanwhile is noticed.

    Raises:
        InputError: when the fault is reached: the file is missing, no regular file, a damaged gzip file or a bomb, has
            a line of more than 16 MB or bytes that are not UTF-8 (the message names the line), or has changed.

    Example:
        >>> sum(1 for _ in iterate_lines("train.de"))  # doctest: +SKIP
        29000
    """
    for number, line in enumerate(iterate_byte_lines(path, sha256), start=1):
        yield decode_line(path, number, line)


def iterate_byte_lines(path: str | os.PathLike, sha256: str | None = None) -> Iterator[bytes]:
    """Yield the lines of a file as bytes, without their ends; see `iterate_lines`."""
    rest, number = b"", 0
    for block in _blocks(Path(path), sha256):
        *lines, rest = (rest + block).split(b"\n")
        number += len(lines)
        if len(rest) > LINE_BYTES:
            raise InputError(
                f"'{path}', line {number + 1}: more than {LINE_BYTES >> 20} MB in one line; is this a text "
                "file with one sentence a line?"
            )
        yield from lines
    if rest:
        yield rest


def _blocks(path: Path, sha256: str | None = None) -> Iterator[bytes]:
    """Yield the content of a file, decompressed; `sha256` is that of the bytes on the disk, compared at the end."""
    with open_regular(path) as raw:
        source = raw if sha256 is None else Hashing(raw)
        stream = CappedGzip(source) if path.suffix == ".gz" else source
        try:
            while block := stream.read(_BLOCK_BYTES):
                yield block
        except TooLargeError as error:
            raise InputError(
                f"'{path}' is, uncompressed, much larger than text can be; if it is text, decompress it by hand"
            ) from error
        except GZIP_ERRORS as error:
            raise InputError(f"'{path}' is not a complete gzip file ({error}); fetch it again") from error
        except OSError as error:
            raise InputError(f"'{path}' cannot be read ({error.strerror}); check the disk") from error
        if sha256 is not None and source.sha256() != sha256:
            raise InputError(
                f"'{path}' has changed while it was in use; run the command again with the text that you mean"
            )


def measure_text(path: str | os.PathLike) -> tuple[int, bool]:
    """Return the number of lines of a text, and whether one of them has more than white space.

    The whole file is read, by blocks: a gigabyte in about two seconds.

    Raises:
        InputError: as `iterate_lines`.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()  # that of "utf-8-sig" takes a part of a mark for a whole one
    lines, open_bytes, has_text, mark = 0, 0, False, "\ufeff"
    try:
        for block in _blocks(Path(path)):
            lines += block.count(b"\n")
            open_bytes = len(block) - 1 - end if (end := block.rfind(b"\n")) >= 0 else open_bytes + len(block)
            if text := decoder.decode(block):
                text, mark = text.removeprefix(mark), ""
                has_text = has_text or bool(text and not text.isspace())
            if open_bytes > LINE_BYTES:
                break
        else:
            decoder.decode(b"", final=True)
            return lines + (open_bytes > 0), has_text
    except UnicodeDecodeError:
        pass
    found = [bool(line.strip()) for line in iterate_lines(path)]  # which says where the fault is
    return len(found), any(found)


def decode_line(path: str | os.PathLike, number: int, line: bytes) -> str:
    """Return the text of a line, from 1, that `iterate_byte_lines` gives; see `iterate_lines`.

    Raises:
        InputError: it is not UTF-8.
    """
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise InputError(
            f"'{path}', line {number}: byte 0x{line[error.start]:02x} at position {error.start} of the line is "
            "not UTF-8; convert the file (for instance with iconv) or mend that line"
        ) from error


def count_lines(path: str | os.PathLike) -> int:
    """Return the number of lines of a text file, without a look at what they say; see `iterate_lines`."""
    return sum(1 for _ in iterate_byte_lines(path))


def read_parallel(
    source: str | os.PathLike, target: str | os.PathLike, sha256: tuple[str, str] | None = None
) -> list[tuple[str, str]]:
    """Return the line pairs of two aligned text files.

    Args:
        source: file.
        target: file.
        sha256: of both, see `iterate_lines`.

    Raises:
        InputError: as `iterate_lines`; either file is empty; or they differ in their number of lines (both are named).
    """
    hashes = sha256 or (None, None)
    source_lines, target_lines = read_lines(source, hashes[0]), read_lines(target, hashes[1])
    for path, lines in ((source, source_lines), (target, target_lines)):
        if not any(line.strip() for line in lines):
            raise no_text(path, len(lines))
    check_parallel(source, len(source_lines), target, len(target_lines))
    return list(zip(source_lines, target_lines, strict=True))


def no_text(path: str | os.PathLike, lines: int) -> InputError:
    """Return the error of a file without text."""
    return InputError(f"'{path}' is empty ({lines} lines, no text); give a file with one sentence a line")


def check_parallel(source: str | os.PathLike, sources: int, target: str | os.PathLike, targets: int) -> None:
    """Make sure that two files have the same number of lines.

    Raises:
        InputError: they have not; both are named.
    """
    if sources != targets:
        raise InputError(
            f"'{source}' has {sources} lines but '{target}' has {targets}; "
            "line N of one must be the translation of line N of the other"
        )


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
