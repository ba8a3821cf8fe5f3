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
"""Reading text files strictly.

A line ends at `\\n` alone: the other characters that `str.splitlines` breaks at (U+2028, U+0085, form feed ...) occur
inside sentences, and breaking there would shift every later line against the other language.
"""

import codecs
import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from nemo_distill.errors import InputError
from nemo_distill.support.composed import Decomposed
from nemo_distill.support.compressed import GZIP, DamagedError, Decompressed, suffix_of
from nemo_distill.support.incoming import LINE_BYTES, Hashing, TooLargeError, open_regular
from nemo_distill.support.remembered import remembered

_BLOCK_BYTES = 1 << 20
_NO_TEXT = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"PK\x03\x04": "zip"}
"""Kinds of files that are not text, by their first bytes."""


def read_lines(path: str | os.PathLike, sha256: str | None = None) -> list[str]:
    """Return the lines of a UTF-8 text file without their line ends; see `iterate_lines`.

    Example:
        >>> read_lines("test.de")  # doctest: +SKIP
        ['Guten Tag', 'Bis morgen']
    """
    return list(iterate_lines(path, sha256))


def iterate_lines(path: str | os.PathLike, sha256: str | None = None) -> Iterator[str]:
    """Yield the lines of a UTF-8 text file without their line ends; a name in `.gz` or `.zst` is decompressed.

    Lines end at `\\n` only; a `\\r` before it and a byte-order mark at the start of the file are dropped. Empty
    lines stay.

    Args:
        path: of the file.
        sha256: what the file must have: compared at its end with what was read, so that a file that is changed
            meanwhile is noticed.

    Raises:
        InputError: when the fault is reached: the file is missing, no regular file, compressed and damaged or a bomb,
            has a line of more than 16 MB or bytes that are not UTF-8 (the message names the line), has lines that end
            as those of old Macs do, or has changed.

    Example:
        >>> sum(1 for _ in iterate_lines("train.de"))  # doctest: +SKIP
        29000
    """
    for number, line in enumerate(iterate_byte_lines(path, sha256), start=1):
        yield decode_line(path, number, line)


def iterate_byte_lines(path: str | os.PathLike, sha256: str | None = None) -> Iterator[bytes]:
    """Yield the lines of a file as bytes, without their ends; see `iterate_lines`."""
    rest, number, first = b"", 0, b""
    for block in blocks(path, sha256):
        *lines, rest = (rest + block).split(b"\n")
        first = first if number else b"".join(lines[:1])
        number += len(lines)
        if len(rest) > LINE_BYTES:
            _check_line_ends(path, number + 1, rest)
            raise InputError(
                f"'{path}', line {number + 1}: more than {LINE_BYTES >> 20} MB in one line; is this a text "
                "file with one sentence a line?"
            )
        yield from lines
    if rest:
        yield rest
    _check_line_ends(path, number + bool(rest), first or rest)


def _check_line_ends(path: str | os.PathLike, lines: int, line: bytes) -> None:
    """Refuse a text of one line that has carriage returns before its end."""
    if lines == 1 and b"\r" in line.rstrip(b"\r"):
        raise InputError(
            f"'{path}' is one line with carriage returns in it: its lines end in \\r, not in \\n; convert it, such as "
            "by tr '\\r' '\\n' < OLD > NEW"
        )


def line_blocks(
    path: str | os.PathLike, sha256: str | None = None, size: int = 1 << 19
) -> Iterator[tuple[int, bytes]]:
    """Yield the number of a block's first line, from 1, and its whole lines, joined; see `iterate_lines`.

    Args:
        path: of the file.
        sha256: what the file must have.
        size: bytes after which a block ends with its line.
    """
    first, block, left = 1, [], size
    for line in iterate_byte_lines(path, sha256):
        block.append(line)
        left -= len(line) + 1
        if left <= 0:
            yield first, b"\n".join(block)
            first, block, left = first + len(block), [], size
    if block:
        yield first, b"\n".join(block)


def decode_block(path: str | os.PathLike, first: int, block: bytes) -> Iterator[str]:
    """Yield the lines of a block of `line_blocks`; see `decode_line`."""
    return (decode_line(path, number, line) for number, line in enumerate(block.split(b"\n"), start=first))


def blocks(path: str | os.PathLike, sha256: str | None = None) -> Iterator[bytes]:
    """Yield the content of a file, decompressed; `sha256` is that of the bytes on the disk, compared at the end."""
    with open_regular(path) as raw:
        source = raw if sha256 is None else Hashing(raw)
        stream = Decompressed(source, suffix) if (suffix := suffix_of(path)) else source
        try:
            while block := stream.read(_BLOCK_BYTES):
                yield block
        except TooLargeError as error:
            raise InputError(
                f"'{path}' is, uncompressed, much larger than text can be; if it is text, decompress it by hand"
            ) from error
        except DamagedError as error:
            kind = "gzip" if suffix == GZIP else "zstd"
            raise InputError(f"'{path}' is not a complete {kind} file ({error}); fetch it again") from error
        except OSError as error:
            raise InputError(f"'{path}' cannot be read ({error.strerror}); check the disk") from error
        if sha256 is not None and source.sha256() != sha256:
            raise InputError(
                f"'{path}' has changed while it was in use; run the command again with the text that you mean"
            )


