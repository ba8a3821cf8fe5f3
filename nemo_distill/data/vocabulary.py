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
"""Whether two models mean the same by every token id, and of what text a vocabulary is."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from nemo.collections.nlp.models import MTEncDecModel
from nemo.utils import logging

from nemo_distill.data.languages import language_tokens
from nemo_distill.errors import TeacherError
from nemo_distill.support.quoting import plain_text

_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
"""What begins a word, in the pieces of YouTokenToMe and SentencePiece."""
_JOINED = re.compile(r"[^\W\d_][.,](?=\s|$)")
SIDES = {"encoder": "source", "decoder": "target"}


def check_vocabularies(student: MTEncDecModel, teacher: MTEncDecModel) -> list[str]:
    """Make sure that every token id of the student means the same to both models, on source and target side.

    A one-to-many teacher may have tokens of languages behind the student's last token.

    Returns:
        These tokens; none where the vocabularies are equal.

    Raises:
        TeacherError: the vocabularies differ; the message names the first difference.
    """
    extra = {side: _extra_languages(student, teacher, side) for side in SIDES}
    for side, difference in vocabulary_differences(student, teacher, extra=extra):
        if difference.startswith("reads "):
            raise TeacherError(
                f"on the {SIDES[side]} side the student {difference}, so their words cannot be compared one by one. "
                f"Give the student the teacher's {side}_tokenizer.r2l, or train it on the teacher's pseudo-labels, "
                "which are text"
            )
        raise TeacherError(
            f"student and teacher have different {SIDES[side]} vocabularies: {difference}. Train the student with the "
            f"teacher's {side} tokenizer (it lies inside the teacher's .nemo file, which is a tar archive)"
        )
    named = list(dict.fromkeys(token for tokens in extra.values() for token in tokens))
    if named:
        logging.info(
            f"the teacher has {len(named)} tokens of languages that the student has not, {', '.join(named)}; they are "
            "left out of what it says: its softmax is over the student's tokens"
        )
    return named


def _extra_languages(student: MTEncDecModel, teacher: MTEncDecModel, side: str) -> list[str]:
    """Return the tokens that a teacher has behind the student's last one, if they are all of languages."""
    mine, theirs = (getattr(model, f"{side}_tokenizer") for model in (student, teacher))
    extra = range(mine.vocab_size, theirs.vocab_size)
    if not set(extra) <= set(language_tokens(teacher).values()):
        return []
    return [plain_text(token) for token in theirs.ids_to_tokens(list(extra))]


def reads_right_to_left(tokenizer) -> bool:
    """Return whether a tokenizer turns every sentence round; NeMo's YouTokenToMe alone does, where `r2l` says so."""
    return bool(getattr(tokenizer, "r2l", False))


def vocabulary_differences(
    model: MTEncDecModel,
    reference: MTEncDecModel,
    owner: str = "the teacher's",
    extra: Mapping[str, Sequence[str]] | None = None,
) -> Iterator[tuple[str, str]]:
    """Yield (`encoder` or `decoder`, the first difference of the vocabularies there) where two models differ.

    Args:
        model: a model.
        reference: the model to compare with.
        owner: how the words call the reference.
        extra: tokens of each side that the reference may have more, at the end.
    """
    for side in SIDES:
        tokenizers = (getattr(each, f"{side}_tokenizer") for each in (model, reference))
        difference = vocabulary_difference(*tokenizers, owner, len((extra or {}).get(side, ())))
        if difference:
            yield side, difference


def vocabulary_difference(tokenizer, reference, owner: str = "the teacher's", extra: int = 0) -> str | None:
    """Return in words the first difference of a tokenizer's ids and tokens from another's, or None if there is none.

    Args:
        tokenizer: any tokenizer of NeMo.
        reference: the tokenizer to compare with.
        owner: how the words call the reference.
        extra: number of tokens that the reference may have more, at the end.
    """
    directions = [reads_right_to_left(each) for each in (tokenizer, reference)]
    if directions[0] != directions[1]:
        ways = ["right to left" if each else "left to right" for each in directions]
        return f"reads {ways[0]} against {owner} {ways[1]}"
    sizes = tokenizer.vocab_size, reference.vocab_size - extra
    if sizes[0] != sizes[1]:
        return f"{sizes[0]} tokens against {owner} {sizes[1]}"
    for name in ("bos_id", "eos_id", "pad_id", "unk_id"):
        ids = getattr(tokenizer, name, None), getattr(reference, name, None)
        if ids[0] != ids[1]:
            return f"{name} {ids[0]} against {owner} {ids[1]}"
    every_id = list(range(sizes[0]))
    tokens = tokenizer.ids_to_tokens(every_id), reference.ids_to_tokens(every_id)
    for token_id, (token, reference_token) in enumerate(zip(*tokens, strict=True)):
        if token != reference_token:
            return f"token {token_id} is '{plain_text(token)}' against {owner} '{plain_text(reference_token)}'"
    return None


def plain_size(tokenizer, languages: Iterable[int] = ()) -> int:
    """Return the number of a NeMo tokenizer's tokens without those of languages, where these are its last ones."""
    languages = set(languages)
    first = tokenizer.vocab_size - len(languages)
    return first if languages == set(range(first, tokenizer.vocab_size)) else tokenizer.vocab_size


def vocabulary_hash(tokenizer, languages: Iterable[int] = ()) -> str:
    """Return a hash of a NeMo tokenizer's tokens and special ids: equal ids mean equal tokens, read the same way.

    Args:
        tokenizer: of a model.
        languages: ids of the tokens of languages, which do not count.
    """
    special = [getattr(tokenizer, name, None) for name in ("bos_id", "eos_id", "pad_id", "unk_id")]
    tokens = [str(token) for token in tokenizer.ids_to_tokens(list(range(plain_size(tokenizer, languages))))]
    direction = ["right to left"] if reads_right_to_left(tokenizer) else []
    return hashlib.sha256(json.dumps([special, tokens, *direction]).encode()).hexdigest()


def is_of_tokenized_text(pieces: Sequence[str]) -> bool | None:
    """Return whether a byte-pair vocabulary was trained on tokenized text, as by Moses; None where it does not show.

    In tokenized text a full stop is a word, and one of the first to be merged with the space in front of it; hardly a
    piece joins a letter with a stop or comma behind it (abbreviations do). In raw text that space is rare, and
    YouTokenToMe has many such pieces. SentencePiece never joins letters and punctuation.

    Example:
        >>> is_of_tokenized_text(["a", ".", "\u2581a", "\u2581."])
        True
    """
    longer = [piece for piece in pieces if isinstance(piece, str) and len(piece) > 1]  # bytes are numbers
    joined = sum(1 for piece in longer if _JOINED.search(piece))
    stop = f"{_SPACE}."
    if joined <= len(longer) / 100 and stop in longer[: max(len(longer) // 10, 100)]:
        return True
    is_raw = joined > len(longer) / 50 or stop not in longer[: len(longer) // 2]
    return False if is_raw and "." in pieces else None
