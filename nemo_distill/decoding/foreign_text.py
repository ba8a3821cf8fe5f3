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
"""Raw text to tokens and back, and language tokens, as the tokenizers of `transformers` have them."""

import contextlib
import difflib
import logging as python_logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from nemo_distill.config.languages import Languages
from nemo_distill.data.processors import CONTROL
from nemo_distill.decoding.foreign_files import TOKENIZER_CONFIG, ForeignModel
from nemo_distill.errors import InputError
from nemo_distill.support.quoting import plain_text

if TYPE_CHECKING:
    from nemo_distill.data.text import Sources


class NoLanguagesError(InputError):
    """Languages are given to a model whose tokenizer has none to choose from."""


_GENERIC = "PreTrainedTokenizerFast"
_CLASSES = (
    "MarianTokenizer",
    "M2M100Tokenizer",
    "NllbTokenizer",
    "MBartTokenizer",
    "MBart50Tokenizer",
    "T5Tokenizer",
    _GENERIC,
)
_BY_FAMILY = {"marian": "MarianTokenizer", "m2m_100": "M2M100Tokenizer", "t5": "T5Tokenizer", "mt5": "T5Tokenizer"}
_NLLB_LANGUAGE = re.compile("[a-z]{3}_[A-Z][a-z]{3}")
_MBART_LANGUAGE = re.compile("[a-z]{2,3}_[A-Z]{2}")
_PAIR = re.compile("translation_([A-Za-z]+)_to_([A-Za-z]+)")
_T5_NAMES = {"de": "German", "en": "English", "fr": "French", "ro": "Romanian"}
_MADE_UP = re.compile(r"madeupword\d+|<extra_id_\d+>")
"""What converters call rows of the embedding that no token has."""
_LONGEST_SETTING = 100_000
"""A tokenizer without a longest text says 1e30."""


def open_tokenizer(model: ForeignModel, directory: Path) -> Any:
    """Return the tokenizer of a model, from the private copy of its files in `directory`.

    The class is one of a few of `transformers`; no code and no pickle of the model is run, and nothing is fetched.
    Where there is a tokenizer.json the fast class reads it, else the slow one its SentencePiece models: nothing is
    converted, for which some releases of protobuf do not serve.

    Raises:
        InputError: the class is not known, or cannot read the files.
    """
    import transformers

    name = _class_name(model)
    try:
        with quiet_transformers():
            tokenizer = getattr(transformers, name).from_pretrained(
                str(directory), local_files_only=True, trust_remote_code=False
            )
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # of tokenizers (its panics too), sentencepiece, protobuf, whatever the files
        raise InputError(
            f"'{model.path}': {name} of transformers {transformers.__version__} cannot be made of its tokenizer's "
            f"files ({plain_text(f'{type(error).__name__}: {error}', 300)}); copy all of the original model's"
        ) from error
    if name == "M2M100Tokenizer":  # which knows its languages whether or not they are listed as special
        languages = list(tokenizer.lang_token_to_id)
        tokenizer.add_special_tokens({"additional_special_tokens": languages}, replace_additional_special_tokens=False)
    return tokenizer


