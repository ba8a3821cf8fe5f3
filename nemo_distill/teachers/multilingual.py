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
"""Multilingual teachers: what they are told of the language, and what a student of fewer tokens gets of them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from nemo.collections.nlp.models import MTEncDecModel
from nemo.utils import logging
from torch import nn

from nemo_distill.capture import CaptureSpec
from nemo_distill.config.section import CaptureConfig, TeacherConfig
from nemo_distill.data.languages import language_tokens, model_languages
from nemo_distill.errors import TeacherError
from nemo_distill.losses.signals import HeadInput, Logits
from nemo_distill.teachers.frozen import Batch, Teacher, TeacherOutputs

_WHERE = "distillation.teacher"


@dataclass(frozen=True)
class SourceAxes:
    """Which of a teacher's inner tensors have an axis of source tokens: by the paths of its modules."""

    encoder: str
    """First part of the paths of the encoder's modules."""
    cross_attention: str
    """End of the paths of the decoder's attention to the source."""

    @classmethod
    def of(cls, capture: CaptureConfig) -> "SourceAxes":
        """Return them as the configuration names the modules."""
        return cls(capture.teacher_encoder_layers.partition(".")[0], capture.teacher_cross_attention)

    def without_first(self, spec: CaptureSpec, tensor: torch.Tensor) -> torch.Tensor:
        """Return an inner tensor as if the first source token had not been there.

        Hidden states of the encoder are [B, S, H], attention is [B, heads, queries, keys]; without one of its keys a
        query's attention is scaled to sum to 1 again.
        """
        in_encoder = spec.path.partition(".")[0] == self.encoder
        if tensor.ndim == 3:
            return tensor[:, 1:] if in_encoder else tensor
        if tensor.ndim != 4 or not (in_encoder or spec.path.endswith(self.cross_attention)):
            return tensor
        attention = tensor[:, :, 1:, 1:] if in_encoder else tensor[:, :, :, 1:]
        return attention / attention.sum(-1, keepdim=True).clamp_min(torch.finfo(attention.dtype).tiny)


class MultilingualTeacher:
    """A one-to-many teacher of a student that reads no token of a language; see `Teacher`.

    The token of the language is put in front of the source for the teacher alone. What the teacher says is cut to the
    student's words, so that its softmax is over those.

    Args:
        teacher: one model or an ensemble.
        token: id of the language; None: the student's batches have it in front, or no teacher reads one.
        words: number of the student's output words.
        axes: where inner tensors have a position for the token.
    """

    def __init__(self, teacher: Teacher, token: int | None, words: int, axes: SourceAxes) -> None:
        self.teacher, self.token, self.words, self._axes = teacher, token, words, axes
        self.model: nn.Module | None = teacher.model
        self.can_be_lean: bool = teacher.can_be_lean

    def capture(self, specs: Iterable[CaptureSpec]) -> None:
        """Have `outputs` bring these inner tensors along, without the position of the language."""
        self.teacher.capture(specs)

    def outputs(self, batch: Batch, lean: bool = False) -> TeacherOutputs:
        """Run the teacher on `batch` in the language; return what it says of the student's words."""
        said = self.teacher.outputs(with_token(batch, self.token), lean)
        captures = said.captures
        if self.token is not None:
            captures = {spec: self._axes.without_first(spec, tensor) for spec, tensor in captures.items()}
        return replace(said, signal=first_words(said.signal, self.words), captures=captures)


def with_token(batch: Batch, token: int | None) -> Batch:
    """Return a batch with a token in front of each source, one position longer; with None the batch itself."""
    if token is None:
        return batch
    source, source_mask, *rest = batch
    return (
        torch.cat([source.new_full((len(source), 1), token), source], dim=1),
        torch.cat([source_mask.new_ones((len(source), 1)), source_mask], dim=1),
        *rest,
    )


def first_words(signal: Logits | HeadInput | None, words: int) -> Logits | HeadInput | None:
    """Return what is said of the first words of a vocabulary alone; nothing is copied."""
    if isinstance(signal, HeadInput):
        bias = signal.bias if signal.bias is None else signal.bias[:words]
        return HeadInput(signal.states, signal.weight[:words], bias)
    return None if signal is None else Logits(signal.values[..., :words])


def check_languages(student: MTEncDecModel, teacher: MTEncDecModel, config: TeacherConfig) -> int | None:
    """Make sure that the teacher knows the student's languages.

    Returns:
        Id of the language that the teacher must be told and the student is not; None where it is told nothing.

    Raises:
        TeacherError: it does not know one, or which one is not said; the message names those that it knows.
    """
    if tokens := language_tokens(teacher):
        return required_token(student, tokens, config)
    theirs = model_languages(teacher) or [name for name in [teacher.src_language] if isinstance(name, str)]
    mine = [] if language_tokens(student) else model_languages(student)
    if model_languages(teacher) and not mine:
        mine = [config.source_language or student.src_language]
    unknown = [name for name in mine if name not in (None, "ignore", *theirs)]
    if unknown and theirs not in ([], ["ignore"]):
        raise TeacherError(
            f"{_WHERE}.source_language: the teacher reads {', '.join(theirs)}, and the student's source language is "
            f"{', '.join(unknown)}; give one that the teacher has, or another teacher"
        )
    return None


def required_token(
    student: MTEncDecModel, tokens: Mapping[str, int], config: TeacherConfig, some: bool = False
) -> int | None:
    """Return the id of the language that a one-to-many teacher must be told; None: the student's batches tell it.

    Args:
        student: the student.
        tokens: id of each language of the teacher.
        config: may say which language is meant.
        some: the student may have languages beside those, of which no batch will be.

    Raises:
        TeacherError: the teacher does not know a language, or which one is not said.
    """
    known = f"the teacher writes {', '.join(tokens)}"
    mine = language_tokens(student)
    if mine and config.target_language is not None:
        raise TeacherError(
            f"{_WHERE}.target_language: got {config.target_language}, and the student's batches tell their language; "
            "leave it out"
        )
    for name, token in mine.items():
        if tokens.get(name, token if some else None) != token:
            found = f"has the id {tokens[name]} there" if name in tokens else "is none of them"
            raise TeacherError(
                f"model.tgt_language: {known}, and the student's {name} {found} ({token} in the student); give the "
                "student the teacher's tokenizers and languages, in the teacher's order"
            )
    if mine:
        return None
    language = config.target_language or student.tgt_language
    if language in (None, "ignore"):
        raise TeacherError(f"{_WHERE}.target_language: is missing, and {known}; give one of them")
    if language not in tokens:
        where = "target_language" if config.target_language else "target_language (from model.tgt_language)"
        raise TeacherError(f"{_WHERE}.{where}: got {language:.40}, and {known}; give one of them")
    logging.info(f"the teacher is told to write {language}: token {tokens[language]} stands in front of each source")
    return tokens[language]
