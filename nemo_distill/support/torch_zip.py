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
"""The ZIP that `torch.save` writes, checked such that torch cannot find another one in the same bytes."""

import io
import re
import zipfile
from typing import BinaryIO

_END, _PLACE_64, _END_64 = 22, 20, 56
"""Bytes of the ZIP's end record, and of the two records of a large ZIP in front of it."""


def check_torch_zip(stream: BinaryIO) -> zipfile.ZipInfo:
    """Make sure that a file is a ZIP as torch writes it: nothing compressed, nothing larger than the file, one pickle.

    torch's reader takes names without regard to case, and its places as they are written; Python's takes names as they
    are, and corrects places. A file in which these two differ is refused.

    Returns:
        The entry of the pickle.

    Raises:
        ValueError, zipfile.BadZipFile: it is something else; the message is one of this library or of zipfile.
    """
    size = stream.seek(0, io.SEEK_END)
    with zipfile.ZipFile(stream) as packed:
        entries = packed.infolist()
        if len({entry.filename.lower() for entry in entries}) != len(entries):
            raise ValueError("it holds an entry twice")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("it is compressed, as torch never writes it")
        if sum(entry.file_size for entry in entries) > size:
            raise ValueError("its entries are larger than the file")
        if packed.start_dir != _start_of_directory(stream, size):
            raise ValueError("it has two lists of its entries")
    pickles = [entry for entry in entries if entry.filename.lower().endswith(".pkl")]
    if len(pickles) != 1 or not re.fullmatch("[^/]+/data[.]pkl", pickles[0].filename):
        raise ValueError("it holds not just one pickle, data.pkl")
    return pickles[0]


def _start_of_directory(stream: BinaryIO, size: int) -> int:
    """Return where the list of entries begins, by the records at the end, of which only one may be there."""
    stream.seek(max(0, size - _END - _PLACE_64 - _END_64))
    tail = stream.read()
    end, place, end_64 = tail[-_END:], tail[-_END - _PLACE_64 : -_END], tail[: -_END - _PLACE_64]
    if end[:4] != b"PK\5\6" or end[-2:] != b"\0\0":
        raise ValueError("it does not end as a ZIP of torch does")
    if place[:4] != b"PK\6\7":
        return int.from_bytes(end[16:20], "little")
    if int.from_bytes(place[8:16], "little") != size - len(tail) or end_64[:4] != b"PK\6\6":
        raise ValueError("it does not end as a ZIP of torch does")
    return int.from_bytes(end_64[48:56], "little")
