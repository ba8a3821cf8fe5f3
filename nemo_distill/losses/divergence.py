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
"""Losses between distributions over the vocabulary: the NLL of the labels, and word-level distillation.

Notation: `z` teacher logits, `w` student logits, `q = softmax(z / temperature)`, `p = softmax(w / temperature)`.
"""

import math

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from nemo_distill.losses.masking import as_token_mask, at_least_float32, mean_over_tokens


def forward_kl(log_p, p, log_q, q) -> tuple[torch.Tensor, torch.Tensor]:
    """`KL(q || p)`: the student must cover all that the teacher finds likely; its gradient is `p - q`."""
    return _kl_(log_q, q, log_p), torch.sub(p, q, out=log_p)


def cross_entropy(log_p, p, log_q, q) -> tuple[torch.Tensor, torch.Tensor]:
    """`-sum_k q_k log p_k`: forward KL plus the teacher's entropy, hence the same gradient `p - q`."""
    return -torch.linalg.vecdot(q, log_p), torch.sub(p, q, out=log_p)


def reverse_kl(log_p, p, log_q, q) -> tuple[torch.Tensor, torch.Tensor]:
    """`KL(p || q)`: the student may keep to one of the teacher's modes; gradient `p (log p - log q - KL)`."""
    difference = log_p.sub_(log_q)
    value = torch.linalg.vecdot(p, difference)
    return value, difference.sub_(value.unsqueeze(-1)).mul_(p)


def jensen_shannon(log_p, p, log_q, q) -> tuple[torch.Tensor, torch.Tensor]:
    """`KL(q || m) / 2 + KL(p || m) / 2` with `m = (p + q) / 2`: symmetric, at most log 2.

    Its gradient is `p (log p - log m - KL(p || m)) / 2`: what `q` and `m` add to `dJS / dp` is a constant.
    """
    mixture = torch.logaddexp(log_p, log_q).sub_(math.log(2))
    other = _kl_(log_q, q, mixture)
    difference = log_p.sub_(mixture)
    own = torch.linalg.vecdot(p, difference)  # KL(p || m)
    return (own + other) / 2, difference.sub_(own.unsqueeze(-1)).mul_(p).div_(2)


def _kl_(log_a: torch.Tensor, a: torch.Tensor, log_b: torch.Tensor) -> torch.Tensor:
    """`KL(a || b)` of each token, [N]; a word that `a` rules out, log a = -inf, adds 0 rather than NaN."""
    return torch.linalg.vecdot(a, log_a.clamp_(min=torch.finfo(log_a.dtype).min).sub_(log_b))


DIVERGENCES = {
    "forward_kl": forward_kl,
    "cross_entropy": cross_entropy,
    "reverse_kl": reverse_kl,
    "jensen_shannon": jensen_shannon,
}
"""Each takes log p, p, log q and q of student and teacher, all [N, V], and returns its value for each token, [N], and
its gradient by the student's (tempered) logits, [N, V]. It writes over both logarithms and leaves p and q alone."""

# Logits of one chunk: what a processor's cache holds, and what keeps a GPU busy while the next kernels are started.
_CHUNK_ELEMENTS = 2**19
_CHUNK_ELEMENTS_GPU = 2**25


