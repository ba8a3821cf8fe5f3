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
"""What has been seen before, of more than memory holds: a hash table in a file that is gone with its process."""

import mmap
import os
import tempfile

from nemo_distill.support import files

DIGEST_BYTES = 16
"""Of a key: two of a hundred million keys have the same digest with a probability of 1.5e-23."""
_FREE = bytes(DIGEST_BYTES)


class Seen:
    """A set of digests on disk, open addressing with linear probing, at most half full.

    The file takes 32 bytes for each key and has no name: however the process ends, nothing of it is left. It is mapped
    into memory, from which the system writes it back where it needs the room.

    Args:
        directory: on whose disk the file lies.
        most: keys.

    Raises:
        StorageError: there is no room, or nothing can be mapped there.

    Example:
        >>> seen = Seen("/tmp", most=2)
        >>> [seen.add(key) for key in (b"a" * 16, b"b" * 16, b"a" * 16)]
        [False, False, True]
    """

    def __init__(self, directory: str | os.PathLike, most: int) -> None:
        self._slots, self._left = 2 * most + 1, most
        size = self._slots * DIGEST_BYTES
        with files.reported_storage(directory), tempfile.TemporaryFile(dir=directory) as file:
            os.posix_fallocate(file.fileno(), 0, size)  # a page without room would end the process later
            self._table = mmap.mmap(file.fileno(), size)

    def add(self, digest: bytes) -> bool:
        """Add a digest of `DIGEST_BYTES`, of a good hash; return whether it was there already.

        Raises:
            ValueError: there are more keys than were announced.
        """
        slot = int.from_bytes(digest[:8], "little") % self._slots
        while (found := self._table[slot * DIGEST_BYTES : (slot + 1) * DIGEST_BYTES]) != digest:
            if found == _FREE:
                if not self._left:
                    raise ValueError("more keys than were announced")
                self._left -= 1
                self._table[slot * DIGEST_BYTES : (slot + 1) * DIGEST_BYTES] = digest
                return False
            slot = (slot + 1) % self._slots
        return True
