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
"""Raw text in, raw text out, with a NeMo model and the batch-independent beam search."""

import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from nemo.collections.nlp.models import MTEncDecModel
from nemo.utils import logging
from torch import Tensor, nn
from tqdm import tqdm

from nemo_distill.decoding.search import evaluation_mode, repair_search
from nemo_distill.errors import InputError


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
    model: MTEncDecModel, sentences: Sequence[str], batch_tokens: int = 4096, progress: bool = True
) -> Translations:
    """Translate raw sentences with the text processing and the beam settings of the model.

    Sentences are decoded longest first, in batches of similar length. A hypothesis does not depend on the batch, up to
    rounding of floating-point sums where two hypotheses are equally good. An empty sentence gets an empty hypothesis.
    A source longer than the encoder's `max_sequence_length` tokens is cut there, its end token kept, and reported.
    BPE dropout is off. The model's search is repaired (`repair_search`); modes and gradient flags stay as they were.

    Args:
        model: a model for one pair of languages, on the device where to decode.
        sentences: raw text, one sentence each.
        batch_tokens: most source tokens in a batch, padding included; a longer sentence is a batch of its own.
        progress: show a progress bar with sentences per second.

    Raises:
        InputError: the model is multilingual or does not decode by beam search, or `batch_tokens` is below 1.

    Example:
        >>> translate(model, ["Guten Tag", ""]).hypotheses  # doctest: +SKIP
        ['Good day', '']
    """
    if batch_tokens < 1:
        raise InputError(f"batch_tokens is {batch_tokens}; give at least 1 (the default is 4096)")
    if model.multilingual:
        raise InputError("the model is multilingual; translate() serves models of one language pair")
    repair_search(model)
    start = time.perf_counter()
    hypotheses = [""] * len(sentences)
    with (
        torch.no_grad(),
        evaluation_mode(model),
        tqdm(total=len(sentences), unit=" sentences", desc="translating", disable=not progress) as bar,
    ):
        sources, truncated = _source_ids(model, sentences)
        bar.update(len(sentences) - len(sources))
        for places in _batches({place: len(ids) for place, ids in sources.items()}, batch_tokens):
            ids = nn.utils.rnn.pad_sequence(
                [sources[place] for place in places], batch_first=True, padding_value=model.encoder_tokenizer.pad_id
            ).to(model.device)
            mask = torch.zeros(ids.shape, device=model.device)
            for row, place in enumerate(places):
                mask[row, : len(sources[place])] = 1
            _, outputs = model.batch_translate(src=ids, src_mask=mask)
            for place, output in zip(places, outputs, strict=True):
                hypotheses[place] = output.replace("\n", " ")
            bar.update(len(places))
    return Translations(hypotheses, time.perf_counter() - start, len(sources), truncated)


def _source_ids(model: MTEncDecModel, sentences: Sequence[str]) -> tuple[dict[int, Tensor], list[int]]:
    """Return the token ids [T] of each sentence that is not empty, by place, and the places of those cut short."""
    longest = model.encoder.max_sequence_length
    sources, truncated = {}, []
    with _no_bpe_dropout(model.encoder_tokenizer):
        for place, sentence in enumerate(sentences):
            if not sentence.strip():
                continue
            batch, _ = model.prepare_inference_batch(
                [sentence],
                source_processor=model.source_processor,
                target_processor=model.target_processor,
                encoder_tokenizer=model.encoder_tokenizer,
                decoder_tokenizer=model.decoder_tokenizer,
                device="cpu",
            )
            ids = batch[0]
            if len(ids) > longest:
                ids = torch.cat([ids[: longest - 1], ids[-1:]])
                truncated.append(place)
            sources[place] = ids
    if truncated:
        lines = ", ".join(str(place + 1) for place in truncated[:5]) + (", ..." if len(truncated) > 5 else "")
        logging.warning(f"{len(truncated)} of {len(sentences)} sentences cut to {longest} tokens (sentence {lines})")
    return sources, truncated


@contextlib.contextmanager
def _no_bpe_dropout(tokenizer) -> Iterator[None]:
    dropout = getattr(tokenizer, "bpe_dropout", None)
    try:
        if dropout is not None:
            tokenizer.bpe_dropout = 0.0
        yield
    finally:
        if dropout is not None:
            tokenizer.bpe_dropout = dropout


def _batches(lengths: dict[int, int], batch_tokens: int) -> Iterable[list[int]]:
    """Yield places, longest first, such that a padded batch holds at most `batch_tokens` tokens."""
    batch: list[int] = []
    for place in sorted(lengths, key=lambda place: -lengths[place]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > batch_tokens:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch
