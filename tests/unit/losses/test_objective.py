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
"""The weighted objective: its formula, its weights, and what it reports."""

import pytest
import torch

from nemo_distill.config.section import NLLConfig, ObjectiveConfig, WordKDConfig
from nemo_distill.errors import ConfigurationError
from nemo_distill.losses import (
    DistillationObjective,
    HeadInput,
    Logits,
    NLLLoss,
    ObjectiveInputs,
    ObjectiveTerm,
    StudentLogits,
    WordLevelKDLoss,
)

B, T, V = 2, 4, 6


def make_inputs(teacher: bool = True) -> ObjectiveInputs:
    generator = torch.Generator().manual_seed(1)
    student_logits = torch.randn(B, T, V, generator=generator, dtype=torch.float64, requires_grad=True)
    teacher_logits = torch.randn(B, T, V, generator=generator, dtype=torch.float64)
    mask = torch.tensor([[True] * T, [True, True, False, False]])
    return ObjectiveInputs(
        labels=torch.randint(V, (B, T), generator=generator),
        mask=mask,
        student=StudentLogits(student_logits, student_logits.log_softmax(-1)),
        teacher=Logits(teacher_logits) if teacher else None,
    )


def objective(nll: float, word_kd: float, smoothing: float = 0.0, **settings) -> DistillationObjective:
    return DistillationObjective(
        ObjectiveConfig(nll=NLLConfig(nll), word_kd=WordKDConfig(word_kd, **settings)), smoothing
    )


@pytest.mark.parametrize(
    ("built", "formula"),
    [
        (objective(1.0, 1.0), "1.0 * NLL + 1.0 * WordKD(forward_kl, τ=1)"),
        (objective(0.0, 2.0, temperature=5.0), "2.0 * WordKD(forward_kl, τ=5)"),
        (objective(1 - 0.7, 0.7, divergence="reverse_kl"), "0.3 * NLL + 0.7 * WordKD(reverse_kl, τ=1)"),
        (objective(1.0, 0.0, smoothing=0.1), "1.0 * NLL(label_smoothing=0.1)"),
        (
            objective(1.0, 40.0, temperature=5.0, scale_by_temperature=False),
            "1.0 * NLL + 40.0 * WordKD(forward_kl, τ=5, unscaled)",
        ),
    ],
)
def test_prints_its_formula(built, formula):
    assert str(built) == formula


@pytest.mark.parametrize(("nll", "word_kd"), [(1.0, 1.0), (0.25, 3.0), (0.0, 1.0), (2.0, 0.0)])
def test_loss_is_the_weighted_sum_and_terms_are_unweighted(nll, word_kd):
    inputs = make_inputs()
    terms = objective(nll, word_kd, temperature=2.0)(inputs)
    alone = {
        "nll": NLLLoss()(log_probs=inputs.log_probs, labels=inputs.labels, mask=inputs.mask),
        "word_kd": WordLevelKDLoss(2.0)(
            student_logits=inputs.student_logits, teacher_logits=inputs.teacher_logits, mask=inputs.mask
        ),
    }
    torch.testing.assert_close(terms["loss"], nll * alone["nll"] + word_kd * alone["word_kd"])
    torch.testing.assert_close(terms["nll"], alone["nll"])
    assert set(terms) == {"loss", "nll"} | ({"word_kd"} if word_kd else set())
    if word_kd:
        torch.testing.assert_close(terms["word_kd"], alone["word_kd"])


def test_nll_without_weight_is_reported_without_gradient():
    inputs = make_inputs()
    terms = objective(0.0, 1.0)(inputs)
    assert terms["nll"].item() > 0
    assert not terms["nll"].requires_grad
    (gradient,) = torch.autograd.grad(terms["loss"], inputs.student_logits, retain_graph=True)
    (kd_gradient,) = torch.autograd.grad(terms["word_kd"], inputs.student_logits)
    assert torch.equal(gradient, kd_gradient)


def test_word_kd_without_weight_needs_no_teacher():
    plain = objective(1.0, 0.0)
    assert not plain.needs_teacher
    assert objective(0.0, 0.5).needs_teacher
    terms = plain(make_inputs(teacher=False))
    assert torch.equal(terms["loss"], terms["nll"])


def test_all_padding_gives_zero():
    inputs = make_inputs()
    inputs.mask = torch.zeros(B, T, dtype=torch.bool)
    terms = objective(1.0, 1.0)(inputs)
    (gradient,) = torch.autograd.grad(terms["loss"], inputs.student_logits)
    assert [term.item() for term in terms.values()] == [0, 0, 0]
    assert not gradient.any()


class Undeclared(ObjectiveTerm):
    """Reads logits and does not say so."""

    def __init__(self, owner: str) -> None:
        super().__init__()
        self.owner = owner

    def forward(self, inputs: ObjectiveInputs) -> torch.Tensor:
        return getattr(inputs, f"{self.owner}_logits").mean()


@pytest.mark.parametrize(("owner", "need"), [("student", "needs_logits"), ("teacher", "needs_teacher")])
def test_a_term_that_reads_logits_without_a_word_is_refused(owner, need):
    head = HeadInput(torch.randn(B, T, 3), torch.randn(V, 3))
    inputs = make_inputs(teacher=False)
    inputs.student = head
    built = DistillationObjective(ObjectiveConfig(nll=NLLConfig(1.0)), 0.0, {"mine": (1.0, Undeclared(owner))})
    with pytest.raises(ConfigurationError, match=f"whole logits of the {owner}.*give it `{need} = True`"):
        built(inputs)


class OverTokens(ObjectiveTerm):
    """1, as a mean over some tokens."""

    def __init__(self, mean_over: str | None) -> None:
        super().__init__()
        self.mean_over = mean_over

    def forward(self, inputs: ObjectiveInputs) -> torch.Tensor:
        return torch.ones(())


def test_each_term_is_weighted_by_the_tokens_that_it_is_a_mean_over():
    """Value and gradient, as one of several processes needs them."""
    terms = {str(side): (1.0, OverTokens(side)) for side in ("source", "target", None)}
    built = DistillationObjective(ObjectiveConfig(nll=NLLConfig(1.0), word_kd=WordKDConfig(2.0)), 0.0, terms)
    inputs, weighted = make_inputs(), make_inputs()
    weighted.factors = {"source": 3.0, "target": torch.tensor(0.25)}
    plain, found = built(inputs), built(weighted)
    for name, factor in {"nll": 0.25, "word_kd": 0.25, "source": 3.0, "target": 0.25, "None": 1.0}.items():
        torch.testing.assert_close(found[name], factor * plain[name])
    (gradient,) = torch.autograd.grad(found["loss"], weighted.student_logits)
    (whole,) = torch.autograd.grad(plain["loss"], inputs.student_logits)
    torch.testing.assert_close(gradient, 0.25 * whole)


def test_holds_nothing_to_train_or_save():
    built = objective(1.0, 1.0)
    assert not list(built.parameters())
    assert not built.state_dict()
