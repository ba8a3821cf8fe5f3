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
"""What a cache keeps of a teacher's distribution over the next word, in how many bits, and how a sample is drawn.

Logits, less the highest one of the token, are rounded to 128 levels: the distance from 0 grows with the square of the
level, up to 32, and by a factor beyond (`LEVELS`). Where words are drawn the teacher of a cache is the one of rounded
logits, else only those that are kept are rounded. A record keeps

- the k best words, best first, and s drawn ones, each as one number of as many bits as its id and its level need;
- for each temperature the logarithm of `sum exp(logit / temperature)` over all words but the k best ones;
- the logarithm of the rate at which words are drawn. Both in steps of 1 / 512.

A word other than these is drawn with the chance `min(1, rate * m)`: m is the mean over the cache's temperatures of
the word's share of what the k best words leave, so that one sample serves all of them, with weights that none makes
large. The draw is systematic (Madow 1949): one uniform number a token puts s points at distances of 1 on the running
sum of the chances. Its numbers come from the pair's key alone.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from nemo_distill.errors import TeacherError
from nemo_distill.losses.signals import KeptTargets, SampledTargets, TopKTargets

LOGIT_BITS = 7
_COUNT = 1 << LOGIT_BITS
_NEAR, _EDGE = 112, 32.0  # levels that grow with the square, and the last of them
_LOWEST = 65504.0
_STEP = _EDGE / (_NEAR - 1) ** 2
_FACTOR = (_LOWEST / _EDGE) ** (1 / (_COUNT - _NEAR))
LEVELS = -np.concatenate(
    [_STEP * np.arange(_NEAR, dtype=np.float64) ** 2, _EDGE * _FACTOR ** np.arange(1, _COUNT - _NEAR + 1)]
).astype(np.float32)
"""What a level stands for."""
_SCALE = 512.0  # steps of a logarithm in 16 bits, of which 1 in 512 is a fifth of a percent
_LOGARITHM = np.dtype("<i2")


@dataclass(frozen=True)
class Records:
    """The records of a cache's tokens.

    Args:
        top_k: words kept that are the most likely ones.
        sampled: words drawn from the others.
        temperatures: of students.
        vocabulary_size: ids are below it.
    """

    top_k: int
    sampled: int
    temperatures: Sequence[float]
    vocabulary_size: int

    @property
    def words(self) -> int:
        """Words of a record."""
        return self.top_k + self.sampled

    @property
    def bits(self) -> int:
        """Bits of a word."""
        return max((self.vocabulary_size - 1).bit_length(), 1) + LOGIT_BITS

    @cached_property
    def dtype(self) -> np.dtype:
        """The record of one target token."""
        fields = [
            ("words", "u1", ((self.words * self.bits + 7) // 8,)),
            ("rest", _LOGARITHM, (len(self.temperatures),)),
        ]
        return np.dtype([*fields, ("rate", _LOGARITHM)] if self.sampled else fields)

    def encode(self, logits: torch.Tensor, uniform: np.ndarray | None = None) -> np.ndarray:
        """Return the records of n tokens.

        Args:
            logits: [n, V].
            uniform: [n], numbers from 0 to 1 for the draws, see `uniform_numbers`; None where none are drawn.

        Raises:
            TeacherError: a logit is NaN or infinite.
        """
        logits = logits.float()
        top = logits.topk(self.words)
        if not top.values[:, :1].isfinite().all():  # of NaN and others, NaN is the highest
            raise TeacherError("the teacher's logits are NaN or infinite; check it with `nemo-distill evaluate`")
        logits = logits - top.values[:, :1]  # [n, V]
        if self.sampled:  # draws are by what is stored
            logits = values_of(to_levels(logits))
        ids = top.indices[:, : self.top_k]
        others = logits.scatter(1, ids, -torch.inf)  # [n, V]
        rest = torch.stack([(others / each).logsumexp(-1) for each in self.temperatures], dim=1)
        records = np.empty(len(logits), self.dtype)
        records["rest"] = _as_steps(rest.cpu().numpy())
        if self.sampled:
            drawn, records["rate"] = self._draw(others, top.indices[:, self.top_k :], records["rest"], uniform)
            is_there = drawn >= 0
            ids = torch.cat([ids, torch.where(is_there, drawn, ids[:, :1])], dim=1)
        values = (ids.long() << LOGIT_BITS) | to_levels(logits.gather(1, ids)).long()
        records["words"] = self._pack(values.cpu().numpy())
        return records

    def _draw(
        self, others: torch.Tensor, next_best: torch.Tensor, rest: np.ndarray, uniform: np.ndarray
    ) -> tuple[torch.Tensor, np.ndarray]:
        """Return the drawn words, [n, s], -1 where there is none, and the steps of the rates, [n].

        Args:
            others: logits, [n, V]; -inf for the k best words.
            next_best: the s likeliest of these, [n, s].
            rest: as it is stored, [n, t].
            uniform: [n].
        """
        shares = self._shares(others, _logarithms(rest, others.device))  # [n, V]
        of_best = shares.gather(1, next_best).double()
        left = shares.scatter(1, next_best, 0).sum(-1, keepdim=True, dtype=torch.float64)
        left = left + of_best.flip(-1).cumsum(-1).flip(-1)  # of the words from each of these on
        rates = torch.arange(self.sampled, 0, -1, device=others.device) / left.clamp(min=1e-300)
        fits = rates * of_best <= 1
        place = torch.where(fits.any(-1), fits.int().argmax(-1), self.sampled - 1)  # so many are drawn for certain
        rates = rates.gather(1, place[:, None]).squeeze(1).log()
        steps = np.clip(np.floor(rates.cpu().numpy() * _SCALE), *_limits()).astype(_LOGARITHM)
        chances = (shares * _logarithms(steps, others.device).exp()[:, None]).clamp_(max=1)
        sums = chances.cumsum(-1, dtype=torch.float64)
        points = torch.from_numpy(uniform).to(others.device)[:, None]
        points = points + torch.arange(self.sampled, device=others.device)
        drawn = torch.searchsorted(sums, points, right=True)
        return torch.where(points < sums[:, -1:], drawn, -1), steps

    def _shares(self, logits: torch.Tensor, rest: torch.Tensor) -> torch.Tensor:
        """Return the mean over temperatures of the words' shares of what the k best ones leave.

        Args:
            logits: [n, ...].
            rest: [n, t].
        """
        total = 0
        for column, temperature in enumerate(self.temperatures):
            total = total + (logits / temperature - rest[:, column : column + 1]).exp()
        return total / len(self.temperatures)

    def _pack(self, values: np.ndarray) -> np.ndarray:
        """Return the bytes of n records' words, [n, bytes], lowest bits first."""
        bits = (values[:, :, None] >> np.arange(self.bits)) & 1
        return np.packbits(bits.reshape(len(values), -1).astype(np.uint8), axis=1, bitorder="little")

    def unpack(self, packed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ids, int64, and levels, int64, of n records' words, [n, words] each.

        Args:
            packed: [n, bytes], uint8, on any device.
        """
        first = torch.arange(self.words, device=packed.device) * self.bits
        values = torch.zeros(len(packed), self.words, dtype=torch.int64, device=packed.device)
        for place in range((self.bits + 14) // 8):  # bytes that a word may touch
            which = torch.div(first, 8, rounding_mode="floor") + place
            found = packed[:, which.clamp(max=packed.shape[1] - 1)].long()
            values |= found << (8 * place)
        values = (values >> (first % 8)) & ((1 << self.bits) - 1)
        return values >> LOGIT_BITS, values & (_COUNT - 1)

    def targets(self, records: np.ndarray, column: int, device: torch.device | str) -> KeptTargets:
        """Return what the loss reads of n tokens' records.

        Args:
            records: [n].
            column: of the temperature.
            device: where they are unpacked.
        """
        ids, levels = self.unpack(torch.from_numpy(records["words"].copy()).to(device))
        logits = values_of(levels)
        rest = _logarithms(records["rest"], device)  # [n, t]
        temperature = self.temperatures[column]
        best = (logits[:, : self.top_k] / temperature).logsumexp(-1)
        if self.top_k < self.vocabulary_size:
            best = torch.logaddexp(best, rest[:, column])
        if not self.sampled:
            return TopKTargets(ids, logits, best)
        rate = _logarithms(records["rate"], device).exp()[:, None]
        chances = (self._shares(logits[:, self.top_k :], rest) * rate).clamp(max=1)
        is_there = ids[:, self.top_k :] != ids[:, :1]
        weights = torch.cat([torch.ones_like(logits[:, : self.top_k]), is_there / chances], dim=1)
        return SampledTargets(ids, logits / temperature - best[:, None], weights.nan_to_num(0, 0))

    def fault(self, records: np.ndarray) -> str | None:
        """Return what is wrong with records of tokens: no teacher says so; None if nothing is."""
        packed = torch.from_numpy(records["words"].copy())
        ids, levels = (each.numpy() for each in self.unpack(packed))
        if ids.max() >= self.vocabulary_size:
            return f"a word beyond the vocabulary of {self.vocabulary_size}"
        best = levels[:, : self.top_k]
        if (best[:, 0] != 0).any() or (best[:, 1:] < best[:, :-1]).any():
            return "logits that are not in their order below 0"
        if (levels[:, self.top_k :] < np.where(ids[:, self.top_k :] == ids[:, :1], 0, best[:, -1:])).any():
            return "a drawn word that is likelier than the best ones"
        ordered = np.sort(np.concatenate([ids[:, : self.top_k], self._drawn(ids)], axis=1), axis=1)
        if (ordered[:, 1:] == ordered[:, :-1]).any():
            return "a word twice for one token"
        return self._fault_of_rest(records, levels, ids)

    def _drawn(self, ids: np.ndarray) -> np.ndarray:
        """Return the drawn words, [n, s]; a number below 0 of its own in each place where there is none."""
        drawn = ids[:, self.top_k :]
        return np.where(drawn == ids[:, :1], -1 - np.arange(self.sampled), drawn)

    def _fault_of_rest(self, records: np.ndarray, levels: np.ndarray, ids: np.ndarray) -> str | None:
        others, logits = self.vocabulary_size - self.top_k, LEVELS[levels]
        worst_of_best = LEVELS[np.maximum(levels[:, self.top_k - 1], 1) - 1]  # at most; it was rounded to a level
        lowest_step, _ = _limits()
        for column, temperature in enumerate(self.temperatures):
            rest = records["rest"][:, column]
            highest = np.log(others) + worst_of_best / temperature if others else np.full(len(rest), -np.inf)
            is_there = self._drawn(ids) >= 0
            shares = np.exp(logits[:, self.top_k :] / np.float64(temperature)) * is_there
            with np.errstate(divide="ignore"):
                lowest = np.log(shares.sum(axis=1))
            too_high = rest > np.maximum(np.ceil(highest * _SCALE) + 1, lowest_step)
            if too_high.any() or (rest < np.floor(lowest * _SCALE) - 1).any():
                return f"a rest that its logits cannot have at temperature {temperature:g}"
        return None


def to_levels(logits: torch.Tensor) -> torch.Tensor:
    """Return the levels, uint8, of logits that are not above 0; of what is below the lowest one, the last.

    Example:
        >>> to_levels(torch.tensor([0.0, -32.0, -1e30])).tolist()
        [0, 111, 127]
    """
    distance = logits.neg().clamp(min=0, max=_LOWEST)
    near = (distance / _STEP).sqrt_().round_()
    if bool((distance > _EDGE).any()):
        far = ((distance / _EDGE).log_() / float(np.log(_FACTOR))).round_() + (_NEAR - 1)
        near = torch.where(distance > _EDGE, far, near)
    return near.to(torch.uint8)


def values_of(levels: torch.Tensor) -> torch.Tensor:
    """Return the logits that levels stand for, float32."""
    return torch.from_numpy(LEVELS).to(levels.device)[levels.long()]


def uniform_numbers(keys: np.ndarray, lengths: Iterable[int]) -> np.ndarray:
    """Return a number from 0 to 1 for each token of some pairs, pair after pair: of a pair's key and the place alone.

    Args:
        keys: [N, 2].
        lengths: tokens of each pair.
    """
    numbers = [
        np.random.Generator(np.random.Philox(key=key)).random(length)
        for key, length in zip(keys, lengths, strict=True)
    ]
    return np.concatenate([np.empty(0), *numbers])


def _logarithms(steps: np.ndarray, device: torch.device | str) -> torch.Tensor:
    """Return the logarithms that are stored in steps, float32."""
    return torch.from_numpy(np.array(steps)).to(device) / _SCALE


def _as_steps(logarithms: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(logarithms.astype(np.float64) * _SCALE), *_limits()).astype(_LOGARITHM)


def _limits() -> tuple[int, int]:
    return np.iinfo(_LOGARITHM).min, np.iinfo(_LOGARITHM).max
