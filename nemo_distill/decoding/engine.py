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
"""What a decoding engine takes and gives: search settings, hypotheses, and the interface of all engines.

Two engines implement it: CTranslate2 for every architecture that converts, and NeMo's own modules for the rest and for
ensembles of teachers.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Protocol

from nemo_distill.archives.values import LENGTH_PENALTIES, LONGEST, is_number
from nemo_distill.errors import InputError
from nemo_distill.support.quoting import one_line

if TYPE_CHECKING:
    from nemo.collections.nlp.models import MTEncDecModel

    from nemo_distill.data.text import Sources, TextPipeline

SAMPLED = ("top_k", "top_p")
"""Searches that draw their hypotheses."""
ENGINES = ("auto", "ctranslate2", "nemo")
QUANTIZATIONS = ("float32", "float16", "bfloat16", "int8", "int8_float32", "int8_float16", "int8_bfloat16")
"""Types of the weights that CTranslate2 stores."""
UNKNOWN, SEGMENTATION, NO_END = "unknown pieces", "other segmentation", "no end token"
TOO_LONG = "too long to score"
"""Training reads more tokens than the model has positions: the score is that of the search."""
MARKS = (UNKNOWN, SEGMENTATION, NO_END, TOO_LONG)
"""Why training reads another hypothesis than the search found; see `reading_back`."""
SEARCHES = ("beam", "greedy", *SAMPLED)


@dataclass(frozen=True)
class SearchSettings:
    """How hypotheses are searched for."""

    search: str = "beam"
    """`beam`; `greedy`; `top_k` or `top_p`: sampling (Fan et al. 2018; Holtzman et al. 2020)."""
    beam_size: int = 4
    """Hypotheses kept while searching; 1 is greedy search. Only for `beam`."""
    num_hypotheses: int = 1
    """Hypotheses returned for each sentence, best first; with `beam` at most `beam_size`, with `greedy` 1."""
    length_penalty: float = 0.6
    """Exponent of the GNMT penalty `((5 + L) / 6) ** length_penalty`, L = tokens + 2; hypotheses are ranked by it."""
    max_length_delta: int = 20
    """A hypothesis has at most this many tokens more than its source."""
    top_k: int = 10
    """Sample among this many likeliest tokens. Only for `top_k`."""
    top_p: float = 0.9
    """Sample among the fewest tokens that together have this probability. Only for `top_p`."""
    temperature: float = 1.0
    """Logits are divided by it before sampling."""
    seed: int = 0
    """Of sampling: the same list of sentences, settings and seed give the same hypotheses (see `Engine`)."""

    def __post_init__(self) -> None:
        faults = []
        if self.search not in SEARCHES:
            faults.append(f"search: got '{self.search}'; give one of {', '.join(SEARCHES)}")
        for name in ("beam_size", "num_hypotheses", "top_k"):
            if getattr(self, name) < 1:
                faults.append(f"{name}: got {getattr(self, name)}; give at least 1")
        if self.search == "beam" and self.num_hypotheses > self.beam_size:
            faults.append(
                f"num_hypotheses: got {self.num_hypotheses} with beam_size {self.beam_size}; a beam search has at "
                "most beam_size hypotheses"
            )
        if self.search == "greedy" and self.num_hypotheses > 1:
            faults.append(f"num_hypotheses: got {self.num_hypotheses} with greedy search, which has only one")
        if not 0 < self.top_p <= 1:
            faults.append(f"top_p: got {self.top_p}; give a number above 0 and at most 1")
        if not 0 < self.temperature < float("inf"):
            faults.append(f"temperature: got {self.temperature}; give a finite number above 0")
        if not is_number(self.length_penalty, *LENGTH_PENALTIES):
            lowest, highest = LENGTH_PENALTIES
            faults.append(f"length_penalty: got {self.length_penalty}; give a number from {lowest:g} to {highest:g}")
        if not 0 <= self.max_length_delta <= LONGEST:
            faults.append(f"max_length_delta: got {self.max_length_delta}; give at least 0 and at most {LONGEST}")
        if faults:
            raise InputError("search settings: " + "; ".join(faults))


@dataclass(frozen=True)
class Hypothesis:
    """One translation of one sentence."""

    text: str
    """Raw text, one line."""
    score: float | None
    """Sum of the log-probabilities of its tokens and its end token, without length penalty or temperature, in nats.
    Where no engine made the hypothesis, whatever its maker says of it, or None."""
    length: int | None
    """Number of its tokens, end token included; None where no engine made it and its maker does not say."""
    processed: str | None = None
    """The text as training reads it, one line, where the model has a target processor; None: as `text`."""
    mark: str | None = None
    """Why score and length are not those of the search, one of `MARKS`; None: they are."""
    cut: bool = False
    """The search ended it at the length limit: it has no end token."""
    unknown: int = 0
    """How many of its tokens are the unknown one, or none of the vocabulary."""
    ids: tuple[int, ...] | None = field(default=None, repr=False, compare=False)
    """Its tokens without the end token, as the search found them; None where they are not known."""

    @property
    def trained_text(self) -> str:
        """The text as training reads it."""
        return one_line(self.text) if self.processed is None else self.processed

    @property
    def score_per_token(self) -> float | None:
        """The score by which hypotheses of any length compare; None if there is no score."""
        return self.score if self.score is None or self.length is None else self.score / max(self.length, 1)


Batch = list[tuple[int, list[Hypothesis]]]
"""(place of a sentence, its hypotheses) for some sentences."""


class Engine(Protocol):
    """Translates raw sentences; a sentence's hypotheses do not depend on the others in its batch.

    Sampling: with the NeMo engine a draw depends on `seed`, the sentence and the number of the hypothesis alone; with
    CTranslate2 on the whole list given to one call of `translate` and on `batch_tokens`.

    A `TextEngine` also tells how its model reads and writes text, and scores given targets; pseudo-labels of
    another one are raw text alone, with the scores of the search.
    """

    name: str
    """As recorded beside results: `nemo`, `ctranslate2 float32`, `ctranslate2 int8`, ..."""
    default_settings: SearchSettings
    """Beam search as the model's archive asks for it."""
    device: str
    """Where it decodes: `cpu`, `cuda`, `cuda:1`."""
    threads: int
    """CPU threads it uses."""
    truncated: list[int]
    """Places of the sentences of the latest `translate` that were cut to the longest source the model takes."""
    first_line: int
    """What a warning calls the first sentence of the next `translate`; 1 unless the caller sets it."""

    def translate(
        self, sentences: Sequence[str], settings: SearchSettings | None = None, batch_tokens: int = 4096
    ) -> Iterator[Batch]:
        """Yield a list of `(place of the sentence, hypotheses best first)` for each batch, longest sentences first.

        An empty sentence gets one empty hypothesis of score 0 and length 0; every place is yielded exactly once.
        A sentence longer than the model takes is cut there, its end token kept; a warning names the sentences.

        Args:
            sentences: raw text, one sentence each.
            settings: how to search; by default `default_settings`.
            batch_tokens: most source tokens in a batch, padding included; a longer sentence is a batch of its own.

        Raises:
            InputError: at once, not at the first batch: settings that the model cannot serve, `batch_tokens` below 1.
        """
        ...


