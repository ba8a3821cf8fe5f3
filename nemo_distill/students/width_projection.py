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
"""A slim student from a wide model: its residual stream is the wide one's, projected.

What the wide model's `H` units say is read and written by matrices `A` of `H` rows: embeddings, the projections of
attention and feed-forward blocks, positions. The student's `h` units are directions of that space, the columns of `P`
[H, h]: the leading eigenvectors of the sum of `A A^T / tr(A A^T)`, which keep the most of all these matrices. A matrix
that writes becomes `P^T A`, one that reads `A P`. Directions rather than chosen units, as SliceGPT (Ashkboos et al.
2024, arXiv:2401.15024) takes them of activations; here they are of the weights, so no text is needed.

- A norm takes the mean over units off, so neither the matrices nor `P` have one: the columns are turned by a cosine
  transform without its constant row, after which the student's own norm finds a mean of 0.
- Fixed positions are the student's own sines and cosines: a mixture of the wide model's is neither as long nor as
  regular, by which attention looks a number of words ahead or behind. The directions are turned so that the wide
  model's positions, projected, come to lie where the student's are (orthogonal Procrustes, Schoenemann 1966).
- A norm divides by a deviation that is about `(share kept * H / h)^1/2` as large, the share being that of the words'
  vectors, which its weight makes up for. Where matrices alone read a norm (pre-LN), its weight and bias go into these,
  since a weight for each unit cannot be turned.
- A head's scores are `x^T Q^T K y`, and what it writes is `O V y`: both are cut to the student's size of a head by
  their singular values, the best of that rank (Eckart and Young 1936). Heads with the largest such products are kept.
- Feed-forward neurons are chosen by what they write on average: the squared norm of their weights out times the second
  moment of their activation, which before its ReLU is taken to be normal, as of units that a norm gives a variance of
  1. Trained neurons are silent for most words, and some for all; where their weights are large nevertheless, a choice
  by weights alone (Li et al. 2017, arXiv:1608.08710) keeps them. A neuron that is hardly ever active hardly learns:
  one that is kept for want of others, active below `_RARE` of the time and with less than `_QUIET` of an equal share
  of what is written, gets the student's own random weights in and none out. It says as little, and can learn.
"""

import itertools
import math
from collections.abc import Callable, Iterator

import torch
from nemo.collections.nlp.modules.common.transformer.transformer_modules import (
    FixedPositionalEncoding,
    MultiHeadAttention,
    PositionWiseFF,
)
from torch import nn

from nemo_distill.errors import InputError

_ATTENTION = ("query_net", "key_net", "value_net", "out_projection")
_FEED_FORWARD = ("dense_in", "dense_out")
_WRITERS = ("out_projection", "dense_out")
_READERS = ("query_net", "key_net", "value_net", "dense_in")
_TINY = 1e-30
_ALIGNED = 64
"""How many positions, from the first, are brought to lie on the student's."""
_RARE, _QUIET = 0.01, 0.3
"""Of words that wake a neuron, and of an equal share of what a block writes: below both, it is replaced."""


