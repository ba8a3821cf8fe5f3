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
"""The one way in for files that come from elsewhere: regular ones, of bounded size, parsed under limits.

A FIFO or a device in the place of a file would block for ever, a directory gives a traceback, a bomb fills the memory:
every reader of this library opens its files here.
"""

import errno
import gzip
import hashlib
import io
import json
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO

import yaml

from nemo_distill.errors import InputError

RECORD_BYTES = 16 << 20
"""Most bytes of a file of settings or records: manifests, results, plans."""
LINE_BYTES = 16 << 20
"""Most bytes of a line of text."""
GZIP_RATIO, GZIP_FREE = 16, 256 << 20
"""A compressed file may be that many times as large when uncompressed, and so many bytes more; text shrinks to a
third, weights to nine tenths."""
_MAX_DEPTH, _MAX_EVENTS = 32, 20_000
_MAX_PIECES = 1000


@contextmanager
def open_regular(
    path: str | os.PathLike, error: type[InputError] = InputError, fix: str = "check the path"
) -> Iterator[BinaryIO]:
    """Open a file for reading, and nothing but a regular file: what a link leads to counts.

    Args:
        path: of the file.
        error: what to raise.
        fix: what to do, for the message.

    Raises:
        InputError: or `error`: it is missing, no regular file, one of holes, or cannot be read. Errors of
            reading are the caller's; they name the file.

    Example:
        >>> with open_regular("train.de") as stream:  # doctest: +SKIP
        ...     head = stream.read(100)
    """
    path = Path(path)
    try:
        # O_NONBLOCK: a FIFO that nobody writes to does not block; it changes nothing for a regular file
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as reason:
        raise error(_cannot_open(path, reason, fix)) from reason
    kind = _odd_kind(descriptor)
    if kind is not None:
        os.close(descriptor)
        raise error(f"'{path}' {kind}; {fix}")
    os.set_blocking(descriptor, True)  # else a file in /proc says that it has nothing
    with io.BufferedReader(_NamedFile(path, descriptor)) as stream:
        yield stream


def check_file(path: str | os.PathLike) -> None:
    """Look whether a file is there to be read.

    Raises:
        InputError: as `open_regular`.
    """
    with open_regular(path):
        pass


def check_directory(path: str | os.PathLike) -> None:
    """Look whether a directory is there to be read.

    Raises:
        InputError: it is missing, or is something else.
    """
    if not os.path.isdir(path):
        with open_regular(path):  # which says why nothing is there
            raise InputError(f"'{path}' is a file; give a directory")


class _NamedFile(io.FileIO):
    """A file whose errors of reading name it."""

    def __init__(self, path: Path, descriptor: int) -> None:
        super().__init__(descriptor)
        self._path = str(path)

    def readinto(self, buffer) -> int | None:
        try:
            return super().readinto(buffer)
        except OSError as error:
            error.filename = self._path
            raise

    def readall(self) -> bytes:
        try:
            return super().readall()
        except OSError as error:
            error.filename = self._path
            raise