EMPTY = Hypothesis("", 0.0, 0)
"""What an empty sentence gets."""


class TextEngine:
    """What the engines share: `translate`. One of them has `text`, `default_settings`, `_batches`, `_translate`."""

    text: "TextPipeline"
    default_settings: SearchSettings
    truncated: list[int]
    first_line: int = 1
    longest_target: int
    """Most tokens of a hypothesis."""
    sources: "Sources"
    """The sentences of the latest `translate`."""

    @property
    def training_text(self) -> "TextPipeline | None":
        """How the model's training reads and writes text; None where that is not known."""
        return self.text

    def translate(
        self,
        sentences: Sequence[str],
        settings: SearchSettings | None = None,
        batch_tokens: int = 4096,
        choose: Callable[[list[list[int]]], list[list[int]]] | None = None,
    ) -> Iterator[Batch]:
        """Yield hypotheses batch by batch, as `Engine.translate`.

        Args:
            sentences: raw text, one sentence each.
            settings: how to search; by default `default_settings`.
            batch_tokens: most source tokens in a batch.
            choose: called at once with the places of each batch, says which of these batches to decode; by default
                all. So processes share a text, and each batch is the one that a single process decodes.
        """
        settings = settings or self.default_settings
        check_request(settings, batch_tokens, self.text.target_tokenizer.vocab_size)
        sources = self.sources = self.text.encode(sentences)
        self.truncated = sources.truncated
        sources.warn(len(sentences), self.text.longest_source, self.first_line)
        groups = self._batches({place: len(row) for place, row in sources.ids.items()}, batch_tokens)
        found = self._translate(sentences, sources.ids, settings, groups if choose is None else choose(groups))
        return chain(found, [[(place, [EMPTY]) for place in sources.empty]] if sources.empty else [])

    def translate_ids(self, ids: Sequence[list[int]], batch_tokens: int = 4096) -> Iterator[Batch]:
        """Yield the hypotheses that `default_settings` find of sources that are token ids already, batch by batch.

        Args:
            ids: of each source, start and end token included.
            batch_tokens: most source tokens in a batch.
        """
        groups = self._batches(dict(enumerate(map(len, ids))), batch_tokens)
        return self._translate([""] * len(ids), dict(enumerate(ids)), self.default_settings, groups)  # no text is read

    def close(self) -> None:
        """Free what the engine has of its own, with its threads, which no forked process may inherit."""

    def _batches(self, lengths: Mapping[int, int], batch_tokens: int) -> list[list[int]]:
        """Return the places of the sentences of each batch, of sentences of so many tokens by their places."""
        raise NotImplementedError

    def _translate(
        self,
        sentences: Sequence[str],
        ids: Mapping[int, list[int]],
        settings: SearchSettings,
        groups: Sequence[list[int]],
    ) -> Iterator[Batch]:
        """Yield the hypotheses of each batch in order; token ids are given by the places of their sentences."""
        raise NotImplementedError

    def score(self, groups: Sequence[Sequence[tuple[list[int], list[int]]]]) -> Iterator[list[float]]:
        """Yield the log-probabilities in nats of the targets of each batch, teacher-forced, end token included.

        Args:
            groups: batches of pairs: ids of a source, start and end token included, and of a target without them,
                which has fewer tokens than `longest_target`.
        """
        raise NotImplementedError

    def _hypothesis(self, ids: Sequence[int], score: float, length: int) -> Hypothesis:
        """Return a hypothesis from its tokens without the end token."""
        processed = None if self.text.target_processor is None else self.text.decode_processed(ids)
        cut, unknown = length == len(ids), self.text.count_unknown(ids)
        return Hypothesis(self.text.decode(ids), score, length, processed, cut=cut, unknown=unknown, ids=tuple(ids))


