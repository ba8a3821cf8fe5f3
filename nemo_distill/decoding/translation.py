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
"""Raw text in, raw text out, with any engine."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from nemo_distill.decoding.engine import Engine, SearchSettings
from nemo_distill.support.progress_bar import progress_bar


@dataclass
class Translations:
    """Hypotheses in the order of the sentences, and how they were made."""

    hypotheses: list[str]
    """One per sentence; empty for an empty sentence."""
    seconds: float
    """Wall time from raw text to raw text."""
    decoded: int
    """Sentences that were decoded: all but the empty ones."""
    truncated: list[int]
    """Places of the sentences that were cut to the longest source the model takes."""

    @property
    def sentences_per_second(self) -> float:
        """Decoded sentences per second of wall time, 0 if there were none."""
        return self.decoded / self.seconds if self.decoded else 0.0


def translate(
    engine: Engine,
    sentences: Sequence[str],
    settings: SearchSettings | None = None,
    batch_tokens: int = 4096,
    progress: bool = True,
) -> Translations:
    """Translate raw sentences; each gets its best hypothesis.

    Args:
        engine: what decodes.
        sentences: raw text, one sentence each.
        settings: how to search; by default as the model's archive says.
        batch_tokens: most source tokens in a batch, padding included; a longer sentence is a batch of its own.
        progress: show a progress bar with sentences per second.

    Raises:
        InputError: as `Engine.translate`.

    Example:
        >>> translate(NeMoEngine(model), ["Guten Tag", ""]).hypotheses  # doctest: +SKIP
        ['Good day', '']
    """
    start = time.perf_counter()
    hypotheses = [""] * len(sentences)
    with progress_bar("translating", len(sentences), "sentences", progress) as bar:
        for batch in engine.translate(sentences, settings, batch_tokens):
            for place, found in batch:
                hypotheses[place] = found[0].text
            bar.update(len(batch))
    decoded = sum(1 for sentence in sentences if sentence.strip())
    return Translations(hypotheses, time.perf_counter() - start, decoded, engine.truncated)


def warm_up(engine: Engine, sentences: Sequence[str], settings: SearchSettings | None = None) -> None:
    """Translate a sentence for each thread, each a batch: an engine opens its model anew for more batches at once.

    Args:
        engine: of which something is timed next.
        sentences: raw text, one sentence each.
        settings: how to search; by default as the model's archive says.
    """
    some = [sentence for sentence in sentences if sentence.strip()][: engine.threads]
    translate(engine, some, settings, batch_tokens=1, progress=False)
