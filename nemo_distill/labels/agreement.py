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
"""Does the teacher of pseudo-labels know their gold text? See `nemo_distill.data.agreement`."""

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nemo_distill.errors import InputError
from nemo_distill.support.texts import Texts

if TYPE_CHECKING:
    from nemo_distill.data.agreement import Pair
    from nemo_distill.decoding.engine import Engine, TextEngine


def checked_engine(
    engine: "Engine",
    source: Texts,
    target: Texts | None,
    lines: int,
    go_on: bool,
    speaks: bool,
) -> "Engine":
    """Return an engine, after telling what its model makes of the gold translations, where there are some.

    An engine that scores no token ids of ours, as one of a model that is not NeMo's, is not asked.

    Args:
        engine: of the teacher.
        source: text that is to be translated.
        target: its gold translations.
        lines: of either.
        go_on: whatever is found.
        speaks: whether this process tells what was found.

    Raises:
        InputError: the model knows nothing of this text, and `go_on` is False.
    """
    if target is None or getattr(engine, "training_text", None) is None:
        return engine
    from nemo.utils import logging

    from nemo_distill.data.agreement import Sample, measure, settle, spread
    from nemo_distill.data.processors import processed
    from nemo_distill.support.warned import warn

    text = engine.training_text
    tokenizer = text.target_tokenizer

    def target_ids(line: str) -> list[int]:
        ids = text.target_ids(line if text.reads_processed else processed(line, text.target_processor))
        return [tokenizer.bos_id, *ids, tokenizer.eos_id]

    places = spread(lines)
    source_lines, target_lines = (_lines_at(text, places) for text in (source, target))
    sources = text.encode(source_lines)
    whole = sources.ids.keys() - set(sources.truncated)
    targets = list(map(target_ids, target_lines))
    good = {number for number in whole if 2 < len(targets[number]) <= engine.longest_target + 1}
    twos = [number for number in range(len(places)) if {number, number ^ 1} <= good]
    pairs = [(sources.ids[number], targets[number]) for number in twos]
    sample = Sample(f"{source}, {target}", pairs, [places[number] for number in twos], len(places))
    both_ways = text.language_token is None and text.source_pieces() == text.target_pieces()
    unknown = text.source_tokenizer.unk_id, tokenizer.unk_id
    found = measure(sample, lambda pairs: _scores(engine, pairs), tokenizer.vocab_size, both_ways, unknown)
    if found is None:
        return engine
    if fault := settle(found, go_on, *((logging.info, warn) if speaks else (logging.debug, logging.debug))):
        raise InputError(f"{fault}. To label all the same: --force")
    return engine


def _lines_at(text: Texts, places: Sequence[int]) -> list[str]:
    """Return some lines of a text, numbered from 0, without the others in memory."""
    wanted, lines = set(places), text.lines()
    return [line for place, line in enumerate(itertools.islice(lines, max(places, default=-1) + 1)) if place in wanted]


def _scores(engine: "TextEngine", pairs: Sequence["Pair"]) -> list[float]:
    """Return the log-probability of each target by an engine, which puts start and end token around targets itself."""
    from nemo_distill.data.text import batches

    found = [0.0] * len(pairs)
    groups = list(batches({place: sum(map(len, pair)) for place, pair in enumerate(pairs)}, 2048))
    asked = [[(list(pairs[place][0]), list(pairs[place][1][1:-1])) for place in group] for group in groups]
    for group, scores in zip(groups, engine.score(asked), strict=True):
        for place, score in zip(group, scores, strict=True):
            found[place] = score
    return found
