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
"""Translate a text in shards, so that the work can be killed at any point, resumed, and shared by processes.

A shard is a fixed number of lines. It is translated as a whole and written as one file, compressed, whole or not at
all, with the hash of its lines; a run goes on with the shards that are missing, or that are not those of the text. Of
n processes each takes every n-th shard; they meet in the file system alone.
"""

import dataclasses
import functools
import hashlib
import math
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from nemo_distill.config.languages import is_language
from nemo_distill.decoding.engine import Engine, Hypothesis, SearchSettings
from nemo_distill.errors import InputError
from nemo_distill.labels.nbest import NBest, nbest_line, parse_nbest
from nemo_distill.labels.rows import rows_of, training_text
from nemo_distill.support import files, shard_directory, text_files
from nemo_distill.support.compressed import GZIP, compress, open_atomic, suffix_of
from nemo_distill.support.incoming import LINE_BYTES, read_json
from nemo_distill.support.manifest import REQUEST, claim_shards, refuse_other_shards
from nemo_distill.support.numbered import cut, open_numbered
from nemo_distill.support.progress_bar import progress_bar
from nemo_distill.support.quoting import one_line
from nemo_distill.support.records import read_record
from nemo_distill.support.shard_directory import ENGINE, PREFIX
from nemo_distill.support.share import Share
from nemo_distill.support.texts import Texts
from nemo_distill.support.threads import available_cores
from nemo_distill.support.warned import marked_logger
from nemo_distill.support.workers import run_in_order

MOST_LINE_BYTES = LINE_BYTES // 16
"""Most bytes of a line of the input: escaped, and with its hypotheses, it must be a line that can be read again."""
FORMAT = 3
"""Of n-best lists: since 2 with both forms of text, and scores as training reads them; since 3 flags."""
_SHARD_FORMAT = 4
"""Of the shards: that of their lines; since 4 compressed."""
_SMALL_LINES = 20_000
"""A text of which one process reads the shards."""
_PAUSE = 2.0
"""Seconds between two looks at the shards of others."""
T = TypeVar("T")
_logger = marked_logger(__name__)


@dataclasses.dataclass(frozen=True)
class EngineRecord:
    """`engine.json`: what the shards were made with."""

    name: str
    processed: bool = False
    """The models read and write processed text."""
    languages: dict[str, str | None] | None = None
    """`source` and `target`, by which text was processed; None for an engine that does not say so."""


