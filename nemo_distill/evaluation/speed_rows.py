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
"""One row of a measurement of speed, and how long the others will take."""

import time
from collections.abc import Iterable
from typing import Any

import numpy as np
from nemo.utils import logging

from nemo_distill.decoding.engine import Engine, SearchSettings
from nemo_distill.decoding.translation import translate, warm_up
from nemo_distill.evaluation.test_sets import TestInput
from nemo_distill.support.progress_bar import progress_bar
from nemo_distill.support.quoting import duration

RowName = tuple[str, str, str, int]
"""Label of the model, name of the engine, cores, beam size."""
_PROBED = 3


class Forecast:
    """Says in the log, at each row, how long it will take, and all that is left.

    A row takes as long as the one that is done and most like it: of the same engine, then of the same beam size, cores
    and model. The first one takes at most as long as its sentences would one by one.

    Args:
        rows: all that are to come, in their order.
    """

    def __init__(self, rows: Iterable[RowName]) -> None:
        self._waiting = list(rows)
        self._done: dict[RowName, float] = {}
        self._since = time.monotonic()

    def begin(self, row: RowName, most: float) -> None:
        """Say what is to be said of a row whose sentences, one by one, would take so many seconds."""
        total, number = len(self._waiting) + len(self._done), len(self._done) + 1
        times = [self._like(each) or most for each in self._waiting]
        expected = times[self._waiting.index(row)]
        self._waiting.remove(row)
        about = "about" if self._done else "at most"
        left = f"; all {len(times)} that are left about {duration(sum(times))}" if len(times) > 1 else ""
        label, engine, cores, beam_size = row
        logging.info(
            f"row {number} of {total}: {label}, {engine}, beam {beam_size}, cores {cores}: {about} "
            f"{duration(expected)}{left}"
        )

    def end(self, row: RowName) -> None:
        """Note how long a row took, the opening of its model included."""
        now = time.monotonic()
        self._done[row], self._since = now - self._since, now

    def drop(self, label: str, engine: str) -> None:
        """Forget the rows of a model that an engine does not decode."""
        self._waiting = [row for row in self._waiting if row[:2] != (label, engine)]

    def _like(self, row: RowName) -> float | None:
        def likeness(other: RowName) -> list[bool]:
            return [other[part] == row[part] for part in (1, 3, 2, 0)]

        return self._done[max(reversed(self._done), key=likeness)] if self._done else None


def measure_row(
    engine: Engine,
    test: TestInput,
    search: SearchSettings,
    batch_tokens: int,
    latency_sentences: int,
    row: RowName,
    forecast: Forecast,
    progress: bool,
) -> dict[str, Any]:
    """Return what an engine is measured to do with a test set, by the fields of `SpeedRow`.

    Args:
        engine: opened on the cores that it is to have.
        test: its sentences.
        search: how to search.
        batch_tokens: most source tokens in a batch.
        latency_sentences: sentences decoded one by one.
        row: that is measured.
        forecast: is told that it begins.
        progress: show a progress bar.
    """
    sentences = [sentence for sentence in test.sources if sentence.strip()]
    single = sentences[:latency_sentences]
    translate(engine, single[:1], search, progress=False)  # warm-up
    probed = sentences[:: max(len(sentences) // _PROBED, 1)][:_PROBED]
    alone = np.mean([_seconds(engine, sentence, search) for sentence in probed]).item()
    forecast.begin(row, alone * (2 * len(sentences) + len(single)))  # the memory is that of a second process
    warm_up(engine, test.sources, search)
    translations = translate(engine, test.sources, search, batch_tokens, progress)
    translate(engine, single[:1], search, progress=False)  # CTranslate2 gives all its threads to one sentence now
    shown = progress_bar("one by one", len(single), "sentences", progress, iterable=single, leave=False)
    latencies = [1000 * _seconds(engine, sentence, search) for sentence in shown]
    median, most = np.percentile(latencies, [50, 95]).tolist()
    return {
        "bleu": test.metrics["BLEU"].corpus_score(translations.hypotheses, test.references).score,
        "seconds": translations.seconds,
        "sentences_per_second": translations.sentences_per_second,
        "words_per_second": sum(len(sentence.split()) for sentence in sentences) / translations.seconds,
        "latency_ms": median,
        "latency_p95_ms": most,
        "latency_sentences": len(single),
        "threads": engine.threads,
    }


def _seconds(engine: Engine, sentence: str, search: SearchSettings) -> float:
    start = time.perf_counter()
    translate(engine, [sentence], search, progress=False)
    return time.perf_counter() - start
