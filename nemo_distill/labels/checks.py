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
"""Checks of what pseudo-labels are made from and what is said of them: manifests, and inputs in the output's place."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from nemo_distill.errors import InputError
from nemo_distill.labels.filtering import REASONS
from nemo_distill.support.manifest import MANIFEST
from nemo_distill.support.records import read_record


@dataclass(frozen=True)
class Counts:
    """How many lines were kept and dropped."""

    lines: int
    kept: int
    dropped: dict[str, int]

    def __post_init__(self) -> None:
        numbers = (self.lines, self.kept, *self.dropped.values())
        if min(numbers) < 0 or self.lines != self.kept + sum(self.dropped.values()):
            raise ValueError("the counts do not add up")
        if unknown := self.dropped.keys() - set(REASONS):
            raise ValueError(f"the reason {min(unknown)[:80]!a} is unknown")


@dataclass(frozen=True)
class _Facts:
    """What a manifest of labels says beside its request and its files."""

    engine: str
    counts: Counts
    input_name: str | None = None
    teacher_names: list[str] | None = None
    tokenizers: dict[str, str] | None = None


@dataclass(frozen=True)
class _Search:
    """What of a request says how many hypotheses there are."""

    verb: str
    num_hypotheses: int


def check_manifest(manifest: Mapping[str, Any], directory: Path, names: Collection[str]) -> Counts:
    """Check what a manifest of labels says; return its counts.

    Args:
        manifest: as `support.manifest.find_finished` returns it.
        directory: it lies in, for the message.
        names: of the files that it must list.

    Raises:
        InputError: it lacks one of them, or has a value of another type.
    """
    where, fix = str(directory / MANIFEST), "make the labels anew (--overwrite)"
    if set(manifest["files"]) != set(names):
        raise InputError(f"'{where}' is damaged: it does not list {', '.join(names)}; {fix}")
    return _known(_Facts, manifest, where, fix).counts


def check_nbest_request(manifest: Mapping[str, Any], directory: Path) -> int:
    """Return the number of hypotheses that `pseudo-label` was asked for.

    Raises:
        InputError: the manifest's request is not one of `pseudo-label`.
    """
    where, fix = str(directory / MANIFEST), "make the labels anew"
    search = _known(_Search, manifest["request"], where, fix)
    if search.verb != "pseudo-label" or search.num_hypotheses < 1:
        raise InputError(f"'{where}' is damaged: its request is not one of pseudo-label; {fix}")
    return search.num_hypotheses


def _known(cls: type, content: Mapping[str, Any], where: str, fix: str) -> Any:
    known = {field.name: content[field.name] for field in fields(cls) if field.name in content}
    try:
        return read_record(cls, known, where, fix)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"'{where}' is damaged: {error}; {fix}") from error
