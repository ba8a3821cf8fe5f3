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
"""Word-level losses straight from the last decoder states and the output heads: no [B, T, V] tensor lives whole.

The logits of a few tokens at a time are computed, turned into losses and gradients, and dropped. Values and gradients
are those of `NLLLoss` and `WordLevelKDLoss` on whole logits; memory is that of one chunk, and on a CPU the chunk stays
in the cache. The idea is that of Liger-Kernel (Hsu et al. 2024, arXiv:2410.10989) and cut cross-entropy (Wijmans et
al. 2024, arXiv:2411.09009), whose kernels need a GPU.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from nemo_distill.losses.divergence import DIVERGENCES, NLLLoss, Softmax, WordLevelKDLoss, tokens_per_chunk
from nemo_distill.losses.masking import at_least_float32
from nemo_distill.losses.top_k import TopKTargets, top_k_parts

LEAST_BLOCK = 256
"""Tokens whose logits are made at a time, at least: with fewer, a matrix product waits for the head's weight."""


@dataclass
class HeadInput:
    """A linear output head and the states that enter it: the logits are `states @ weight.T + bias`."""

    states: torch.Tensor
    """[..., H]"""
    weight: torch.Tensor
    """[V, H]"""
    bias: torch.Tensor | None = None
    """[V]"""

    def __getitem__(self, tokens: torch.Tensor | slice) -> "HeadInput":
        """Return the head with the states of some tokens."""
        return HeadInput(self.states[tokens], self.weight, self.bias)

    def logits(self) -> torch.Tensor:
        """Return the logits of all states, [..., V]."""
        return F.linear(self.states, self.weight, self.bias)


@dataclass
class _Settings:
    nll: NLLLoss
    nll_weight: float
    word_kd: WordLevelKDLoss
    word_kd_weight: float


def lean_token_losses(
    student: HeadInput,
    teacher: HeadInput | TopKTargets | None,
    labels: torch.Tensor,
    mask: torch.Tensor,
    nll: NLLLoss,
    nll_weight: float,
    word_kd: WordLevelKDLoss,
    word_kd_weight: float,
) -> dict[str, torch.Tensor]:
    """Return the weighted sum of NLL and word-level KD, and both terms unweighted.

    Args:
        student: states [B, T, H]; gradients flow into states, weight and bias.
        teacher: states [B, T, H_t], its head over the same vocabulary, or what is kept of its distributions over the
            real tokens; not read where `word_kd_weight` is 0.
        labels: [B, T], token ids.
        mask: [B, T], True = real token; every term is a mean over these, 0 with a zero gradient if there are none.
        nll: the settings of the NLL.
        nll_weight: its weight; with 0 it is computed, and takes no part in the gradient.
        word_kd: the settings of the word-level term.
        word_kd_weight: its weight; with 0 it is not computed.

    Returns:
        `loss`, differentiable; `nll` and, with a teacher, `word_kd`, without a gradient. Scalars.
    """
    tokens = mask.flatten().nonzero().squeeze(1)  # [N]
    flat = HeadInput(student.states.flatten(0, 1), student.weight, student.bias)[tokens]
    if word_kd_weight == 0:
        teacher = None
    elif isinstance(teacher, HeadInput):
        teacher = HeadInput(teacher.states.detach().flatten(0, 1), teacher.weight, teacher.bias)[tokens]
    settings = _Settings(nll, nll_weight, word_kd, word_kd_weight)
    sums = _LeanLoss.apply(flat.states, flat.weight, flat.bias, labels.flatten()[tokens], teacher, settings)
    names = ("loss", "nll", "word_kd") if teacher is not None else ("loss", "nll")
    return {name: total / max(tokens.numel(), 1) for name, total in zip(names, sums, strict=False)}


class _LeanLoss(torch.autograd.Function):
    """Sums over tokens of the weighted loss, the NLL and the word-level term; the first has a gradient.

    The gradient is computed with the loss, chunk by chunk, and scaled in the backward pass: there is no second
    derivative. Sums, not means, so that in half precision no gradient is too small before the loss scale is known.
    """

    @staticmethod
    def forward(ctx, states, weight, bias, labels, teacher, settings) -> tuple[torch.Tensor, ...]:
        """States [N, H], weight [V, H], bias [V] or None, labels [N] -> three scalars"""
        student = HeadInput(states, weight, bias)
        wanted = ctx.needs_input_grad[:3]
        accumulator = torch.promote_types(weight.dtype, torch.float32)
        gradients = [
            torch.zeros_like(tensor, dtype=None if place == 0 else accumulator) if needed else None
            for place, (tensor, needed) in enumerate(zip((states, weight, bias), wanted, strict=True))
        ]
        sums = torch.zeros(3, dtype=accumulator, device=states.device)
        size = tokens_per_chunk(len(weight), states.device)
        for rows in _slices(len(states), max(size, LEAST_BLOCK)):
            values, slope = _block(student[rows], teacher and teacher[rows], labels[rows], settings, size)
            sums += values
            if wanted[0]:
                gradients[0][rows] = slope @ weight
            if wanted[1]:
                _add_product(gradients[1], slope.T, states[rows])
            if wanted[2]:
                gradients[2] += slope.sum(0)
        ctx.save_for_backward(*gradients)
        ctx.is_used = False
        ctx.dtypes = [None if tensor is None else tensor.dtype for tensor in (states, weight, bias)]
        total, nll, word_kd = sums.unbind()
        ctx.mark_non_differentiable(nll, word_kd)
        return total, nll, word_kd

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output: torch.Tensor, *_) -> tuple:
        """Scale the gradients of the forward pass, in place: the weight's may be the largest tensor here."""
        if ctx.is_used:
            raise RuntimeError(
                "the lean loss can be differentiated once; distillation.objective.computation: plain can be twice"
            )
        ctx.is_used = True
        scaled = [
            None if gradient is None else gradient.mul_(grad_output).to(dtype)
            for gradient, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        ]
        return *scaled, None, None, None


