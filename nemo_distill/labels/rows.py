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
"""What an engine made of some sentences, as rows of n-best lists."""

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from nemo_distill.decoding.engine import Engine, Hypothesis, SearchSettings
from nemo_distill.labels.nbest import NBest
from nemo_distill.support.quoting import one_line

if TYPE_CHECKING:
    from nemo_distill.data.text import TextPipeline


def rows_of(
    engine: Engine,
    sentences: list[str],
    found: Mapping[int, list[Hypothesis]],
    search: SearchSettings,
    batch_tokens: int,
) -> Iterator[NBest]:
    """Yield the rows of sentences that an engine has just translated, scored as training reads them.

    Args:
        engine: says what it did with them until it translates others.
        sentences: the first is line `first_line` of the input.
        found: the hypotheses of each, by place.
        search: with which they were found.
        batch_tokens: most source tokens in a batch.
    """
    first, cut, forms = engine.first_line, set(engine.truncated), _forms(engine, sentences)
    unknown = set(_unknown_sources(engine))
    if training_text(engine) is not None:
        from nemo_distill.decoding.reading_back import read_back

        found = read_back(engine, found, search, batch_tokens)
    for place, (raw, processed) in enumerate(forms):
        yield NBest(first + place, raw, _clean(found[place]), place in cut, processed, place in unknown)


def training_text(engine: Engine) -> "TextPipeline | None":
    """Return `TextEngine.training_text`; None of other engines."""
    return getattr(engine, "training_text", None)


def _forms(engine: Engine, sentences: list[str]) -> Iterator[tuple[str, str | None]]:
    """Yield the raw form of each sentence of the latest `translate`, and its processed form where it is another."""
    text = training_text(engine)
    for place, sentence in enumerate(sentences):
        if text is None or text.source_processor is None:
            yield sentence, None
            continue
        raw = one_line(text.raw_source(sentence)) if text.reads_processed else sentence
        processed = engine.sources.processed[place]
        yield raw, processed if processed != raw else None


def _unknown_sources(engine: Engine) -> list[int]:
    """Return the places of the sentences of the latest `translate` of which the engine knows no piece."""
    sources = getattr(engine, "sources", None)
    return [] if sources is None else sources.unknown


def _clean(hypotheses: list[Hypothesis]) -> tuple[Hypothesis, ...]:
    """Return hypotheses on one line each, without those of no finite score; no sum of log-probabilities is above 0."""
    return tuple(
        Hypothesis(
            text := one_line(one.text),
            min(one.score, 0.0),
            one.length,
            _other(one.processed, text),
            one.mark,
            one.cut,
            min(one.unknown, one.length),  # of those that training reads there may be fewer
        )
        for one in hypotheses
        if math.isfinite(one.score)
    )


def _other(processed: str | None, raw: str) -> str | None:
    return None if processed is None or processed == raw else one_line(processed)