def _class_name(model: ForeignModel) -> str:
    """Return the tokenizer's class, as the model says or as its files are called."""
    given = model.settings(TOKENIZER_CONFIG).get("tokenizer_class") or model.config.get("tokenizer_class")
    files = set(model.files)
    if given is None:
        by_files = {
            "MarianTokenizer": {"source.spm", "target.spm", "vocab.json"},
            "M2M100Tokenizer": {"sentencepiece.bpe.model", "vocab.json"},
            "T5Tokenizer": {"spiece.model"},
            "PreTrainedTokenizerFast": {"tokenizer.json"},
        }
        found = [name for name, needed in by_files.items() if needed <= files]
        given = _BY_FAMILY.get(model.family) or next(iter(found), None)
    if given is None:
        raise InputError(
            f"'{model.path}': its files do not tell which tokenizer reads them; copy {TOKENIZER_CONFIG}, with its "
            "tokenizer_class, from the original model"
        )
    name = str(given).removesuffix("Fast") if given != "PreTrainedTokenizerFast" else str(given)
    if name not in _CLASSES:
        raise InputError(
            f"'{model.path}': its tokenizer is a {plain_text(str(given), 80)!r}; known are {', '.join(_CLASSES)}, and "
            "their fast forms"
        )
    has_fast_form = name not in ("MarianTokenizer", "M2M100Tokenizer", _GENERIC)
    return f"{name}Fast" if has_fast_form and "tokenizer.json" in files else name


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Context without the advice that `transformers` logs to those who train."""
    log = python_logging.getLogger("transformers")
    level = log.level
    log.setLevel(python_logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


class ForeignText:
    """A model's tokenizer with its languages set; has what `CTranslate2Engine` asks of a `TextPipeline`.

    Args:
        model: the directory.
        tokenizer: of `open_tokenizer`.
        languages: of the text; checked against those of the tokenizer.

    Raises:
        InputError: the model has not these languages, or has several and none is given.
    """

    language_token = None
    """Languages are set in the tokenizer."""

    def __init__(self, model: ForeignModel, tokenizer: Any, languages: Languages) -> None:
        self._model, self.tokenizer = model, tokenizer
        self.text_prefix, self.target_prefix = "", []
        """Text in front of each source; tokens in front of each hypothesis."""
        self._tokens = tokenizer.get_vocab()
        self._special = re.compile("|".join(map(re.escape, tokenizer.all_special_tokens)) or "(?!)")
        """What in a sentence would be read as a token that steers the model, were it not split as other text."""
        self._set_languages(languages)

    def attach(self, vocabularies: tuple[Sequence[str], Sequence[str]], longest_source: int) -> None:
        """Note what the converted model reads and writes.

        Args:
            vocabularies: source and target tokens by their ids.
            longest_source: most tokens of a source, the tokenizer's special ones included.

        Raises:
            InputError: the vocabularies are not those of the tokenizer.
        """
        for side, vocabulary in zip(("source", "target"), vocabularies, strict=True):
            self._check_vocabulary(side, vocabulary)
        self._vocabularies = vocabularies
        limit, end = self.tokenizer.model_max_length, self.tokenizer.eos_token_id
        known = isinstance(limit, int | float) and 2 < limit < _LONGEST_SETTING
        self.longest_source = min(longest_source, int(limit) if known else longest_source)
        if not isinstance(end, int) or not 0 <= end < len(vocabularies[1]):
            raise InputError(f"'{self._model.path}': its tokenizer has no end token; copy the original model's")
        # what the engine asks of a target tokenizer
        self.target_tokenizer = SimpleNamespace(vocab_size=len(vocabularies[1]), eos_id=end)

    def source_pieces(self) -> Sequence[str]:
        """Return the string of each source token by its id."""
        return self._vocabularies[0]

    def target_pieces(self) -> Sequence[str]:
        """Return the string of each target token by its id."""
        return self._vocabularies[1]

    def encode(self, sentences: Sequence[str]) -> "Sources":
        """Return the token ids of raw sentences, with the special tokens that the model wants.

        A source of more than `longest_source` tokens is cut there, its special tokens kept; a warning names the
        sentences.
        """
        from nemo_distill.data.text import Sources  # which imports NeMo

        sources, unknown = Sources({}, [], [], []), self.tokenizer.unk_token_id
        unknown = self.target_tokenizer.eos_id if unknown is None else unknown
        without_words = len(self._ids("", self.text_prefix))
        for place, sentence in enumerate(sentences):
            sources.processed.append(sentence)
            text = sentence.rstrip("\n"), self.text_prefix
            ids = self._ids(*text, verbose=False) if sentence.strip() else []
            if len(ids) <= without_words and not self._ids(text[0], add_special_tokens=False):
                sources.empty.append(place)
                continue
            if len(ids) > self.longest_source:
                ids = self._ids(*text, truncation=True, max_length=self.longest_source)
                sources.truncated.append(place)
            if self._knows_nothing_of(sentence, ids):
                sources.unknown.append(place)
            sources.ids[place] = [id_ if id_ < len(self._vocabularies[0]) else unknown for id_ in ids]
        return sources

    def _ids(self, sentence: str, prefix: str = "", **options: Any) -> list[int]:
        """Return the ids of a sentence behind a prefix; names of special tokens in it are text like all else."""
        is_split = self._special.search(sentence) is not None
        return self.tokenizer(prefix + sentence, split_special_tokens=is_split, **options)["input_ids"]

    def _knows_nothing_of(self, sentence: str, ids: Sequence[int]) -> bool:
        from nemo_distill.data.text import is_unknown

        unknown = self.tokenizer.unk_token_id
        if unknown not in ids:
            return False
        own = self._ids(sentence.rstrip("\n"), add_special_tokens=False, verbose=False)
        return is_unknown(own, unknown, self.tokenizer.convert_ids_to_tokens)

    def count_unknown(self, ids: Sequence[int]) -> int:
        """Return how many target ids are the unknown token, or no token of the tokenizer."""
        return sum(id_ == self.tokenizer.unk_token_id or id_ >= len(self.tokenizer) for id_ in ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the raw text, one line, of target ids; special tokens are left out."""
        known = [id_ for id_ in ids if id_ < len(self.tokenizer)]
        # A space in front of a mark, as French has it, is what the model said; others' word pieces have none that is.
        asked = {} if type(self.tokenizer).__name__ == _GENERIC else {"clean_up_tokenization_spaces": False}
        return self.tokenizer.decode(known, skip_special_tokens=True, **asked).translate(CONTROL).strip()

    def _check_vocabulary(self, side: str, vocabulary: Sequence[str]) -> None:
        """Make sure that the tokens of the tokenizer are those of the model, in their places."""
        size = len(self.tokenizer)
        own = self.tokenizer.convert_ids_to_tokens(list(range(min(size, len(vocabulary)))))
        wrong = [
            id_
            for id_, (token, known) in enumerate(zip(own, vocabulary, strict=False))
            if token != known and not _MADE_UP.fullmatch(known)
        ]
        # Marian's last token is padding, which the converter leaves out
        if not set(self.target_prefix) <= set(vocabulary):
            wrong = [self._tokens[self.target_prefix[0]]]
        if wrong or len(vocabulary) < size - 1:
            place = wrong[0] if wrong else len(vocabulary)
            raise InputError(
                f"'{self._model.path}': token {place} of the {side} is another one for the tokenizer than for the "
                "model; copy the tokenizer of the model that was converted"
            )

    def _set_languages(self, languages: Languages) -> None:
        name = type(self.tokenizer).__name__.removesuffix("Fast")
        setter = {
            "MarianTokenizer": self._set_marian,
            "M2M100Tokenizer": self._set_m2m,
            "NllbTokenizer": lambda asked: self._set_tokens(asked, _NLLB_LANGUAGE),
            "MBartTokenizer": lambda asked: self._set_tokens(asked, _MBART_LANGUAGE),
            "MBart50Tokenizer": lambda asked: self._set_tokens(asked, _MBART_LANGUAGE),
        }.get(name, self._set_text)
        asked = Languages(*(None if each == "ignore" else each for each in (languages.source, languages.target)))
        setter(asked)

    def _set_marian(self, asked: Languages) -> None:
        """Put `>>xxx<<` in front of the source where the model has several target languages."""
        codes = [token[2:-2] for token in self._tokens if re.fullmatch(">>.+<<", token)]
        if codes:
            self.text_prefix = f">>{self._choose('target', asked.target, codes)}<< "
        own = self._model.settings(TOKENIZER_CONFIG)
        source, target = own.get("source_lang"), own.get("target_lang")
        for side, given, known, other in (
            ("source", asked.source, source, target),
            ("target", asked.target, None if codes else target, source),
        ):
            # three letters may be those of a family that the language belongs to
            is_other = isinstance(known, str) and (len(known) == len(given or "") == 2 or given == other)
            if given and is_other and known != given:
                raise InputError(f"'{self._model.path}': its {side} language is {known}, not {given}")

    def _set_m2m(self, asked: Languages) -> None:
        tokens = self.tokenizer.lang_code_to_token
        codes = [code for code, token in tokens.items() if token in self._tokens]
        source, target = self._choose_both(asked, codes)
        self.tokenizer.src_lang = source
        self.target_prefix = [tokens[target]]

    def _set_tokens(self, asked: Languages, pattern: re.Pattern) -> None:
        """Set languages that are tokens by their own names: NLLB, mBART."""
        codes = sorted(token for token in self._tokens if pattern.fullmatch(token))
        source, target = self._choose_both(asked, codes)
        self.tokenizer.src_lang = source
        self.target_prefix = [target]

    def _set_text(self, asked: Languages) -> None:
        """Set what stands in front of the source as text: `<2xx>`, or a task of T5."""
        codes = [token[2:-1] for token in self._tokens if re.fullmatch("<2[A-Za-z_]+>", token)]
        if codes:
            self.text_prefix = f"<2{self._choose('target', asked.target, codes)}> "
            return
        tasks = self._model.config.get("task_specific_params") if self._model.kind == "transformers" else None
        tasks = tasks if isinstance(tasks, Mapping) else {}
        found = {match.groups(): task for name, task in tasks.items() if (match := _PAIR.fullmatch(name))}
        prefixes = {pair: task["prefix"] for pair, task in found.items() if _is_prefix(task)}
        is_t5 = type(self.tokenizer).__name__.startswith("T5")
        if not prefixes and is_t5 and asked != Languages():
            prefixes = {
                (source, target): f"translate {one} to {other}: "
                for source, one in _T5_NAMES.items()
                for target, other in _T5_NAMES.items()
                if source != target
            }
        if prefixes:
            pair = asked.source, asked.target
            if pair not in prefixes:
                known = ", ".join(f"{source} to {target}" for source, target in prefixes)
                raise InputError(
                    f"'{self._model.path}' translates {known}; got {asked.source} to {asked.target}: give "
                    "--source-lang and --target-lang"
                )
            self.text_prefix = prefixes[pair]
        elif asked != Languages():
            raise NoLanguagesError(
                f"'{self._model.path}': its tokenizer has no languages to choose from; leave --source-lang and "
                "--target-lang out"
            )

    def _choose_both(self, asked: Languages, codes: Sequence[str]) -> tuple[str, str]:
        return self._choose("source", asked.source, codes), self._choose("target", asked.target, codes)

    def _choose(self, side: str, code: str | None, known: Sequence[str]) -> str:
        """Return the language of the model that is asked for: by its name, or by its first part if that is enough."""
        parts = [each for each in known if code and each.partition("_")[0] == code]
        if code in known:
            return code
        if len(parts) == 1:
            return parts[0]
        shown = ", ".join(known[:12]) + (f" and {len(known) - 12} more" if len(known) > 12 else "")
        if code is None:
            raise InputError(
                f"'{self._model.path}' has several languages; give --{side}-lang, one of {shown or 'none at all'}"
            )
        near = parts or [each for each in known if each.lower().startswith(code.lower())][:5]
        near = near or difflib.get_close_matches(code, known, 3, 0.4)
        raise InputError(
            f"--{side}-lang: '{self._model.path}' has no language {code!r}; "
            + (f"did you mean {', '.join(near)}? " if near else "")
            + f"It has {shown or 'none'}"
        )


def _is_prefix(task: Any) -> bool:
    return isinstance(task, Mapping) and isinstance(task.get("prefix"), str) and len(task["prefix"]) < 200
