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

from collections.abc import Callable, Sequence

import torch
from nemo.collections.nlp.models import MTEncDecModel
from nemo.utils import logging
from torch.nn.utils.rnn import pad_sequence

from nemo_distill.data.agreement import Agreement, Pair, Sample, Scorer, known_by_heart, measure, settle
from nemo_distill.data.samples import samples_of
from nemo_distill.data.text import batches
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


def check_training_text(teacher: Teacher, dataset, tokenizers: tuple, device: torch.device, go_on: bool) -> str | None:
    """Tell in the log what a teacher makes of a training set; return why the student must not learn from it, if so.

    Args:
        teacher: the student's.
        dataset: the student's training set; None where its data were not set up by NeMo or this library.
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
        for sample in samples_of(dataset):
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
