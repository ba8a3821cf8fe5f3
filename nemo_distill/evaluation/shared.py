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
"""Several processes decode one test set: each some of its batches, which meet as files in the output directory.

The batches are those that a single process would decode, so the hypotheses are too. Each is written as one shard,
whole or not at all: killed at any point, the same command goes on with the batches that are missing, in any number of
processes.
"""

import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from nemo_distill.decoding.engine import SearchSettings, TextEngine
from nemo_distill.errors import InputError
from nemo_distill.evaluation.score_records import Pair, ScoreKey
from nemo_distill.support import files, shard_directory, text_files
from nemo_distill.support.incoming import parse_json, read_json
from nemo_distill.support.manifest import REQUEST, claim_shards, refuse_other_shards
from nemo_distill.support.progress_bar import progress_bar
from nemo_distill.support.records import read_record
from nemo_distill.support.shard_directory import ENGINE
from nemo_distill.support.share import Share
from nemo_distill.support.warned import warn

_VERB = "evaluate"


@dataclasses.dataclass(frozen=True)
class EngineRecord:
    """`engine.json`: what the shards were made with."""

    name: str
    device: str
    """Its kind: `cpu` or `cuda`."""


class SharedPair:
    """The batches of one model on one test set, in a hidden directory of the output named after the request.

    Args:
        output_dir: of the evaluation, whose lock is held.
        pair: of model and test set.
        key: what decides its hypotheses.
        versions: releases of the libraries that decode.
        share: which of the processes this one is.
    """

    def __init__(self, output_dir: Path, pair: Pair, key: ScoreKey, versions: Mapping[str, str], share: Share) -> None:
        settings = {name: value for name, value in dataclasses.asdict(key).items() if name not in ("engine", "device")}
        self.request = {"verb": _VERB, "model": pair[0], "test_set": pair[1], **settings, "versions": dict(versions)}
        self.path = output_dir / shard_directory.name_for(self.request)
        self.share = share

    @property
    def is_begun(self) -> bool:
        """Whether there are shards of it."""
        return any(self.path.glob("*.jsonl"))

    def claim(self) -> None:
        """Note whose shards come here, whichever process comes first."""
        if not (self.path / REQUEST).is_file():
            claim_shards(self.path, self.request)

    def remove(self) -> None:
        """Remove the shards, once the pair is scored; what is not known to be ours stays, with a warning."""
        try:
            shard_directory.retire(self.path)
        except (InputError, OSError) as error:
            warn(f"the shards stay: {error}")

    def translate(
        self, engine: TextEngine, sentences: Sequence[str], settings: SearchSettings, batch_tokens: int, progress: bool
    ) -> list[str] | None:
        """Decode the batches of this process that are missing; in the first one, return all hypotheses.

        Args:
            engine: what decodes.
            sentences: raw text, one sentence each.
            settings: how to search.
            batch_tokens: most source tokens in a batch, padding included.
            progress: show a progress bar over the work of all processes.

        Returns:
            One hypothesis per sentence, empty for an empty sentence; None in the processes that leave the end to the
            first one.

        Raises:
            InputError: the processes have different engines or devices; a shard has changed.
            TimeoutError: another process has stopped.
        """
        self._check_same_engine(EngineRecord(engine.name, engine.device.partition(":")[0]))
        groups: list[list[int]] = []
        own: list[int] = []

        def choose(found: list[list[int]]) -> list[list[int]]:
            groups.extend(found)
            own.extend(number for number in self.share.own(range(len(groups))) if not self._is_whole(number, groups))
            return [groups[number] for number in own]

        shown = progress and self.share.rank == 0
        with progress_bar("translating", len(sentences), "sentences", shown) as bar:
            for number, batch in zip(own, engine.translate(sentences, settings, batch_tokens, choose), strict=False):
                if not self.path.is_dir():  # all were there, and the first process has meanwhile finished
                    return None
                lines = [json.dumps([place, found[0].text]) for place, found in batch]
                files.write_lines_atomic(self._file(number), [*lines, _digest(lines)])
                self._show(bar, groups)
            if self.share.rank > 0:
                return None
            for _ in self.share.wait_for(lambda: self._missing(groups), len(groups)):
                self._show(bar, groups)
            bar.update(bar.total - bar.n)
        return self._joined(groups, len(sentences))

    def _joined(self, groups: Sequence[Sequence[int]], count: int) -> list[str]:
        hypotheses = [""] * count
        for number, places in enumerate(groups):
            try:
                texts = self._read(number, places)
            except InputError as error:
                self._file(number).unlink(missing_ok=True)
                raise InputError(f"{error}; it is removed: run the same command again") from error
            for place, text in zip(places, texts, strict=True):
                hypotheses[place] = text
        return hypotheses

    def _file(self, number: int) -> Path:
        return self.path / f"{number:06d}.jsonl"

    def _missing(self, groups: Sequence[Sequence[int]]) -> list[int]:
        there = set(os.listdir(self.path))  # once: of a shared disk to ask for each file takes seconds
        return [number for number in range(len(groups)) if self._file(number).name not in there]

    def _show(self, bar: tqdm, groups: Sequence[Sequence[int]]) -> None:
        """Bring the bar up to what all processes have, as often as it is drawn."""
        if not bar.disable and time.time() - bar.last_print_t >= bar.mininterval:
            left = sum(len(groups[number]) for number in self._missing(groups))
            bar.update(bar.total - left - bar.n)

    def _is_whole(self, number: int, groups: Sequence[Sequence[int]]) -> bool:
        if not self._file(number).is_file():
            return False
        try:
            self._read(number, groups[number])
        except InputError as error:
            warn(f"{error}: this batch is decoded again")
            return False
        return True

    def _read(self, number: int, places: Sequence[int]) -> list[str]:
        """Return the hypotheses of a batch.

        Raises:
            InputError: the shard is damaged, or not that of these places.
        """
        path = self._file(number)
        *lines, digest = text_files.read_lines(path) or [""]
        try:
            rows = [parse_json(line) for line in lines]
        except ValueError:
            rows = []
        whole = digest == _digest(lines) and all(
            isinstance(row, list) and len(row) == 2 and type(row[0]) is int and isinstance(row[1], str) for row in rows
        )
        if not whole or [row[0] for row in rows] != list(places):
            raise InputError(f"'{path}' is damaged, or has changed")
        return [row[1] for row in rows]

    def _check_same_engine(self, own: EngineRecord) -> None:
        """Note the engine beside the shards; refuse to go on with another one than they were made with."""
        path = self.path / ENGINE
        if not path.is_file():
            files.write_json_atomic(path, dataclasses.asdict(own))
        noted = read_record(EngineRecord, read_json(path), str(path), f"remove '{self.path}'")
        if noted != own:
            raise InputError(
                f"the shards in '{self.path}' were made with the engine {noted.name!a} on {noted.device!a}, this "
                f"process has '{own.name}' on '{own.device}'; name one with --engine and --device, or remove that "
                "directory to start anew"
            )