class WidthProjection:
    """The tensors of `source` for a slimmer student of the same kind.

    A student of the same sizes gets them as they are.

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
        self._dtypes = {name: tensor.dtype for name, tensor in student.state_dict().items()}
        widths = student.decoder.hidden_size, source.decoder.hidden_size
        if source.encoder.hidden_size != widths[1]:
            raise InputError(
                f"width projection takes the same directions everywhere, but the source's encoder has "
                f"{source.encoder.hidden_size} and its decoder {widths[1]}; leave `width` out"
            )
        _check_slimmer(widths[0], widths[1], "hidden_size")
        self._norms_read = _norms_before(source)
        self._norms = self._norms_read if widths[0] < widths[1] else {}
        self._basis, kept = _basis(student, source, self._norms)  # [H, h]
        self._scale = math.sqrt(kept * widths[1] / widths[0])
        self._sub_layers: dict[str, dict[str, torch.Tensor]] = {}

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
        if part in _ATTENTION and isinstance(outer, MultiHeadAttention) and isinstance(other, MultiHeadAttention):
            value = self._sub_layer(self._attention, outer_path, other)[f"{part}.{leaf}"]
        elif part in _FEED_FORWARD and isinstance(outer, PositionWiseFF) and isinstance(other, PositionWiseFF):
            value = self._sub_layer(self._feed_forward, outer_path, other)[f"{part}.{leaf}"]
        elif module in self._norms.values():
            value = torch.full((self._basis.shape[1],), float(leaf == "weight"))
        elif isinstance(module, nn.LayerNorm) and leaf == "weight":
            shares = self._basis.square()
            value = self._scale * (_exact(tensor) @ shares) / shares.sum(0)
        elif isinstance(module, nn.LayerNorm | nn.Embedding | FixedPositionalEncoding):
            value = self._projected(tensor)
        elif _is_head(module, self._source):
            value = self._projected(tensor) if leaf == "weight" else tensor
        else:
            raise InputError(
                f"width projection knows the parts of NeMo's transformer, not {origin}, of a {type(module).__name__}; "
                "give the student the source's sizes, or leave `width` out"
            )
        return value.to(self._dtypes[target])

    def _projected(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return `A P` of a tensor whose last dimension is the stream; as it is, where the stream is as wide."""
        wide, slim = self._basis.shape
        return _exact(tensor) if slim == wide else _exact(tensor) @ self._basis

    def _sub_layer(self, project: Callable, path: str, student: nn.Module) -> dict[str, torch.Tensor]:
        """Return the tensors of a sub-layer of the source, projected once."""
        if path not in self._sub_layers:
            self._sub_layers[path] = project(path, student)
        return self._sub_layers[path]

    def _reader(self, path: str, name: str) -> torch.Tensor:
        """Return `[A P, bias]` of a matrix of a sub-layer that reads the stream. [rows, h + 1]"""
        norm = self._norms.get(f"{path}.{name}")
        weight, bias = _with_norm(self._source.get_submodule(f"{path}.{name}"), norm)
        weight = weight if norm is None else self._scale * weight
        return torch.cat([self._projected(weight), bias[:, None]], 1)

    def _attention(self, path: str, student: MultiHeadAttention) -> dict[str, torch.Tensor]:
        source = self._source.get_submodule(path)
        heads, size = student.num_attention_heads, student.attn_head_size
        side = path.partition(".")[0]
        _check_slimmer(heads, source.num_attention_heads, f"{side}.num_attention_heads")
        _check_slimmer(size, source.attn_head_size, f"hidden_size / num_attention_heads of the {side}")
        query, key, value = (
            self._reader(path, name).unflatten(0, (source.num_attention_heads, source.attn_head_size))
            for name in ("query_net", "key_net", "value_net")
        )  # [heads, size, h + 1]
        out = self._projected(source.out_projection.weight.T).unflatten(0, value.shape[:2])  # [heads, size, h]
        sizes = [_squared_norms(query, key), _squared_norms(value, out)]
        kept = _largest(sum(each / each.sum().clamp_min(_TINY) for each in sizes), heads)
        query, key, value, out = (each[kept] for each in (query, key, value, out))
        if size < source.attn_head_size:
            query, key = _of_rank(size, query, key)
            value, out = _of_rank(size, value, out)
            # The student divides a score by the root of its own size of a head.
            query, key = (each * (size / source.attn_head_size) ** 0.25 for each in (query, key))
        nets = {"query_net": query, "key_net": key, "value_net": value}
        tensors = {f"{name}.weight": net[..., :-1].flatten(0, 1) for name, net in nets.items()}
        tensors |= {f"{name}.bias": net[..., -1].flatten() for name, net in nets.items()}
        bias = self._projected(source.out_projection.bias)
        return tensors | {"out_projection.weight": out.flatten(0, 1).T, "out_projection.bias": bias}

    def _feed_forward(self, path: str, student: PositionWiseFF) -> dict[str, torch.Tensor]:
        source, count = self._source.get_submodule(path), student.dense_in.out_features
        _check_slimmer(count, source.dense_in.out_features, f"{path.partition('.')[0]}.inner_size")
        read = self._reader(path, "dense_in")
        written = self._projected(source.dense_out.weight.T)
        norm = None if self._norms else self._norms_read.get(f"{path}.dense_in")  # else it is in what is read
        weight, bias = (read[:, :-1], read[:, -1]) if norm is None else _with_norm(source.dense_in, norm)
        active, moment = _rectified(bias, weight.square().sum(1).sqrt())
        power = moment * written.square().sum(1)
        kept = _largest(power, count)
        tensors = {
            "dense_in.weight": read[kept, :-1],
            "dense_in.bias": read[kept, -1],
            "dense_out.weight": written[kept].T,
            "dense_out.bias": self._projected(source.dense_out.bias),
        }
        if student.dense_in.weight.shape != source.dense_in.weight.shape:
            quiet = (active[kept] < _RARE) & (power[kept] < _QUIET * power.sum() / count)
            tensors["dense_in.weight"][quiet] = _exact(student.dense_in.weight)[quiet]
            tensors["dense_in.bias"][quiet] = _exact(student.dense_in.bias)[quiet]
            tensors["dense_out.weight"][:, quiet] = 0.0
        return tensors


