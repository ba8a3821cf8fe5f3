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
"""What an export says of itself, `export.json`: written last, believed as far as its files agree."""

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from nemo_distill.archives.reader import ArchiveLimits
from nemo_distill.config.languages import Languages
from nemo_distill.decoding.engine import QUANTIZATIONS
from nemo_distill.decoding.exported_program import FORMAT_VERSION, check_record
from nemo_distill.errors import InputError
from nemo_distill.support.files import is_sha256, sha256
from nemo_distill.support.incoming import open_regular, read_json, state
from nemo_distill.support.records import read_record

EXPORT_NAME, PAGE_NAME, PROGRAM_NAME = "export.json", "README.md", "translate.py"
_AGAIN = "export the model again"
_MARKS = {"bos", "eos", "pad"}
# What Python leaves where somebody imports the program.
_COMPILED = re.compile(r"__pycache__(/translate\.[\w.-]+\.pyc)?")


@dataclass(frozen=True)
class TextSide:
    """How an exported model reads or writes text."""

    library: str
    """`yttm` or `sentencepiece`."""
    file: str
    """Name of the tokenizer's file."""
    language: str | None
    """As was asked for, else as the model's archive says."""
    processor: str | None
    """Class of NeMo's text processor; None for raw text."""
    right_to_left: bool
    special_ids: list[int]
    """Ids that stand for no text."""
    added: dict[str, int] = field(default_factory=dict)
    """Id of each token that NeMo added to the pieces of the tokenizer, as it does with `sentencepiece_legacy`."""
    marks: dict[str, str] = field(default_factory=dict)
    """The start token, end token and padding of such a tokenizer, `bos`, `eos` and `pad`."""


@dataclass(frozen=True)
class ExportPair:
    """One pair of languages of a model of several."""

    source: str | None
    target: str | None
    source_processor: str | None
    """As of `TextSide`."""
    target_processor: str | None
    front: list[str]
    """What stands in front of the pieces of a source: the language and the start token; none: CTranslate2 adds it."""
    end: list[str]
    """The end token, where `front` is given."""


@dataclass(frozen=True)
class ExportSearch:
    """The beam search that the model's archive asks for; see `SearchSettings`."""

    beam_size: int
    length_penalty: float
    max_length_delta: int


@dataclass(frozen=True)
class ExportRequest:
    """What was asked for: equal requests give equal exports."""

    archive_sha256: str
    quantization: str
    source_lang: str | None = None
    """In place of what the archive says; so too the next."""
    target_lang: str | None = None


@dataclass(frozen=True)
class FileEntry:
    """What a file of the export is."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class ExportRecord:
    """The content of `export.json`."""

    format_version: int
    archive: str
    """Name of the archive's file."""
    request: ExportRequest
    source: TextSide
    target: TextSide
    search: ExportSearch
    longest_source: int
    """Most tokens of a source, start and end token included."""
    longest_target: int
    files: dict[str, FileEntry]
    """Every other file of the directory."""
    pairs: list[ExportPair] = field(default_factory=list)
    """Of a model of several languages, all of them or the one that was asked for; else none."""


def list_files(directory: Path) -> dict[str, FileEntry]:
    """Return the entries of all files of a directory, for its record."""
    paths = sorted(path for path in directory.iterdir() if path.name != EXPORT_NAME)
    return {path.name: FileEntry(sha256(path), path.stat().st_size) for path in paths}


def chosen_pair(directory: Path, record: ExportRecord, languages: Languages) -> ExportPair:
    """Return the pair of languages that is meant: the only one, or the one that fits what is given.

    Raises:
        InputError: none fits, or several do.
    """
    source, target = record.source, record.target
    pairs = record.pairs or [ExportPair(source.language, target.language, source.processor, target.processor, [], [])]
    found = [
        pair for pair in pairs if languages.source in (None, pair.source) and languages.target in (None, pair.target)
    ]
    if len(found) != 1:
        known = ", ".join(f"{pair.source} to {pair.target}" for pair in pairs)
        fix = "say which: --source-lang, --target-lang"
        fix = fix if len(pairs) > 1 else "leave --source-lang and --target-lang out"
        raise InputError(f"'{directory}' translates {known}; {fix}")
    return found[0]