def _slices(length: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, length, size))


def _add_product(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    """`total += left @ right`; where no precision is mixed, without a second tensor of that size."""
    if left.dtype == right.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right


def _block(
    student: HeadInput,
    teacher: HeadInput | TopKTargets | None,
    labels: torch.Tensor,
    settings: _Settings,
    size: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sums [loss, nll, word_kd] of m tokens, and the gradient of the loss by their logits, [m, V].

    The logits are computed at once, and replaced by the gradient `size` tokens at a time.
    """
    logits = student.logits()  # [m, V], in the precision that the head computes in
    if isinstance(teacher, HeadInput):
        teacher = teacher.logits()  # [m, V]
    sums = torch.zeros(3, dtype=torch.promote_types(logits.dtype, torch.float32), device=logits.device)
    for rows in _slices(len(logits), size):
        part = None if teacher is None else teacher[rows]
        values, slope = _chunk(at_least_float32(logits[rows]), part, labels[rows], settings)
        sums += values
        logits[rows] = slope.to(logits.dtype)
    return sums, logits


def _chunk(
    logits: torch.Tensor, teacher: torch.Tensor | TopKTargets | None, labels: torch.Tensor, settings: _Settings
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sums [loss, nll, word_kd] of n tokens, and the gradient of the loss by their logits, [n, V]."""
    kd, weight = settings.word_kd, settings.nll_weight
    tempered = Softmax.of(logits, 1.0 if teacher is None else kd.temperature)
    p = tempered.untempered(logits)
    labels = labels.unsqueeze(-1)  # [n, 1]
    vocabulary_size = logits.shape[-1]
    smoothing = settings.nll.label_smoothing * vocabulary_size / (vocabulary_size - 1)
    nll = -(1 - smoothing) * p.log(logits.gather(-1, labels)).sum()
    if smoothing > 0:
        nll -= smoothing * p.log(logits.mean(-1, keepdim=True)).sum()
    if teacher is None:
        word_kd, slope = nll.new_zeros(()), p.values.mul_(weight)
    elif isinstance(teacher, TopKTargets):
        word_kd, slope = _top_k_slope(logits, tempered, p, teacher, settings)
    else:
        teacher = teacher.to(logits.dtype)
        q = Softmax.of(teacher, kd.temperature)
        value, slope = DIVERGENCES[kd.divergence](tempered.log(logits), tempered.values, q.log(teacher), q.values)
        word_kd = kd.scale * value.sum()
        slope.mul_(settings.word_kd_weight * kd.scale / kd.temperature).add_(p.values, alpha=weight)
    if weight > 0:
        slope.scatter_add_(-1, labels, torch.full_like(labels, -(1 - smoothing) * weight, dtype=slope.dtype))
        if smoothing > 0:
            slope -= weight * smoothing / vocabulary_size
    loss = weight * nll + settings.word_kd_weight * word_kd
    return torch.stack([loss, nll, word_kd]), slope


def _top_k_slope(
    logits: torch.Tensor, tempered: Softmax, p: Softmax, teacher: TopKTargets, settings: _Settings
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sum of the word-level term, and the gradient of its share of the loss plus `nll_weight * p`, [n, V].

    At temperature 1 both terms have the same `p`, so that this costs hardly more than the NLL alone.
    """
    kd, weight, slope = settings.word_kd, settings.nll_weight, tempered.values
    scale = settings.word_kd_weight * kd.scale / kd.temperature
    log_p_words = tempered.log(logits.gather(-1, teacher.ids))
    value, p_words, at_words, outside = top_k_parts(slope, log_p_words, teacher, kd)
    nll_share = weight if p is tempered else 0.0
    slope.mul_(nll_share + scale * outside).scatter_(-1, teacher.ids, nll_share * p_words + scale * at_words)
    if p is not tempered:
        slope.add_(p.values, alpha=weight)
    return kd.scale * value.sum(), slope