def _norms_before(model: nn.Module) -> dict[str, nn.LayerNorm]:
    """Return the norm that each matrix reads, by the matrix's path, where matrices alone read it (pre-LN)."""
    norms = {}
    of_encoder = getattr(getattr(model.encoder, "_encoder", None), "final_layer_norm", None)
    for path, block in model.named_modules():
        for place, sub_layer in enumerate(("first_sub_layer", "second_sub_layer", "third_sub_layer"), 1):
            for name in _READERS if getattr(block, "pre_ln", False) else ():
                if hasattr(getattr(block, sub_layer, None), name):
                    is_cross = sub_layer == "second_sub_layer" and name in ("key_net", "value_net")
                    norm = of_encoder if is_cross else getattr(block, f"layer_norm_{place}")
                    norms |= {f"{path}.{sub_layer}.{name}": norm} if norm is not None else {}
    return norms


def _basis(student: nn.Module, source: nn.Module, norms: dict[str, nn.LayerNorm]) -> tuple[torch.Tensor, float]:
    """Return `P` [H, h], orthonormal but for the mean that norms take off, and the share it keeps."""
    wide, slim = source.decoder.hidden_size, student.decoder.hidden_size
    if slim == wide:
        return torch.eye(wide, dtype=torch.float64), 1.0
    total = torch.zeros(wide, wide, dtype=torch.float64)
    centre = torch.eye(wide, dtype=torch.float64) - 1 / wide
    waves = [_waves(source), _waves(student)]
    positions = [each.T for each in waves[:1] if each is not None]
    for matrix in itertools.chain(_stream_matrices(source, norms), positions):
        matrix = centre @ _exact(matrix)
        gram = matrix @ matrix.T
        total += gram / gram.trace().clamp_min(_TINY)
    vectors = torch.linalg.eigh(total).eigenvectors  # the largest last
    directions = vectors[:, wide - slim + 1 :].flip(1)  # [H, h - 1]
    words = _exact(source.decoder.embedding.token_embedding.weight) @ centre
    # An eigenvector has either sign: take the one by which the words' sum lies ahead, on any machine.
    directions = torch.where(words.sum(0) @ directions < 0, -directions, directions)
    kept = (words @ directions).square().sum() / words.square().sum().clamp_min(_TINY)
    turned = _cosines(slim)
    if None not in waves:
        length = min(map(len, waves))
        lying = (waves[0][:length] @ directions).T @ (waves[1][:length] @ turned.T)
        # Positions span fewer directions than there are: others stay as they are, not as rounding would turn them.
        lying += 1e-6 * torch.linalg.matrix_norm(lying, 2) * torch.eye(slim - 1, dtype=torch.float64)
        left, _, right = torch.linalg.svd(lying)
        turned = left @ right @ turned
    return directions @ turned, kept.item()


