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
"""Where a loss that is NaN or infinite comes from."""

import torch

from nemo_distill.losses.signals import HeadInput, KeptTargets
from nemo_distill.losses.term import ObjectiveInputs


def name_non_finite(inputs: ObjectiveInputs, terms: dict[str, torch.Tensor], step: int) -> str:
    """Say which model a loss that is not finite comes from; `terms` are its parts, `step` the number of the step."""
    values = ", ".join(f"{name} {term.item():.4g}" for name, term in terms.items())
    for owner, signal in (("teacher", inputs.teacher), ("student", inputs.student)):
        if signal is None or isinstance(signal, KeptTargets):  # a cache was checked when it was written
            continue
        found = signal[inputs.mask]
        logits = found.logits() if isinstance(found, HeadInput) else found  # [N, V]
        bad_tokens = int((~torch.isfinite(logits)).any(-1).sum())
        if bad_tokens:
            fix = (
                "check the teacher's archive, for example with `nemo-distill evaluate`"
                if owner == "teacher"
                else "lower the learning rate, warm up longer or clip gradients (trainer.gradient_clip_val)"
            )
            return (
                f"step {step}: the {owner}'s logits are NaN or infinite for {bad_tokens} of {int(inputs.mask.sum())} "
                f"tokens ({values}); training stops. To go on: {fix}"
            )
    return f"step {step}: the loss is not finite ({values}) though both models' logits are; training stops"