def archive_settings(model: "MTEncDecModel") -> SearchSettings:
    """Return the beam search that a model's archive asks for."""
    search, delta = model.beam_search, model.beam_search.max_delta_len
    return SearchSettings(
        beam_size=search.beam_size,
        length_penalty=search.len_pen,
        max_length_delta=delta if delta >= 0 else search.max_seq_length,  # below 0: as long as the model goes
    )


def check_request(settings: SearchSettings, batch_tokens: int, vocabulary_size: int) -> None:
    """Refuse what no engine can do with a model of `vocabulary_size` target tokens.

    Raises:
        InputError: more hypotheses or choices than the vocabulary has tokens, or `batch_tokens` below 1.
    """
    if batch_tokens < 1:
        raise InputError(f"batch_tokens is {batch_tokens}; give at least 1 (the default is 4096)")
    name = {"beam": "beam_size", "top_k": "top_k"}.get(settings.search)
    if name and getattr(settings, name) > vocabulary_size:
        raise InputError(
            f"{name} is {getattr(settings, name)}, but the target vocabulary has only {vocabulary_size} tokens"
        )


def check_quantization(quantization: str) -> None:
    """Refuse a quantization that CTranslate2 does not know.

    Raises:
        InputError: the message lists the known ones.
    """
    if quantization not in QUANTIZATIONS:
        raise InputError(f"quantization is '{quantization}'; give one of {', '.join(QUANTIZATIONS)}")


def check_counts(beam_size: int | None, batch_tokens: int) -> None:
    """Refuse numbers that nothing can be decoded with.

    Raises:
        InputError: one is below 1.
    """
    if beam_size is not None and beam_size < 1:
        raise InputError(f"beam size is {beam_size}; give at least 1")
    if batch_tokens < 1:
        raise InputError(f"batch tokens is {batch_tokens}; give at least 1 (the default is 4096)")


def check_engine(engine: str, quantization: str | None) -> None:
    """Refuse an engine or a quantization that does not exist.

    Raises:
        InputError: the message lists the known ones; or a quantization is given for NeMo's modules.
    """
    if engine not in ENGINES:
        raise InputError(f"engine is '{engine}'; give one of {', '.join(ENGINES)}")
    if quantization is not None:
        check_quantization(quantization)
        if engine == "nemo":
            raise InputError(
                f"quantization is '{quantization}', but the engine 'nemo' has none; leave one of them out"
            )
