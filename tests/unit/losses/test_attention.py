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
"""Attention-map losses against closed forms, value and gradient."""

import math

import pytest
import torch

from nemo_distill.losses import ATTENTION_DISTANCES, AttentionMapLoss

B, Q, K, STUDENT_HEADS, TEACHER_HEADS = 2, 4, 5, 2, 3


def random_case(seed: int):
    """Return the student's scores, its attention, the teacher's attention and a mask of query tokens."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(B, STUDENT_HEADS, Q, K, generator=generator, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(B, TEACHER_HEADS, Q, K, generator=generator, dtype=torch.float64).mul(2).softmax(-1)
    mask = torch.tensor([[True] * Q, [True, True, False, False]])
    return scores, scores.softmax(-1), teacher, mask


@pytest.mark.parametrize("distance", ATTENTION_DISTANCES)
def test_value_and_gradient_equal_the_closed_form(distance):
    for seed in range(3):
        _, student, teacher, mask = random_case(seed)
        value = AttentionMapLoss(distance)(student=student, teacher=teacher, mask=mask)
        (gradient,) = torch.autograd.grad(value, student)
        wanted, wanted_gradient, count = 0.0, torch.zeros_like(student), mask.sum().item()
        for b, q in mask.nonzero().tolist():
            for k in range(K):
                p = sum(student[b, head, q, k].item() for head in range(STUDENT_HEADS)) / STUDENT_HEADS
                t = sum(teacher[b, head, q, k].item() for head in range(TEACHER_HEADS)) / TEACHER_HEADS
                wanted += t * math.log(t / p) if distance == "kl" else (t - p) ** 2
                slope = -t / p if distance == "kl" else 2 * (p - t)
                wanted_gradient[b, :, q, k] = slope / STUDENT_HEADS / count
        assert value.item() == pytest.approx(wanted / count, abs=1e-12)
        torch.testing.assert_close(gradient, wanted_gradient, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("distance", ATTENTION_DISTANCES)
def test_equal_attention_gives_zero_whatever_the_heads(distance):
    _, student, _, mask = random_case(3)
    teacher = student.mean(1, keepdim=True).expand(B, 7, Q, K)
    value = AttentionMapLoss(distance)(student=student, teacher=teacher, mask=mask)
    assert abs(value.item()) < 1e-15


@pytest.mark.parametrize("distance", ATTENTION_DISTANCES)
def test_padding_changes_nothing(distance):
    """Neither padded queries, nor padded keys, which get no attention."""
    scores, student, teacher, mask = random_case(4)
    value = AttentionMapLoss(distance)(student=student, teacher=teacher, mask=mask)
    (gradient,) = torch.autograd.grad(value, scores, retain_graph=True)
    assert not gradient[1, :, 2:].any()
    wider = [torch.nn.functional.pad(attention, (0, 3, 0, 2)) for attention in (student, teacher)]
    wider[0][:, :, Q:] = math.nan
    longer = torch.nn.functional.pad(mask, (0, 2))
    padded = AttentionMapLoss(distance)(student=wider[0], teacher=wider[1], mask=longer)
    (padded_gradient,) = torch.autograd.grad(padded, scores)
    torch.testing.assert_close(padded, value)
    torch.testing.assert_close(padded_gradient, gradient)


@pytest.mark.parametrize("distance", ATTENTION_DISTANCES)
def test_all_padding_gives_zero(distance):
    scores, student, teacher, mask = random_case(5)
    value = AttentionMapLoss(distance)(student=student, teacher=teacher, mask=torch.zeros_like(mask))
    (gradient,) = torch.autograd.grad(value, scores)
    assert value.item() == 0
    assert not gradient.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_attention_that_underflows_stays_finite(dtype):
    scores = torch.tensor([0.0, -2000.0], requires_grad=True)
    student = scores.softmax(-1).to(dtype).view(1, 1, 1, 2)
    teacher = torch.tensor([0.5, 0.5], dtype=dtype).view(1, 1, 1, 2)
    value = AttentionMapLoss("kl")(student=student, teacher=teacher, mask=torch.ones(1, 1))
    value.backward()
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(0.5 * math.log(0.5) * 2 - 0.5 * math.log(1e-12), rel=1e-3)
    assert scores.grad.isfinite().all()


def test_no_gradient_reaches_the_teacher():
    _, student, teacher, mask = random_case(6)
    teacher.requires_grad_()
    AttentionMapLoss()(student=student, teacher=teacher, mask=mask).backward()
    assert teacher.grad is None


def test_bad_arguments():
    with pytest.raises(ValueError, match="distance must be one of kl, mse, but got 'cosine'"):
        AttentionMapLoss("cosine")
    maps = torch.rand(B, 2, Q, K)
    for other in (torch.rand(B, 2, Q, K + 1), torch.rand(B, Q, K)):
        with pytest.raises(ValueError, match=r"must be \[B, heads, queries, keys\], equal but for the heads"):
            AttentionMapLoss()(student=maps, teacher=other, mask=torch.ones(B, Q))
    with pytest.raises(ValueError, match="mask has shape"):
        AttentionMapLoss()(student=maps, teacher=maps, mask=torch.ones(B, K))
