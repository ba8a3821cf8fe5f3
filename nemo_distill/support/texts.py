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
"""A text in one file or in several, one behind the other."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from nemo_distill.errors import InputError
from nemo_distill.support import files, text_files

GivenText = str | os.PathLike | Sequence[str | os.PathLike]
_MOST_SHOWN = 3


class Texts:
    """The lines of some files, read as those of one.

    Args:
        given: a file, or several.

    Raises:
        InputError: there is none.

    Example:
        >>> str(Texts(["a.de", "b.de"]))
        "'a.de', 'b.de'"
    """

    def __init__(self, given: GivenText) -> None:
        several = [given] if isinstance(given, str | os.PathLike) else given
        self.paths = tuple(map(Path, several))
        if not self.paths:
            raise InputError("a text of no file; give at least one")

    def __str__(self) -> str:
        more = f" and {len(self.paths) - _MOST_SHOWN} more" if len(self.paths) > _MOST_SHOWN else ""
        return ", ".join(f"'{path}'" for path in self.paths[:_MOST_SHOWN]) + more

    def sha256(self) -> str | list[str]:
        """Return the SHA-256 of the file, or of each of several."""
        found = [files.sha256(path) for path in self.paths]
        return found if len(found) > 1 else found[0]

    def lines(self, sha256: str | Sequence[str] | None = None) -> Iterator[str]:
        """Yield all lines; see `text_files.iterate_lines`.

        Args:
            sha256: what the files must have, as `sha256` returns it.
        """
        for path, digest in self._with(sha256):
            yield from text_files.iterate_lines(path, digest)

    def blocks(
        self, sha256: str | Sequence[str] | None = None, size: int = 1 << 19
    ) -> Iterator[tuple[Path, int, int, bytes]]:
        """Yield a file, the number of the first line in it and in all files, and whole lines; see `line_blocks`."""
        first = 1
        for path, digest in self._with(sha256):
            for own, block in text_files.line_blocks(path, digest, size):
                yield path, own, first, block
                first += block.count(b"\n") + 1

    def _with(self, sha256: str | Sequence[str] | None) -> Iterator[tuple[Path, str | None]]:
        several = [sha256] * len(self.paths) if sha256 is None or isinstance(sha256, str) else sha256
        return zip(self.paths, several, strict=True)
