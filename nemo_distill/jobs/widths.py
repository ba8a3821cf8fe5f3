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
"""Sizes that a student may have: those of configs/model, and widths between two of them that are as deep."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from omegaconf import OmegaConf

from nemo_distill.evaluation.tables import weights
from nemo_distill.jobs.architecture import MEANING, fitting_heads

FINE = {256: 8, 1 << 30: 32}
"""Between two widths that are computed, up to so wide."""
COARSE = {256: 16, 512: 32, 1 << 30: 64}
"""Between two that are measured."""
WIDTH = ("hidden_size", "inner_size", "num_attention_heads")
"""Of an encoder or decoder, what makes it as wide as it is."""


@dataclass(frozen=True)
class Candidate:
    """A size that a student may have."""

    model: str
    """Name in configs/model."""
    layers: tuple[int, int]
    """Of encoder and decoder."""
    hidden_size: int
    inner_size: int
    num_attention_heads: int
    parameters: int
    is_shipped: bool = True
    """Its width and layers are those of configs/model."""
    is_deepened: bool = False
    """Its layers are not those of `model`."""
    decoder_heads: int | None = None
    """Heads of attention of the decoder; None: as many as the encoder's."""

    @classmethod
    def of_section(cls, name: str, section: Mapping[str, Any], vocabularies: tuple[int, int]) -> "Candidate":
        """Return that of a `model` section, by its name in configs/model."""
        encoder, decoder = section["encoder"], section["decoder"]
        layers, heads = [(encoder[key], decoder[key]) for key in ("num_layers", WIDTH[-1])]
        own = None if heads[0] == heads[1] else heads[1]
        parameters = parameters_of(section, vocabularies)
        return cls(name, layers, *(encoder[key] for key in WIDTH), parameters, decoder_heads=own)

    def covers(self, other: "Candidate") -> bool:
        """Return whether it computes all that another does, and so cannot be faster."""
        own, others = ((*each.layers, each.hidden_size, each.inner_size) for each in (self, other))
        return all(mine >= its for mine, its in zip(own, others, strict=True))

    def section(self, base: Mapping[str, Any]) -> dict[str, Any]:
        """Return a `model` section, its encoder as wide as this, and its decoder where it follows the encoder."""
        encoder, decoder = base["encoder"], base["decoder"]
        width = {key: getattr(self, key) for key in WIDTH}
        followed = {key: value for key, value in width.items() if OmegaConf.is_interpolation(decoder, key)}
        followed |= {} if self.decoder_heads is None else {WIDTH[-1]: self.decoder_heads}
        layers = [{"num_layers": each} for each in self.layers]
        return {**base, "encoder": {**encoder, **width, **layers[0]}, "decoder": {**decoder, **followed, **layers[1]}}

    def width(self) -> list[int] | None:
        """Return its hidden size, inner size and heads, where they are not those of configs/model.

        Behind them are the decoder's heads, where these are others.
        """
        decoder = [] if self.decoder_heads is None else [self.decoder_heads]
        return None if self.is_shipped else [getattr(self, key) for key in WIDTH] + decoder

    def overrides(self) -> list[str]:
        """Return what makes its model of configs/model so wide and deep."""
        sides = zip(("encoder", "decoder"), self.layers, strict=True)
        layers = [f"model.{side}.num_layers={count}" for side, count in sides] if self.is_deepened else []
        return layers + width_overrides(self.width())

    def changed(self, section: Mapping[str, Any], vocabularies: tuple[int, int], **changes: Any) -> "Candidate":
        """Return another size of the same file of configs/model, its weights counted by the file's `model` section."""
        size = replace(self, is_shipped=False, **changes)
        return replace(size, parameters=parameters_of(size.section(section), vocabularies))

    def words(self) -> str:
        """Return what it is called in messages."""
        size = ""
        if (width := self.width()) is not None:
            layers = "{}x{} layers, ".format(*self.layers) if self.is_deepened else ""
            size = f" with {layers}{self.hidden_size}/{self.inner_size}, {heads_words(width[2:])}"
        return f"{self.model}{size}, {weights(self.parameters)} weights"


def heads_words(heads: Sequence[int]) -> str:
    """Return how many heads of attention the encoder has, and behind them the decoder's, where these are others.

    Example:
        >>> heads_words([3, 6]), heads_words([1, 1])
        ('3/6 heads', '1 head')
    """
    shown = "/".join(map(str, dict.fromkeys(heads)))
    return f"{shown} head{'s' * (shown != '1')}"


