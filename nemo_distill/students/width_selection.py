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
"""Make a slim student's tensors of a wide model's: keep the units, heads and neurons with the largest weights.

One set of residual units is chosen for the whole model, since every layer reads what the others write; heads and
feed-forward neurons are chosen layer by layer. All keep their order. Importance is the norm of the weights that read
or write a unit, as in pruning by magnitude (Li et al. 2017, arXiv:1608.08710); starting a small model from chosen
weights of a big one is weight selection (Xu et al. 2024, arXiv:2311.18823).

Fixed positions are not selected: a slimmer student has the sines and cosines of its own width. Chosen columns of the
source's lack the sine of one frequency and the cosine of another, by which attention looks a number of words
ahead or behind, and are shorter: a student of them stays behind one that started at random (docs/results.md).
"""

from collections.abc import Iterator

import torch
from nemo.collections.nlp.modules.common.transformer.transformer_modules import (
    FixedPositionalEncoding,
    MultiHeadAttention,
    PositionWiseFF,
)
from torch import nn

from nemo_distill.errors import InputError

_WRITERS = ("out_projection", "dense_out")
_READERS = ("query_net", "key_net", "value_net", "dense_in")


class WidthSelection:
    """Which units, heads and neurons of `source` a slimmer student of the same kind takes.

    Args:
        student: gives the sizes; its tensors are not changed.
        source: the wide model, built of NeMo's own modules.

    Raises:
        InputError: the student is wider than the source.
    """

    def __init__(self, student: nn.Module, source: nn.Module) -> None:
        self._student = student
        self._source = source
        self._tensors = source.state_dict()
        widths = student.decoder.hidden_size, source.decoder.hidden_size
        if source.encoder.hidden_size != widths[1]:
            raise InputError(
                f"width selection chooses the same units everywhere, but the source's encoder has "
                f"{source.encoder.hidden_size} and its decoder {widths[1]}; leave `width` out"
            )
        self._units = _largest(_unit_importance(source, widths[1]), widths[0], "hidden_size")

    def take(self, target: str, origin: str) -> torch.Tensor:
        """Return what the student's tensor `target` gets of the source's tensor `origin`.

        Raises:
            InputError: the student is wider there, or the tensor belongs to a module that is not NeMo's own.
        """
        tensor = self._tensors[origin]
        path, _, leaf = origin.rpartition(".")
        outer_path, _, part = path.rpartition(".")
        module, outer = self._source.get_submodule(path), self._source.get_submodule(outer_path)
        other = self._student.get_submodule(target.rpartition(".")[0].rpartition(".")[0])
        if isinstance(outer, MultiHeadAttention) and isinstance(other, MultiHeadAttention):
            inner = self._head_units(other, outer, "values" if part in ("value_net", "out_projection") else "queries")
            if part == "query_net":  # the student divides by the root of its own head size
                tensor = tensor * (other.attn_head_size / outer.attn_head_size) ** 0.5
        elif isinstance(outer, PositionWiseFF) and isinstance(other, PositionWiseFF):
            inner = self._neurons(other, outer)
        elif isinstance(module, nn.LayerNorm):
            return tensor[self._units]
        elif isinstance(module, nn.Embedding | FixedPositionalEncoding) or _is_head(module, self._source):
            return tensor[:, self._units] if tensor.ndim == 2 else tensor
        else:
            raise InputError(
                f"width selection knows the parts of NeMo's transformer, not {origin}, of a {type(module).__name__}; "
                "give the student the source's sizes, or leave `width` out"
            )
        rows, columns = (self._units, inner) if part in _WRITERS else (inner, self._units)
        return tensor[rows][:, columns] if leaf == "weight" else tensor[rows]

    def _head_units(self, student: MultiHeadAttention, source: MultiHeadAttention, kind: str) -> torch.Tensor:
        """The rows of the query and key projections, or those of the value projection, head by head."""
        heads, size = source.num_attention_heads, source.attn_head_size
        nets = {name: getattr(source, name) for name in ("query_net", "key_net", "value_net")}
        norms = {name: net.weight[:, self._units].square().sum(1) for name, net in nets.items()}
        written = source.out_projection.weight[self._units].square().sum(0)
        per_head = (sum(norms.values()) + written).view(heads, size).sum(1)
        chosen = _largest(per_head, student.num_attention_heads, "num_attention_heads")
        pairs = norms["query_net"] * norms["key_net"] if kind == "queries" else norms["value_net"] * written
        units = [
            head * size + _largest(pairs.view(heads, size)[head], student.attn_head_size, "the size of a head")
            for head in chosen.tolist()
        ]
        return torch.cat(units)

    def _neurons(self, student: PositionWiseFF, source: PositionWiseFF) -> torch.Tensor:
        read = source.dense_in.weight[:, self._units].square().sum(1)
        written = source.dense_out.weight[self._units].square().sum(0)
        return _largest(read * written, student.dense_in.out_features, "inner_size")


def _unit_importance(model: nn.Module, width: int) -> torch.Tensor:
    """Sum over all matrices that read or write the residual stream of each unit's share of the squared norm. [H]"""
    total = torch.zeros(width, dtype=torch.float64)
    for matrix in _stream_matrices(model):
        norms = matrix.detach().cpu().double().square().sum(1)
        total += norms / norms.sum().clamp_min(1e-30)
    return total


def _stream_matrices(model: nn.Module) -> Iterator[torch.Tensor]:
    """Yield each matrix at the residual stream, [H, ...]; a table that is shared, once."""
    seen = set()
    for path, module in model.named_modules():
        name = path.rpartition(".")[2]
        if isinstance(module, nn.Embedding) and module.weight not in seen:
            seen.add(module.weight)
            yield module.weight.T
        elif isinstance(module, nn.Linear) and name in _WRITERS + _READERS:
            yield module.weight if name in _WRITERS else module.weight.T


def _largest(importance: torch.Tensor, count: int, what: str) -> torch.Tensor:
    """Return the indices of the `count` largest entries, in ascending order."""
    if count > len(importance):
        raise InputError(
            f"width selection only makes models slimmer, but {what} is {count} in the student and {len(importance)} "
            f"in the source; give the student at most {len(importance)}"
        )
    return importance.topk(count).indices.sort().values.cpu()


def _is_head(module: nn.Module, model: nn.Module) -> bool:
    """Whether a module is the linear layer from the decoder's states to the vocabulary."""
    embedding = model.decoder.embedding.token_embedding
    return isinstance(module, nn.Linear) and module.weight.shape == embedding.weight.shape
