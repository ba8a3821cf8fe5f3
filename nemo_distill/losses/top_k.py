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
"""Word-level KD from what a cache keeps of the teacher's distribution.

With `q` the teacher's tempered distribution and `p` the student's:

Of the k most likely words K, all others are one outcome, `q_R = 1 - sum_K q` and `p_R = 1 - sum_K p`. The value is
`sum_K q log(q / p) + q_R log(q_R / p_R)`, at most the whole KL, since what differs among the other words is not seen.
The gradient by a student's tempered logit is `p - q` in K, and `p (1 - q_R / p_R)` outside.

Of a sample with weights, `e_k = q_k / chance of k` in the sample and 0 elsewhere, the value is
`sum_k e_k log(q_k / p_k)` and the gradient `p sum_k e_k - e`. In the mean over samples they are the whole KL and its
gradient `p - q` (Anshumann et al. 2025, arXiv:2503.16870, who draw with replacement; the estimate is that of Horvitz
and Thompson, 1952).

The cross entropy leaves out the teacher's part of the value, and has the same gradient.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from nemo_distill.losses.divergence import WordLevelKDLoss
from nemo_distill.losses.masking import at_least_float32
from nemo_distill.losses.signals import KeptTargets, SampledTargets


@dataclass(frozen=True)
class KeptShares:
    """What the loss needs of the teacher alone, for n tokens; computed once for all tokens of a batch."""

    ids: torch.Tensor
    """[n, k]"""
    shares: torch.Tensor
    """[n, k], q of each of the best words; of a sample, its estimate of q."""
    teachers_part: torch.Tensor
    """[n, 1], what the teacher alone adds to the value; 0 for the cross entropy."""
    others: torch.Tensor
    """[n, 1], q of all other words; of a sample, the sum of `shares`."""
    is_sample: bool

    def __getitem__(self, tokens: slice) -> "KeptShares":
        """Return the shares of some tokens."""
        parts = (self.ids, self.shares, self.teachers_part, self.others)
        return KeptShares(*(part[tokens] for part in parts), self.is_sample)

    def value(self, log_p_words: torch.Tensor, rest_log_p: torch.Tensor | None) -> torch.Tensor:
        """Return the divergence of each token, [n].

        Args:
            log_p_words: [n, k], the student's tempered log-probabilities of the words.
            rest_log_p: [n, 1], that of all others; not read of a sample.
        """
        value = self.teachers_part.squeeze(-1) - torch.linalg.vecdot(self.shares, log_p_words)
        return value if self.is_sample else value - (self.others * rest_log_p).squeeze(-1)


def kept_shares(targets: KeptTargets, kd: WordLevelKDLoss, dtype: torch.dtype) -> KeptShares:
    """Return what the loss needs of the teacher.

    Args:
        targets: of n tokens.
        kd: temperature and divergence, `forward_kl` or `cross_entropy`: the others need every word.
        dtype: of the result.
    """
    if is_sample := isinstance(targets, SampledTargets):
        log_q = targets.log_shares.to(dtype)
        shares = targets.weights.to(dtype) * log_q.exp()
        others = shares.sum(-1, keepdim=True)
        of_others = torch.zeros_like(others)
    else:
        log_q, others = targets.log_shares(kd.temperature, dtype)
        shares, others = log_q.exp(), others.unsqueeze(-1)
        of_others = torch.xlogy(others, others)
    own = torch.linalg.vecdot(shares, log_q).unsqueeze(-1) + of_others
    return KeptShares(
        targets.ids, shares, own if kd.divergence == "forward_kl" else torch.zeros_like(own), others, is_sample
    )


def kept_loss(
    *, student_logits: torch.Tensor, targets: KeptTargets, mask: torch.Tensor, kd: WordLevelKDLoss
) -> torch.Tensor:
    """Return the word-level term from whole logits, a scalar; autograd finds the gradient.

    Args:
        student_logits: [B, T, V], before any softmax.
        targets: of the real tokens, row by row.
        mask: [B, T], True = real token.
        kd: temperature, divergence and scale.
    """
    with torch.autocast(student_logits.device.type, enabled=False):  # it would take sums over the words in half
        log_p = F.log_softmax(at_least_float32(student_logits[mask]) / kd.temperature, dim=-1)  # [N, V]
        kept, rest = kept_shares(targets, kd, log_p.dtype), None
        if not kept.is_sample and kept.ids.shape[-1] < log_p.shape[-1]:
            rest = log_p.scatter(-1, kept.ids, -torch.inf).logsumexp(-1, keepdim=True)
        elif not kept.is_sample:
            rest = torch.zeros_like(kept.others)
        values = kept.value(log_p.gather(-1, kept.ids), rest)
        return kd.scale * values.sum() / max(len(values), 1)