def _cosines(size: int) -> torch.Tensor:
    """Return an orthonormal cosine transform (DCT-II) without its constant row. [size - 1, size]"""
    rows, columns = torch.arange(1, size, dtype=torch.float64), torch.arange(size, dtype=torch.float64)
    return math.sqrt(2 / size) * torch.cos(math.pi / size * rows[:, None] * (columns + 0.5))


def _waves(model: nn.Module) -> torch.Tensor | None:
    """Return the first fixed positions of a model, [positions, units]; None where all are learned."""
    for side in (model.decoder, model.encoder):
        positions = getattr(getattr(side, "embedding", None), "position_embedding", None)
        if isinstance(positions, FixedPositionalEncoding):
            return _exact(positions.pos_enc[:_ALIGNED])
    return None


def _stream_matrices(model: nn.Module, norms: dict[str, nn.LayerNorm]) -> Iterator[torch.Tensor]:
    """Yield each matrix at the residual stream, [H, ...]; a table that is shared, once; readers with their norms."""
    seen = set()
    for path, module in model.named_modules():
        name = path.rpartition(".")[2]
        if name == "token_type_embedding":  # translation models never read it
            continue
        if isinstance(module, nn.Embedding) and module.weight not in seen:
            seen.add(module.weight)
            yield module.weight.T
        elif isinstance(module, nn.Linear) and name in _WRITERS:
            yield module.weight
        elif isinstance(module, nn.Linear) and name in _READERS:
            yield (_exact(module.weight) * (_exact(norms[path].weight) if path in norms else 1)).T


def _of_rank(rank: int, left: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return A and B of `rank` rows whose `A^T B` is the nearest to `left^T right`, each with half of the weight.

    Args:
        rank: rows of each.
        left: [heads, rows, n]
        right: [heads, rows, m]
    """
    left_basis, left_part = torch.linalg.qr(left.mT)
    right_basis, right_part = torch.linalg.qr(right.mT)
    one, values, other = torch.linalg.svd(left_part @ right_part.mT)
    roots = values[:, :rank].sqrt()[:, :, None]
    return (
        roots * (left_basis @ one[..., :rank]).mT,
        roots * (right_basis @ other.mT[..., :rank]).mT,
    )


def _squared_norms(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return the squared Frobenius norm of `left^T right`, head by head."""
    return ((left @ left.mT) * (right @ right.mT)).sum((1, 2))


def _with_norm(net: nn.Linear, norm: nn.LayerNorm | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weight and bias of a matrix and of the norm that it reads as those of one matrix."""
    weight, bias = _exact(net.weight), _exact(net.bias)
    return (weight, bias) if norm is None else (weight * _exact(norm.weight), bias + weight @ _exact(norm.bias))


def _rectified(mean: torch.Tensor, deviation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return `P(x > 0)` and `E[max(x, 0)^2]` of normal variables."""
    deviation = deviation.clamp_min(_TINY)
    ratio = mean / deviation
    above, density = torch.special.ndtr(ratio), torch.exp(-0.5 * ratio.square()) / math.sqrt(2 * math.pi)
    return above, ((mean.square() + deviation.square()) * above + mean * deviation * density).clamp_min(0.0)


def _largest(importance: torch.Tensor, count: int) -> torch.Tensor:
    """Return the indices of the `count` largest entries, in ascending order."""
    return importance.topk(count).indices.sort().values


def _check_slimmer(mine: int, theirs: int, what: str) -> None:
    if mine > theirs:
        raise InputError(
            f"width projection only makes models slimmer, but {what} is {mine} in the student and {theirs} in the "
            f"source; give the student at most {theirs}"
        )


def _exact(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().cpu().double()


def _is_head(module: nn.Module, model: nn.Module) -> bool:
    """Whether a module is the linear layer from the decoder's states to the vocabulary."""
    embedding = model.decoder.embedding.token_embedding
    return isinstance(module, nn.Linear) and module.weight.shape == embedding.weight.shape
