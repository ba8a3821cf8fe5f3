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
"""Does a teacher know the text that its student is trained on? See `nemo_distill.data.agreement`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from nemo.collections.nlp.models import MTEncDecModel
from nemo.utils import logging
from torch.nn.utils.rnn import pad_sequence

from nemo_distill.data.agreement import (
    SAMPLE,
    Agreement,
    Pair,
    Sample,
    Scorer,
    known_by_heart,
    measure,
    settle,
    spread,
)
from nemo_distill.data.line_dataset import LineDataset, with_prefix
from nemo_distill.data.mixing.dataset import MixedDataset
from nemo_distill.data.mixing.tarred import TarredBatches
from nemo_distill.data.mixing.tarred_dataset import TarredDataset
from nemo_distill.data.text import batches
from nemo_distill.data.tokens.pairs import TextBatches
from nemo_distill.data.vocabulary import vocabulary_hash
from nemo_distill.errors import TeacherError
from nemo_distill.losses.signals import HeadInput, KeptTargets
from nemo_distill.support.warned import warn
from nemo_distill.teachers.cached import CachedTeacher
from nemo_distill.teachers.frozen import Teacher

_BATCH_TOKENS = 2048


class _NoLogits(Exception):
    """A teacher gives no logits of all words."""


def teacher_scorer(teacher: Teacher, pads: tuple[int, int], device: str | torch.device) -> Scorer:
    """Return what gives the teacher's log-probability of each target.

    Args:
        teacher: whose outputs are logits, or the input of its head; others raise `_NoLogits`.
        pads: padding ids of source and target.
        device: where it runs.
    """

    @torch.no_grad()
    def score(pairs: Sequence[Pair]) -> list[float]:
        found = [0.0] * len(pairs)
        for places in batches({place: sum(map(len, pair)) for place, pair in enumerate(pairs)}, _BATCH_TOKENS):
            source, target = (
                pad_sequence([torch.tensor(pairs[place][side]).long() for place in places], True, pad).to(device)
                for side, pad in enumerate(pads)
            )
            inputs, labels = target[:, :-1], target[:, 1:]
            batch = (source, (source != pads[0]).int(), inputs, (inputs != pads[1]).int(), labels)
            said = teacher.outputs(batch, lean=False).signal
            if said is None or isinstance(said, KeptTargets):
                raise _NoLogits
            logits = said.logits() if isinstance(said, HeadInput) else said.values
            of_labels = logits.float().log_softmax(-1).gather(-1, labels.unsqueeze(-1)).squeeze(-1)  # [B, T]
            for place, value in zip(places, (of_labels * (labels != pads[1])).sum(1).tolist(), strict=True):
                found[place] = value
        return found

    return score


def read_sample(sample: Sample, teacher: Teacher, tokenizers: tuple, device: str | torch.device) -> Agreement | None:
    """Return what a teacher makes of a sample; None where that is too small.

    Args:
        sample: token ids as the teacher's student reads them.
        teacher: one model or an ensemble.
        tokenizers: of source and target.
        device: where the teacher runs.
    """
    source, target = tokenizers
    score = teacher_scorer(teacher, (source.pad_id, target.pad_id), device)
    starts_plainly = all(int(pair[0][0]) == source.bos_id for pair in sample.pairs)  # not with a language
    one_vocabulary = starts_plainly and vocabulary_hash(source) == vocabulary_hash(target)
    return measure(sample, score, target.vocab_size, one_vocabulary, (source.unk_id, target.unk_id))


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


def samples_of(dataset, names: Sequence[str]) -> Iterator[Sample]:
    """Yield a sample of each part of a training set: of each component of a mixture, or of text files.

    Several tarred sets that NeMo reads are left out: they are read once, in order.

    Args:
        dataset: the student's.
        names: of the components of a mixture.
    """
    if isinstance(dataset, MixedDataset):
        for name, component, prefix in zip(names, dataset.components, dataset.prefixes, strict=True):
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
            for sample in samples_of(part, names):
                yield replace(sample, name=f"part {number} of the training text")


def check_training_text(
    teacher: Teacher, dataset, names: Sequence[str], tokenizers: tuple, device: torch.device, go_on: bool
) -> str | None:
    """Tell in the log what a teacher makes of a training set; return why the student must not learn from it, if so.

    Args:
        teacher: the student's.
        dataset: the student's training set; None where its data were not set up by NeMo or this library.
        names: of the components of a mixture.
        tokenizers: of the student, source and target.
        device: where training runs.
        go_on: whatever is found.
    """
    if isinstance(teacher, CachedTeacher):
        texts = teacher.cache.manifest.get("agreement", ())
        for number, noted in enumerate(texts, 1):
            name = "the cached text" if len(texts) == 1 else f"cached text {number} of {len(texts)}"
            logging.info(
                f"{name}: {noted['nats']:.2f} nats a token by its teacher, "
                f"{noted['shuffled_nats']:.2f} where the same pairs are shuffled"
            )
            if doubt := known_by_heart(name, noted["nats"]):
                warn(doubt)
        return None
    if dataset is None:
        logging.info("the training text was set up elsewhere: what the teacher makes of it is not looked at")
    try:
        for sample in samples_of(dataset, names):
            found = read_sample(sample, teacher, tokenizers, device)
            if found is not None and (fault := settle(found, go_on, logging.info, warn)):
                return fault
    except _NoLogits:
        logging.info("the teacher gives no logits of all words: what it makes of the training text is not looked at")
    return None


def check_cached_text(
    samples: Sequence[Sample],
    teacher: Teacher,
    model: MTEncDecModel,
    device: str,
    go_on: bool,
    say: Callable[[str], None],
) -> list[dict[str, float]]:
    """Tell what a teacher makes of the text of a cache; return what the manifest keeps of it.

    Args:
        samples: of each pair of files.
        teacher: one model or an ensemble.
        model: one of its models.
        device: where it runs.
        go_on: whatever is found.
        say: gets the numbers.

    Raises:
        TeacherError: the teacher knows nothing of a text, and `go_on` is False.
    """
    noted, tokenizers = [], (model.encoder_tokenizer, model.decoder_tokenizer)
    for sample in samples:
        found = read_sample(sample, teacher, tokenizers, device)
        if found is None:
            continue
        if fault := settle(found, go_on, say, warn):
            raise TeacherError(f"{fault}. To make the cache all the same: --force")
        noted.append(found.summary())
    return noted


def _some(total: int) -> list[int]:
    """Return the numbers of at most `SAMPLE` of so many batches, evenly spread."""
    count = min(total, SAMPLE)
    return [number * total // count for number in range(count)]


def _some_of_each(rows: list[list[Pair]]) -> list[Pair]:
    """Return at most `SAMPLE` pairs, as many from each batch as it takes."""
    turns = max(map(len, rows), default=0)
    order = [batch[turn] for turn in range(turns) for batch in rows if turn < len(batch)]
    return order[:SAMPLE]
