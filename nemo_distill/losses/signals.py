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
"""What a model says of each target position, in one of several forms: a small type for each, and their union.

Whole logits; what enters the output head, of which the lean loss makes logits a few tokens at a time; or what a cache
keeps of the teacher's distribution: its best words, or these and a sample of the others.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class Logits:
    """Before the softmax, over the whole vocabulary."""

    values: torch.Tensor
    """[B, T, V]"""

    def __getitem__(self, tokens: torch.Tensor | slice) -> torch.Tensor:
        """Return the logits of some tokens."""
        return self.values[tokens]


@dataclass(frozen=True)
class StudentLogits(Logits):
    """A student's logits, and the log-probabilities that its forward made of them."""

    log_probs: torch.Tensor
    """[B, T, V]"""


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class TopKTargets:
    """What is kept of the teacher's distribution over the next token, for N tokens."""

    ids: torch.Tensor
    """[N, k], the k most likely words, int64."""
    logits: torch.Tensor
    """[N, k], their logits up to a constant of the token."""
    log_normaliser: torch.Tensor
    """[N], `log sum exp(logit / temperature)` over all words, same constant, at the loss's temperature."""

    def __getitem__(self, tokens: torch.Tensor | slice) -> "TopKTargets":
        """Return the targets of some tokens."""
        return TopKTargets(self.ids[tokens], self.logits[tokens], self.log_normaliser[tokens])

    def log_shares(self, temperature: float, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Return log q of the k words, [N, k], and q of all others together, [N].

        Rounded logits may sum to a little more than 1; then they are scaled to 1, and the others have 0.
        """
        log_q = self.logits.to(dtype) / temperature - self.log_normaliser.to(dtype).unsqueeze(-1)
        total = log_q.exp().sum(-1)
        return log_q - total.clamp(min=1).log().unsqueeze(-1), (1 - total).clamp(min=0)


@dataclass(frozen=True)
class SampledTargets:
    """Some words of the teacher's distribution, whose weighted shares are in the mean the whole one, for N tokens."""

    ids: torch.Tensor
    """[N, k], int64."""
    log_shares: torch.Tensor
    """[N, k], their log q at the loss's temperature."""
    weights: torch.Tensor
    """[N, k], 1 through the chance that the word is among them: 1 for the most likely ones; 0 where there is none."""

    def __getitem__(self, tokens: torch.Tensor | slice) -> "SampledTargets":
        """Return the targets of some tokens."""
        return SampledTargets(self.ids[tokens], self.log_shares[tokens], self.weights[tokens])

    def noise(self) -> torch.Tensor:
        """Return how far the draws are from the whole distribution q: E ||weight q - q||^2 of each token, [N].

        Estimated without bias from the words that were drawn, as their sum of `q^2 (1 / chance - 1)` is (Horvitz and
        Thompson, 1952).
        """
        q, weights = self.log_shares.double().exp(), self.weights.double()
        return (q.square() * weights * (weights - 1)).sum(-1)


KeptTargets = TopKTargets | SampledTargets
"""What a cache keeps of a distribution."""
StudentSignal = StudentLogits | HeadInput
TeacherSignal = Logits | HeadInput | KeptTargets
