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
"""NeMo's processors of the text of a language: the one place that finds and calls them.

Processed text is normalized and tokenized (Moses; Jieba for Chinese; MeCab for Japanese): what byte-pair encoding
reads and writes. What files and models need of them is in `processing` and `text`.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nemo_distill.config.languages import LANGUAGE_KEYS, SIDES, Languages
from nemo_distill.data.languages import listed_languages, listed_side, pair_of
from nemo_distill.errors import InputError
from nemo_distill.support import jieba_dictionary
from nemo_distill.support.quoting import error_line, one_line

CONTROL = {**dict.fromkeys([*range(0x20), *range(0x7F, 0xA0)], " "), 0xFEFF: ""}
"""Characters that end lines or steer terminals, and the mark that no reader gives back where a file begins with it; no
text has them. The exported program replaces the same."""
_IDENTITIES = ("IndicProcessor", "ByteLevelProcessor", "RawTextProcessor")
"""Processors that leave text as it is before BPE."""


@dataclass(frozen=True)
class Processing:
    """How the text of a pair of languages is processed before BPE.

    Example:
        >>> Processing("de", "en").process("source", "Ja, gut.")  # doctest: +SKIP
        'Ja , gut .'
    """

    source: str | None
    """Language as archives name it; None or `ignore`: raw text is read as it is."""
    target: str | None
    """The same of the target."""
    libraries: tuple[str | None, str | None] = (None, None)
    """Of the tokenizers; with `byte-level` text is read as it is."""

    @classmethod
    def of_config(cls, config: Mapping[str, Any], languages: Languages | None = None) -> "Processing":
        """Return that of a `model` section.

        Args:
            config: the section.
            languages: in place of its own; needed on a side with several.
        """
        libraries = ((config.get(f"{side}_tokenizer") or {}).get("library") for side in ("encoder", "decoder"))
        pair = languages or Languages(*(config.get(key) for key in LANGUAGE_KEYS.values()))
        return cls(pair.source, pair.target, tuple(libraries))

    @classmethod
    def of_pair(cls, config: Mapping[str, Any], languages: Languages) -> "Processing":
        """Return that of a `model` section; none, of one of several languages of which none is said."""
        side = listed_side(config)
        if side is not None and getattr(languages, side) is None:
            return cls(None, None)
        return cls.of_config(config, pair_of(config, languages))

    def processor(self, side: str) -> Any | None:
        """Return NeMo's processor of a side; None where text is read as it is.

        Raises:
            InputError: NeMo has none for this language, or a package that it needs is missing.
        """
        return _processors(self)[SIDES.index(side)]

    def kind(self, side: str) -> str | None:
        """Return what tells processors apart, such as `MosesProcessor de`; None where text stays as it is."""
        processor = self.processor(side)
        name = type(processor).__name__
        return None if processor is None or name in _IDENTITIES else f"{name} {getattr(self, side)}"

    @property
    def kinds(self) -> dict[str, str | None]:
        """The kind of each side."""
        return {side: self.kind(side) for side in SIDES}

    @property
    def changes_text(self) -> bool:
        """Whether processed text is another than raw text, on either side."""
        return any(self.kinds.values())

    def process(self, side: str, line: str) -> str:
        """Return a raw line as training reads it."""
        return processed(line, self.processor(side))

    def languages(self) -> dict[str, str | None]:
        """Return the languages as manifests name them."""
        return {"source": self.source, "target": self.target}


def form_difference(model: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """Return how the text that one model reads and writes differs in form from another's; None: it does not.

    Ids of tokenized text mean other text than those of raw text.

    Args:
        model: its `model` section.
        other: the other's.
    """
    lists = listed_languages(model), listed_languages(other)
    if any(lists):
        shown = [", ".join(each) or "one pair" for each in lists]
        return None if lists[0] == lists[1] else f"its languages are {shown[0]}, not {shown[1]}"
    kinds = [Processing.of_config(each).kinds for each in (model, other)]
    return None if kinds[0] == kinds[1] else f"it reads {shown_kinds(kinds[0])}, not {shown_kinds(kinds[1])}"


def shown_kinds(kinds: Mapping[str, str | None]) -> str:
    """Return the kinds of some sides as messages have them.

    Example:
        >>> shown_kinds({"source": "MosesProcessor de", "target": None})
        'source MosesProcessor de, target raw text'
    """
    return ", ".join(f"{side} {kind or 'raw text'}" for side, kind in kinds.items())


@functools.lru_cache(maxsize=16)
def _processors(processing: Processing) -> tuple[Any | None, Any | None]:
    from nemo.collections.nlp.models import MTEncDecModel  # takes seconds, and who checks files needs none

    try:
        found = MTEncDecModel.setup_pre_and_post_processing_utils(
            processing.source, processing.target, *processing.libraries
        )
    except Exception as error:  # of the libraries behind them, whatever the language
        raise InputError(
            f"NeMo cannot process text for the languages {processing.source} and {processing.target}: "
            f"{error_line(error)}; install what is missing, or give other languages"
        ) from error
    if any(type(processor).__name__ == "ChineseProcessor" for processor in found):
        jieba_dictionary.load()
    return found


class RawTextProcessor:
    """Pre- and post-processing that leaves text as it is."""

    def normalize(self, text: str) -> str:
        """Return `text`."""
        return text

    def tokenize(self, text: str) -> str:
        """Return `text`."""
        return text

    def detokenize(self, tokens: list[str]) -> str:
        """Return the tokens joined by spaces."""
        return " ".join(tokens)


def processed(raw: str, processor: Any | None) -> str:
    """Return the processed form of raw text, on one line if `raw` is; None as the processor: both are the same."""
    return raw if processor is None else one_line(processor.tokenize(processor.normalize(raw)))


def detokenized(processed: str, processor: Any | None) -> str:
    """Return the raw form of processed text, on one line."""
    text = processed if processor is None else processor.detokenize(processed.split(" "))
    return text.translate(CONTROL)
