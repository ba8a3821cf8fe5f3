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
"""Sampling translations such that a draw depends on its own sentence, number and seed alone, never on the batch."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from nemo_distill.decoding.engine import SearchSettings
from nemo_distill.decoding.search import BatchIndependentBeamSearch


def sample(
    search: BatchIndependentBeamSearch,
    encoder_hidden_states: Tensor,
    encoder_input_mask: Tensor,
    sentences: Sequence[str],
    settings: SearchSettings,
) -> tuple[Tensor, Tensor]:
    """Draw `settings.num_hypotheses` translations of each sentence, token by token.

    Top-k sampling (Fan et al. 2018, https://arxiv.org/abs/1805.04833) or nucleus sampling (Holtzman et al. 2020,
    https://arxiv.org/abs/1904.09751).

    Args:
        search: gives the steps and the limits; its beam is not used.
        encoder_hidden_states: [B, T, H] encoder output.
        encoder_input_mask: [B, T], 1 at real tokens and 0 at padding.
        sentences: the B sentences; each seeds its own draws.
        settings: `search` is `top_k` or `top_p`.

    Returns:
        tokens [B, N, L], start token included, padded after an end; and the sums of their log-probabilities [B, N],
        of the model itself, whatever temperature and choice they were drawn with.
    """
    count, device = settings.num_hypotheses, encoder_hidden_states.device
    limits = search.limits(encoder_input_mask).repeat_interleave(count)  # [R], R = B * N
    longest = int(limits.max())
    uniform = _uniform_numbers(sentences, count, longest, settings.seed).to(device)  # [R, longest]
    tokens = torch.full((len(limits), longest + 1), search.pad, dtype=torch.long, device=device)
    tokens[:, 0] = search.bos
    scores = torch.zeros(len(limits), device=device)
    rows = torch.arange(len(limits), device=device)  # those that go on
    memories = None
    for position in range(longest):
        places = rows // count
        log_probabilities, memories = search._one_step_forward(
            tokens[rows, position : position + 1],
            encoder_hidden_states[places],
            encoder_input_mask[places],
            memories,
            position,
        )
        log_probabilities = log_probabilities[:, -1].float()  # [R', V]
        chosen = _draw(log_probabilities, uniform[rows, position], settings)  # [R']
        tokens[rows, position + 1] = chosen
        scores[rows] += log_probabilities.gather(1, chosen.unsqueeze(1)).squeeze(1)
        going_on = (chosen != search.eos) & (chosen != search.pad) & (position + 1 < limits[rows])
        if not going_on.any():
            break
        rows = rows[going_on]
        memories = [memory[going_on] for memory in memories]
    return tokens[:, : position + 2].view(len(sentences), count, -1), scores.view(len(sentences), count)


def _uniform_numbers(sentences: Sequence[str], count: int, length: int, seed: int) -> Tensor:
    """Return [B * N, length] numbers in [0, 1), each row a function of seed, sentence and number of the hypothesis."""
    rows = []
    for sentence in sentences:
        for number in range(count):
            digest = hashlib.sha256(f"{seed}\n{number}\n{sentence}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))
            rows.append(torch.rand(length, generator=generator, dtype=torch.float64))
    return torch.stack(rows)


def _draw(log_probabilities: Tensor, uniform: Tensor, settings: SearchSettings) -> Tensor:
    """Return [R], one token for each row of log-probabilities [R, V], by inversion with numbers in [0, 1) [R]."""
    probabilities = (log_probabilities.double() / settings.temperature).softmax(dim=1)
    if settings.search == "top_k":
        kept = probabilities.topk(settings.top_k, dim=1).indices
        allowed = torch.zeros_like(probabilities, dtype=torch.bool).scatter(1, kept, True)
    else:
        ordered, indices = probabilities.sort(dim=1, descending=True)
        before = ordered.cumsum(dim=1) - ordered
        allowed = torch.zeros_like(probabilities, dtype=torch.bool).scatter(1, indices, before < settings.top_p)
    # summed in the order of the vocabulary, so that two tokens equally likely cannot change places
    cumulative = probabilities.masked_fill(~allowed, 0.0).cumsum(dim=1)
    drawn = torch.searchsorted(cumulative, uniform.unsqueeze(1) * cumulative[:, -1:], right=True)
    return drawn.clamp(max=log_probabilities.shape[1] - 1).squeeze(1)
