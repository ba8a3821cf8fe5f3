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
"""The lean computation gives the values and gradients of the plain one."""

import math

import pytest
import torch

from nemo_distill.config.section import NLLConfig, ObjectiveConfig, WordKDConfig
from nemo_distill.losses import (
    DIVERGENCES,
    DistillationObjective,
    HeadInput,
    Logits,
    ObjectiveInputs,
    StudentLogits,
    divergence,
    lean,
)

B, T, V, H, H_TEACHER = 3, 5, 11, 4, 6


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Two tokens at a time, four in a block, so that there are several of both and shorter last ones."""
    monkeypatch.setattr(lean, "tokens_per_chunk", lambda *_: 2)
    monkeypatch.setattr(lean, "LEAST_BLOCK", 4)


def make_heads(dtype=torch.float64, bias: bool = True) -> tuple[HeadInput, HeadInput]:
    generator = torch.Generator().manual_seed(1)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    student = HeadInput(random(B, T, H), random(V, H), random(V) if bias else None)
    teacher = HeadInput(random(B, T, H_TEACHER), random(V, H_TEACHER), random(V) if bias else None)
    for tensor in (student.states, student.weight, student.bias):
        if tensor is not None:
            tensor.requires_grad_()
    return student, teacher


def make_short_heads(dtype: torch.dtype, states: int, weights: int, bias: bool = True) -> tuple[HeadInput, HeadInput]:
    """Heads of multiples of `1 / states` and `1 / weights` up to 1: float32 holds their logits, whatever the order."""
    generator = torch.Generator().manual_seed(4)

    def random(steps: int, *shape: int) -> torch.Tensor:
        return (torch.randint(-steps, steps + 1, shape, generator=generator) / steps).to(dtype)

    return tuple(
        HeadInput(random(states, B, T, width), random(weights, V, width), random(weights, V) if bias else None)
        for width in (H, H_TEACHER)
    )


def make_inputs(student: HeadInput, teacher: HeadInput, computation: str, mask=None) -> ObjectiveInputs:
    if mask is None:
        mask = torch.tensor([[True] * T, [True, True, False, False, False], [False, True, True, True, False]])
    labels = torch.randint(V, (B, T), generator=torch.Generator().manual_seed(2))
    if computation == "lean":
        return ObjectiveInputs(labels, mask, student, teacher)
    logits = student.logits()
    return ObjectiveInputs(
        labels, mask, StudentLogits(logits, logits.log_softmax(-1)), Logits(teacher.logits()) if teacher else None
    )


def objective(nll: float, word_kd: float, smoothing: float = 0.0, **settings) -> DistillationObjective:
    return DistillationObjective(
        ObjectiveConfig(nll=NLLConfig(nll), word_kd=WordKDConfig(word_kd, **settings)), smoothing
    )


def terms_and_gradients(built, computation: str, dtype=torch.float64, bias: bool = True, mask=None):
    student, teacher = make_heads(dtype, bias)
    terms = built(make_inputs(student, teacher if built.needs_teacher else None, computation, mask))
    (terms["loss"] * 3).backward()  # not 1: the backward pass scales
    gradients = [tensor.grad for tensor in (student.states, student.weight, student.bias) if tensor is not None]
    return terms, gradients


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize(("temperature", "scaled"), [(1.0, True), (0.5, True), (2.0, True), (4.0, False)])
@pytest.mark.parametrize(("nll", "word_kd"), [(1.0, 1.0), (0.3, 5.0), (0.0, 2.0)])
@pytest.mark.parametrize("bias", [True, False])
def test_lean_equals_plain(divergence, temperature, scaled, nll, word_kd, bias):
    built = objective(nll, word_kd, 0.1, divergence=divergence, temperature=temperature, scale_by_temperature=scaled)
    terms, gradients = terms_and_gradients(built, "lean", bias=bias)
    wanted_terms, wanted_gradients = terms_and_gradients(built, "plain", bias=bias)
    assert terms.keys() == wanted_terms.keys() == {"loss", "nll", "word_kd"}
    for name, wanted in wanted_terms.items():
        torch.testing.assert_close(terms[name], wanted, atol=1e-12, rtol=1e-12)
    for gradient, wanted in zip(gradients, wanted_gradients, strict=True):
        torch.testing.assert_close(gradient, wanted, atol=1e-12, rtol=1e-12)
    assert not terms["nll"].requires_grad


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_nll_alone_needs_no_teacher(smoothing):
    built = objective(1.0, 0.0, smoothing)
    terms, gradients = terms_and_gradients(built, "lean")
    wanted_terms, wanted_gradients = terms_and_gradients(objective(1.0, 1e-300, smoothing), "plain")
    assert set(terms) == {"loss", "nll"}
    torch.testing.assert_close(terms["loss"], wanted_terms["nll"])
    torch.testing.assert_close(gradients, wanted_gradients)


def gradient_sizes(student: HeadInput, teacher: HeadInput, inputs: ObjectiveInputs, temperature: float) -> list:
    """Return what the gradients by states, weight and bias add up, without signs, at weights of 1."""
    with torch.no_grad():
        logits, other_logits = student.logits(), teacher.logits()
        sizes = (logits.softmax(-1) + torch.nn.functional.one_hot(inputs.labels, V)) + temperature * (
            (logits / temperature).softmax(-1) + (other_logits / temperature).softmax(-1)
        )
        sizes *= inputs.mask.unsqueeze(-1) / inputs.mask.sum()
        weight = torch.einsum("btv,bth->vh", sizes, student.states.abs())
        return [sizes @ student.weight.abs(), weight, sizes.sum((0, 1))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_lower_precision_stays_within_its_rounding(dtype):
    """Against float64; the logits are exact in all of these, so that what is left is the arithmetic of the loss.

    That is float32, with sums over 11 words and 10 tokens. A gradient is rounded to the lower precision as one by the
    logits, as a product with the head, when it is scaled, and at the end: each time by at most half a step, relative
    to the sizes of what is added up.
    """
    built, scale, single = objective(1.0, 1.0, temperature=2.0), 3, torch.finfo(torch.float32).eps
    found, wanted = [], []
    for each, computation, results in ((dtype, "lean", found), (torch.float64, "plain", wanted)):
        student, teacher = make_short_heads(each, states=1, weights=8)
        for tensor in vars(student).values():
            tensor.requires_grad_()
        inputs = make_inputs(student, teacher, computation)
        terms = built(inputs)
        (terms["loss"] * scale).backward()
        results += [terms["loss"], *(tensor.grad for tensor in vars(student).values())]
    assert found[0].dtype == torch.float32
    assert found[0].item() == pytest.approx(wanted[0].item(), rel=16 * single)
    bound = scale * (4 * torch.finfo(dtype).eps / 2 + 16 * single)
    for gradient, exact, size in zip(
        found[1:], wanted[1:], gradient_sizes(student, teacher, inputs, 2.0), strict=True
    ):
        assert gradient.dtype == dtype
        assert ((gradient - exact).abs() <= bound * size).all()


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_a_whole_vocabulary_in_float32_is_exact_to_its_rounding(monkeypatch, temperature, scale):
    """4,000 words, from a flat distribution to a sure one, against float64; gradients are relative to the largest one.

    Both computations start from logits that float32 has rounded by up to `shift`. That changes each of p, the tempered
    p and the teacher's q by up to twice as much, relative to its size, and the loss is made of these three. Sums over
    the vocabulary add a rounding that grows with the root of its size (Higham and Mary 2019, doi:10.1137/18M1226312,
    with four times the root for certainty).
    """
    monkeypatch.undo()
    generator = torch.Generator().manual_seed(3)
    tokens, words, widths, labels = 300, 4000, (24, 40), torch.randint(4000, (1, 300), generator=generator)
    numbers = [
        torch.randn(*shape, generator=generator) * factor
        for width in widths
        for shape, factor in (((1, tokens, width), 1), ((words, width), scale), ((words,), scale))
    ]

    def values_and_gradients(computation: str, dtype: torch.dtype) -> tuple:
        student, teacher = (HeadInput(*(t.to(dtype, copy=True) for t in part)) for part in (numbers[:3], numbers[3:]))
        for tensor in vars(student).values():
            tensor.requires_grad_()
        inputs = ObjectiveInputs(labels, torch.ones_like(labels).bool(), student, teacher)
        if computation == "plain":
            logits = student.logits()
            student_logits = StudentLogits(logits, logits.log_softmax(-1))
            inputs = ObjectiveInputs(labels, inputs.mask, student_logits, Logits(teacher.logits()))
        terms = objective(1.0, 1.0, temperature=temperature)(inputs)
        terms["loss"].backward()
        return terms, [tensor.grad for tensor in vars(student).values()]

    wanted_terms, wanted_gradients = values_and_gradients("plain", torch.float64)
    heads = HeadInput(*numbers[:3]), HeadInput(*numbers[3:])
    exact = (HeadInput(*(t.double() for t in vars(head).values())) for head in heads)
    shift = max((one.logits() - other.logits()).abs().max().item() for one, other in zip(heads, exact, strict=True))
    bound = 3 * 2 * shift + 4 * math.sqrt(words) * torch.finfo(torch.float32).eps / 2
    assert bound < 1e-3  # a token too many or too few changes a mean over 300 by more
    errors = {}
    for computation in ("lean", "plain"):
        terms, gradients = values_and_gradients(computation, torch.float32)
        for name, wanted in wanted_terms.items():
            assert terms[name].item() == pytest.approx(wanted.item(), rel=bound)
        errors[computation] = [
            ((gradient - wanted).abs().max() / wanted.abs().max()).item()
            for gradient, wanted in zip(gradients, wanted_gradients, strict=True)
        ]
        assert max(errors[computation]) <= bound
    # The lean one squares an exponential at temperature 2, which doubles its rounding; it adds in another order, and
    # rounds a few times more, which shows where the plain one happens to be nearer than that.
    few = 4 * torch.finfo(torch.float32).eps
    for lean_error, plain_error in zip(errors["lean"], errors["plain"], strict=True):
        assert lean_error <= 4 * plain_error + few


def test_a_second_backward_pass_is_refused():
    student, teacher = make_heads()
    loss = objective(1.0, 1.0)(make_inputs(student, teacher, "lean"))["loss"]
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="the lean loss can be differentiated once; .*computation: plain can"):
        loss.backward()


def test_autocast_keeps_sums_and_gradients_in_float32():
    """Of logits that bfloat16 holds; a gradient is rounded to it as one by the logits and as a product."""
    built, found = objective(1.0, 1.0), []
    for autocast, computation in ((True, "lean"), (False, "plain")):
        student, teacher = make_short_heads(torch.float32, states=1, weights=8)
        student.weight.requires_grad_()
        inputs = make_inputs(student, teacher, computation)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            terms = built(inputs)
        terms["loss"].backward()
        found.append((terms["loss"], student.weight.grad))
    (loss, gradient), (wanted_loss, wanted_gradient) = found
    assert loss.dtype == gradient.dtype == torch.float32
    single, half = torch.finfo(torch.float32).eps, torch.finfo(torch.bfloat16).eps
    assert loss.item() == pytest.approx(wanted_loss.item(), rel=16 * single)
    _, size, _ = gradient_sizes(student, teacher, inputs, 1.0)
    assert ((gradient - wanted_gradient).abs() <= (half + 16 * single) * size).all()
    assert not torch.equal(gradient, wanted_gradient)  # the products were in half


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_autocast_takes_the_head_alone_in_half(divergence):
    """The value is that of the logits as the head gives them, to float32; every kernel rounds these alike."""
    built = objective(1.0, 1.0, divergence=divergence, temperature=2.0)
    student, teacher = make_short_heads(torch.float32, states=16, weights=16, bias=False)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        terms = built(make_inputs(student, teacher, "lean"))
        logits = [head.logits() for head in (student, teacher)]
    assert all(not torch.equal(half, head.logits()) for half, head in zip(logits, (student, teacher), strict=True))
    with torch.no_grad():
        wanted = built(make_inputs(*(HeadInput(each.double(), torch.eye(V).double()) for each in logits), "plain"))
    tolerance = 16 * torch.finfo(torch.float32).eps
    for name, term in terms.items():
        assert term.item() == pytest.approx(wanted[name].item(), rel=tolerance, abs=tolerance)


def test_all_padding_gives_zero_and_a_zero_gradient():
    terms, gradients = terms_and_gradients(objective(1.0, 1.0), "lean", mask=torch.zeros(B, T, dtype=torch.bool))
    assert [term.item() for term in terms.values()] == [0, 0, 0]
    assert not any(gradient.any() for gradient in gradients)


def test_padding_does_not_matter_and_a_real_nan_is_not_hidden():
    built, wanted = objective(1.0, 1.0), terms_and_gradients(objective(1.0, 1.0), "lean")[0]["loss"]
    student, teacher = make_heads()
    padding, real = (1, 3), (0, 0)
    with torch.no_grad():
        student.states[padding] = teacher.states[padding] = math.nan
    assert torch.equal(built(make_inputs(student, teacher, "lean"))["loss"], wanted)
    teacher.states[real] = math.nan
    assert built(make_inputs(student, teacher, "lean"))["loss"].isnan()


def test_frozen_parts_get_no_gradient():
    student, teacher = make_heads()
    student.weight.requires_grad_(False)
    objective(1.0, 1.0)(make_inputs(student, teacher, "lean"))["loss"].backward()
    assert student.weight.grad is None
    assert student.states.grad.any()
    assert student.bias.grad.any()
    with torch.no_grad():
        assert objective(1.0, 1.0)(make_inputs(student, teacher, "lean"))["loss"] > 0


def test_chunks_hold_a_bounded_number_of_logits():
    sizes = [divergence.tokens_per_chunk(vocabulary, torch.device("cpu")) for vocabulary in (4_000, 32_000, 10**8)]
    assert sizes == sorted(sizes, reverse=True)
    assert all(size * vocabulary <= 2**20 for size, vocabulary in zip(sizes[:2], (4_000, 32_000), strict=True))
    assert sizes[2] == 1
