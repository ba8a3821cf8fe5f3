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
"""Compressed files: gzip, and zstd, which packs text better and ten times as fast.

Frames of either may lie one behind the other in a file, so that parts of it are packed by themselves.
"""

import contextlib
import functools
import gzip
import importlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import IO, BinaryIO

from nemo_distill.errors import InputError
from nemo_distill.support import files
from nemo_distill.support.incoming import GZIP_ERRORS, CappedGzip

GZIP, ZSTD = ".gz", ".zst"
SUFFIXES = (GZIP, ZSTD)
"""Ends of the names of files that are compressed."""
_GZIP_LEVEL, _ZSTD_WINDOW_LOG = 6, 31
_ZSTD_MODULES = ("compression.zstd", "backports.zstd")  # of Python from 3.14 on, and the same for older ones


class DamagedError(ValueError):
    """A compressed file is damaged, or is not whole."""


def suffix_of(path: str | os.PathLike) -> str:
    """Return the one of `SUFFIXES` in which a name ends, or an empty text."""
    suffix = Path(path).suffix
    return suffix if suffix in SUFFIXES else ""


def plain_name(path: str | os.PathLike) -> str:
    """Return the name of a file without its end of `SUFFIXES`.

    Example:
        >>> plain_name("data/train.de.zst")
        'train.de'
    """
    return Path(path).name.removesuffix(suffix_of(path))


class Decompressed:
    """The uncompressed bytes of a file, up to a limit of its size.

    Args:
        raw: the file.
        suffix: one of `SUFFIXES`.

    Raises:
        InputError: nothing here reads zstd.
    """

    def __init__(self, raw: BinaryIO, suffix: str) -> None:
        self._stream = CappedGzip(raw) if suffix == GZIP else _CappedZstd(raw)
        self._errors = GZIP_ERRORS if suffix == GZIP else (EOFError, _zstd().ZstdError)

    def read(self, size: int) -> bytes:
        """Return the next bytes.

        Raises:
            TooLargeError: there are more than allowed, see `incoming.GZIP_RATIO`.
            DamagedError: the file is damaged.
        """
        try:
            return self._stream.read(size)
        except self._errors as error:
            raise DamagedError(str(error)) from error


class _CappedZstd(CappedGzip):
    def _open(self, raw: BinaryIO) -> IO[bytes]:
        # the longest there is, of `zstd --long=31`: memory is taken as far as text fills it, whose size is bounded
        return _zstd().ZstdFile(raw, options={_zstd().DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG})


def compress(content: bytes, suffix: str) -> bytes:
    """Return bytes as a frame that may stand beside others in a file; as they are without a suffix."""
    packed = io.BytesIO()
    with compressing(packed, suffix) as stream:
        stream.write(content)
    return packed.getvalue()


@contextlib.contextmanager
def compressing(raw: IO[bytes], suffix: str) -> Iterator[IO[bytes]]:
    """Give the block a stream whose bytes go, compressed, into `raw`, the same for the same bytes at any time.

    Args:
        raw: is left open.
        suffix: one of `SUFFIXES`, or empty: nothing is done to them.
    """
    if suffix == GZIP:
        with gzip.GzipFile("", "wb", _GZIP_LEVEL, fileobj=raw, mtime=0) as stream:
            yield stream
    elif suffix == ZSTD:
        checked = {_zstd().CompressionParameter.checksum_flag: 1}
        with _zstd().ZstdFile(raw, "wb", options=checked) as stream:
            yield stream
    else:
        yield raw


@contextlib.contextmanager
def open_atomic(path: Path) -> Iterator[IO[bytes]]:
    """Give the block a stream that becomes the file `path`, compressed by its name; see `files.atomic_path`."""
    with (
        files.atomic_path(path) as temporary,
        open(temporary, "wb") as raw,
        compressing(raw, suffix_of(path)) as stream,
    ):
        yield stream


def check_available(suffix: str) -> None:
    """Make sure that files with this end can be read and written.

    Raises:
        InputError: nothing here reads zstd.
    """
    if suffix == ZSTD:
        _zstd()


@functools.cache
def _zstd() -> ModuleType:
    for name in _ZSTD_MODULES:
        with contextlib.suppress(ModuleNotFoundError):
            return importlib.import_module(name)
    raise InputError("a file in .zst needs backports.zstd; pip install backports.zstd, or use .gz")
