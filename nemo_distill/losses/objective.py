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
"""The weighted objective of one training step.

`objective(inputs)` returns every term by name and their weighted sum under `loss`; `print(objective)` shows the
formula, for instance `1.0 * NLL + 1.0 * WordKD(forward_kl, τ=1)`.
"""

from dataclasses import dataclass

import torch
from torch import nn

from nemo_distill.config import ObjectiveConfig
from nemo_distill.losses.divergence import NLLLoss, WordLevelKDLoss


@dataclass
class ObjectiveInputs:
    """What one training step hands to the objective; V is the target vocabulary."""

    log_probs: torch.Tensor
    """[B, T, V], the student's log-probabilities."""
    labels: torch.Tensor
    """[B, T], the target token ids."""
    mask: torch.Tensor
    """[B, T], True = real token."""
    student_logits: torch.Tensor | None = None
    """[B, T, V], before the softmax; needed by the word-level term."""
    teacher_logits: torch.Tensor | None = None
    """[B, T, V], before the softmax; needed by the word-level term."""


class DistillationObjective(nn.Module):
    """`nll.weight * NLL + word_kd.weight * WordKD`, each term a mean over the same real tokens.

    The NLL is always reported, since it is nearly free and is what a plain run would show; with weight 0 it takes no
    part in the gradient. The word-level term is computed only where its weight is above 0.

    Args:
        config: weights and settings of the terms, already validated.
        label_smoothing: of the NLL term.
    """

    def __init__(self, config: ObjectiveConfig, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.weights = {"nll": config.nll.weight, "word_kd": config.word_kd.weight}
        self.nll = NLLLoss(label_smoothing)
        self.word_kd = WordLevelKDLoss(
            config.word_kd.temperature, config.word_kd.divergence, config.word_kd.scale_by_temperature
        )

    @property
    def needs_teacher(self) -> bool:
        """Whether any term with a weight reads the teacher."""
        return self.weights["word_kd"] > 0

    def forward(self, inputs: ObjectiveInputs) -> dict[str, torch.Tensor]:
        """Return `{"loss": weighted sum, "nll": ..., "word_kd": ...}`, scalars; the terms are unweighted."""
        terms = {}
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.weights["nll"] > 0):
            terms["nll"] = self.nll(log_probs=inputs.log_probs, labels=inputs.labels, mask=inputs.mask)
        if self.needs_teacher:
            terms["word_kd"] = self.word_kd(
                student_logits=inputs.student_logits, teacher_logits=inputs.teacher_logits, mask=inputs.mask
            )
        weighted = [self.weights[name] * term for name, term in terms.items() if self.weights[name] > 0]
        return {"loss": sum(weighted), **terms}

    def __repr__(self) -> str:
        terms = {"nll": self.nll, "word_kd": self.word_kd}
        weights = {name: float(f"{weight:.4g}") for name, weight in self.weights.items()}
        return " + ".join(f"{weights[name]} * {term!r}" for name, term in terms.items() if self.weights[name] > 0)
