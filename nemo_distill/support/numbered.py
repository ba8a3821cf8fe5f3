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
"""A text in several files of so many lines each, told apart by numbers: `source-00001.txt`, `source-00002.txt` ..."""

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TypeVar

from nemo_distill.errors import InputError
from nemo_distill.support import files
from nemo_distill.support.compressed import compressing, plain_name, suffix_of

MOST_FILES = 99_999
_NUMBER = re.compile(r"-([0-9]{5})(?=\.|$)")
Item = TypeVar("Item")
Block = tuple[Path, int, int, bytes]


def numbered(name: str, number: int | None) -> str:
    """Return the name of one of several files, or of the only one.

    Args:
        name: of the only one.
        number: from 1; None: there is but one.

    Example:
        >>> numbered("source.tok.txt.zst", 3)
        'source-00003.tok.txt.zst'
    """
    stem, dot, ends = name.partition(".")
    return name if number is None else f"{stem}-{number:05d}{dot}{ends}"


def number_of(path: str | os.PathLike) -> int | None:
    """Return the number in the name of one of several files; None where it has none."""
    found = _NUMBER.search(Path(path).name)
    return int(found[1]) if found else None


def unnumbered(path: str | os.PathLike) -> str:
    """Return a path without the number in its name: equal for the files of one text."""
    directory, name = os.path.split(path)
    return os.path.join(directory, _NUMBER.sub("", name, count=1))


def base_name(path: str | os.PathLike) -> str:
    """Return the name that a file would have if it were the only one and not compressed.

    Example:
        >>> base_name("labels/source-00003.tok.txt.zst")
        'source.tok.txt'
    """
    return plain_name(unnumbered(path))


def numbers_for(lines: int, lines_per_file: int | None) -> Sequence[int | None]:
    """Return the numbers of the files that hold so many lines; of the only one None.

    Raises:
        InputError: there would be more than names can tell apart.
    """
    if lines_per_file is None:
        return [None]
    count = -(-lines // lines_per_file)
    if count > MOST_FILES:
        raise InputError(
            f"lines_per_file: got {lines_per_file}, which makes {count} files of {lines} lines; give at least "
            f"{-(-lines // MOST_FILES)}"
        )
    return range(1, count + 1)


def numbers_in(names: Iterable[str]) -> Sequence[int | None]:
    """Return the numbers of files from 1 to the largest that one of some names has; None where none has one."""
    most = max((number_of(name) or 0 for name in names), default=0)
    return range(1, most + 1) if most else [None]


def cut(first: int, items: Sequence[Item], lines_per_file: int | None) -> Iterator[tuple[int, Sequence[Item]]]:
    """Yield consecutive lines by the files that they go to, with the number of the first, from 1.

    Args:
        first: number of the first of them.
        items: one for each line.
        lines_per_file: None: there is one file.

    Example:
        >>> list(cut(3, "cdefg", 4))
        [(3, 'cd'), (5, 'efg')]
    """
    place = 0
    while lines_per_file is not None and (room := lines_per_file - (first - 1) % lines_per_file) < len(items) - place:
        yield first, items[place : place + room]
        first, place = first + room, place + room
    yield first, items[place:] if place else items


def cut_blocks(blocks: Iterable[Block], lines_per_file: int | None) -> Iterator[Block]:
    """Yield the blocks of `Texts.blocks`, cut where a file of what is made of them ends."""
    for path, own, first, block in blocks:
        if lines_per_file is None or (first - 1) % lines_per_file + block.count(b"\n") < lines_per_file:
            yield path, own, first, block
            continue
        for start, lines in cut(first, block.split(b"\n"), lines_per_file):
            yield path, own + start - first, start, b"\n".join(lines)


@contextlib.contextmanager
def open_numbered(
    directory: Path, heads: Mapping[str, bytes], lines_per_file: int | None, packed: bool = False
) -> Iterator[Callable[[int], list[IO[bytes]]]]:
    """Give the block a function that returns the streams of the files that a line of the input goes to.

    Lines are asked for in their order. The files are there when the block has ended, all of them; or none, if it
    raises; see `files.atomic_path`.

    Args:
        directory: of the files.
        heads: by names of files, were each the only one, what every one of them begins with.
        lines_per_file: lines of the input; None: there is one file.
        packed: what is written is compressed already; else a name says whether it will be.
    """
    number, streams = 0, []
    with contextlib.ExitStack() as places, contextlib.ExitStack() as current:

        def streams_of(line: int) -> list[IO[bytes]]:
            nonlocal number, streams
            wanted = None if lines_per_file is None else 1 + (line - 1) // lines_per_file
            if wanted != number:
                current.close()
                number, streams = wanted, []
                for name, head in heads.items():
                    temporary = places.enter_context(files.atomic_path(directory / numbered(name, wanted)))
                    raw = current.enter_context(open(temporary, "wb"))
                    streams.append(current.enter_context(compressing(raw, "" if packed else suffix_of(name))))
                    if head:
                        streams[-1].write(head)
            return streams

        yield streams_of
