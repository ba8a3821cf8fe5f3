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
"""The manifest of a cache: what it must say before a shard is opened."""

import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemo_distill.config.languages import is_language
from nemo_distill.errors import InputError, TeacherError
from nemo_distill.support import incoming
from nemo_distill.support.files import is_sha256
from nemo_distill.support.manifest import MANIFEST, is_unfinished
from nemo_distill.support.records import read_record

FORMAT = 2
SHARDS = "shards"
INDEX = ("index.keys.npy", "index.places.npy")
LARGEST_TEMPERATURE = 1e6
LEFT_OUT = ("empty", "too_long", "copies")
"""Why a pair of lines is not in the cache."""
MOST_SHARDS = 1_000_000
"""Their names have six digits."""
_ANEW = "make the cache anew"


@dataclass(frozen=True)
class CacheRequest:
    """What a cache was asked for."""

    teachers: list[str]
    text: list[list[str]]
    top_k: int
    temperatures: list[float]
    precision: str
    max_seq_length: int | None
    shard_tokens: int
    target_languages: list[str] | None = None
    """Of a one-to-many teacher: the language of each pair of files."""
    languages: dict[str, str | None] | None = None
    """Of the text, where the teacher's processors change it."""
    raw: list[bool] | None = None
    """Which pairs of files were processed before BPE; None: none."""
    sampled: int = 0
    """Words drawn beside the best ones."""


@dataclass(frozen=True)
class FileEntry:
    """What a manifest says of a file."""

    sha256: str


@dataclass(frozen=True)
class CacheManifest:
    """The manifest of a finished cache."""

    request: CacheRequest
    cache_format: int
    vocabulary_size: int
    vocabularies: dict[str, str]
    pairs: int
    left_out: dict[str, int]
    tokens: int
    shards: list[int]
    bytes: dict[str, int]
    files: dict[str, FileEntry]
    languages: dict[str, int] = field(default_factory=dict)
    """Id of each language in front of a source; none of a teacher that is told none."""
    agreement: list[dict[str, float]] = field(default_factory=list)
    """What the teacher makes of each pair of files, see `nemo_distill.data.agreement.Agreement.summary`."""

    positions: list[int] | None = None
    """Most tokens of a source and of a target that the teacher read, see `nemo_distill.data.positions.Positions`;
    caches of earlier versions do not say."""

    def faults(self, lines: int | None = None) -> list[str]:
        """Return one line for each value that no cache of so many lines has."""
        request, names = self.request, set(file_names(len(self.shards)))
        temperatures = request.temperatures
        hashes = [*request.teachers, *self.vocabularies.values(), *(entry.sha256 for entry in self.files.values())]
        counts = [*self.shards, *self.bytes.values(), self.pairs]
        wrong = {
            "request.top_k": not 0 < request.top_k <= self.vocabulary_size,
            "request.sampled": not 0 <= request.sampled <= self.vocabulary_size - request.top_k,
            "vocabulary_size": not 0 < self.vocabulary_size < 1 << 31,
            "request.temperatures": not temperatures
            or temperatures != sorted(set(temperatures))
            or not 0 < temperatures[0] <= temperatures[-1] < LARGEST_TEMPERATURE,
            "request.teachers": not request.teachers,
            "request.languages": not _are_languages(request.languages),
            "request.raw": request.raw is not None and len(request.raw) != len(request.text),
            "a hash": not all(map(is_sha256, hashes)),
            "vocabularies": set(self.vocabularies) != {"source", "target"},
            "languages": not all(0 <= each < 1 << 31 for each in self.languages.values()),
            "agreement": not all(
                set(each) == {"pairs", "nats", "shuffled_nats"} and all(map(math.isfinite, each.values()))
                for each in self.agreement
            ),
            "positions": self.positions is not None
            and (len(self.positions) != 2 or not all(0 < each < 1 << 60 for each in self.positions)),
            "shards": not 0 < len(self.shards) <= MOST_SHARDS or sum(self.shards) != self.pairs,
            "a count": not all(0 < each < 1 << 60 for each in counts),
            "left_out": {"empty", *self.left_out} != set(LEFT_OUT)  # earlier versions had no such count
            or not all(0 <= each < 1 << 60 for each in self.left_out.values())
            or lines not in (None, self.pairs + sum(self.left_out.values())),
            "tokens": not self.pairs <= self.tokens < 1 << 60,
            "files": set(self.files) != names or set(self.bytes) != names,
        }
        return [f"{name} is wrong" for name, is_wrong in wrong.items() if is_wrong]


def _are_languages(languages: dict[str, str | None] | None) -> bool:
    return languages is None or (
        set(languages) == {"source", "target"}
        and all(each is None or is_language(each) for each in languages.values())
    )


def shard_files(directory: str | os.PathLike, number: int) -> tuple[Path, Path]:
    """Return the files of a shard: its tokens and its rows."""
    return tuple(Path(directory, SHARDS, f"{number:06d}.{part}.npy") for part in ("tokens", "rows"))


def shard_names(count: int) -> list[str]:
    """Return the names of the files of so many shards in the cache's directory."""
    return [f"{SHARDS}/{path.name}" for number in range(count) for path in shard_files("", number)]


def file_names(count: int) -> list[str]:
    """Return the names of all files of a cache of so many shards."""
    return [*INDEX, *shard_names(count)]


def read_cache_manifest(directory: str | os.PathLike, lines: int | None = None) -> dict[str, Any]:
    """Return the manifest of a finished cache, every value of it checked.

    Args:
        directory: of the cache.
        lines: of the text that it was made of, where they are known.

    Raises:
        TeacherError: there is none, it is unfinished, it is of another format, or says what cannot be.
    """
    path = Path(directory, MANIFEST)
    if not path.is_file():
        if is_unfinished(directory):
            raise TeacherError(f"the cache in '{directory}' is unfinished; run the same command again")
        raise TeacherError(f"'{directory}' holds no cache; `nemo-distill cache` makes one")
    manifest = incoming.read_json(path, error=TeacherError)
    found = manifest.get("cache_format") if isinstance(manifest, dict) else None
    if found in range(1, FORMAT):
        raise TeacherError(
            f"'{path}' is that of a cache of an earlier version (format {found}, now {FORMAT}); {_ANEW}: the same "
            "`nemo-distill cache` with --overwrite"
        )
    if found != FORMAT:
        raise TeacherError(f"'{path}' is not that of a cache of format {FORMAT}; {_ANEW}")
    try:
        faults = read_record(CacheManifest, manifest, str(path), _ANEW).faults(lines)
    except InputError as error:
        raise TeacherError(str(error)) from error
    if faults:
        raise TeacherError(f"'{path}' is damaged: {', '.join(faults)}; {_ANEW}")
    return manifest
