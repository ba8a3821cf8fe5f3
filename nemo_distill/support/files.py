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

import contextlib
import gzip
import hashlib
import json
import os
import secrets
import shutil
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from nemo_distill.errors import InputError

_BLOCK_BYTES = 1 << 20


def read_lines(path: str | os.PathLike) -> list[str]:
    """Return the lines of a UTF-8 text file without their line ends; a name in `.gz` is decompressed.

    Lines end at `\\n` only; a `\\r` before it and a byte-order mark at the start of the file are dropped. Empty
    lines stay.

    Raises:
        InputError: the file is missing, is no regular file, is a damaged gzip file, or holds bytes that are not
            UTF-8 (the message names the line).

    Example:
        >>> read_lines("test.de")  # doctest: +SKIP
        ['Guten Tag', 'Bis morgen']
    """
    path = Path(path)
    content = _read_bytes(path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        _raise_first_bad_line(path, content)
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def iterate_lines(path: str | os.PathLike) -> Iterator[str]:
    """Yield the lines that `read_lines` returns one by one, for files too large to hold.

    Raises:
        InputError: as `read_lines`, when the fault is reached.

    Example:
        >>> sum(1 for _ in iterate_lines("train.de"))  # doctest: +SKIP
        29000
    """
    path = Path(path)
    with _open_bytes(path) as stream:
        for number, line in enumerate(stream, start=1):
            line = line.removesuffix(b"\n")
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise _not_utf8(path, number, line, error) from error
            yield text.removesuffix("\r")


def read_parallel(source: str | os.PathLike, target: str | os.PathLike) -> list[tuple[str, str]]:
    """Return the line pairs of two aligned text files.

    Raises:
        InputError: as `read_lines`; either file is empty; or they differ in their number of lines (both are named).
    """
    source_lines, target_lines = read_lines(source), read_lines(target)
    for path, lines in ((source, source_lines), (target, target_lines)):
        if not any(line.strip() for line in lines):
            raise InputError(f"'{path}' is empty ({len(lines)} lines, no text); give a file with one sentence a line")
    if len(source_lines) != len(target_lines):
        raise InputError(
            f"'{source}' has {len(source_lines)} lines but '{target}' has {len(target_lines)}; "
            "line N of one must be the translation of line N of the other"
        )
    return list(zip(source_lines, target_lines, strict=True))


def sha256(path: str | os.PathLike) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Give the block a temporary name beside `path`; when the block ends well, sync that file and rename it to `path`.

    If the block raises, the temporary file is removed and an older `path` is left as it was. Missing parent
    directories are made.

    Example:
        >>> with atomic_path("runs/model.bin") as temporary:  # doctest: +SKIP
        ...     save(temporary)
    """
    path = Path(path)
    _make_directory(path.parent)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        with open(temporary, "rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)
        _sync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replaced_directory(path: str | os.PathLike, overwrite: bool, mark: str) -> Iterator[Path]:
    """Give the block a temporary directory beside `path`; when the block ends well, sync it and rename it to `path`.

    If the block raises, the temporary directory is removed and an older `path` is left as it was.

    Args:
        path: must not exist or be empty.
        overwrite: replace a directory that holds the file `mark`, and only such a one.
        mark: name of a file that every directory of this kind holds.

    Raises:
        InputError: `path` is a file, or holds something that may not be replaced.
    """
    path = Path(path)
    _make_directory(path.parent)
    if path.exists() and not path.is_dir():
        raise InputError(f"'{path}' cannot be a directory: it is a file; give another path")
    if path.is_dir() and any(path.iterdir()):
        if not (path / mark).is_file():
            raise InputError(f"'{path}' holds something else (no {mark}); give another output directory")
        if not overwrite:
            raise InputError(f"'{path}' already exists; give another output directory, or --overwrite")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    old = temporary.with_suffix(".old")
    try:
        temporary.mkdir()
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                with open(file, "rb+") as stream:
                    os.fsync(stream.fileno())
        _sync_directory(temporary)
        if path.exists():
            os.replace(path, old)
        try:
            os.replace(temporary, path)
        except OSError:
            os.replace(old, path)
            raise
        _sync_directory(path.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


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
    write_text_atomic(path, "".join(f"{line}\n" for line in lines))


def write_json_atomic(path: str | os.PathLike, content: Any) -> None:
    """Write `content` as indented, strict JSON (no NaN) in UTF-8 through `atomic_path`."""
    write_text_atomic(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike) -> Any:
    """Return the content of a JSON file.

    Raises:
        InputError: the file is missing or is not JSON.
    """
    path = Path(path)
    try:
        return json.loads(_read_bytes(path))
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"'{path}' is not valid JSON ({error}); write it again or remove it") from error


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
    _make_directory(path)
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


def _read_bytes(path: Path) -> bytes:
    with _open_bytes(path) as stream:
        return stream.read()


@contextlib.contextmanager
def _open_bytes(path: Path) -> Iterator[BinaryIO]:
    if not path.is_file():
        kind = "is not a regular file" if path.exists() else "does not exist"
        raise InputError(f"'{path}' {kind}; check the path")
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as stream:
            yield stream
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"'{path}' is not a complete gzip file ({error}); fetch it again") from error
    except PermissionError as error:
        raise InputError(f"'{path}' cannot be read; change its permissions") from error


def _raise_first_bad_line(path: Path, content: bytes) -> None:
    for number, line in enumerate(content.split(b"\n"), start=1):
        try:
            line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise _not_utf8(path, number, line, error) from error


def _not_utf8(path: Path, number: int, line: bytes, error: UnicodeDecodeError) -> InputError:
    return InputError(
        f"'{path}', line {number}: byte 0x{line[error.start]:02x} at position {error.start} of the line is "
        "not UTF-8; convert the file (for instance with iconv) or mend that line"
    )


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"'{path}' cannot be a directory: '{error.filename}' is a file; give another path") from error
    except PermissionError as error:
        raise InputError(f"'{path}' cannot be made: no permission; give another path") from error


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