def read_export(directory: str | os.PathLike) -> ExportRecord:
    """Return what an export says of itself, each value of the right type and in its range; files are not looked at.

    Raises:
        InputError: there is no such record, or it is damaged or of another release.
    """
    path = Path(directory) / EXPORT_NAME
    content = read_json(path)
    if not isinstance(content, dict) or "format_version" not in content:
        raise InputError(f"'{directory}' is not an exported model (no format version in {EXPORT_NAME}); {_AGAIN}")
    version = content["format_version"]
    if type(version) is not int or version != FORMAT_VERSION:
        shown = version if isinstance(version, int) and abs(version) < 1000 else "unknown"
        raise InputError(f"'{directory}' has format version {shown}, this release reads {FORMAT_VERSION}; {_AGAIN}")
    record = read_record(ExportRecord, content, str(path), _AGAIN)
    try:
        check_record(content)
    except ValueError as error:
        raise InputError(f"'{path}' is damaged: {error}; {_AGAIN}") from error
    if faults := [*_faults(record)]:
        raise InputError(f"'{path}' is damaged: {'; '.join(faults)}; {_AGAIN}")
    return record


def _faults(record: ExportRecord) -> Iterator[str]:
    """Yield what is wrong beside what the program of an export finds itself, `check_record`."""
    if EXPORT_NAME in record.files or PROGRAM_NAME not in record.files:
        yield f"files: {EXPORT_NAME} is one, or {PROGRAM_NAME} is none"
    if not all(is_sha256(entry.sha256) for entry in record.files.values()):
        yield "files: a hash is wrong"
    for name, side in (("source", record.source), ("target", record.target)):
        if side.added and set(side.marks) != _MARKS:
            yield f"{name}.added has no marks"
    if record.request.quantization not in QUANTIZATIONS:
        yield f"request.quantization is none of {', '.join(QUANTIZATIONS)}"


def check_files(directory: str | os.PathLike, record: ExportRecord, page: bool = False) -> None:
    """Compare the files of an export with their sizes and hashes.

    Args:
        directory: of the export.
        record: what it says of itself.
        page: compare the page too, which only people read, and may change.

    Raises:
        InputError: one is missing, no regular file, or has changed; all together are larger than a model may be.
    """
    if sum(entry.bytes for entry in record.files.values()) > ArchiveLimits.from_environment().total:
        raise InputError(f"'{directory}' is refused: larger than a model may be (NEMO_DISTILL_MAX_ARCHIVE_GB)")
    for name, entry in record.files.items():
        if name == PAGE_NAME and not page:
            continue
        path = Path(directory) / name
        with open_regular(path, fix=_AGAIN) as stream:
            size = os.fstat(stream.fileno()).st_size
        if size != entry.bytes or sha256(path) != entry.sha256:
            raise InputError(f"'{path}' has changed since the model was exported; {_AGAIN}")


def states(directory: str | os.PathLike, record: ExportRecord) -> list[tuple]:
    """Return what the file system says of the files, which changes when one of them does."""
    return [(name, *state(Path(directory, name))) for name in sorted(set(record.files) - {PAGE_NAME})]


def check_own(directory: Path) -> ExportRecord | None:
    """Make sure that a directory holds one whole export of this library, or nothing; return the export's record.

    Raises:
        InputError: anything else is in it, or a file has changed.
    """
    advice = "move that away, or give another output directory"
    if not directory.exists() and not directory.is_symlink():
        return None
    if not stat.S_ISDIR(directory.lstat().st_mode):
        raise InputError(f"'{directory}' is no directory, or a link to one; {advice}")
    top = os.listdir(directory)
    if not top:
        return None
    if EXPORT_NAME not in top:
        raise InputError(f"'{directory}' already exists and holds something else (no {EXPORT_NAME}); {advice}")
    try:
        record = read_export(directory)
        check_files(directory, record, page=True)
    except InputError as error:
        raise InputError(f"'{directory}' holds no whole export of this release: {error}, or {advice}") from error
    found = _names(directory)
    spare = sorted(name for name in set(found) - {*record.files, EXPORT_NAME} if not _COMPILED.fullmatch(name))
    links = sorted(name for name, mode in found.items() if stat.S_ISLNK(mode))
    if spare or links:
        other = ascii((spare or links)[0])[:200]
        raise InputError(f"'{directory}' holds {other}, which the export there did not write; {advice}")
    return record


def _names(directory: Path) -> dict[str, int]:
    """Return the mode of everything below a directory by its relative name; no link is followed."""
    found = {}
    for place, folders, files in os.walk(directory, onerror=_raise):
        for name in (*folders, *files):
            path = Path(place) / name
            found[str(path.relative_to(directory))] = path.lstat().st_mode
    return found


def _raise(error: OSError) -> None:
    raise InputError(f"'{error.filename}' cannot be read ({error.strerror}); change its permissions") from error
