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
"""Several models as one teacher."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from nemo_distill.capture import CaptureSpec
from nemo_distill.errors import ConfigurationError
from nemo_distill.losses.signals import Logits
from nemo_distill.teachers.frozen import Batch, FrozenTeacher, TeacherOutputs


class EnsembleTeacher:
    """Several models as one teacher: the mean of their probabilities; see `Teacher`.

    Its logits are `log mean_i softmax(z_i)`, so at temperature 1 the student learns from the mean distribution, and at
    another one from that mean, tempered.

    Args:
        members: the models, over one vocabulary.

    Example:
        >>> teacher = EnsembleTeacher([FrozenTeacher(one), FrozenTeacher(other)])  # doctest: +SKIP
    """

    model: nn.Module | None = None
    can_be_lean = False

    def __init__(self, members: Sequence[FrozenTeacher]) -> None:
        self.members = list(members)

    def capture(self, specs: Iterable[CaptureSpec]) -> None:
        """Refuse to bring inner tensors along: which model's?

        Raises:
            ConfigurationError: any are asked for.
        """
        if list(specs):
            raise ConfigurationError("distillation.teacher: an ensemble has no inner states; give one model")

    def outputs(self, batch: Batch, lean: bool = False) -> TeacherOutputs:
        """Run every model on `batch`; return the logarithm of their mean probabilities."""
        total = None
        for member in self.members:
            log_q = member.logits(batch).float().log_softmax(-1)
            total = log_q if total is None else torch.logaddexp(total, log_q)
        return TeacherOutputs(Logits(total - math.log(len(self.members))))
