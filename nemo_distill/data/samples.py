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
"""Some pairs of each part of a training set, as training reads them, and what can be said of them without a model."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from nemo_distill.data.agreement import SAMPLE, Pair, Sample, much_unknown, spread, unknown_shares
from nemo_distill.data.line_dataset import LineDataset, with_prefix
from nemo_distill.data.mixing.dataset import MixedDataset
from nemo_distill.data.mixing.tarred import TarredBatches
from nemo_distill.data.mixing.tarred_dataset import TarredDataset
from nemo_distill.data.tokens.pairs import TextBatches


def samples_of(dataset) -> Iterator[Sample]:
    """Yield a sample of each part of a training set: of each component of a mixture, or of text files.

    Several tarred sets that NeMo reads are left out: they are read once, in order.

    Args:
        dataset: the training set.
    """
    if isinstance(dataset, MixedDataset):
        for name, component, prefix in zip(dataset.mixture.drawn, dataset.components, dataset.prefixes, strict=True):
            sample = _sample_of_text if isinstance(component, TextBatches) else _sample_of_batches
            yield sample(name, component, prefix)
    elif isinstance(dataset, TarredDataset):
        yield _sample_of_batches("the training text", dataset)
    elif isinstance(dataset, LineDataset):
        yield _sample_of_text(
            "the training text", dataset.text, dataset.prepend_id or None, dataset.reverse_lang_direction
        )
    elif isinstance(getattr(dataset, "datasets", None), list):  # several files, or NeMo's of several languages
        for number, part in enumerate(dataset.datasets):
            for sample in samples_of(part):
                yield replace(sample, name=f"part {number} of the training text")


def unknown_text(dataset, unknown: tuple[int | None, int | None]) -> list[str]:
    """Return a line on each part of a training set of which the tokenizers do not know many tokens.

    Args:
        dataset: the training set; of a kind that is not known here nothing is said.
        unknown: id of the unknown token of source and target; None: there is none.
    """
    shares = {
        sample.name: unknown_shares(*zip(*sample.pairs, strict=True), unknown)
        for sample in samples_of(dataset)
        if sample.pairs
    }
    return [told for name, found in shares.items() if (told := much_unknown(name, found))]


def sampled(name: str, sources: Sequence[np.ndarray], targets: Sequence[np.ndarray]) -> Sample:
    """Return a sample of a text, in its order."""
    places = spread(len(sources))
    return Sample(name, [(sources[place], targets[place]) for place in places], places)


def _sample_of_text(name: str, text: TextBatches, prefix: int | None, is_reversed: bool = False) -> Sample:
    """Return a sample of a training text as training reads it, in its order, not in that of the sorted batches."""
    sides = [text.sources, text.targets]
    found = sampled(name, *(reversed(sides) if is_reversed else sides))
    return Sample(name, _with_prefix(found.pairs, prefix), [text.line(place) - 1 for place in found.lines])


def _sample_of_batches(name: str, batches: TarredBatches | TarredDataset, prefix: int | None = None) -> Sample:
    """Return a sample of a tarred set: some pairs of batches that are evenly spread."""
    rows = (zip(*batches.rows(number)[:2], strict=True) for number in _some(len(batches)))
    return Sample(name, _with_prefix(_some_of_each(list(map(list, rows))), prefix))


def _with_prefix(pairs: Sequence[Pair], prefix: int | None) -> list[Pair]:
    return [(with_prefix([source], prefix)[0], target) for source, target in pairs]


def _some(total: int) -> list[int]:
    """Return the numbers of at most `SAMPLE` of so many batches, evenly spread."""
    count = min(total, SAMPLE)
    return [number * total // count for number in range(count)]


def _some_of_each(rows: list[list[Pair]]) -> list[Pair]:
    """Return at most `SAMPLE` pairs, as many from each batch as it takes."""
    turns = max(map(len, rows), default=0)
    order = [batch[turn] for turn in range(turns) for batch in rows if turn < len(batch)]
    return order[:SAMPLE]