class Hashing:
    """A file that is read once, from its beginning to its end, and the SHA-256 of what was read."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw, self._digest, self.fileno = raw, hashlib.sha256(), raw.fileno

    def read(self, size: int) -> bytes:
        """Return the next bytes."""
        content = self._raw.read(size)
        self._digest.update(content)
        return content

    def sha256(self) -> str:
        """Return the SHA-256 of what was read, as 64 hexadecimal digits."""
        return self._digest.hexdigest()


def state(file: int | str | os.PathLike) -> tuple[int, ...]:
    """Return what tells a file from another one, and from itself after a change; its size comes first.

    Args:
        file: its descriptor, or its path.
    """
    found = os.stat(file)
    return found.st_size, found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns


def _odd_kind(descriptor: int) -> str | None:
    """Say what is wrong with an open file, None for a regular one with content."""
    found = os.fstat(descriptor)
    if stat.S_ISDIR(found.st_mode):
        return "is a directory"
    if not stat.S_ISREG(found.st_mode):
        return "is not a regular file"
    # as far as blocks are counted: some network file systems say 0
    if found.st_size > GZIP_FREE + GZIP_RATIO * 512 * found.st_blocks:
        held = _bytes_held(descriptor, found.st_size)
        if held is not None and found.st_size > GZIP_FREE + GZIP_RATIO * held:
            return f"is a sparse file: it says {found.st_size} bytes and holds {held}"
    return None


def _bytes_held(descriptor: int, size: int) -> int | None:
    """Return the bytes of a file that are not holes; None where there are too many pieces to count."""
    held = place = 0
    try:
        for _ in range(_MAX_PIECES):
            start = os.lseek(descriptor, place, os.SEEK_DATA)
            place = os.lseek(descriptor, start, os.SEEK_HOLE)
            held += place - start
            if place >= size:
                return held
    except OSError as reason:
        return held if reason.errno == errno.ENXIO else None  # no more data; or the file system knows no holes
    finally:
        os.lseek(descriptor, 0, os.SEEK_SET)
    return None


def _cannot_open(path: Path, reason: Exception, fix: str = "check the path") -> str:
    if isinstance(reason, FileNotFoundError):
        return f"'{path}' does not exist; {fix}"
    if isinstance(reason, PermissionError):
        return f"'{path}' cannot be read; change its permissions"
    what = getattr(reason, "strerror", None) or str(reason)
    return f"{str(path)[:300]!r} cannot be opened ({what}); {fix}"


def read_bytes(path: str | os.PathLike, limit: int = RECORD_BYTES, error: type[InputError] = InputError) -> bytes:
    """Return the content of a small file.

    Raises:
        InputError: or `error`: as `open_regular`; it has more than `limit` bytes, or cannot be read.
    """
    with open_regular(path, error) as stream:
        try:
            content = stream.read(limit + 1)
        except OSError as reason:
            raise error(_cannot_open(Path(path), reason)) from reason
    if len(content) > limit:
        raise error(f"'{path}' has more than the {limit} bytes that such a file may have; check the path")
    return content


def read_json(path: str | os.PathLike, limit: int = RECORD_BYTES, error: type[InputError] = InputError) -> Any:
    """Return the content of a JSON file: strict JSON, without NaN and without a key twice.

    Raises:
        InputError: or `error`: as `read_bytes`, or it is not JSON.
    """
    content = read_bytes(path, limit, error)
    try:
        return parse_json(content)
    except ValueError as reason:
        raise error(f"'{path}' is not valid JSON ({reason}); write it again or remove it") from reason


def parse_json(text: str | bytes) -> Any:
    """Return what strict JSON says.

    Raises:
        ValueError: it is not JSON, is nested too deep, has a key twice, or a number that JSON or a float has not.
    """
    try:
        content = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite)
    except RecursionError as reason:
        raise ValueError("it is nested too deep") from reason
    _check_depth(content)
    return content


def _check_depth(content: Any) -> None:
    """Refuse what functions that call themselves for each level could not walk through."""
    level = [content]
    for _ in range(_MAX_DEPTH):
        inner = (each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list))
        level = [item for items in inner for item in items]
        if not level:
            return
    raise ValueError(f"it is nested more than {_MAX_DEPTH} deep")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for place, key in enumerate(keys) if key in keys[:place])
        raise ValueError(f"it has the key {twice[:80]!r} twice")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"it has the value {name}, which is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"it has the number {text[:40]}, which no float holds")
    return value


def read_yaml_text(path: str | os.PathLike, limit: int = RECORD_BYTES, error: type[InputError] = InputError) -> str:
    """Return the text of a YAML file whose values can be built without danger; see `check_yaml`.

    Raises:
        InputError: or `error`: as `read_bytes`, or the text is no such YAML.
    """
    content = read_bytes(path, limit, error)
    try:
        text = content.decode("utf-8-sig")
        check_yaml(text)
    except ValueError as reason:
        raise error(f"'{path}' is not YAML that can be read: {reason}") from reason
    return text


def check_yaml(text: str) -> None:
    """Refuse what YAML can do beyond plain data, and what would take long to read, before any value is built.

    Raises:
        ValueError: no YAML; anchors, tags, a key twice; nested more than 32 deep, or more than 20,000 values.
    """
    depth = 0
    keys: list[set[str] | None] = []  # of the mappings that are open; None for a list
    at_key: list[bool] = []
    try:
        for count, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
                raise ValueError("it has anchors; write the values out")
            if getattr(event, "tag", None) is not None:
                raise ValueError(f"it has the tag {event.tag[:80]!r}")
            if depth > _MAX_DEPTH:
                raise ValueError(f"it is nested more than {_MAX_DEPTH} deep")
            if count > _MAX_EVENTS:
                raise ValueError(f"it has too many values, more than {_MAX_EVENTS}")
            _note_keys(event, keys, at_key)
    except yaml.YAMLError as reason:
        raise ValueError(" ".join(str(reason).split())) from reason
    except RecursionError as reason:
        raise ValueError(f"it is nested more than {_MAX_DEPTH} deep") from reason


def _note_keys(event: yaml.Event, keys: list[set[str] | None], at_key: list[bool]) -> None:
    """Follow the keys of the mappings that are open, and refuse one that comes twice."""
    if isinstance(event, yaml.CollectionEndEvent):
        keys.pop(), at_key.pop()
    elif isinstance(event, yaml.CollectionStartEvent | yaml.ScalarEvent) and keys and keys[-1] is not None:
        if at_key[-1] and isinstance(event, yaml.ScalarEvent):
            if event.value in keys[-1]:
                raise ValueError(f"it has the key {event.value[:80]!r} twice")
            keys[-1].add(event.value)
        at_key[-1] = not at_key[-1]
    if isinstance(event, yaml.CollectionStartEvent):
        keys.append(set() if isinstance(event, yaml.MappingStartEvent) else None)
        at_key.append(True)


class TooLargeError(ValueError):
    """A compressed file is larger, uncompressed, than is allowed."""


class CappedGzip:
    """The uncompressed bytes of a gzip file, up to a limit.

    Args:
        raw: the file.
        allowed: most bytes; by default by its size, see `GZIP_RATIO`.
    """

    def __init__(self, raw: BinaryIO, allowed: int | None = None) -> None:
        if allowed is None:
            allowed = GZIP_FREE + GZIP_RATIO * os.fstat(raw.fileno()).st_size
        self._stream, self._left = self._open(raw), allowed

    def _open(self, raw: BinaryIO) -> IO[bytes]:
        return gzip.GzipFile(fileobj=raw, mode="rb")

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes.

        Raises:
            TooLargeError: there are more than allowed.
            gzip.BadGzipFile, EOFError, zlib.error: the file is damaged.
        """
        content = self._stream.read(min(size, self._left + 1) if size >= 0 else self._left + 1)
        self._left -= len(content)
        if self._left < 0:
            raise TooLargeError
        return content

    def drain(self) -> None:
        """Read what is left, which also compares gzip's checksum."""
        while self.read(1 << 20):
            pass


GZIP_ERRORS = (gzip.BadGzipFile, EOFError, zlib.error)
"""What reading a damaged gzip file raises."""
