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
"""Word-level losses against closed forms that are written out here, value and gradient."""

import itertools
import math

import pytest
import torch

from nemo_distill.losses import DIVERGENCES, NLLLoss, WordLevelKDLoss

B, T, V = 3, 5, 7
TEMPERATURES = (0.5, 1.0, 2.0, 10.0)


def random_case(seed: int, dtype: torch.dtype = torch.float64, scale: float = 2.0):
    """Return student logits, teacher logits [B, T, V] and a mask [B, T] with at least one True and one False."""
    generator = torch.Generator().manual_seed(seed)
    student = scale * torch.randn(B, T, V, generator=generator, dtype=torch.float64)
    teacher = scale * torch.randn(B, T, V, generator=generator, dtype=torch.float64)
    mask = torch.rand(B, T, generator=generator) < 0.6
    mask[0, 0], mask[0, 1] = True, False
    return student.to(dtype), teacher.to(dtype), mask


def softmax(row: list[float], temperature: float) -> list[float]:
    """Return the softmax of one token's logits, in plain Python."""
    top = max(row)
    weights = [math.exp((x - top) / temperature) for x in row]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def kl(a: list[float], b: list[float]) -> float:
    return math.fsum(x * math.log(x / y) for x, y in zip(a, b, strict=True))


def token_value(divergence: str, p: list[float], q: list[float]) -> float:
    """Return the divergence between student `p` and teacher `q` of one token."""
    if divergence == "forward_kl":
        return kl(q, p)
    if divergence == "cross_entropy":
        return -math.fsum(x * math.log(y) for x, y in zip(q, p, strict=True))
    if divergence == "reverse_kl":
        return kl(p, q)
    m = [(x + y) / 2 for x, y in zip(p, q, strict=True)]
    return (kl(q, m) + kl(p, m)) / 2


def token_gradient(divergence: str, p: list[float], q: list[float], temperature: float) -> list[float]:
    """Return the derivative by the student's logits of one token, derived by hand.

    With dp_j / dw_k = p_j (delta_jk - p_k) / t and f_j = dD / dp_j it is p_k (f_k - sum_j p_j f_j) / t.
    """
    if divergence in ("forward_kl", "cross_entropy"):
        return [(x - y) / temperature for x, y in zip(p, q, strict=True)]
    if divergence == "reverse_kl":
        slope = [math.log(x / y) for x, y in zip(p, q, strict=True)]
    else:
        slope = [math.log(2 * x / (x + y)) / 2 for x, y in zip(p, q, strict=True)]
    mean = math.fsum(x * f for x, f in zip(p, slope, strict=True))
    return [x * (f - mean) / temperature for x, f in zip(p, slope, strict=True)]


def expected(divergence: str, student, teacher, mask, temperature: float, scaled: bool):
    """Return value and gradient of the whole batch from the closed forms."""
    count = int(mask.sum())
    factor = (temperature**2 if scaled else 1.0) / count
    value, gradient = 0.0, torch.zeros(B, T, V, dtype=torch.float64)
    for b, t in itertools.product(range(B), range(T)):
        if not mask[b, t]:
            continue
        p, q = softmax(student[b, t].tolist(), temperature), softmax(teacher[b, t].tolist(), temperature)
        value += factor * token_value(divergence, p, q)
        row = token_gradient(divergence, p, q, temperature)
        gradient[b, t] = factor * torch.tensor(row, dtype=torch.float64)
    return value, gradient