def width_overrides(width: Sequence[int] | None) -> list[str]:
    """Return what makes a model so wide; nothing where its width is that of configs/model."""
    keys = [f"encoder.{key}" for key in WIDTH] + [f"decoder.{WIDTH[-1]}"]
    return [f"model.{key}={value}" for key, value in zip(keys, width or (), strict=False)]


def parameters_of(section: Mapping[str, Any], vocabularies: tuple[int, int]) -> int:
    """Return the number of weights of NeMo's encoder-decoder, as `evaluate` counts them: shared ones once.

    Args:
        section: its `model` section, with `encoder` and `decoder` of NeMo's library.
        vocabularies: tokens of the source and target tokenizer.

    Example:
        >>> side = {"hidden_size": 8, "inner_size": 16, "num_layers": 1, "pre_ln": True}
        >>> parameters_of({"encoder": side, "decoder": side, "shared_embeddings": True}, (100, 100))
        2468
    """
    total = vocabularies[1]  # biases of the head; its matrix is that of the target's embeddings
    for name, attentions, vocabulary in (("encoder", 1, vocabularies[0]), ("decoder", 2, vocabularies[1])):
        side = section[name]
        hidden, inner = side["hidden_size"], side["inner_size"]
        norm = 2 * hidden
        layer = attentions * (4 * hidden * (hidden + 1) + norm) + 2 * hidden * inner + inner + hidden + norm
        total += side["num_layers"] * layer + norm  # the norm of the embeddings
        own = {key: side.get(key, default) for key, default in MEANING.items()}
        total += norm if own["pre_ln"] and own["pre_ln_final_layer_norm"] else 0
        total += own["max_sequence_length"] * hidden if own["learn_positional_encodings"] else 0
        total += (own["num_token_types"] or 0) * hidden
        total += vocabulary * hidden if name == "decoder" or not section.get("shared_embeddings") else 0
    return total


def widths_between(
    low: Candidate,
    high: Candidate,
    section: Mapping[str, Any],
    vocabularies: tuple[int, int],
    teachers: Sequence[Mapping[str, Any]],
    steps: Mapping[int, int],
    heads: Sequence[int | None] = (None, None),
) -> Iterator[Candidate]:
    """Yield what is wider than `low` and narrower than `high`, the narrowest first.

    Inner sizes lie between theirs as the widths do; heads of attention are about as large as those of `low`, and fit
    those of the teacher's encoder, and of its decoder, where students start from them.

    Args:
        low: a size.
        high: another one with as many layers.
        section: the `model` section of `low`.
        vocabularies: tokens of the source and target tokenizer.
        teachers: encoder and decoder that students start from; none where they start from no teacher.
        steps: between two widths, by how wide they are at most: `FINE` or `COARSE`.
        heads: of attention, that the user wants of encoder and decoder; None: as above.
    """
    hidden = low.hidden_size
    while True:
        step = next(step for width, step in sorted(steps.items()) if hidden < width)
        hidden = hidden // step * step + step
        if hidden >= high.hidden_size:
            return
        share = (hidden - low.hidden_size) / (high.hidden_size - low.hidden_size)
        inner = low.inner_size  # the user's, where all have the same
        if high.inner_size != inner:
            inner = round((inner + share * (high.inner_size - inner)) / 16) * 16
        if (size := resized(low, hidden, inner, section, vocabularies, teachers, heads)) is not None:
            yield size


def resized(
    size: Candidate,
    hidden: int,
    inner: int,
    section: Mapping[str, Any],
    vocabularies: tuple[int, int],
    teachers: Sequence[Mapping[str, Any]],
    heads: Sequence[int | None],
) -> Candidate | None:
    """Return a size in another width, with another inner size; None: no heads fit. See `widths_between`."""
    encoder = heads[0] or _heads(hidden, size, teachers[:1])
    decoder = heads[1] or (encoder and fitting_heads(hidden, encoder, *teachers[-1:]))
    if not (encoder and decoder) or hidden % encoder or hidden % decoder:
        return None
    own = None if encoder == decoder and size.decoder_heads is None else decoder
    width = {"hidden_size": hidden, "inner_size": inner, "num_attention_heads": encoder, "decoder_heads": own}
    return size.changed(section, vocabularies, **width)


def _heads(hidden: int, low: Candidate, teachers: Sequence[Mapping[str, Any]]) -> int | None:
    """Return how many heads such a width has, each about as large as those of another one; None: none fit."""
    ideal = hidden * low.num_attention_heads / low.hidden_size
    possible = [each for each in range(1, hidden // 4 + 1) if hidden % (4 * each) == 0]
    found = min(possible, key=lambda each: max(each / ideal, ideal / each))
    return fitting_heads(hidden, found, *teachers)
