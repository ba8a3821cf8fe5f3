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
"""The term of a latent variable between encoder and decoder, as NeMo's `MTBottleneckModel` trains it (mim, vae)."""

from collections.abc import Callable

import torch
from torch.distributions import Normal

from nemo_distill.capture import CaptureSpec
from nemo_distill.losses.term import ObjectiveInputs, ObjectiveTerm

LATENT = CaptureSpec("latent2hidden", "input")
MEAN = CaptureSpec("hidden2latent_mean")
LOG_VARIANCE = CaptureSpec("hidden2latent_logv")


class LatentTerm(ObjectiveTerm):
    """What the loss of a bottleneck model has beside the likelihood of the target.

    With `z ~ q(z|x)` and the prior `p = N(0, 1)`: `-warmup * (log q(z|x) + log p(z)) / 2` for mim (Livne et al. 2020,
    arXiv:2003.02645), `warmup * (log q(z|x) - log p(z))` for vae (Kingma and Welling 2014, arXiv:1312.6114). Where
    `per_token`, log-probabilities are means over units and positions, as NeMo takes them, padded positions included.
    Otherwise NeMo sums over a sentence, and the likelihood too; here both are divided by the number of target tokens,
    so that the likelihood stays a mean over tokens and the ratio of the two is NeMo's.

    Args:
        kind: `mim` or `vae`.
        least_log_variance: the log-variance is not below it.
        per_token: `recon_per_token` of the model.
        warmup: gives the factor of this step, from 0 to 1.
    """

    student_captures = (LATENT, MEAN, LOG_VARIANCE)

    def __init__(self, kind: str, least_log_variance: float, per_token: bool, warmup: Callable[[], float]) -> None:
        super().__init__()
        self.kind, self.least_log_variance, self.per_token, self.warmup = kind, least_log_variance, per_token, warmup
        self.mean_over = "sentence" if per_token else "target"

    def forward(self, inputs: ObjectiveInputs) -> torch.Tensor:
        """Return the term, a scalar; sentences without a target token do not count."""
        real = inputs.mask.any(dim=1)  # [B]
        if not real.any():
            return inputs.student_captures[LATENT].sum() * 0
        z, mean, log_variance = (inputs.student_captures[spec][real].float() for spec in self.student_captures)
        log_variance = log_variance.clamp_min(self.least_log_variance)  # all three [B', P, L]
        log_q = self._mean(Normal(mean, torch.exp(0.5 * log_variance)).log_prob(z), inputs)
        log_p = self._mean(Normal(torch.zeros_like(z), torch.ones_like(z)).log_prob(z), inputs)
        term = -0.5 * (log_q + log_p) if self.kind == "mim" else log_q - log_p
        return self.warmup() * term

    def _mean(self, log_probs: torch.Tensor, inputs: ObjectiveInputs) -> torch.Tensor:
        return log_probs.mean() if self.per_token else log_probs.sum() / inputs.mask.sum()

    def __repr__(self) -> str:
        return f"Latent({self.kind})"
