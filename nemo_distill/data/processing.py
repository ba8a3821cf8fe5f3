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
"""Raw text made ready for training, once: normalized and tokenized as NeMo does it for a pair of languages.

NeMo's `translate` does that to raw text before its BPE; its training reads text that was processed before. Files are
processed by several processes; their number changes no byte.
"""

import contextlib
import functools
import importlib.metadata
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemo_distill.config.languages import SIDES
from nemo_distill.data.processors import Processing
from nemo_distill.errors import InputError
from nemo_distill.support import files, manifest, text_files
from nemo_distill.support.lock import locked
from nemo_distill.support.progress_bar import progress_bar
from nemo_distill.support.quoting import error_line, shown_names
from nemo_distill.support.threads import cores
from nemo_distill.support.workers import run_in_order

_CHUNK_LINES, _CHUNKS_AHEAD, _BYTES_A_PROCESS = 500, 4, 200_000
_RELEASES = {
    "MosesProcessor": ["sacremoses"],
    "EnJaProcessor": ["sacremoses"],
    "ChineseProcessor": ["jieba", "opencc"],
    "JaMecabProcessor": ["mecab-python3", "ipadic"],
}


def _process_chunk(processing: Processing, side: str, where: str, lines: Sequence[str], first: int) -> list[str]:
    """Process lines, the first of which has that number in the file `where`."""
    found = []
    for number, line in enumerate(lines, start=first):
        try:
            found.append(processing.process(side, line))
        except InputError:
            raise
        except Exception as error:  # of a library, on odd text
            raise InputError(
                f"'{where}', line {number}: {processing.kind(side)} cannot process it ({error_line(error)}); "
                "mend or leave out that line"
            ) from error
    return found


def process_lines(
    lines: Iterable[str], processing: Processing, side: str, where: str, jobs: int = 1
) -> Iterator[list[str]]:
    """Yield the processed lines in their order, some hundred at a time.

    Args:
        lines: raw text.
        processing: languages.
        side: `source` or `target`.
        where: the lines' file, for messages.
        jobs: processes that work on it.

    Raises:
        InputError: a line cannot be processed.
        StorageError: a process was killed.
    """
    processing.processor(side)  # processes inherit it
    lines = iter(lines)
    chunks = iter(lambda: list(itertools.islice(lines, _CHUNK_LINES)), [])
    numbered = ((chunk, 1 + number * _CHUNK_LINES) for number, chunk in enumerate(chunks))
    work = functools.partial(_process_chunk, processing, side, where)
    yield from run_in_order(work, numbered, jobs, where, _CHUNKS_AHEAD)


@dataclass(frozen=True)
class RawFile:
    """A file of raw text, and what it becomes.

    Raises:
        InputError: no manifest could list the processed text.
    """

    path: str
    """Of the raw text."""
    name: str
    """Of the processed text, in the output directory."""
    side: str
    """`source` or `target`."""
    processing: Processing | None = None
    """Its languages, where the files have not the same."""

    def __post_init__(self) -> None:
        if not files.is_file_name(self.name):
            raise InputError(
                f"{ascii(self.name)[:300]} cannot be the name of an output: that is UTF-8 without control "
                "characters; rename the file that is given"
            )


def processing_request(raw: Sequence[RawFile], processing: Processing, hashes: Sequence[str]) -> dict[str, Any]:
    """Return what a directory of processed text answers; equal requests give equal files."""
    inputs: dict[str, dict[str, Any]] = {}
    for file, each in zip(raw, hashes, strict=True):
        own = {"languages": file.processing.languages()} if file.processing else {}
        inputs[file.name] = {"side": file.side, "sha256": each, **own}
    return {"verb": "preprocess", "languages": processing.languages(), "inputs": inputs}


def process_files(
    raw: Sequence[RawFile],
    processing: Processing,
    output_dir: str | os.PathLike,
    *,
    jobs: int | None = None,
    overwrite: bool = False,
) -> tuple[dict[str, Any], bool]:
    """Process files of raw text, or verify what an earlier call with the same files and languages has written.

    Line N of a file becomes line N of its processed form.

    Args:
        raw: the files.
        processing: languages.
        output_dir: gets the processed files and `manifest.json`.
        jobs: processes; by default one for each core.
        overwrite: replace other processed text there.

    Returns:
        The manifest, and whether everything was there before.

    Raises:
        InputError: a file cannot be read, has changed meanwhile, or the directory holds something else.
        StorageError: a process was killed.

    Example:
        >>> process_files([RawFile("train.de", "train.de", "source")], Processing("de", "en"), "out")  # doctest: +SKIP
    """
    names = [file.name for file in raw]
    outputs = [Path(output_dir, name) for name in (*names, manifest.MANIFEST)]
    manifest.refuse_inputs_as_outputs([file.path for file in raw], outputs)
    hashes = [files.sha256(file.path) for file in raw]
    request = processing_request(raw, processing, hashes)
    with locked(output_dir) as directory:
        if finished := manifest.find_finished(directory, request, overwrite, names):
            return finished, True
        manifest.start_run(directory, names, overwrite)
        lines = {
            file.name: _process_file(file, each, file.processing or processing, directory, jobs or cores())
            for file, each in zip(raw, hashes, strict=True)
        }
        details = {
            "input_names": {file.name: shown_names(file.path) for file in raw},
            "lines": lines,
            "processors": processing.kinds,
            "releases": _releases({processing, *(file.processing for file in raw if file.processing)}),
        }
        return manifest.finish_run(directory, request, names, details), False


def _process_file(file: RawFile, sha256: str, processing: Processing, directory: Path, jobs: int) -> int:
    """Write the processed form of one file; return its lines."""
    count, what = 0, f"processing {file.name}"
    lines = text_files.iterate_lines(file.path, sha256)
    read = progress_bar(what, text_files.count_lines(file.path), iterable=lines, leave=False)
    with files.atomic_path(directory / file.name) as partial, open(partial, "wb") as stream:
        jobs = text_files.parts([file.path], _BYTES_A_PROCESS, jobs)
        for chunk in process_lines(read, processing, file.side, file.path, jobs):
            stream.write(files.line_bytes(chunk))
            count += len(chunk)
    return count


def _releases(processings: Iterable[Processing]) -> dict[str, str]:
    """Return the releases of the packages that tokenize."""
    kinds = {type(each.processor(side)).__name__ for each in processings for side in SIDES}
    found = {}
    for package in sorted({package for kind in kinds for package in _RELEASES.get(kind, ())}):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found