def text_bytes(paths: Iterable[str | os.PathLike], most: int) -> int:
    """Return the bytes of text in some files, uncompressed; where there are more than `most`, that number.

    No more of a compressed file is read than that takes. Of one that is damaged the beginning counts: what is wrong
    with it is for its reader to say.

    Args:
        paths: of the files.
        most: from which on it does not matter how many there are.
    """
    total = 0
    for path in map(Path, paths):
        if not suffix_of(path):
            total += path.stat().st_size
            continue
        with contextlib.suppress(InputError):
            for block in blocks(path):
                total += len(block)
                if total >= most:
                    break
        if total >= most:
            break
    return min(total, most)


def parts(paths: Iterable[str | os.PathLike], size: int, most: int) -> int:
    """Return how many parts of so many bytes the text of some files has, from 1 to `most`; see `text_bytes`."""
    return max(1, -(-text_bytes(paths, most * size) // size))


def is_empty(path: str | os.PathLike) -> bool:
    """Return whether a file is a text without a line; what cannot be read is none."""
    try:
        if next(blocks(path), None) is not None:
            return False
    except InputError:
        return False
    return not suffix_of(path) or os.path.getsize(path) > 0  # compressed, nothing has some bytes


class Measured(NamedTuple):
    """What `measure_text` finds."""

    lines: int
    has_text: bool
    """One of them has more than white space."""
    decomposed: Decomposed


@remembered
def measure_text(path: str | os.PathLike) -> Measured:
    """Return the number of lines of a text, whether there is text in them, and which have decomposed letters.

    The whole file is read, by blocks, once in a process: a gigabyte in two to seven seconds, by its script.

    Raises:
        InputError: as `iterate_lines`.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()  # that of "utf-8-sig" takes a part of a mark for a whole one
    lines, open_bytes, has_text, mark, decomposed = 0, 0, False, "\ufeff", Decomposed()
    try:
        for block in blocks(path):
            lines += block.count(b"\n")
            open_bytes = len(block) - 1 - end if (end := block.rfind(b"\n")) >= 0 else open_bytes + len(block)
            if text := decoder.decode(block):
                text, mark = text.removeprefix(mark), ""
                has_text = has_text or bool(text and not text.isspace())
            decomposed.look_at_block(block)
            if open_bytes > LINE_BYTES:
                break
        else:
            decoder.decode(b"", final=True)
            decomposed.look_at_block(b"\n")
            if lines + (open_bytes > 0) != 1:  # of a single one `iterate_lines` knows whether it is one
                return Measured(lines + (open_bytes > 0), has_text, decomposed)
    except UnicodeDecodeError:
        pass
    found = [bool(line.strip()) for line in iterate_lines(path)]  # which says where the fault is
    return Measured(len(found), any(found), decomposed)


def decode_line(path: str | os.PathLike, number: int, line: bytes) -> str:
    """Return the text of a line, from 1, that `iterate_byte_lines` gives; see `iterate_lines`.

    Raises:
        InputError: it is not UTF-8.
    """
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8").removesuffix("\r")
    except UnicodeDecodeError as error:
        kind = next((kind for start, kind in _NO_TEXT.items() if number == 1 and line.startswith(start)), None)
        if kind is not None:
            raise InputError(
                f"'{path}' is a {kind} file; decompress it (what ends in .gz or .zst by its name too is read as it is)"
            ) from error
        raise InputError(
            f"'{path}', line {number}: byte 0x{line[error.start]:02x} at position {error.start} of the line is "
            "not UTF-8; convert the file (for instance with iconv) or mend that line"
        ) from error


def count_lines(path: str | os.PathLike) -> int:
    """Return the number of lines of a text file, without a look at what they say; see `iterate_lines`."""
    lines, open_bytes = 0, 0
    for block in blocks(path):
        lines += block.count(b"\n")
        open_bytes = len(block) - 1 - end if (end := block.rfind(b"\n")) >= 0 else open_bytes + len(block)
        if open_bytes > LINE_BYTES:
            return sum(1 for _ in iterate_byte_lines(path))  # which says where the fault is
    return lines + (open_bytes > 0)


def read_parallel(
    source: str | os.PathLike, target: str | os.PathLike, sha256: tuple[str, str] | None = None
) -> list[tuple[str, str]]:
    """Return the line pairs of two aligned text files.

    Args:
        source: file.
        target: file.
        sha256: of both, see `iterate_lines`.

    Raises:
        InputError: as `iterate_lines` and `no_text`; or they differ in their number of lines (both are named).
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