def value_and_gradient(loss: WordLevelKDLoss, student, teacher, mask):
    student = student.clone().requires_grad_()
    value = loss(student_logits=student, teacher_logits=teacher, mask=mask)
    (gradient,) = torch.autograd.grad(value, student)
    return value, gradient


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_value_and_gradient_equal_the_closed_form(divergence, temperature, scaled):
    for seed in range(3):
        student, teacher, mask = random_case(seed)
        loss = WordLevelKDLoss(temperature, divergence, scale_by_temperature=scaled)
        value, gradient = value_and_gradient(loss, student, teacher, mask)
        wanted_value, wanted_gradient = expected(divergence, student, teacher, mask, temperature, scaled)
        assert value.shape == ()
        assert value.item() == pytest.approx(wanted_value, abs=1e-10, rel=1e-10)
        torch.testing.assert_close(gradient, wanted_gradient, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_lower_precision_stays_within_its_rounding(divergence, dtype):
    """The inputs are rounded first, so that what is left is the arithmetic: float32, and one rounding at the end."""
    student, teacher, mask = random_case(7, dtype)
    value, gradient = value_and_gradient(WordLevelKDLoss(2.0, divergence), student, teacher, mask)
    wanted_value, wanted_gradient = expected(divergence, student.double(), teacher.double(), mask, 2.0, True)
    assert value.dtype == torch.float32
    assert gradient.dtype == dtype
    assert value.item() == pytest.approx(wanted_value, rel=1e-5)
    step = torch.finfo(dtype).eps
    torch.testing.assert_close(gradient.double(), wanted_gradient, atol=2e-6, rtol=2 * step)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_autocast_changes_nothing(divergence):
    """Autocast would take the sums over the vocabulary in half precision."""
    student, teacher, mask = random_case(0, torch.float32)
    wanted = value_and_gradient(WordLevelKDLoss(2.0, divergence), student, teacher, mask)
    with torch.autocast("cpu", torch.bfloat16):
        found = value_and_gradient(WordLevelKDLoss(2.0, divergence), student, teacher, mask)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_high_temperature_gradient_tends_to_the_logit_difference():
    temperature = 100.0
    student, teacher, mask = random_case(3, scale=1.0)
    student, teacher = student - student.mean(-1, keepdim=True), teacher - teacher.mean(-1, keepdim=True)
    limit = (student - teacher) / (V * temperature**2) * mask.unsqueeze(-1) / mask.sum()
    _, gradient = value_and_gradient(WordLevelKDLoss(temperature, scale_by_temperature=False), student, teacher, mask)
    # The next term of the expansion is smaller by about |logit| / temperature.
    torch.testing.assert_close(gradient, limit, rtol=0, atol=0.03 * limit.abs().max().item())
    assert (gradient - limit).abs().max() > 1e-6 * limit.abs().max()  # it is a limit, not an identity


def test_scaled_gradient_keeps_its_size_when_the_temperature_rises():
    student, teacher, mask = random_case(4, scale=0.5)
    sizes = [
        value_and_gradient(WordLevelKDLoss(temperature), student, teacher, mask)[1].norm().item()
        for temperature in (2.0, 20.0, 200.0)
    ]
    assert max(sizes) < 1.2 * min(sizes)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_forward_kl_and_cross_entropy_have_one_gradient(temperature):
    student, teacher, mask = random_case(5)
    kl_value, kl_gradient = value_and_gradient(WordLevelKDLoss(temperature, "forward_kl"), student, teacher, mask)
    ce_value, ce_gradient = value_and_gradient(WordLevelKDLoss(temperature, "cross_entropy"), student, teacher, mask)
    torch.testing.assert_close(kl_gradient, ce_gradient, atol=1e-12, rtol=1e-12)
    assert ce_value > kl_value + 0.01  # by the teacher's entropy


@pytest.mark.parametrize("divergence", ["forward_kl", "reverse_kl", "jensen_shannon"])
def test_equal_distributions_cost_nothing(divergence):
    student, _, mask = random_case(6)
    value, gradient = value_and_gradient(WordLevelKDLoss(2.0, divergence), student, student + 3.0, mask)
    assert value.item() == pytest.approx(0, abs=1e-12)
    assert gradient.abs().max() < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_all_padding_gives_zero_and_a_zero_gradient(divergence, dtype):
    student, teacher, _ = random_case(8, dtype)
    value, gradient = value_and_gradient(
        WordLevelKDLoss(2.0, divergence), student, teacher, torch.zeros(B, T, dtype=torch.bool)
    )
    assert value.item() == 0
    assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("rubbish", [math.nan, math.inf, -math.inf, 1e30])
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_padding_does_not_matter(divergence, rubbish):
    student, teacher, mask = random_case(9)
    clean = value_and_gradient(WordLevelKDLoss(2.0, divergence), student, teacher, mask)
    student[~mask], teacher[~mask] = rubbish, rubbish
    dirty = value_and_gradient(WordLevelKDLoss(2.0, divergence), student, teacher, mask)
    assert torch.equal(clean[0], dirty[0])
    assert torch.equal(clean[1], dirty[1])


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_nan_at_a_real_token_is_not_hidden(divergence):
    student, teacher, mask = random_case(9)
    teacher[0, 0, 3] = math.nan
    assert WordLevelKDLoss(1.0, divergence)(student_logits=student, teacher_logits=teacher, mask=mask).isnan()


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.float32, torch.bfloat16])
def test_masks_of_any_type(dtype):
    student, teacher, mask = random_case(10)
    loss = WordLevelKDLoss()
    wanted = loss(student_logits=student, teacher_logits=teacher, mask=mask)
    assert torch.equal(loss(student_logits=student, teacher_logits=teacher, mask=mask.to(dtype)), wanted)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_teacher_gets_no_gradient_and_nothing_is_changed(divergence):
    student, teacher, mask = random_case(11)
    before = teacher.clone(), mask.clone()
    teacher.requires_grad_()
    student.requires_grad_()
    WordLevelKDLoss(2.0, divergence)(student_logits=student, teacher_logits=teacher, mask=mask).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0
    assert torch.equal(teacher.detach(), before[0])
    assert torch.equal(mask, before[1])


@pytest.mark.parametrize("temperature", [0, 0.0, -1.0, math.nan, math.inf])
def test_bad_temperature(temperature):
    with pytest.raises(ValueError, match=f"temperature must be a finite number above 0, but got {temperature}"):
        WordLevelKDLoss(temperature=temperature)


def test_unknown_divergence():
    with pytest.raises(ValueError, match="one of forward_kl, cross_entropy, reverse_kl, jensen_shannon.*'kl'"):
        WordLevelKDLoss(divergence="kl")


