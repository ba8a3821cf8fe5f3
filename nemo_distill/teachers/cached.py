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
"""`CachedTeacher`: the student learns from what `nemo-distill cache` wrote, with no teacher in memory."""

from collections.abc import Iterable

import numpy as np
import torch
from nemo.utils import logging
from torch import nn

from nemo_distill.capture import CaptureSpec
from nemo_distill.data.vocabulary import vocabulary_hash
from nemo_distill.errors import ConfigurationError, TeacherError
from nemo_distill.losses.divergence import tokens_per_chunk
from nemo_distill.losses.signals import HeadInput
from nemo_distill.support.quoting import plain_text
from nemo_distill.teachers.cache_coverage import stored_coverage, training_texts
from nemo_distill.teachers.cache_format import LogitCache, batch_pairs, pair_keys
from nemo_distill.teachers.cache_records import Records, uniform_numbers
from nemo_distill.teachers.frozen import Batch, Teacher, TeacherOutputs
from nemo_distill.teachers.multilingual import with_token

_WHERE = "distillation.teacher.cache"


class CachedTeacher:
    """A teacher whose outputs are read from a cache; see `Teacher`.

    Args:
        cache: the outputs.
        tokenizers: of the student, source and target.
        temperature: of the word-level term.
        live: computes what the cache misses; None makes a miss an error.
        token: id of the language that stands in front of the source in the cache, and not in the student's batches.
        languages: ids of the student's own tokens of languages.

    Raises:
        TeacherError: the cache was made with other tokenizers, or does not hold the temperature.
    """

    model: nn.Module | None = None
    can_be_lean = True

    def __init__(
        self,
        cache: LogitCache,
        tokenizers: tuple,
        temperature: float,
        live: Teacher | None = None,
        token: int | None = None,
        languages: Iterable[int] = (),
    ) -> None:
        self.cache, self.temperature, self.live, self.token = cache, temperature, live, token
        languages = set(languages)
        self._source_tokenizer, self._target_tokenizer = tokenizers
        for side, tokenizer in zip(("source", "target"), tokenizers, strict=True):
            if vocabulary_hash(tokenizer, languages) != cache.manifest["vocabularies"][side]:
                raise TeacherError(
                    f"{_WHERE}: '{cache.directory}' was made with another {side} tokenizer than the student has, or "
                    "one that reads the other way (r2l); train the student with the teacher's tokenizers, or make the "
                    "cache anew"
                )
        cache.temperature_column(temperature)

    def capture(self, specs: Iterable[CaptureSpec]) -> None:
        """Refuse to bring inner tensors along: a cache has none.

        Raises:
            ConfigurationError: any are asked for.
        """
        if list(specs):
            raise ConfigurationError(f"{_WHERE}: a cache holds no inner states; give teacher.model_path alone")

    def outputs(self, batch: Batch, lean: bool = False) -> TeacherOutputs:
        """Return the cached distributions over the real target tokens of `batch`.

        Raises:
            TeacherError: a pair is not in the cache, and there is no live teacher.
        """
        pairs = batch_pairs(with_token(batch, self.token), self._target_tokenizer.pad_id)
        keys = pair_keys(pairs)
        places = self.cache.find(keys)
        missing = np.flatnonzero(places < 0)
        if missing.size and self.live is None:
            raise self._miss(len(missing), len(pairs), pairs[missing[0]])
        records = self.cache.read(places[places >= 0])
        if missing.size:
            held = np.repeat(places >= 0, [len(target) - 1 for _, target in pairs])  # [tokens]
            records = _interleave(held, records, self._live_records([item[missing] for item in batch], keys[missing]))
        targets = self.cache.targets(records, self.temperature, batch[0].device)
        return TeacherOutputs(targets)

    def check_coverage(self, dataset) -> None:
        """Look every sentence pair of a training set up, before training; tarred sets are left to the training itself.

        Of a text in a store it is done once, by one process, and noted there.

        Raises:
            TeacherError: pairs are not in the cache, and there is no live teacher.
        """
        total = missed = 0
        first = None
        for text in training_texts(dataset):
            found = stored_coverage(self.cache, text, self.token)
            total, missed = total + found.pairs, missed + found.missed
            if found.missed and first is None:
                first = next(zip(*text.rows([found.first], self.token), strict=True))
        if missed and self.live is None:
            raise self._miss(missed, total, first)
        if total:
            logging.info(f"cache: {total - missed} of {total} sentence pairs are in '{self.cache.directory}'")

    def _live_records(self, batch: Batch, keys: np.ndarray) -> np.ndarray:
        """Return the records of `batch` from the live teacher, rounded and drawn as in the cache."""
        return teacher_records(self.live, batch, self._target_tokenizer.pad_id, self.cache.records, keys)

    def _miss(self, missed: int, total: int, pair: tuple[np.ndarray, np.ndarray]) -> TeacherError:
        source, target = (
            plain_text(tokenizer.ids_to_text([int(each) for each in ids[1:-1]]))
            for tokenizer, ids in zip((self._source_tokenizer, self._target_tokenizer), pair, strict=True)
        )
        return TeacherError(
            f"{_WHERE}: {missed} of {total} sentence pairs are not in '{self.cache.directory}', such as '{source}' - "
            f"'{target}'; make the cache from all the training text (nemo-distill cache --source ... --target ...), "
            "or give teacher.model_path and on_miss: teacher"
        )


@torch.no_grad()
def teacher_records(teacher: Teacher, batch: Batch, target_pad: int, records: Records, keys: np.ndarray) -> np.ndarray:
    """Run a teacher on a batch; return the records of all real target tokens, row by row.

    Args:
        teacher: one model or an ensemble.
        batch: of training.
        target_pad: padding id of the target.
        records: what is kept.
        keys: of the batch's pairs, [B, 2].

    Raises:
        TeacherError: a logit is NaN or infinite.
    """
    mask = batch[4] != target_pad
    uniform = uniform_numbers(keys, mask.sum(1).tolist()) if records.sampled else None
    said = teacher.outputs(batch, lean=teacher.can_be_lean).signal[mask]
    size = tokens_per_chunk(len(said.weight) if isinstance(said, HeadInput) else said.shape[1], batch[0].device)
    chunks = []
    for start in range(0, int(mask.sum()), size):
        rows = slice(start, start + size)
        part = said[rows]
        logits = part.logits() if isinstance(part, HeadInput) else part
        chunks.append(records.encode(logits, None if uniform is None else uniform[rows]))
    return np.concatenate(chunks)


def _interleave(first: np.ndarray, where_true: np.ndarray, where_false: np.ndarray) -> np.ndarray:
    """Return records that come from one array where `first` is True and from another where it is False, in order."""
    records = np.empty(len(first), where_true.dtype)
    records[first], records[~first] = where_true, where_false
    return records
