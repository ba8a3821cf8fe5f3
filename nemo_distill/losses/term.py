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
"""What one training step hands to the terms of the objective, and what a term is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from nemo_distill.capture import CaptureSpec
from nemo_distill.errors import CaptureError, ConfigurationError
from nemo_distill.losses.signals import HeadInput, Logits, StudentSignal, TeacherSignal

MEANS = ("source", "target", "sentence")
"""What a term can be a mean over, `ObjectiveTerm.mean_over`."""


@dataclass
class ObjectiveInputs:
    """What one training step hands to the objective; V is the target vocabulary."""

    labels: torch.Tensor
    """[B, T], the target token ids."""
    mask: torch.Tensor
    """[B, T], True = real target token."""
    student: StudentSignal
    """Whole logits, or for the lean computation what enters the head."""
    teacher: TeacherSignal | None = None
    """In the student's form, or what a cache holds of the real tokens; None where no term reads the teacher."""
    source_mask: torch.Tensor | None = None
    """[B, S], True = real source token."""
    factors: Mapping[str, torch.Tensor | float] = field(default_factory=lambda: dict.fromkeys(MEANS, 1.0))
    """What to multiply a mean over the real `source` or `target` tokens, or over sentences, with: 1, or with several
    processes what makes the mean over processes the mean over all of theirs."""
    student_captures: Mapping[CaptureSpec, torch.Tensor] = field(default_factory=dict)
    """What the terms asked for of the student's inner modules."""
    teacher_captures: Mapping[CaptureSpec, torch.Tensor] = field(default_factory=dict)
    """What the terms asked for of the teacher's inner modules; no gradient flows into them."""

    @property
    def log_probs(self) -> torch.Tensor:
        """The student's log-probabilities, [B, T, V]; only for terms with `needs_logits`."""
        return _whole(self.student, "student").log_probs

    @property
    def student_logits(self) -> torch.Tensor:
        """The student's logits, [B, T, V]; only for terms with `needs_logits`."""
        return _whole(self.student, "student").values

    @property
    def teacher_logits(self) -> torch.Tensor:
        """The teacher's logits, [B, T, V]; only for terms with `needs_logits` and `needs_teacher`."""
        return _whole(self.teacher, "teacher").values


def _whole(signal: StudentSignal | TeacherSignal | None, owner: str) -> Logits:
    """Return a signal that is whole logits.

    Raises:
        ConfigurationError: it is not; the message says what the term lacks.
    """
    if isinstance(signal, Logits):
        return signal
    need = "needs_logits" if isinstance(signal, HeadInput) else "needs_teacher"  # a cache serves no such term
    raise ConfigurationError(f"a term reads whole logits of the {owner}, but does not say so; give it `{need} = True`")


class ObjectiveTerm(nn.Module):
    """One term of the objective beyond NLL and word-level KD; subclass it for a term of your own.

    A subclass gives `forward`, and says in class or instance attributes what it reads:

    Attributes:
        student_captures: inner tensors of the student, read as `inputs.student_captures[spec]`.
        teacher_captures: inner tensors of the teacher, read as `inputs.teacher_captures[spec]`.
        needs_logits: it reads `log_probs` or the logits of both models.
        needs_teacher: it reads anything of the teacher; without such a term the teacher is not run.
        mean_over: what it is a mean over, real `source` or `target` tokens, or `sentence`: with several processes it
            is weighted by their number. None: it weighs the processes itself, by `inputs.factors`, or is to count the
            same in all.

    Its parameters are trained with the student and kept in checkpoints, and are absent from the saved student.

    Example:
        >>> class Entropy(ObjectiveTerm):
        ...     needs_logits = True
        ...
        ...     def forward(self, inputs: ObjectiveInputs) -> torch.Tensor:
        ...         log_probs = inputs.log_probs[inputs.mask]  # [N, V]
        ...         return (log_probs.exp() * log_probs).sum() / max(len(log_probs), 1)
    """

    student_captures: Sequence[CaptureSpec] = ()
    teacher_captures: Sequence[CaptureSpec] = ()
    needs_logits: bool = False
    needs_teacher: bool = False
    mean_over: str | None = "target"

    def forward(self, inputs: ObjectiveInputs) -> torch.Tensor:
        """Return the term, a scalar: by custom a mean over real tokens, and 0 for a batch that has none."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return type(self).__name__


@dataclass(frozen=True)
class LayerPair:
    """A place in the student, and the place in the teacher that it learns from."""

    part: str
    """`encoder`, `decoder` or `cross`; it says whose tokens count, the source's or the target's."""
    label: str
    """For the printed objective, such as `0→7`."""
    student: CaptureSpec
    teacher: CaptureSpec


class LayerPairsTerm(ObjectiveTerm):
    """The mean of one loss over pairs of layers.

    Args:
        pairs: what is compared.
        losses: the loss of each part that occurs in `pairs`; called with `student`, `teacher` and `mask`.
    """

    needs_teacher = True
    mean_over = None  # each pair has its own

    def __init__(self, pairs: Sequence[LayerPair], losses: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.pairs = tuple(pairs)
        self.losses = nn.ModuleDict(losses)
        self.student_captures = tuple(pair.student for pair in pairs)
        self.teacher_captures = tuple(pair.teacher for pair in pairs)

    def forward(self, inputs: ObjectiveInputs) -> torch.Tensor:
        """Return the mean over all pairs, a scalar.

        Raises:
            CaptureError: what was captured has not the shape that the loss needs.
        """
        return torch.stack([self._pair_loss(pair, inputs) for pair in self.pairs]).mean()

    def _pair_loss(self, pair: LayerPair, inputs: ObjectiveInputs) -> torch.Tensor:
        side, mask = ("source", inputs.source_mask) if pair.part == "encoder" else ("target", inputs.mask)
        try:
            loss = self.losses[pair.part](
                student=inputs.student_captures[pair.student],
                teacher=inputs.teacher_captures[pair.teacher],
                mask=mask,
            )
        except ValueError as error:
            raise CaptureError(
                f"{pair.student} and the teacher's {pair.teacher} cannot be compared: {error}; name other modules "
                "under `distillation.capture`"
            ) from error
        return loss * inputs.factors[side]

    def pairs_text(self) -> str:
        """Return the pairs for the printed objective, such as `encoder 0→7 1→15, decoder 0→5`."""
        return ", ".join(
            " ".join([part, *(pair.label for pair in self.pairs if pair.part == part)]) for part in self.losses
        )