def test_wrong_shapes():
    student, teacher, mask = random_case(12)
    loss = WordLevelKDLoss()
    with pytest.raises(ValueError, match=r"student logits have shape \(3, 5, 7\), teacher logits \(3, 5, 6\)"):
        loss(student_logits=student, teacher_logits=teacher[..., :-1], mask=mask)
    with pytest.raises(ValueError, match=r"mask has shape \(3, 4\), but the tokens have shape \(3, 5\)"):
        loss(student_logits=student, teacher_logits=teacher, mask=mask[:, :-1])
    with pytest.raises(ValueError, match=r"\[B, T, V\]"):
        loss(student_logits=student[0], teacher_logits=teacher[0], mask=mask[0])


def test_prints_what_it_is():
    assert repr(WordLevelKDLoss()) == "WordKD(forward_kl, τ=1)"
    assert repr(WordLevelKDLoss(0.5, "reverse_kl", False)) == "WordKD(reverse_kl, τ=0.5, unscaled)"


def nll_by_hand(log_probs, labels, mask, smoothing: float) -> float:
    """Return the smoothed NLL: the share `smoothing` of the mass goes evenly to the V - 1 other words."""
    total = 0.0
    for b, t in itertools.product(range(B), range(T)):
        if mask[b, t]:
            row, label = log_probs[b, t].tolist(), int(labels[b, t])
            others = math.fsum(x for word, x in enumerate(row) if word != label)
            total -= (1 - smoothing) * row[label] + smoothing / (V - 1) * others
    return total / int(mask.sum())


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_nll_equals_the_closed_form(smoothing):
    logits, _, mask = random_case(13)
    logits.requires_grad_()
    labels = torch.randint(V, (B, T), generator=torch.Generator().manual_seed(1))
    log_probs = logits.log_softmax(-1)
    value = NLLLoss(smoothing)(log_probs=log_probs, labels=labels, mask=mask)
    assert value.item() == pytest.approx(nll_by_hand(log_probs, labels, mask, smoothing), abs=1e-10)
    (gradient,) = torch.autograd.grad(value, logits)
    target = torch.full((B, T, V), smoothing / (V - 1), dtype=torch.float64)
    target.scatter_(-1, labels.unsqueeze(-1), 1 - smoothing)
    wanted = (logits.softmax(-1) - target) * mask.unsqueeze(-1) / mask.sum()
    torch.testing.assert_close(gradient, wanted, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_nll_equals_nemo(smoothing):
    losses = pytest.importorskip("nemo.collections.common.losses")
    logits, _, mask = random_case(14)
    pad = 0
    labels = torch.randint(1, V, (B, T), generator=torch.Generator().manual_seed(2)).masked_fill(~mask, pad)
    log_probs = logits.log_softmax(-1)
    ours = NLLLoss(smoothing)(log_probs=log_probs, labels=labels, mask=labels != pad)
    nemo = losses.SmoothedCrossEntropyLoss(pad_id=pad, label_smoothing=smoothing, eps=0.0)
    torch.testing.assert_close(ours, nemo(log_probs=log_probs, labels=labels), atol=1e-12, rtol=1e-12)
    stock = losses.SmoothedCrossEntropyLoss(pad_id=pad, label_smoothing=smoothing)  # divides by count + 1e-6
    count = int(mask.sum())
    wanted = ours * count / (count + 1e-6)
    torch.testing.assert_close(stock(log_probs=log_probs, labels=labels), wanted, atol=1e-12, rtol=1e-12)


def test_nll_of_padding_only():
    logits, _, _ = random_case(15)
    logits.requires_grad_()
    value = NLLLoss()(
        log_probs=logits.log_softmax(-1),
        labels=torch.zeros(B, T, dtype=torch.int64),
        mask=torch.zeros(B, T, dtype=torch.bool),
    )
    (gradient,) = torch.autograd.grad(value, logits)
    assert value.item() == 0
    assert not gradient.any()


def test_nll_ignores_rubbish_on_padding():
    logits, _, mask = random_case(16)
    log_probs = logits.log_softmax(-1)
    labels = torch.ones(B, T, dtype=torch.int64)
    clean = NLLLoss(0.1)(log_probs=log_probs, labels=labels, mask=mask)
    log_probs[~mask] = math.nan
    assert torch.equal(NLLLoss(0.1)(log_probs=log_probs, labels=labels, mask=mask), clean)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, math.nan])
def test_nll_bad_smoothing(smoothing):
    with pytest.raises(ValueError, match=r"label_smoothing must be in \[0, 1\), but got"):
        NLLLoss(smoothing)


def test_nll_wrong_shapes():
    logits, _, mask = random_case(17)
    with pytest.raises(ValueError, match=r"mask has shape \(3, 4\), but the tokens have shape \(3, 5\)"):
        NLLLoss()(log_probs=logits, labels=torch.zeros(B, T, dtype=torch.int64), mask=mask[:, :-1])
    with pytest.raises(ValueError, match=r"log-probabilities have shape \(3, 5, 7\).*labels \(3, 4\)"):
        NLLLoss()(log_probs=logits, labels=torch.zeros(B, T - 1, dtype=torch.int64), mask=mask[:, :-1])
