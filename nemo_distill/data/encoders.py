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
"""What differs between the encoders of translation models: how long a source may be, what the decoder reads of it.

The encoder may be NeMo's or of Hugging Face; in a bottleneck model (`MTBottleneckModel`) a latent representation lies
between it and the decoder, with positions of its own unless `encoder.arch` is `seq2seq`. Models are told apart by what
they have, so that classes of a user's own are served too.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

UNBOUNDED = 1 << 20
"""Longest source of an encoder that names no limit."""


def is_latent(model: nn.Module) -> bool:
    """Return whether the decoder reads a latent representation in place of the encoder's states."""
    return hasattr(model, "encode_latent") and hasattr(model, "latent2hidden")


def depends_on_padding(model: nn.Module) -> bool:
    """Return whether padding changes what the decoder reads: pooling encoders halve the padded length again and again.

    What such a model says of a sentence alone it says in batches of sources of equal length only.
    """
    return getattr(model.encoder, "arch", None) in ("max_pool", "avg_pool")


def longest_source(model: nn.Module) -> int:
    """Return the most tokens of a source, start and end token included.

    Of an encoder of Hugging Face that is the size of its table of positions, of which RoBERTa and its kin leave the
    first `pad_token_id + 1` rows out.
    """
    encoder = model.encoder
    longest = getattr(encoder, "max_sequence_length", None)
    if longest is not None:
        return longest
    inner = getattr(encoder, "_encoder", encoder)
    table = getattr(getattr(inner, "embeddings", None), "position_embeddings", None)
    if isinstance(table, nn.Embedding):
        return table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)
    return getattr(getattr(inner, "config", None), "max_position_embeddings", None) or UNBOUNDED


def longest_target(model: nn.Module) -> int:
    """Return the most tokens that a decoder reads of a target, start token included."""
    return getattr(model.decoder, "max_sequence_length", None) or UNBOUNDED


def target_log_probs(output: Tensor | tuple) -> Tensor:
    """Return the log-probabilities, [B, T, V], of what a model's forward gives: them alone, or last in a tuple."""
    return output[-1] if isinstance(output, tuple) else output


@contextmanager
def mean_latent(model: nn.Module) -> Iterator[None]:
    """A model with a latent variable (mim, vae) takes its mean inside the block; NeMo draws it, in eval mode too."""
    if not is_latent(model) or getattr(model, "model_type", "nll") == "nll":
        yield
        return

    def encode_latent(hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean = model.hidden2latent_mean(hidden)
        return mean, mean, torch.zeros_like(mean)

    model.encode_latent = encode_latent
    try:
        yield
    finally:
        del model.encode_latent
