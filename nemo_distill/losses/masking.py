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
"""One normaliser for every token-level loss: the sum over real tokens divided by their number."""

import torch


def as_token_mask(mask: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Return `mask` as booleans of `shape`, [B, T]; True (or 1) marks a real token.

    Raises:
        ValueError: the mask has another shape.
    """
    if mask.shape != shape:
        raise ValueError(f"mask has shape {tuple(mask.shape)}, but the tokens have shape {tuple(shape)}")
    return mask.bool()


def mean_over_tokens(token_loss: torch.Tensor) -> torch.Tensor:
    """Mean of `token_loss`, [N], the losses of the real tokens; 0, with a zero gradient, where N is 0."""
    return token_loss.sum() / max(token_loss.numel(), 1)


def at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    """Half-precision tensors as float32, others as they are: a softmax over a vocabulary needs the digits."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
