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
"""Hidden-state losses against closed forms, value and gradient."""

import math

import pytest
import torch

from nemo_distill.losses import DISTANCES, HiddenStateLoss

B, T, H = 2, 4, 6


def random_case(seed: int, dtype: torch.dtype = torch.float64):
    """Return student states, teacher states [B, T, H] and a mask [B, T] with at least one True and one False."""
    generator = torch.Generator().manual_seed(seed)
    student = torch.randn(B, T, H, generator=generator, dtype=torch.float64)
    teacher = torch.randn(B, T, H, generator=generator, dtype=torch.float64)
    mask = torch.rand(B, T, generator=generator) < 0.6
    mask[0, 0], mask[0, 1] = True, False
    return student.to(dtype), teacher.to(dtype), mask


def expected(distance: str, student, teacher, mask):
    """Return value and gradient from the closed forms, token by token."""
    value, gradient, count = 0.0, torch.zeros(B, T, H, dtype=torch.float64), int(mask.sum())
    for b, t in mask.nonzero().tolist():
        s, u = student[b, t].double(), teacher[b, t].double()
        if distance == "mse":
            value += math.fsum(((s - u) ** 2).tolist()) / H / count
            gradient[b, t] = 2 * (s - u) / H / count
        else:
            norms = math.sqrt((s @ s).item()), math.sqrt((u @ u).item())
            cosine = (s @ u).item() / norms[0] / norms[1]
            value += (1 - cosine) / count
            gradient[b, t] = -(u / norms[0] / norms[1] - cosine * s / norms[0] ** 2) / count
    return value, gradient


def value_and_gradient(loss, student, teacher, mask):
    student = student.clone().requires_grad_()
    value = loss(student=student, teacher=teacher, mask=mask)
    (gradient,) = torch.autograd.grad(value, student)
    return value, gradient


@pytest.mark.parametrize("distance", DISTANCES)
def test_value_and_gradient_equal_the_closed_form(distance):
    for seed in range(3):
        student, teacher, mask = random_case(seed)
        value, gradient = value_and_gradient(HiddenStateLoss(distance), student, teacher, mask)
        wanted_value, wanted_gradient = expected(distance, student, teacher, mask)
        assert value.item() == pytest.approx(wanted_value, abs=1e-10)
        torch.testing.assert_close(gradient, wanted_gradient, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("distance", DISTANCES)
def test_half_precision_stays_within_its_rounding(distance, dtype):
    student, teacher, mask = random_case(4, dtype)
    value, gradient = value_and_gradient(HiddenStateLoss(distance), student, teacher, mask)
    wanted_value, wanted_gradient = expected(distance, student, teacher, mask)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(wanted_value, rel=1e-5)
    torch.testing.assert_close(gradient.double(), wanted_gradient, atol=2e-6, rtol=2 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("distance", DISTANCES)
def test_all_padding_gives_zero_and_a_zero_gradient(distance):
    student, teacher, mask = random_case(5)
    value, gradient = value_and_gradient(HiddenStateLoss(distance), student, teacher, torch.zeros_like(mask))
    assert value.item() == 0
    assert not gradient.any()


@pytest.mark.parametrize("rubbish", [math.nan, math.inf])
@pytest.mark.parametrize("distance", DISTANCES)
def test_padding_does_not_matter(distance, rubbish):
    student, teacher, mask = random_case(6)
    clean = value_and_gradient(HiddenStateLoss(distance), student, teacher, mask)
    student[~mask], teacher[~mask] = rubbish, rubbish
    dirty = value_and_gradient(HiddenStateLoss(distance), student, teacher, mask)
    assert torch.equal(clean[0], dirty[0])
    assert torch.equal(clean[1], dirty[1])


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.float32])
@pytest.mark.parametrize("distance", DISTANCES)
def test_masks_of_any_type(distance, dtype):
    student, teacher, mask = random_case(7)
    loss = HiddenStateLoss(distance)
    wanted = loss(student=student, teacher=teacher, mask=mask)
    assert torch.equal(loss(student=student, teacher=teacher, mask=mask.to(dtype)), wanted)


@pytest.mark.parametrize("distance", DISTANCES)
def test_teacher_gets_no_gradient(distance):
    student, teacher, mask = random_case(8)
    teacher.requires_grad_()
    student.requires_grad_()
    HiddenStateLoss(distance)(student=student, teacher=teacher, mask=mask).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


def test_unknown_distance():
    with pytest.raises(ValueError, match="distance must be one of cosine, mse, but got 'euclidean'"):
        HiddenStateLoss("euclidean")


def test_wrong_shapes():
    student, teacher, mask = random_case(9)
    with pytest.raises(ValueError, match=r"student states have shape \(2, 4, 6\), teacher states \(2, 4, 5\)"):
        HiddenStateLoss()(student=student, teacher=teacher[..., :-1], mask=mask)
    with pytest.raises(ValueError, match=r"mask has shape \(2, 3\), but the tokens have shape \(2, 4\)"):
        HiddenStateLoss()(student=student, teacher=teacher, mask=mask[:, :-1])


def test_projection_makes_widths_comparable():
    """Value and gradients, of the states and of the projection, equal the closed form of mse."""
    student, _, mask = random_case(5)
    teacher = torch.randn(B, T, H + 3, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    projection = torch.nn.Linear(H, H + 3, bias=False, dtype=torch.float64)
    states = student.clone().requires_grad_()
    value = HiddenStateLoss("mse", projection)(student=states, teacher=teacher, mask=mask)
    state_gradient, weight_gradient = torch.autograd.grad(value, [states, projection.weight])
    with torch.no_grad():
        difference = (student @ projection.weight.T - teacher) * mask[..., None]
        scale = 2 / (H + 3) / mask.sum()
        torch.testing.assert_close(value, difference.square().sum() / (H + 3) / mask.sum())
        torch.testing.assert_close(state_gradient, scale * difference @ projection.weight)
        torch.testing.assert_close(weight_gradient, scale * torch.einsum("bto,bti->oi", difference, student))


def test_padding_does_not_reach_the_projection():
    student, _, mask = random_case(7)
    teacher = torch.randn(B, T, H + 3, dtype=torch.float64)
    student[~mask] = math.nan
    projection = torch.nn.Linear(H, H + 3, bias=False, dtype=torch.float64)
    HiddenStateLoss("cosine", projection)(student=student, teacher=teacher, mask=mask).backward()
    assert projection.weight.grad.isfinite().all()
    assert projection.weight.grad.any()


def test_a_projection_still_needs_the_same_tokens():
    projection = torch.nn.Linear(H, H + 3)
    with pytest.raises(ValueError, match="must be .* of one width, or of two with a projection"):
        HiddenStateLoss("mse", projection)(
            student=torch.zeros(B, T, H), teacher=torch.zeros(B, T + 1, H + 3), mask=torch.ones(B, T)
        )
