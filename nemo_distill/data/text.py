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
"""Text in its three forms, as a model was trained: raw, processed, token ids; batches of sentences of similar length.

*Raw* text is for people. *Processed* text is normalized and tokenized by the processor of its language (NeMo's Moses,
Chinese, Indic or Japanese one): training data are such text, and what byte-pair encoding reads and writes. A model
whose archive names no language, or `ignore`, has no processors: both forms are the same there.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from nemo.collections.nlp.models import MTEncDecModel

from nemo_distill.config.languages import Languages
from nemo_distill.data.encoders import longest_source
from nemo_distill.data.forms import PROCESSED, RAW, form_of
from nemo_distill.data.languages import find_direction
from nemo_distill.data.processors import CONTROL, detokenized, processed
from nemo_distill.data.vocabulary import is_of_tokenized_text
from nemo_distill.support.quoting import one_line
from nemo_distill.support.warned import warn


@dataclass
class Sources:
    """Sentences as token ids."""

    ids: dict[int, list[int]]
    """Ids of each sentence that is not empty, start and end token and that of a language included, by its place."""
    empty: list[int]
    """Places of the empty sentences."""
    truncated: list[int]
    """Places of the sentences that were cut."""
    processed: list[str]
    """Each sentence as the tokenizer reads it."""
    unknown: list[int] = field(default_factory=list)
    """Places of the sentences without one piece that the model knows."""

    def warn(self, sentences: int, longest: int, first: int = 1) -> None:
        """Name the lines that were cut, if there are some, of so many sentences, to so many tokens.

        Args:
            sentences: how many there are.
            longest: tokens of a source.
            first: the line of the first sentence.
        """
        if self.truncated:
            shown = ", ".join(str(place + first) for place in self.truncated[:5])
            shown += ", ..." if len(self.truncated) > 5 else ""
            warn(f"{len(self.truncated)} of {sentences} sentences cut to {longest} tokens (line {shown})")


@dataclass
class TextPipeline:
    """A model's text processing and tokenizers, as NeMo makes them: the one place for raw, processed text and ids.

    Example:
        >>> text = TextPipeline.of_model(model)  # doctest: +SKIP
        >>> text.decode(text.encode(["Guten Tag"]).ids[0])  # doctest: +SKIP
        'Guten Tag'
    """

    source_tokenizer: object
    target_tokenizer: object
    source_processor: object | None
    """Normalizes and tokenizes before the source tokenizer; None where processed text is raw text."""
    target_processor: object | None
    longest_source: int
    """Most tokens of a source, start and end token included."""
    source_language: str | None = None
    """As it chose the processor."""
    target_language: str | None = None
    reads_processed: bool = False
    """Sentences given to `encode` are processed already."""
    _form_is_checked: bool = field(default=False, init=False, repr=False)
    language_token: int | None = None
    """Id in front of every source, which tells a one-to-many model the target language; None: nothing is in front."""

    @classmethod
    def of_model(cls, model: MTEncDecModel, languages: Languages | None = None) -> "TextPipeline":
        """Return the pipeline of a model for one pair of languages.

        Args:
            model: any translation model.
            languages: which pair, of a model of several.

        Raises:
            InputError: the model has several, and which one is meant is not said.
        """
        direction = find_direction(model, languages)
        return cls(
            model.encoder_tokenizer,
            model.decoder_tokenizer,
            direction.source_processor,
            direction.target_processor,
            longest_source(model),
            direction.source,
            direction.target,
            language_token=direction.token,
        )

    @property
    def is_processed(self) -> bool:
        """True if processed text is another than raw text, on one side at least."""
        return not (self.source_processor is None and self.target_processor is None)

    def source_pieces(self) -> list[str]:
        """Return the string of each source token by its id."""
        return pieces(self.source_tokenizer)

    def target_pieces(self) -> list[str]:
        """Return the string of each target token by its id."""
        return pieces(self.target_tokenizer)

    def process_source(self, raw: str) -> str:
        """Return the processed form of a raw source, on one line if `raw` is."""
        return processed(raw, self.source_processor)

    def raw_source(self, processed: str) -> str:
        """Return a processed source as people read it."""
        return detokenized(processed, self.source_processor)

    def encode(self, sentences: Sequence[str]) -> Sources:
        """Return the token ids of sentences, raw or `reads_processed`; BPE dropout is off.

        A sentence counts as empty whose processed form is white space, or of which the tokenizer makes no token, as of
        a `▁` alone. A source of more than `longest_source` tokens is cut
        there, its end token kept; a warning names the sentences.
        """
        self._check_form(sentences)
        front = [self.source_tokenizer.bos_id]
        front = front if self.language_token is None else [self.language_token, *front]
        room = self.longest_source - len(front) - 1
        sources = Sources({}, [], [], [])
        with no_bpe_dropout(self.source_tokenizer):
            for place, sentence in enumerate(sentences):
                text = sentence.rstrip("\n")
                if text.strip() and not self.reads_processed:
                    text = self.process_source(text)
                sources.processed.append(text)
                if not text.strip():
                    sources.empty.append(place)
                    continue
                ids = self.source_tokenizer.text_to_ids(text)
                if not ids:
                    sources.empty.append(place)
                    continue
                if is_unknown(ids, self.source_tokenizer.unk_id, self.source_tokenizer.ids_to_tokens):
                    sources.unknown.append(place)
                if len(ids) > room:
                    ids = ids[:room]
                    sources.truncated.append(place)
                sources.ids[place] = [*front, *ids, self.source_tokenizer.eos_id]
        return sources

    def decode(self, ids: Sequence[int]) -> str:
        """Return the raw text, one line, of target ids without start and end token."""
        return detokenized(self._text(ids), self.target_processor)

    def decode_processed(self, ids: Sequence[int]) -> str:
        """Return the processed text, one line, of target ids without start and end token: what training reads."""
        return one_line(self._text(ids).translate(CONTROL))

    def count_unknown(self, ids: Sequence[int]) -> int:
        """Return how many target ids are the unknown token, or no token of the vocabulary."""
        tokenizer = self.target_tokenizer
        return sum(id_ == tokenizer.unk_id or id_ >= tokenizer.vocab_size for id_ in ids)

    def target_ids(self, processed: str) -> list[int]:
        """Return the ids of a processed target as training reads them, without start and end token or BPE dropout."""
        with no_bpe_dropout(self.target_tokenizer):
            return list(self.target_tokenizer.text_to_ids(processed))

    def _check_form(self, sentences: Sequence[str]) -> None:
        """Warn, once, of text that would be processed twice, or that is of another form than the vocabulary."""
        if self._form_is_checked or self.reads_processed:
            return
        if self.source_language is not None:
            form = None if self.source_processor is None else form_of(sentences[:1000])
            self._form_is_checked = form is not None
            if form == PROCESSED:
                warn(
                    "the input looks tokenized already (its punctuation stands apart), and is tokenized again for the "
                    f"language {self.source_language}; give text as people write it, or detokenize it first"
                )
            return
        found = form_of(sentences[:1000], marks=(".", ","), fewest=5)
        if found is None:
            return
        self._form_is_checked = True
        known = is_of_tokenized_text(self.source_pieces())
        if known and found == RAW:
            warn(
                "the model's archive names no source language, and its vocabulary is of tokenized text, but the input "
                "is not tokenized; name the languages (--source-lang, --target-lang; of a job's teacher "
                "teacher_source, teacher_target), so that text is processed as the model's training text was"
            )
        elif known is False and found == PROCESSED:
            warn(
                "the model's archive names no source language, and its vocabulary is of raw text, but the input is "
                "tokenized; give text as people write it, or name the languages (--source-lang, --target-lang; of a "
                "job's teacher teacher_source, teacher_target)"
            )

    def _text(self, ids: Sequence[int]) -> str:
        tokenizer = self.target_tokenizer
        return tokenizer.ids_to_text([id_ if id_ < tokenizer.vocab_size else tokenizer.unk_id for id_ in ids])


def is_unknown(ids: Sequence[int], unknown: int | None, to_pieces: Callable[[list[int]], list[str]]) -> bool:
    """Return whether ids, without special ones, are the unknown token and pieces that say nothing."""
    if unknown not in ids:
        return False
    return not any(piece.strip("▁ ") for piece in to_pieces([id_ for id_ in ids if id_ != unknown]))


def pieces(tokenizer) -> list[str]:
    """Return the string of each token of a NeMo tokenizer by its id; none comes twice.

    YouTokenToMe has `<UNK>` as a piece too where its text has that word. The later one of such a pair gets its id
    behind it, `<UNK> 57`, which is no piece since a space is none.
    """
    strings = tokenizer.ids_to_tokens(list(range(tokenizer.vocab_size)))
    first = {string: id_ for id_, string in reversed(list(enumerate(strings)))}
    return [string if first[string] == id_ else f"{string} {id_}" for id_, string in enumerate(strings)]


def batches(lengths: Mapping[int, int], batch_tokens: int) -> Iterator[list[int]]:
    """Yield places, longest first, such that a padded batch holds at most `batch_tokens` tokens.

    Args:
        lengths: tokens of each sentence, by its place.
        batch_tokens: most tokens in a batch; a longer sentence is a batch of its own.
    """
    batch: list[int] = []
    for place in sorted(lengths, key=lambda place: -lengths[place]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > batch_tokens:
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
