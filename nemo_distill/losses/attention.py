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
"""Losses between attention maps of student and teacher, query token by query token."""

from collections.abc import Sequence

import torch
from torch import nn

from nemo_distill.losses.masking import as_token_mask, at_least_float32, mean_over_tokens
from nemo_distill.losses.term import LayerPair, LayerPairsTerm

# Attention below this counts as this: the logarithm of an underflown 0 would be infinite.
_LEAST_ATTENTION = 1e-12


def kl_divergence(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """`Σ_k ā_t (log ā_t - log ā_s)` of each query token. [N, K], [N, K] -> [N]"""
    logarithms = [attention.clamp_min(_LEAST_ATTENTION).log() for attention in (teacher, student)]
    return (teacher * (logarithms[0] - logarithms[1])).sum(-1)


def squared_error(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """`Σ_k (ā_t - ā_s) ** 2` of each query token: a sum, so that padded keys change nothing. [N, K], [N, K] -> [N]"""
    return (teacher - student).square().sum(-1)


ATTENTION_DISTANCES = {"kl": kl_divergence, "mse": squared_error}


class AttentionMapLoss(nn.Module):
    """Mean over real query tokens of a distance between the two models' attention, each averaged over its heads.

    With `a[h, q, k]` the attention of head h from query q to key k and `ā = mean_h a`, which is a distribution over
    keys too: `KL(ā_t || ā_s)` or `Σ_k (ā_t - ā_s) ** 2`, so models with different numbers of heads can be compared.

    Sources: the KL form is that of Wang et al. 2020 (MiniLM, arXiv:2002.10957, equation 5), the squared error that of
    Jiao et al. 2020 (TinyBERT, arXiv:1909.10351, equation 7). Both compare head by head; the mean over heads is ours.

    Args:
        distance: `kl` or `mse`.

    Raises:
        ValueError: an unknown distance.
    """

    def __init__(self, distance: str = "kl") -> None:
        super().__init__()
        if distance not in ATTENTION_DISTANCES:
            raise ValueError(f"distance must be one of {', '.join(ATTENTION_DISTANCES)}, but got '{distance}'")
        self.distance = distance

    def forward(self, *, student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the loss, a scalar.

        Args:
            student: [B, A_s, Q, K], attention of each head, after the softmax and before any dropout.
            teacher: [B, A_t, Q, K]; no gradient flows into it.
            mask: [B, Q], True or 1 = real query token.

        Raises:
            ValueError: the shapes do not fit together.
        """
        shapes = [(tensor.shape[0], *tensor.shape[2:]) for tensor in (student, teacher) if tensor.ndim == 4]
        if len(shapes) != 2 or shapes[0] != shapes[1]:
            raise ValueError(
                f"student attention has shape {tuple(student.shape)}, teacher attention {tuple(teacher.shape)}: "
                "both must be [B, heads, queries, keys], equal but for the heads"
            )
        mask = as_token_mask(mask, student.shape[:1] + student.shape[2:3])
        student = at_least_float32(student).mean(1)[mask]  # [N, K]
        teacher = at_least_float32(teacher.detach()).mean(1)[mask].to(student.dtype)  # [N, K]
        return mean_over_tokens(ATTENTION_DISTANCES[self.distance](student, teacher))

    def __repr__(self) -> str:
        return f"Attention({self.distance})"


class AttentionTerm(LayerPairsTerm):
    """`AttentionMapLoss` as a term of the objective: the mean over pairs of layers.

    Args:
        distance: `kl` or `mse`.
        pairs: layers to compare, of the parts `encoder`, `decoder` and `cross`.
    """

    def __init__(self, distance: str, pairs: Sequence[LayerPair]) -> None:
        parts = dict.fromkeys(pair.part for pair in pairs)
        super().__init__(pairs, {part: AttentionMapLoss(distance) for part in parts})
        self.distance = distance

    def __repr__(self) -> str:
        return f"Attention({self.distance}, {self.pairs_text()})"