def tokens_per_chunk(vocabulary_size: int, device: torch.device) -> int:
    """Number of tokens whose logits are worked on at a time."""
    elements = _CHUNK_ELEMENTS if device.type == "cpu" else _CHUNK_ELEMENTS_GPU
    return max(elements // vocabulary_size, 1)


def log_softmax_(logits: torch.Tensor, out: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn logits, [n, V], into log-probabilities in place; return these and the probabilities.

    Each logit is exponentiated once, which on a CPU is what costs.
    """
    logits.sub_(logits.amax(-1, keepdim=True))
    probabilities = torch.softmax(logits, -1, out=out)
    return logits.add_(probabilities.amax(-1, keepdim=True).log()), probabilities


class _TemperedDivergence(torch.autograd.Function):
    """Sum over tokens of a divergence between tempered distributions, computed a few tokens at a time.

    Value and gradient of a chunk are computed together, while its distributions lie in the cache; of all chunks only
    the gradient is kept. That is faster on a CPU, and takes less memory, than to let autograd keep every intermediate
    [N, V] for the backward pass. There is no second derivative.
    """

    @staticmethod
    def forward(ctx, student, teacher, tokens, temperature, divergence) -> torch.Tensor:
        """Student [M, V] logits, teacher [M, V] logits, tokens [N] places among M -> scalar"""
        gradient = None
        if ctx.needs_input_grad[0]:
            padding = torch.ones(len(student), dtype=torch.bool, device=student.device).index_fill(0, tokens, False)
            gradient = torch.empty_like(student)
            gradient[padding] = 0
        total = student.new_zeros((), dtype=torch.promote_types(student.dtype, torch.float32))
        for places in tokens.split(tokens_per_chunk(student.shape[1], student.device)):
            student_chunk = at_least_float32(student[places])  # [n, V], a copy, hence divided in place
            teacher_chunk = teacher[places].to(student_chunk.dtype)
            distributions = [log_softmax_(chunk.div_(temperature)) for chunk in (student_chunk, teacher_chunk)]
            with torch.autocast(student.device.type, enabled=False):  # it would take sums over the vocabulary in half
                value, slope = divergence(*distributions[0], *distributions[1])
            total += value.sum()
            if gradient is not None:
                gradient[places] = slope.div_(temperature).to(gradient.dtype)
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output: torch.Tensor) -> tuple:
        """Scale the gradient that the forward pass computed."""
        (gradient,) = ctx.saved_tensors
        return gradient * grad_output.to(gradient.dtype), None, None, None, None


class WordLevelKDLoss(nn.Module):
    """Word-level knowledge distillation: a divergence between tempered teacher and student distributions.

    The mean over real tokens of `D(softmax(z / temperature), softmax(w / temperature))`, times `temperature ** 2`
    when scaling. The gradient of the unscaled forward KL is `(p - q) / temperature`, which for a high temperature
    and zero-mean logits tends to `(w - z) / (V * temperature ** 2)`; the scale makes up for that, so that a weight
    keeps its meaning when the temperature changes.

    Sources: Hinton et al. 2015 (arXiv:1503.02531) for the temperature and its square; Kim & Rush 2016
    (arXiv:1606.07947) for the word-level loss of translation models; Agarwal et al. 2024 (arXiv:2306.13649) for the
    reverse KL and Jensen-Shannon forms.

    Args:
        temperature: above 0; 1 leaves the distributions as they are.
        divergence: `forward_kl`, `cross_entropy`, `reverse_kl` or `jensen_shannon`.
        scale_by_temperature: multiply by `temperature ** 2`.

    Raises:
        ValueError: a temperature that is not a finite number above 0, or an unknown divergence.

    Example:
        >>> loss = WordLevelKDLoss(temperature=2.0)
        >>> value = loss(student_logits=w, teacher_logits=z, mask=labels != pad_id)  # doctest: +SKIP
    """

    def __init__(
        self, temperature: float = 1.0, divergence: str = "forward_kl", scale_by_temperature: bool = True
    ) -> None:
        super().__init__()
        if not (math.isfinite(temperature) and temperature > 0):
            raise ValueError(f"temperature must be a finite number above 0, but got {temperature}")
        if divergence not in DIVERGENCES:
            raise ValueError(f"divergence must be one of {', '.join(DIVERGENCES)}, but got '{divergence}'")
        self.temperature = temperature
        self.divergence = divergence
        self.scale_by_temperature = scale_by_temperature

    def forward(
        self, *, student_logits: torch.Tensor, teacher_logits: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        """Return the loss, a scalar.

        Args:
            student_logits: [B, T, V], before any softmax.
            teacher_logits: [B, T, V]; no gradient flows into them.
            mask: [B, T], True or 1 = real token. Padding is left out before anything is computed, so whatever
                stands there, even a NaN, changes neither value nor gradient.

        Raises:
            ValueError: the shapes do not fit together.
        """
        if student_logits.shape != teacher_logits.shape or student_logits.ndim != 3:
            raise ValueError(
                f"student logits have shape {tuple(student_logits.shape)}, teacher logits "
                f"{tuple(teacher_logits.shape)}: both must be [B, T, V] over one vocabulary"
            )
        mask = as_token_mask(mask, student_logits.shape[:2])
        tokens = mask.flatten().nonzero().squeeze(1)  # [N]
        total = _TemperedDivergence.apply(
            student_logits.flatten(0, 1),
            teacher_logits.detach().flatten(0, 1),
            tokens,
            self.temperature,
            DIVERGENCES[self.divergence],
        )
        return total * (self.scale / max(tokens.numel(), 1))

    @property
    def scale(self) -> float:
        """Factor of the divergence: `temperature ** 2`, or 1."""
        return self.temperature**2 if self.scale_by_temperature else 1.0

    def __repr__(self) -> str:
        scale = "" if self.scale_by_temperature or self.temperature == 1 else ", unscaled"
        return f"WordKD({self.divergence}, τ={self.temperature:g}{scale})"


class NLLLoss(nn.Module):
    """Mean over real tokens of `-log p(label)`, optionally with label smoothing as in NeMo.

    Smoothing gives the share `label_smoothing` of the target mass evenly to the other words (Szegedy et al. 2016,
    arXiv:1512.00567). While distilling it should be 0 (Müller et al. 2019, arXiv:1906.02629).

    Args:
        label_smoothing: from 0 up to, but not including, 1.

    Raises:
        ValueError: a smoothing outside [0, 1).
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), but got {label_smoothing}")
        self.label_smoothing = label_smoothing

    def forward(self, *, log_probs: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the loss, a scalar.

        Args:
            log_probs: [B, T, V], log-probabilities.
            labels: [B, T], token ids; where `mask` is False they may be any valid id.
            mask: [B, T], True or 1 = real token.

        Raises:
            ValueError: the shapes do not fit together.
        """
        if log_probs.ndim != 3 or log_probs.shape[:2] != labels.shape:
            raise ValueError(
                f"log-probabilities have shape {tuple(log_probs.shape)}, labels {tuple(labels.shape)}: they must be "
                "[B, T, V] and [B, T]"
            )
        mask = as_token_mask(mask, labels.shape)
        token_loss = -log_probs.gather(-1, labels.unsqueeze(-1)).squeeze(-1)[mask]  # [N]
        if self.label_smoothing > 0:
            vocabulary_size = log_probs.shape[-1]
            smoothing = self.label_smoothing * vocabulary_size / (vocabulary_size - 1)
            token_loss = (1 - smoothing) * token_loss - smoothing * log_probs[mask].mean(-1)
        return mean_over_tokens(at_least_float32(token_loss))

    def __repr__(self) -> str:
        return f"NLL(label_smoothing={self.label_smoothing:g})" if self.label_smoothing else "NLL"
