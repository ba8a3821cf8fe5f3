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
"""How many tokens of a pair models have room for."""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from torch import nn

from nemo_distill.data.encoders import UNBOUNDED, longest_source, longest_target

Lengths = TypeVar("Lengths", int, np.ndarray)


@dataclass(frozen=True)
class Positions:
    """Most tokens that models read of a pair, those of start, end and language included."""

    source: int = UNBOUNDED
    """Of the source."""
    target: int = UNBOUNDED
    """Of the target, which the decoder reads without its end."""

    @classmethod
    def of_model(cls, model: nn.Module, learned: bool = False) -> "Positions":
        """Return what a model has; with `learned` those of sine and cosine, which NeMo can extend, have no end."""
        sides = {"encoder": longest_source(model), "decoder": longest_target(model)}
        for name in sides if learned else ():
            embedding = getattr(getattr(model, name), "embedding", None)
            if not getattr(embedding, "learn_positional_encodings", True):
                sides[name] = UNBOUNDED
        return cls(*sides.values())

    def hold(self, source: Lengths, target: Lengths, has_prefix: bool = False) -> Lengths:
        """Return whether pairs have room.

        Args:
            source: tokens of one or more sources, start and end included.
            target: the same of the targets.
            has_prefix: a token will stand in front of each source.
        """
        return (source + has_prefix <= self.source) & (target - 1 <= self.target)

    def __and__(self, other: "Positions") -> "Positions":
        """Return the smaller ones."""
        return Positions(min(self.source, other.source), min(self.target, other.target))
