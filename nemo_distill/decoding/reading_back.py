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
"""Hypotheses as training reads them: whose text gives other tokens than the search found has another score.

A pseudo-label is written as text. Training reads `[bos, ids of the text, eos]`, which is not always what the decoder
wrote: it may spell a word in other pieces than byte-pair encoding does, write unknown pieces, or be cut off.
Such a hypothesis is scored again by the engine that found it, teacher-forced, and marked.
"""

from collections.abc import Mapping
from dataclasses import replace
from itertools import chain
from typing import Any

from nemo_distill.data.text import TextPipeline, batches
from nemo_distill.decoding.engine import (
    NO_END,
    SAMPLED,
    SEGMENTATION,
    TOO_LONG,
    UNKNOWN,
    Hypothesis,
    SearchSettings,
)
from nemo_distill.decoding.exported_program import length_penalty


def read_back(
    engine: Any, found: Mapping[int, list[Hypothesis]], settings: SearchSettings, batch_tokens: int = 4096
) -> dict[int, list[Hypothesis]]:
    """Return hypotheses whose score and length are those of their text as training reads it.

    Where one was scored again, the hypotheses of its sentence are ranked anew by the penalized score, and of those of
    a beam that became the same text one is left. Of samples all are: what is drawn twice counts twice.

    Args:
        engine: gave the hypotheses in its latest `translate`. One that tells no tokens gets them back as they are.
        found: hypotheses of each sentence by its place.
        settings: of the search.
        batch_tokens: most tokens of source and target in a batch, padding included.
    """
    found, pairs, again = {place: list(hypotheses) for place, hypotheses in found.items()}, [], []
    for place, hypotheses in found.items():
        for number, one in enumerate(hypotheses):
            if one.ids is None:
                continue
            ids = engine.text.target_ids(one.trained_text)
            mark = _mark(one, ids, engine.text, engine.longest_target)
            if mark is None:
                continue
            hypotheses[number] = replace(one, mark=mark)
            if mark != TOO_LONG:
                pairs.append((engine.sources.ids[place], ids))
                again.append((place, number))
    lengths = {row: len(source) + len(target) + 2 for row, (source, target) in enumerate(pairs)}
    groups = list(batches(lengths, batch_tokens))
    scores = engine.score([[pairs[row] for row in group] for group in groups]) if groups else ()
    for row, score in zip(chain.from_iterable(groups), chain.from_iterable(scores), strict=True):
        place, number = again[row]
        ids = tuple(pairs[row][1])
        found[place][number] = replace(found[place][number], score=score, length=len(ids) + 1, ids=ids)
    return {place: _ranked(hypotheses, settings) for place, hypotheses in found.items()}


def _mark(one: Hypothesis, ids: list[int], text: TextPipeline, longest_target: int) -> str | None:
    """Return why training reads another hypothesis than the search found, None if it does not."""
    same = list(one.ids) == ids
    if same and one.length > len(one.ids):
        return None
    if len(ids) + 1 > longest_target:
        return TOO_LONG
    if same:
        return NO_END
    tokenizer = text.target_tokenizer
    no_text = {tokenizer.unk_id, tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id}
    is_unknown = any(id_ >= tokenizer.vocab_size or id_ in no_text for id_ in (*one.ids, *ids))
    return UNKNOWN if is_unknown else SEGMENTATION


def _ranked(hypotheses: list[Hypothesis], settings: SearchSettings) -> list[Hypothesis]:
    if all(one.mark is None for one in hypotheses):
        return hypotheses
    seen, kept = {one.trained_text for one in hypotheses if one.mark is None}, []
    for one in hypotheses:
        if one.mark is not None and settings.search not in SAMPLED:
            if one.trained_text in seen:
                continue
            seen.add(one.trained_text)
        kept.append(one)
    return sorted(kept, key=lambda one: -one.score / length_penalty(len(one.ids), settings.length_penalty))
