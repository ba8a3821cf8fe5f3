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
"""Word-level KD from the k most likely words and one bucket for the rest."""

import math

import pytest
import torch

from nemo_distill.config.section import NLLConfig, ObjectiveConfig, WordKDConfig
from nemo_distill.losses import (
    DistillationObjective,
    HeadInput,
    ObjectiveInputs,
    SampledTargets,
    StudentLogits,
    TopKTargets,
    WordLevelKDLoss,
    lean,
)
from nemo_distill.losses.top_k import kept_loss

B, T, V, H = 3, 5, 11, 4
MASK = torch.tensor([[True] * T, [True, True, False, False, False], [True, True, True, True, False]])


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Two tokens at a time, four in a block, so that there are several of both and shorter last ones."""
    monkeypatch.setattr(lean, "tokens_per_chunk", lambda *_: 2)
    monkeypatch.setattr(lean, "LEAST_BLOCK", 4)


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2


def targets_of(logits: torch.Tensor, k: int, temperature: float) -> TopKTargets:
    """Return the k largest of logits [N, V], less the largest one."""
    top = logits.topk(k)
    shift = logits.amax(-1, keepdim=True)
    return TopKTargets(top.indices, top.values - shift, ((logits - shift) / temperature).logsumexp(-1))


def sample_of(logits: torch.Tensor, k: int, temperature: float) -> SampledTargets:
    """Return some words of logits [N, V] with weights, one of which is 0 and stands for no word."""
    ids = torch.stack([torch.randperm(V, generator=torch.Generator().manual_seed(n))[:k] for n in range(len(logits))])
    weights = random(*ids.shape, seed=7).abs()
    weights[:, 0], weights[1, 2], ids[1, 2] = 1, 0, ids[1, 0]
    return SampledTargets(ids, (logits / temperature).log_softmax(-1).gather(-1, ids), weights)


def bucketed_kl(w: torch.Tensor, z: torch.Tensor, k: int, temperature: float) -> torch.Tensor:
    """The definition: sum the other words, then the KL of k + 1 outcomes; [N]."""
    ids = z.topk(k).indices
    p, q = ((logits / temperature).softmax(-1) for logits in (w, z))
    outcomes = []
    for each in (p, q):
        others = each.scatter(-1, ids, 0).sum(-1, keepdim=True)
        outcomes.append(torch.cat([each.gather(-1, ids), others], -1))
    p, q = outcomes
    return (q * (q / p).log()).sum(-1)


def objective(nll: float, word_kd: float, smoothing: float = 0.0, **settings) -> DistillationObjective:
    return DistillationObjective(
        ObjectiveConfig(nll=NLLConfig(nll), word_kd=WordKDConfig(word_kd, **settings)), smoothing
    )


def student_head() -> HeadInput:
    head = HeadInput(random(B, T, H, seed=1), random(V, H, seed=2), random(V, seed=3))
    for tensor in vars(head).values():
        tensor.requires_grad_()
    return head


def terms_and_gradients(built, computation: str, targets: TopKTargets):
    head = student_head()
    labels = torch.randint(V, (B, T), generator=torch.Generator().manual_seed(4))
    logits = head.logits()
    student = head if computation == "lean" else StudentLogits(logits, logits.log_softmax(-1))
    terms = built(ObjectiveInputs(labels, MASK, student, targets))
    (terms["loss"] * 3).backward()  # not 1: the backward pass scales
    return terms, [tensor.grad for tensor in vars(head).values()]


@pytest.mark.parametrize("k", [1, 4, V - 1])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_value_is_that_of_the_definition(k, temperature):
    w, z = random(B, T, V, seed=5), random(B, T, V, seed=6)
    kd = WordLevelKDLoss(temperature)
    value = kept_loss(student_logits=w, targets=targets_of(z[MASK], k, temperature), mask=MASK, kd=kd)
    wanted = temperature**2 * bucketed_kl(w[MASK], z[MASK], k, temperature).mean()
    torch.testing.assert_close(value, wanted, atol=1e-12, rtol=1e-12)
    whole = kd(student_logits=w, teacher_logits=z, mask=MASK)
    assert value < whole if k < V - 1 else value == pytest.approx(whole.item())


@pytest.mark.parametrize("divergence", ["forward_kl", "cross_entropy"])
def test_all_words_give_the_whole_divergence(divergence):
    w, z = random(B, T, V, seed=5), random(B, T, V, seed=6)
    kd = WordLevelKDLoss(2.0, divergence)
    value = kept_loss(student_logits=w, targets=targets_of(z[MASK], V, 2.0), mask=MASK, kd=kd)
    torch.testing.assert_close(value, kd(student_logits=w, teacher_logits=z, mask=MASK))


@pytest.mark.parametrize("divergence", ["forward_kl", "cross_entropy"])
@pytest.mark.parametrize(("temperature", "scaled"), [(1.0, True), (0.5, True), (2.0, True), (4.0, False), (7.0, True)])
@pytest.mark.parametrize(("nll", "word_kd", "smoothing"), [(1.0, 1.0, 0.1), (0.3, 5.0, 0.0), (0.0, 2.0, 0.0)])
@pytest.mark.parametrize("k", [1, 4, V, -4])
def test_lean_has_the_gradient_of_autograd(divergence, temperature, scaled, nll, word_kd, smoothing, k):
    settings = {"divergence": divergence, "temperature": temperature, "scale_by_temperature": scaled}
    built = objective(nll, word_kd, smoothing, **settings)
    logits = random(B, T, V, seed=6)[MASK]
    targets = targets_of(logits, k, temperature) if k > 0 else sample_of(logits, -k, temperature)
    terms, gradients = terms_and_gradients(built, "lean", targets)
    wanted_terms, wanted_gradients = terms_and_gradients(built, "plain", targets)
    assert terms.keys() == wanted_terms.keys() == {"loss", "nll", "word_kd"}
    for name, wanted in wanted_terms.items():
        torch.testing.assert_close(terms[name], wanted, atol=1e-12, rtol=1e-12)
    for gradient, wanted in zip(gradients, wanted_gradients, strict=True):
        torch.testing.assert_close(gradient, wanted, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("divergence", ["forward_kl", "cross_entropy"])
def test_autocast_changes_nothing(divergence):
    logits, targets = random(B, T, V, seed=5).float(), targets_of(random(B, T, V, seed=6).float()[MASK], 4, 2.0)
    arguments = {"student_logits": logits, "targets": targets, "mask": MASK, "kd": WordLevelKDLoss(2.0, divergence)}
    with torch.autocast("cpu", torch.bfloat16):
        found = kept_loss(**arguments)
    assert torch.equal(found, kept_loss(**arguments))


def test_rounded_logits_that_sum_to_more_than_one():
    targets = TopKTargets(torch.tensor([[2, 5]]), torch.tensor([[0.0, -1.0]]), torch.tensor([0.3]))
    log_q, rest = targets.log_shares(1.0, torch.float64)
    assert log_q.exp().sum().item() == pytest.approx(1)
    assert rest.item() == 0
    assert (log_q[0, 0] - log_q[0, 1]).item() == pytest.approx(1)


@pytest.mark.parametrize("weight", [1.0, 10.0, 1e3])
def test_a_student_that_is_sure_gets_finite_values(weight):
    """All of its mass is on the k words in float32, and the teacher still gives something to the others."""
    head = HeadInput(torch.ones(1, 1, 1), torch.tensor([[0.0]] * V), torch.tensor([200.0] + [0.0] * (V - 1)))
    head.bias.requires_grad_()
    targets = TopKTargets(torch.tensor([[0]]), torch.zeros(1, 1), torch.tensor([math.log(2)]))
    inputs = ObjectiveInputs(torch.zeros(1, 1, dtype=torch.long), torch.ones(1, 1).bool(), head, targets)
    loss = objective(0.0, weight)(inputs)["loss"]
    loss.backward()
    assert loss.isfinite()
    assert head.bias.grad.isfinite().all()
    assert head.bias.grad[0].item() == pytest.approx(0.5 * weight)  # pushed away from certainty
