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

from collections.abc import Mapping

import torch
from torch import nn

from nemo_distill.config.section import ObjectiveConfig
from nemo_distill.errors import ConfigurationError
from nemo_distill.losses.divergence import NLLLoss, WordLevelKDLoss
from nemo_distill.losses.lean import lean_token_losses
from nemo_distill.losses.signals import HeadInput, KeptTargets
from nemo_distill.losses.term import ObjectiveInputs, ObjectiveTerm
from nemo_distill.losses.top_k import kept_loss


class DistillationObjective(nn.Module):
    """`nll.weight * NLL + word_kd.weight * WordKD + ...`, each term a mean over real tokens.

    The NLL is always reported, since it is nearly free and is what a plain run would show; with weight 0 it takes no
    part in the gradient. The other terms are computed only where their weight is above 0. With several processes each
    term is multiplied with `inputs.factors`, so that the mean over processes is a mean over all their tokens.

    Args:
        config: weights and settings of the terms, already validated.
        label_smoothing: of the NLL term.
        terms: further terms by name, each with its weight.
    """

    def __init__(
        self,
        config: ObjectiveConfig,
        label_smoothing: float = 0.0,
        terms: Mapping[str, tuple[float, ObjectiveTerm]] | None = None,
    ) -> None:
        super().__init__()
        terms = terms or {}
        self.weights = {"nll": config.nll.weight, "word_kd": config.word_kd.weight}
        self.weights |= {name: weight for name, (weight, _) in terms.items()}
        self.nll = NLLLoss(label_smoothing)
        self.word_kd = WordLevelKDLoss(
            config.word_kd.temperature, config.word_kd.divergence, config.word_kd.scale_by_temperature
        )
        self.terms = nn.ModuleDict({name: term for name, (_, term) in terms.items()})

    @property
    def needs_teacher(self) -> bool:
        """Whether any term with a weight reads the teacher."""
        return self.weights["word_kd"] > 0 or any(term.needs_teacher for term in self.terms.values())

    def forward(self, inputs: ObjectiveInputs) -> dict[str, torch.Tensor]:
        """Return `{"loss": weighted sum, "nll": ..., ...}`, scalars; the terms are unweighted.

        Raises:
            ConfigurationError: a term of a recipe gives no scalar.
        """
        lean = isinstance(inputs.student, HeadInput)
        terms = self._lean_token_losses(inputs) if lean else self._token_losses(inputs)
        terms = {name: term * inputs.factors["target"] for name, term in terms.items()}
        for name, term in self.terms.items():
            terms[name] = term(inputs)
            if not (isinstance(terms[name], torch.Tensor) and terms[name].ndim == 0):
                given = getattr(terms[name], "shape", type(terms[name]).__name__)
                raise ConfigurationError(
                    f"distillation.objective.terms: {name} gives {given}; a term must give a scalar tensor"
                )
            if term.mean_over is not None:
                terms[name] = terms[name] * inputs.factors[term.mean_over]
            if self.weights[name] > 0:
                terms["loss"] = terms["loss"] + self.weights[name] * terms[name]
        return terms

    def _token_losses(self, inputs: ObjectiveInputs) -> dict[str, torch.Tensor]:
        """Return `loss`, `nll` and, with a weight, `word_kd`, from whole log-probabilities and logits."""
        weights, terms = self.weights, {}
        with torch.set_grad_enabled(torch.is_grad_enabled() and weights["nll"] > 0):
            terms["nll"] = self.nll(log_probs=inputs.log_probs, labels=inputs.labels, mask=inputs.mask)
        if weights["word_kd"] > 0 and isinstance(inputs.teacher, KeptTargets):
            terms["word_kd"] = kept_loss(
                student_logits=inputs.student_logits, targets=inputs.teacher, mask=inputs.mask, kd=self.word_kd
            )
        elif weights["word_kd"] > 0:
            terms["word_kd"] = self.word_kd(
                student_logits=inputs.student_logits, teacher_logits=inputs.teacher_logits, mask=inputs.mask
            )
        return {"loss": sum(weights[name] * term for name, term in terms.items() if weights[name] > 0), **terms}

    def _lean_token_losses(self, inputs: ObjectiveInputs) -> dict[str, torch.Tensor]:
        """Return the same from the models' last decoder states and output heads."""
        return lean_token_losses(
            student=inputs.student,
            teacher=inputs.teacher,
            labels=inputs.labels,
            mask=inputs.mask,
            nll=self.nll,
            nll_weight=self.weights["nll"],
            word_kd=self.word_kd,
            word_kd_weight=self.weights["word_kd"],
        )

    def __repr__(self) -> str:
        terms = {"nll": self.nll, "word_kd": self.word_kd, **self.terms}
        weights = {name: float(f"{weight:.4g}") for name, weight in self.weights.items()}
        return " + ".join(f"{weights[name]} * {term!r}" for name, term in terms.items() if self.weights[name] > 0)
