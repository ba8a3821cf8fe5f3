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

A shard is a fixed number of lines. It is translated as a whole and written as one file, whole or not at all; a run
goes on with the shards that are missing. Of n processes each takes every n-th shard; they meet in the file system
alone.
"""

import dataclasses
import hashlib
import math
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from nemo_distill.decoding.engine import Engine, Hypothesis, SearchSettings
from nemo_distill.errors import InputError
from nemo_distill.labels.nbest import NBest, one_line, write_nbest
from nemo_distill.support import files, incoming
from nemo_distill.support.manifest import claim_shards, refuse_other_shards, request_text
from nemo_distill.support.share import Share

_PREFIX = ".shards-"
_ENGINE = "engine.json"


class Shards:
    """The shards of one text in a hidden directory beside the output, named after the request.

    Args:
        directory: output directory.
        request: what decides the hypotheses, as JSON values.
        input_path: the text.
        lines: its number of lines.
        shard_lines: lines of a shard.
        share: which of them are this process's own.
    """

    def __init__(
        self, directory: Path, request: Mapping[str, Any], input_path: Path, lines: int, shard_lines: int, share: Share
    ) -> None:
        digest = hashlib.sha256(request_text(request).encode()).hexdigest()
        self.path = directory / f"{_PREFIX}{digest[:16]}"
        self.request, self.input_path, self.lines, self.shard_lines = dict(request), input_path, lines, shard_lines
        self.share = share
        self.numbers = range(math.ceil(lines / shard_lines))

    def claim(self, overwrite: bool = False) -> None:
        """Check that no other run is under way here; in the first process, make the directory too.

        Raises:
            InputError: there are shards of an interrupted run with other settings and `overwrite` is False.
        """
        for other in self.path.parent.glob(f"{_PREFIX}*"):
            if other == self.path:
                continue
            if not overwrite and any(other.glob("*.jsonl")):
                refuse_other_shards(other, self.path.parent, self.request)
            elif self.share.rank == 0:
                shutil.rmtree(other)
        if self.share.rank == 0:
            claim_shards(self.path, self.request)

    def file(self, number: int) -> Path:
        """Return where a shard is kept."""
        return self.path / f"{number:06d}.jsonl"

    def count(self, number: int) -> int:
        """Return the number of lines of a shard; the last one may be shorter."""
        return min(self.shard_lines, self.lines - number * self.shard_lines)

    def missing(self) -> list[int]:
        """Return the numbers of the shards that are not there yet."""
        return [number for number in self.numbers if not self.file(number).is_file()]

    def finished_lines(self) -> int:
        """Return the number of lines in the shards that are there."""
        return self.lines - sum(self.count(number) for number in self.missing())

    def progress_bar(self, progress: bool) -> tqdm:
        """Return a bar over the whole job, of all processes; the first one shows it."""
        return tqdm(
            total=self.lines,
            initial=self.finished_lines(),
            unit=" sentences",
            desc="pseudo-labels",
            disable=not progress or self.share.rank > 0,
            mininterval=0.5 if sys.stderr.isatty() else 30.0,
        )

    def decode(self, open_engine: Callable[[], Engine], search: SearchSettings, batch_tokens: int, bar: tqdm) -> None:
        """Translate the missing shards of this process.

        Shard n samples with seed + n, so that shards do not repeat each other's draws.
        """
        engine = None
        for number, text in self._own_missing():
            if engine is None:
                engine = open_engine()
                self._check_same_engine(engine)
                bar.unpause()  # loading is not part of the speed
            sentences = [one_line(line) for line in text]
            settings = dataclasses.replace(search, seed=search.seed + number)
            found: dict[int, list[Hypothesis]] = {}
            for batch in engine.translate(sentences, settings, batch_tokens):
                found.update(batch)
                bar.update(len(batch))
            first, cut = number * self.shard_lines + 1, set(engine.truncated)
            write_nbest(
                self.file(number),
                (
                    NBest(first + place, sentence, _clean(found[place]), place in cut)
                    for place, sentence in enumerate(sentences)
                ),
            )
            self._show(bar)

    def wait_for_others(self, bar: tqdm) -> None:
        """Return when every shard is there.

        Raises:
            TimeoutError: no shard has come for `wait_minutes`.
        """
        for _ in self.share.wait_for(self.missing, len(self.numbers)):
            self._show(bar)

    def merge(self, path: Path) -> None:
        """Write all shards, in order, as one file.

        Raises:
            InputError: a shard has not the number of lines it should have.
        """
        with files.atomic_path(path) as temporary, open(temporary, "wb") as target:
            for number in self.numbers:
                content = self.file(number).read_bytes()
                if content.count(b"\n") != self.count(number):
                    raise InputError(f"'{self.file(number)}' is damaged; remove it and run the same command again")
                target.write(content)

    def engine_name(self) -> str:
        """Return the name of the engine that the shards were made with."""
        path = self.path / _ENGINE
        engine = incoming.read_json(path)
        if not isinstance(engine, dict) or not isinstance(engine.get("name"), str):
            raise InputError(f"'{path}' is damaged; remove '{self.path}' and run the same command again")
        return engine["name"]

    def _own_missing(self) -> Iterator[tuple[int, list[str]]]:
        """Yield (shard, its lines) for the missing shards of this process, in one pass over the input."""
        own = set(self.share.own(self.missing()))
        if own:
            lines = files.iterate_lines(self.input_path)
            for number in self.numbers:
                text = list(islice(lines, self.count(number)))
                if number in own:
                    yield number, text

    def _check_same_engine(self, engine: Engine) -> None:
        """Note the engine beside the shards; refuse to go on with another one than they were made with."""
        if not (self.path / _ENGINE).is_file():
            files.write_json_atomic(self.path / _ENGINE, {"name": engine.name})
        if self.engine_name() != engine.name:
            raise InputError(
                f"the shards in '{self.path}' were made with the engine '{self.engine_name()}', this process has "
                f"'{engine.name}'; name one engine with --engine, or remove that directory to start anew"
            )

    def _show(self, bar: tqdm) -> None:
        bar.n = self.finished_lines()
        bar.refresh()


def remove_shards(directory: Path) -> None:
    """Remove all shards in an output directory."""
    for path in directory.glob(f"{_PREFIX}*"):
        shutil.rmtree(path)


def _clean(hypotheses: list[Hypothesis]) -> tuple[Hypothesis, ...]:
    """Return hypotheses on one line each, without those of no finite score."""
    return tuple(
        Hypothesis(one_line(one.text), one.score, one.length) for one in hypotheses if math.isfinite(one.score)
    )
