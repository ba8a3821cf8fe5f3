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
"""What several processes must agree on: how much each one's tokens count, and what is logged.

DDP takes the mean of the processes' gradients. A process with few real tokens would so count as much as one with many;
`token_factors` makes up for that.
"""

from collections.abc import Mapping
from typing import TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")


def world_size() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def token_factors(masks: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor | float]:
    """Return what to multiply this process's means over tokens with, so that their mean over processes is right.

    With n tokens here and N in all W processes the factor is `n * W / N`: the mean over processes of `factor * mean`
    is then the sum over all tokens divided by N, for values and for the gradients that DDP averages. One process has
    the factor 1; where no process has a token, all have 0. All processes must call this together.

    Args:
        masks: [B, T] by name; True = real token.
    """
    if world_size() == 1:
        return dict.fromkeys(masks, 1.0)
    counts = torch.stack([mask.sum() for mask in masks.values()]).float()
    totals = counts.clone()
    dist.all_reduce(totals)
    return dict(zip(masks, (counts * world_size() / totals.clamp(min=1)).unbind(), strict=True))


def mean_over_processes(values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the mean of each scalar over all processes, without a gradient; all processes must call this together."""
    means = torch.stack([value.detach().float() for value in values.values()])
    if world_size() > 1:
        dist.all_reduce(means)
        means /= world_size()
    return dict(zip(values, means.unbind(), strict=True))


def gather(own: T) -> list[T]:
    """Return what every process gives, by rank; all processes must call this together."""
    if world_size() == 1:
        return [own]
    found = [None] * world_size()
    dist.all_gather_object(found, own)
    return found
