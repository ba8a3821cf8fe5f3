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
"""Losses between hidden states of student and teacher, token by token."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from nemo_distill.losses.masking import as_token_mask, at_least_float32, mean_over_tokens
from nemo_distill.losses.term import LayerPair, LayerPairsTerm


def cosine_distance(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """`1 - cos(h_s, h_t)` of each token. [N, H], [N, H] -> [N]"""
    return 1 - F.cosine_similarity(student, teacher, dim=-1)


def mean_squared_error(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean over the units of `(h_s - h_t) ** 2` of each token. [N, H], [N, H] -> [N]"""
    return (student - teacher).square().mean(-1)


DISTANCES = {"cosine": cosine_distance, "mse": mean_squared_error}


class HiddenStateLoss(nn.Module):
    """Mean over real tokens of a distance between student and teacher hidden states.

    Sources: Sanh et al. 2019 (DistilBERT, arXiv:1910.01108) for the cosine form; Jiao et al. 2020 (TinyBERT,
    arXiv:1909.10351, equation 8) for the squared error and the projection.

    Args:
        distance: `cosine` or `mse`.
        projection: applied to the student's states first, where the widths differ; trained with the student.

    Raises:
        ValueError: an unknown distance.
    """

    def __init__(self, distance: str = "cosine", projection: nn.Module | None = None) -> None:
        super().__init__()
        if distance not in DISTANCES:
            raise ValueError(f"distance must be one of {', '.join(DISTANCES)}, but got '{distance}'")
        self.distance = distance
        self.projection = projection

    def forward(self, *, student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the loss, a scalar.

        Args:
            student: [B, T, H_s] hidden states.
            teacher: [B, T, H_t] hidden states, with H_t = H_s or a projection; no gradient flows into them.
            mask: [B, T], True or 1 = real token. Padding is left out before anything is computed.

        Raises:
            ValueError: the shapes do not fit together.
        """
        comparable = student.shape[:-1] if self.projection else student.shape
        if student.ndim != 3 or comparable != teacher.shape[: len(comparable)] or teacher.ndim != 3:
            raise ValueError(
                f"student states have shape {tuple(student.shape)}, teacher states {tuple(teacher.shape)}: "
                "both must be [B, T, H] of one width, or of two with a projection"
            )
        mask = as_token_mask(mask, student.shape[:2])
        student = student[mask]  # [N, H_s]
        student = at_least_float32(self.projection(student) if self.projection else student)  # [N, H_t]
        teacher = at_least_float32(teacher[mask].detach()).to(student.dtype)  # [N, H_t]
        token_loss = DISTANCES[self.distance](student, teacher)
        return mean_over_tokens(token_loss)

    def __repr__(self) -> str:
        return f"Hidden({self.distance})"


class HiddenStateTerm(LayerPairsTerm):
    """`HiddenStateLoss` as a term of the objective: the mean over pairs of layers.

    Args:
        distance: `cosine` or `mse`.
        pairs: layers to compare, of the parts `encoder` and `decoder`.
        widths: student and teacher width of each part for which a linear projection is learnt, one for all its layers.
    """

    def __init__(
        self, distance: str, pairs: Sequence[LayerPair], widths: Mapping[str, tuple[int, int]] | None = None
    ) -> None:
        widths = widths or {}
        projections = {part: nn.Linear(*sizes, bias=False) for part, sizes in widths.items()}
        parts = dict.fromkeys(pair.part for pair in pairs)
        super().__init__(pairs, {part: HiddenStateLoss(distance, projections.get(part)) for part in parts})
        self.distance = distance
        self.widths = dict(widths)

    def __repr__(self) -> str:
        projected = [f"projected {part} {student}→{teacher}" for part, (student, teacher) in self.widths.items()]
        return f"Hidden({', '.join([self.distance, self.pairs_text(), *projected])})"