class Shards:
    """The shards of one text in a hidden directory beside the output, named after the request.

    Args:
        directory: output directory.
        request: what decides the hypotheses, as JSON values; `input` is the hash of the text.
        text: the text.
        lines: its number of lines.
        shard_lines: lines of a shard.
        share: which of them are this process's own.
    """

    def __init__(
        self, directory: Path, request: Mapping[str, Any], text: Texts, lines: int, shard_lines: int, share: Share
    ) -> None:
        request = {**request, "format": _SHARD_FORMAT}
        self.path = directory / shard_directory.name_for(request)
        self.request, self.text, self.lines, self.shard_lines = request, text, lines, shard_lines
        self.share = share
        self.numbers = range(math.ceil(lines / shard_lines))
        self._shown = 0.0

    def claim(self, overwrite: bool = False) -> None:
        """Check that no other run is under way here, and note whose shards these are.

        Raises:
            InputError: there are shards of an interrupted run with other settings and `overwrite` is False; or
                something that has the name of a directory of shards, but is none.
        """
        for other in sorted(self.path.parent.glob(f"{PREFIX}*")):
            is_work = not overwrite and not shard_directory.is_retired(other) and any(other.glob("[0-9]*.jsonl*"))
            if self.share.rank > 0 and not is_work and other != self.path:  # the first process removes it
                continue
            shard_directory.check(other)
            if other == self.path:
                continue
            if is_work:
                refuse_other_shards(other, self.path.parent, self.request)
            else:
                shard_directory.remove(other)
        if not (self.path / REQUEST).is_file():  # whichever process comes first
            claim_shards(self.path, self.request)

    def remove(self) -> None:
        """Remove the shards of a run that is finished; what is not known to be ours stays, with a warning."""
        try:
            shard_directory.retire(self.path)
        except (InputError, OSError) as error:
            _logger.warning("the shards stay: %s", error)

    def file(self, number: int) -> Path:
        """Return where a shard is kept."""
        return self.path / f"{number:06d}.jsonl{GZIP}"

    def count(self, number: int) -> int:
        """Return the number of lines of a shard; the last one may be shorter."""
        return min(self.shard_lines, self.lines - number * self.shard_lines)

    def missing(self) -> list[int]:
        """Return the numbers of the shards that are not there yet."""
        try:
            there = set(os.listdir(self.path))
        except FileNotFoundError:
            there = set()
        return [number for number in self.numbers if self.file(number).name not in there]

    def finished_lines(self) -> int:
        """Return the number of lines in the shards that are there."""
        return self.lines - sum(self.count(number) for number in self.missing())

    def progress_bar(self, progress: bool) -> tqdm:
        """Return a bar over the whole job, of all processes; the first one shows it."""
        shown = progress and self.share.rank == 0
        return progress_bar("pseudo-labels", self.lines, "sentences", shown, self.finished_lines())

    def decode(
        self,
        open_engine: Callable[[], Engine],
        search: SearchSettings,
        batch_tokens: int,
        bar: tqdm,
        describe: Callable[[list[NBest]], str] | None = None,
    ) -> None:
        """Translate the shards of this process that are missing, or that are not those of the text.

        Shard n samples with seed + n, so that shards do not repeat each other's draws.

        Args:
            open_engine: called if there is something to translate.
            search: how to search.
            batch_tokens: most source tokens in a batch.
            bar: over the lines of all processes.
            describe: returns what the bar is to say, given the rows of one shard after the other.

        Raises:
            InputError: the text has changed since its hash was noted.
        """
        engine = None
        for number, sentences in self._own_missing():
            if engine is None:
                engine = open_engine()
                self._check_same_engine(engine)
                bar.unpause()  # loading is not part of the speed, nor for who times what this says
                bar.refresh()
            settings = dataclasses.replace(search, seed=search.seed + number)
            found: dict[int, list[Hypothesis]] = {}
            engine.first_line = number * self.shard_lines + 1
            for batch in engine.translate(sentences, settings, batch_tokens):
                found.update(batch)
                bar.update(len(batch))
            rows = list(rows_of(engine, sentences, found, settings, batch_tokens))
            self._write(number, [nbest_line(row) for row in rows])
            if describe is not None:
                bar.set_postfix_str(describe(rows), refresh=False)
            if time.monotonic() - self._shown > _PAUSE:
                self._show(bar)

    def wait_for_others(self, bar: tqdm) -> None:
        """Return when every shard is there.

        Raises:
            TimeoutError: no shard has come for `wait_minutes`.
        """
        for _ in self.share.wait_for(self.missing, len(self.numbers)):
            self._show(bar)
        self._show(bar)

    def merge(self, name: str, lines_per_file: int | None = None) -> list[str]:
        """Write all shards, in order, beside their directory, as one file or several; return the SHA-256 of each.

        Args:
            name: of the only one; it says whether they are compressed.
            lines_per_file: None: there is one.

        Raises:
            InputError: the text has changed; or a shard is not that of the text: it is removed, and the next run
                makes it again.
        """
        digests, faults, last = [], [], None
        with open_numbered(self.path.parent, {name: b""}, lines_per_file, packed=True) as streams_of:
            work = functools.partial(self._packed, suffix_of(name), lines_per_file)
            for number, found in enumerate(self._in_order(work, self._texts(), available_cores())):
                if isinstance(found, InputError):
                    faults.append((number, found))
                    continue
                for first, content in found:
                    (target,) = streams_of(first)
                    digests += [] if target is last else [hashlib.sha256()]
                    digests[-1].update(content)
                    target.write(content)
                    last = target
            for number, _ in faults:  # only now is it known that the text is the right one
                self.file(number).unlink(missing_ok=True)
            if faults:
                raise InputError(f"{faults[0][1]}; it is removed: run the same command again")
        return [digest.hexdigest() for digest in digests]

    def engine(self) -> EngineRecord:
        """Return the engine that the shards were made with.

        Raises:
            InputError: nothing says so.
        """
        path, fix = self.path / ENGINE, f"remove '{self.path}' and run the same command again"
        if not path.is_file():
            raise InputError(f"'{path}' is missing; {fix}")
        record = read_record(EngineRecord, read_json(path), str(path), fix)
        if not all(value is None or is_language(value) for value in (record.languages or {}).values()):
            raise InputError(f"'{path}' is damaged: its languages are none; {fix}")
        return record

    def _write(self, number: int, lines: list[str]) -> None:
        """Write a shard, with the hash of its lines as the last one.

        Raises:
            InputError: a line could not be read again.
        """
        for place, line in enumerate(lines):
            if len(line) > LINE_BYTES // 4 and len(line.encode()) > LINE_BYTES:
                raise InputError(
                    f"{self.text}, line {number * self.shard_lines + place + 1}: with its hypotheses it has "
                    f"more than {LINE_BYTES >> 20} MB; leave it out"
                )
        content = files.line_bytes(lines)
        with open_atomic(self.file(number)) as stream:
            stream.write(content + f"{hashlib.sha256(content).hexdigest()}\n".encode())

    def _read(self, number: int, sentences: list[str]) -> list[str]:
        """Return the lines of a shard.

        Raises:
            InputError: it is damaged, or not that of these sentences.
        """
        path = self.file(number)
        *lines, digest = text_files.read_lines(path) or [""]
        place = 0
        for place, row in enumerate(parse_nbest(lines, path, number * self.shard_lines + 1), start=1):
            read = row.processed if self.request.get("processed") and row.processed is not None else row.source
            if place > len(sentences) or read != sentences[place - 1]:
                raise InputError(f"'{path}', line {place}: its source is not that of the input")
        if place != len(sentences) or digest != hashlib.sha256(files.line_bytes(lines)).hexdigest():
            raise InputError(f"'{path}' is damaged: it has {place} of {len(sentences)} lines, or has changed")
        return lines

    def _texts(self) -> Iterator[tuple[int, list[str]]]:
        """Yield (shard, its lines) in one pass over the input, to its end, where its hash is compared."""
        lines = self.text.lines(self.request["input"])
        for number in self.numbers:
            yield number, [one_line(line) for line in islice(lines, self.count(number))]
        for _ in lines:
            pass

    def _own_missing(self) -> Iterator[tuple[int, list[str]]]:
        """Yield (shard, its lines) for the shards that this process is to make."""
        own = set(self.share.own(self.numbers))
        there = own - set(self.missing())
        faults = self._faults(there) if there else {}
        for number, sentences in self._texts():
            if number not in own or (number in there and number not in faults):
                continue
            if not self.path.is_dir():  # all were there, and the first process has meanwhile finished
                return
            if number in faults:
                _logger.warning("%s: this shard is made again", faults[number])
            yield number, sentences

    def _faults(self, numbers: Collection[int]) -> dict[int, InputError]:
        """Return what is wrong with some shards that are there."""
        texts = (text for text in self._texts() if text[0] in numbers)
        processes = max(1, available_cores() // self.share.world_size)
        checked = zip(sorted(numbers), self._in_order(self._fault, texts, processes), strict=True)
        return {number: fault for number, fault in checked if fault is not None}

    def _fault(self, number: int, sentences: list[str]) -> InputError | None:
        try:
            self._read(number, sentences)
        except InputError as error:
            return error
        return None

    def _in_order(self, work: Callable[..., T], texts: Iterator[tuple[int, list[str]]], processes: int) -> Iterator[T]:
        """Yield what is made of shards and their lines, by several processes where there are many lines."""
        return run_in_order(work, texts, processes if self.lines > _SMALL_LINES else 1, self.path)

    def _packed(
        self, suffix: str, lines_per_file: int | None, number: int, sentences: list[str]
    ) -> list[tuple[int, bytes]] | InputError:
        """Return the lines of a shard, compressed, by the files that they go to; see `numbered.cut`.

        Where they are not those of its sentences, return why.
        """
        try:
            lines = self._read(number, sentences)
        except InputError as error:
            return error
        parts = cut(number * self.shard_lines + 1, lines, lines_per_file)
        return [(first, compress(files.line_bytes(some), suffix)) for first, some in parts]

    def _check_same_engine(self, engine: Engine) -> None:
        """Note the engine beside the shards; refuse to go on with another one than they were made with."""
        text, languages = training_text(engine), None
        if text is not None:
            languages = {"source": text.source_language, "target": text.target_language}
        own = EngineRecord(engine.name, text is not None and text.is_processed, languages)
        if not (self.path / ENGINE).is_file():
            files.write_json_atomic(self.path / ENGINE, dataclasses.asdict(own))
        noted = self.engine()
        if noted.name != own.name:
            raise InputError(
                f"the shards in '{self.path}' were made with the engine {noted.name!a}, this process has "
                f"'{own.name}'; name one engine with --engine, or remove that directory to start anew"
            )
        if noted != own:
            raise InputError(
                f"'{self.path / ENGINE}' has other languages than the teacher; remove that directory to start anew"
            )

    def _show(self, bar: tqdm) -> None:
        self._shown = time.monotonic()
        bar.update(self.finished_lines() - bar.n)
