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
from torch.autograd.function import once_differentiable

from nemo_distill.losses.divergence import DIVERGENCES, NLLLoss, WordLevelKDLoss, log_softmax_, tokens_per_chunk
from nemo_distill.losses.signals import HeadInput, KeptTargets
from nemo_distill.losses.top_k import KeptShares, kept_shares

LEAST_BLOCK = 256
"""Tokens whose logits are made at a time, at least: with fewer, a matrix product waits for the head's weight."""
_LARGEST_POWER = 16  # that is taken by products


@dataclass
class _Settings:
    nll: NLLLoss
    nll_weight: float
    word_kd: WordLevelKDLoss
    word_kd_weight: float


def lean_token_losses(
    student: HeadInput,
    teacher: HeadInput | KeptTargets | None,
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
    states = student.states.flatten(0, 1)  # [B * T, H]
    if word_kd_weight == 0:
        teacher = None
    elif isinstance(teacher, HeadInput):
        teacher = HeadInput(teacher.states.detach().flatten(0, 1), teacher.weight, teacher.bias)
    settings = _Settings(nll, nll_weight, word_kd, word_kd_weight)
    sums = _LeanLoss.apply(states, student.weight, student.bias, labels.flatten(), tokens, teacher, settings)
    names = ("loss", "nll", "word_kd") if teacher is not None else ("loss", "nll")
    return {name: total / max(tokens.numel(), 1) for name, total in zip(names, sums, strict=False)}


class _LeanLoss(torch.autograd.Function):
    """Sums over tokens of the weighted loss, the NLL and the word-level term; the first has a gradient.

    The gradient is computed with the loss, chunk by chunk, and scaled in the backward pass: there is no second
    derivative. Sums, not means, so that in half precision no gradient is too small before the loss scale is known.
    """

    @staticmethod
    def forward(ctx, states, weight, bias, labels, tokens, teacher, settings) -> tuple[torch.Tensor, ...]:
        """States [M, H], weight [V, H], bias [V] or None, labels [M], tokens [N] places among M -> three scalars"""
        student = HeadInput(states, weight, bias)
        wanted = ctx.needs_input_grad[:3]
        accumulator = torch.promote_types(weight.dtype, torch.float32)
        gradients = [
            torch.zeros_like(tensor, dtype=None if place == 0 else accumulator) if needed else None
            for place, (tensor, needed) in enumerate(zip((states, weight, bias), wanted, strict=True))
        ]
        sums = torch.zeros(3, dtype=accumulator, device=states.device)
        size = min(tokens_per_chunk(len(weight), states.device), len(tokens))
        if isinstance(teacher, KeptTargets):
            with torch.autocast(states.device.type, enabled=False):  # it would take products with the shares in half
                teacher = kept_shares(teacher, settings.word_kd, accumulator)
        scratch = torch.empty(3, size, len(weight), dtype=accumulator, device=states.device)
        for rows in _slices(len(tokens), max(size, LEAST_BLOCK)):
            places = tokens[rows]
            part = teacher[places] if isinstance(teacher, HeadInput) else teacher and teacher[rows]
            values, slope = _block(student[places], part, labels[places], settings, scratch)
            sums += values
            if wanted[0]:
                gradients[0][places] = (slope @ weight).to(states.dtype)
            if wanted[1]:
                _add_product(gradients[1], slope.T, states[places])
            if wanted[2]:
                gradients[2] += slope.sum(0)
            del slope  # before the next block is made
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
        return *scaled, None, None, None, None


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
    teacher: HeadInput | KeptShares | None,
    labels: torch.Tensor,
    settings: _Settings,
    scratch: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sums [loss, nll, word_kd] of m tokens, and the gradient of the loss by their logits, [m, V].

    The logits are computed at once, and replaced by the gradient a few tokens at a time.

    Args:
        student: states [m, H].
        teacher: of the same tokens.
        labels: [m].
        settings: of the terms.
        scratch: [3, n, V], for the work on n tokens; made once, since new memory costs a CPU more than an addition.
    """
    logits = student.logits()  # [m, V], in the precision that the head computes in
    if isinstance(teacher, HeadInput):
        teacher = teacher.logits()  # [m, V]
    sums = scratch.new_zeros(3)
    for rows in _slices(len(logits), scratch.shape[1]):
        part = logits[rows]
        gradient = part.to(scratch.dtype)  # the same memory, where the precision is the same
        with torch.autocast(logits.device.type, enabled=False):  # it would take sums over the vocabulary in half
            sums += _chunk_(
                gradient,
                None if teacher is None else teacher[rows],
                labels[rows].unsqueeze(-1),
                settings,
                scratch[:, : len(part)],
            )
        if gradient is not part:
            part.copy_(gradient)
    return sums, logits


def _chunk_(
    logits: torch.Tensor,
    teacher: torch.Tensor | KeptShares | None,
    labels: torch.Tensor,
    settings: _Settings,
    scratch: torch.Tensor,
) -> torch.Tensor:
    """Return the sums [loss, nll, word_kd] of n tokens; write the gradient of the loss over their logits, [n, V].

    Args:
        logits: [n, V], at least float32.
        teacher: its logits [n, V], or what is kept of them, or None.
        labels: [n, 1].
        settings: of the terms.
        scratch: [3, n, V].
    """
    kd, weight = settings.word_kd, settings.nll_weight
    vocabulary_size = logits.shape[-1]
    smoothing = settings.nll.label_smoothing * vocabulary_size / (vocabulary_size - 1)
    logits.sub_(logits.amax(-1, keepdim=True))  # now log p is a logit plus the logarithm of the largest p
    nll = -(1 - smoothing) * logits.gather(-1, labels)
    if smoothing > 0:
        nll -= smoothing * logits.mean(-1, keepdim=True)
    word_kd = nll.new_zeros(())
    if teacher is None:
        total = logits.exp_().sum(-1, keepdim=True)
        nll = nll + total.log()
        logits.mul_(weight / total)
    elif isinstance(teacher, KeptShares):
        total, word_kd = _kept_(logits, teacher, settings, scratch[0])
        nll = nll + total.log()
    else:
        p, tempered = _softmaxes_(logits, kd.temperature, scratch)
        nll = nll - _log_largest(p)
        log_q, q = log_softmax_(teacher.to(logits.dtype).div_(kd.temperature), out=scratch[2])
        value, slope = DIVERGENCES[kd.divergence](logits.add_(_log_largest(tempered)), tempered, log_q, q)
        slope.mul_(settings.word_kd_weight * kd.scale / kd.temperature).add_(p, alpha=weight)
        word_kd = kd.scale * value.sum()
    if weight > 0:
        logits.scatter_add_(-1, labels, torch.full_like(labels, -(1 - smoothing) * weight, dtype=logits.dtype))
        if smoothing > 0:
            logits.sub_(weight * smoothing / vocabulary_size)
    nll = nll.sum()
    return torch.stack([weight * nll + settings.word_kd_weight * word_kd, nll, word_kd])


def _kept_(
    logits: torch.Tensor, teacher: KeptShares, settings: _Settings, scratch: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sum of exponentials of each token's logits, [n, 1], and the sum of the word-level term.

    The gradient of the word-level share of the loss, and `nll_weight * p`, are written over the logits. No softmax is
    made: each exponential is multiplied with what normalises both terms. At temperature 1 they are one, and at a whole
    one `exp(x) = exp(x / temperature) ** temperature`: some products cost a CPU less than an exponential.

    Args:
        logits: [n, V], less the largest of the token.
        teacher: of the same tokens.
        settings: of the terms.
        scratch: [n, V].
    """
    kd, weight, temperature = settings.word_kd, settings.nll_weight, settings.word_kd.temperature
    words = logits.gather(-1, teacher.ids)
    is_whole = temperature == int(temperature) and temperature <= _LARGEST_POWER
    if not is_whole:
        plain = torch.exp(logits, out=scratch)
        total = plain.sum(-1, keepdim=True)
    tempered = (logits if temperature == 1 else logits.div_(temperature)).exp_()
    words = words.div_(temperature)
    at_words = words.exp()
    sum_at_words = at_words.sum(-1, keepdim=True)
    if not teacher.is_sample:
        tempered.scatter_(-1, teacher.ids, 0)  # so that the sum of the others has all its digits
    sum_tempered = tempered.sum(-1, keepdim=True)
    factor, rest_log_p = teacher.others, None
    if not teacher.is_sample:
        rest = sum_tempered
        sum_tempered = rest + sum_at_words
        rest_p = (rest / sum_tempered).clamp(min=torch.finfo(rest.dtype).tiny)
        factor, rest_log_p = 1 - teacher.others / rest_p, rest_p.log()
    if temperature == 1:
        total = sum_tempered
    elif is_whole:
        plain = _power(tempered, int(temperature), out=scratch)
        total = plain.sum(-1, keepdim=True)
        if not teacher.is_sample:
            total = total + at_words.pow(temperature).sum(-1, keepdim=True)
    value = teacher.value(words - sum_tempered.log(), rest_log_p).sum()
    scale = settings.word_kd_weight * kd.scale / temperature
    of_nll = weight / total
    of_kd = (scale / sum_tempered * factor).clamp(min=torch.finfo(logits.dtype).min)  # times 0 it is 0
    if temperature == 1:
        tempered.mul_(of_nll + of_kd)
    else:
        tempered.mul_(of_kd).addcmul_(plain, of_nll)
    if teacher.is_sample:
        tempered.scatter_add_(-1, teacher.ids, teacher.shares.mul(-scale))
    else:
        gradient = at_words.mul(scale / sum_tempered).sub_(teacher.shares, alpha=scale)
        tempered.scatter_(-1, teacher.ids, gradient.addcmul_(at_words.pow(temperature), of_nll))
    return total, kd.scale * value


def _power(values: torch.Tensor, exponent: int, out: torch.Tensor) -> torch.Tensor:
    """Return whole powers, from 2 on, by products."""
    bits = iter(f"{exponent:b}"[1:])
    torch.mul(values, values, out=out)
    if next(bits) == "1":
        out.mul_(values)
    for bit in bits:
        out.mul_(out)
        if bit == "1":
            out.mul_(values)
    return out


def _softmaxes_(logits: torch.Tensor, temperature: float, scratch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Divide logits, [n, V], by the temperature in place; return softmaxes without and with it, in the scratch.

    At temperature 1 both are one tensor. At 2 they share an exponential: `exp(x) = exp(x / 2) ** 2`.
    """
    if temperature == 1:
        p = torch.softmax(logits, -1, out=scratch[0])
        return p, p
    if temperature == 2:
        tempered = torch.softmax(logits.div_(2), -1, out=scratch[0])
        p = torch.square(tempered, out=scratch[1])
        return p.div_(p.sum(-1, keepdim=True)), tempered
    p = torch.softmax(logits, -1, out=scratch[1])
    return p, torch.softmax(logits.div_(temperature), -1, out=scratch[0])


def _log_largest(p: torch.Tensor) -> torch.Tensor:
    """[n, V] -> [n, 1]"""
    return p.amax(-1, keepdim=True).log()