def claim_pairs(output_dir: Path, pairs: Collection[SharedPair], overwrite: bool) -> None:
    """Look at the shards that an interrupted evaluation left in its directory, before the first process begins.

    Args:
        output_dir: of the evaluation.
        pairs: which of them this one goes on with.
        overwrite: remove the others.

    Raises:
        InputError: there are shards of another evaluation and `overwrite` is False; or something that has the name of
            a directory of shards, but is none.
    """
    wanted = {pair.path: pair.request for pair in pairs}
    for path in sorted(output_dir.glob(f"{shard_directory.PREFIX}*")):
        shard_directory.check(path)
        if path in wanted:
            continue
        request = read_json(path / REQUEST) if (path / REQUEST).is_file() else {}
        if request.get("verb", _VERB) != _VERB:
            continue  # of labels in the same directory
        if overwrite or shard_directory.is_retired(path) or not any(path.glob("*.jsonl")):
            shard_directory.remove(path)
            continue
        same = [each for each in wanted.values() if (each["model"], each["test_set"]) == _names(request)]
        refuse_other_shards(path, output_dir, same[0] if same else {})


def _names(request: Mapping) -> tuple:
    return request.get("model"), request.get("test_set")


def _digest(lines: Sequence[str]) -> str:
    return hashlib.sha256(files.line_bytes(lines)).hexdigest()
