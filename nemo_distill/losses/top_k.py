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
"""Word-level KD where only the k most likely words of the teacher are known: KL over k + 1 outcomes.

With `q` the teacher's tempered distribution, `p` the student's, and K the k words, all other words are one outcome:
`q_R = 1 - sum_K q` and `p_R = 1 - sum_K p`. The value is `sum_K q log(q / p) + q_R log(q_R / p_R)`, at most the whole
KL, since what differs among the other words is not seen. The gradient by a student's tempered logit is `p - q` in K,
and `p (1 - q_R / p_R)` outside. The cross entropy leaves out the teacher's part, and has the same gradient.
"""

import torch
import torch.nn.functional as F

from nemo_distill.losses.divergence import WordLevelKDLoss
from nemo_distill.losses.masking import at_least_float32
from nemo_distill.losses.signals import TopKTargets


def top_k_parts(
    p: torch.Tensor, log_p_words: torch.Tensor, targets: TopKTargets, kd: WordLevelKDLoss
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return value and gradient in parts, for a caller that adds other terms to them in one pass.

    Args:
        p: [n, V], the student's tempered probabilities; set to 0 in place at the k words.
        log_p_words: [n, k], the student's tempered log-probabilities of the k words.
        targets: of the same n tokens.
        kd: temperature and divergence, `forward_kl` or `cross_entropy`: the others need every word.

    Returns:
        The value [n]; p of the k words [n, k]; the gradient by their logits [n, k]; and [n, 1], what p of the other
        words is to be multiplied with to be the gradient by theirs.
    """
    log_q, rest_q = targets.log_shares(kd.temperature, p.dtype)
    q, p_words = log_q.exp(), p.gather(-1, targets.ids)
    p.scatter_(-1, targets.ids, 0)
    rest_p = p.sum(-1).clamp(min=torch.finfo(p.dtype).tiny)
    value = _value(log_q, rest_q, log_p_words, rest_p.log(), kd.divergence)
    return value, p_words, p_words - q, (1 - rest_q / rest_p).unsqueeze(-1)


def top_k_loss(
    *, student_logits: torch.Tensor, targets: TopKTargets, mask: torch.Tensor, kd: WordLevelKDLoss
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
        log_q, rest_q = targets.log_shares(kd.temperature, log_p.dtype)
        if targets.ids.shape[-1] < log_p.shape[-1]:
            rest_log_p = log_p.scatter(-1, targets.ids, -torch.inf).logsumexp(-1)
        else:
            rest_log_p = torch.zeros_like(rest_q)
        values = _value(log_q, rest_q, log_p.gather(-1, targets.ids), rest_log_p, kd.divergence)
        return kd.scale * values.sum() / max(len(values), 1)


def _value(log_q, rest_q, log_p, rest_log_p, divergence: str) -> torch.Tensor:
    """Return the divergence of each token, [n], from [n, k] of the words and [n] of the rest."""
    q = log_q.exp()
    value = -torch.linalg.vecdot(q, log_p) - rest_q * rest_log_p
    if divergence == "forward_kl":
        value = value + torch.linalg.vecdot(q, log_q) + torch.xlogy(rest_q, rest_q)
    return value
