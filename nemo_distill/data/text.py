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
"""Raw text to token ids and back, as a model was trained, and batches of sentences of similar length."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from nemo.collections.nlp.models import MTEncDecModel
from nemo.utils import logging

from nemo_distill.errors import InputError

CONTROL = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0)], " ")
"""Characters that end lines or steer terminals; no text has them. The exported program replaces the same."""


@dataclass
class Sources:
    """Sentences as token ids."""

    ids: dict[int, list[int]]
    """Ids of each sentence that is not empty, start and end token included, by its place."""
    empty: list[int]
    """Places of the empty sentences."""
    truncated: list[int]
    """Places of the sentences that were cut."""

    def warn(self, sentences: int, longest: int) -> None:
        """Name the sentences that were cut, if there are some, of so many, to so many tokens."""
        if self.truncated:
            shown = ", ".join(str(place + 1) for place in self.truncated[:5])
            shown += ", ..." if len(self.truncated) > 5 else ""
            logging.warning(
                f"{len(self.truncated)} of {sentences} sentences cut to {longest} tokens (sentence {shown})"
            )


@dataclass
class TextPipeline:
    """A model's text processing and tokenizers, as NeMo makes them.

    Example:
        >>> text = TextPipeline.of_model(model)  # doctest: +SKIP
        >>> text.decode(text.encode(["Guten Tag"]).ids[0])  # doctest: +SKIP
        'Guten Tag'
    """

    source_tokenizer: object
    target_tokenizer: object
    source_processor: object | None
    """Normalizes and tokenizes before the source tokenizer; None for raw text."""
    target_processor: object | None
    longest_source: int
    """Most tokens of a source, start and end token included."""

    @classmethod
    def of_model(cls, model: MTEncDecModel) -> "TextPipeline":
        """Return the pipeline of a model for one pair of languages.

        Raises:
            InputError: the model is multilingual.
        """
        if model.multilingual:
            raise InputError("the model is multilingual; only models of one pair of languages can be decoded here")
        return cls(
            model.encoder_tokenizer,
            model.decoder_tokenizer,
            model.source_processor,
            model.target_processor,
            model.encoder.max_sequence_length,
        )

    def source_pieces(self) -> list[str]:
        """Return the string of each source token by its id."""
        return pieces(self.source_tokenizer)

    def target_pieces(self) -> list[str]:
        """Return the string of each target token by its id."""
        return pieces(self.target_tokenizer)

    def encode(self, sentences: Sequence[str]) -> Sources:
        """Return the token ids of raw sentences; BPE dropout is off.

        A source of more than `longest_source` tokens is cut there, its end token kept; a warning names the sentences.
        """
        sources = Sources({}, [], [])
        with no_bpe_dropout(self.source_tokenizer):
            for place, sentence in enumerate(sentences):
                if not sentence.strip():
                    sources.empty.append(place)
                    continue
                text = sentence.rstrip("\n")
                if self.source_processor is not None:
                    text = self.source_processor.tokenize(self.source_processor.normalize(text))
                ids = self.source_tokenizer.text_to_ids(text)
                if len(ids) + 2 > self.longest_source:
                    ids = ids[: self.longest_source - 2]
                    sources.truncated.append(place)
                sources.ids[place] = [self.source_tokenizer.bos_id, *ids, self.source_tokenizer.eos_id]
        sources.warn(len(sentences), self.longest_source)
        return sources

    def decode(self, ids: Sequence[int]) -> str:
        """Return the raw text, one line, of target ids without start and end token."""
        tokenizer = self.target_tokenizer
        text = tokenizer.ids_to_text([id_ if id_ < tokenizer.vocab_size else tokenizer.unk_id for id_ in ids])
        if self.target_processor is not None:
            text = self.target_processor.detokenize(text.split(" "))
        return text.translate(CONTROL)


def pieces(tokenizer) -> list[str]:
    """Return the string of each token of a NeMo tokenizer by its id."""
    return tokenizer.ids_to_tokens(list(range(tokenizer.vocab_size)))


def batches(lengths: Mapping[int, int], batch_tokens: int, equal_lengths: bool = False) -> Iterator[list[int]]:
    """Yield places, longest first, such that a padded batch holds at most `batch_tokens` tokens.

    Args:
        lengths: tokens of each sentence, by its place.
        batch_tokens: most tokens in a batch; a longer sentence is a batch of its own.
        equal_lengths: only sentences of the same length share a batch.
    """
    batch: list[int] = []
    for place in sorted(lengths, key=lambda place: -lengths[place]):
        if batch:
            longest = lengths[batch[0]]
            if (len(batch) + 1) * longest > batch_tokens or (equal_lengths and lengths[place] < longest):
                yield batch
                batch = []
        batch.append(place)
    if batch:
        yield batch


@contextlib.contextmanager
def no_bpe_dropout(tokenizer) -> Iterator[None]:
    """Text has one tokenization inside the block."""
    dropout = getattr(tokenizer, "bpe_dropout", None)
    try:
        if dropout is not None:
            tokenizer.bpe_dropout = 0.0
        yield
    finally:
        if dropout is not None:
            tokenizer.bpe_dropout = dropout
