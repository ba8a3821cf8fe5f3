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
"""Gold and pseudo data mixed with given probabilities.

NeMo's `ConcatDataset` is not used: it loses data from the second epoch on. Here every batch of a whole training has a
number, and what it is follows from that number, the seed and the number of processes alone.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from nemo.utils import logging
from torch import nn
from torch.utils.data import DataLoader, Dataset

from nemo_distill.config.mixture import MixtureConfig
from nemo_distill.data.line_dataset import batch_arrays, with_prefix
from nemo_distill.data.mixing.components import Batches, load_batches
from nemo_distill.data.mixing.noise import SourceNoise
from nemo_distill.data.positions import Positions
from nemo_distill.data.samplers import ResumableSampler, batch_loader
from nemo_distill.errors import ConfigurationError, InputError
from nemo_distill.support.warned import warn

_MIN_BATCHES = 50  # of an epoch, in each process: fewer cannot hold the shares to within 2 points


class Draw(NamedTuple):
    """A batch to take, and the how-manieth walk through its component it belongs to, from 0."""

    component: int
    walk: int
    batch: int


class MixtureSchedule:
    """Which batch comes when; arithmetic alone, no data.

    In every epoch every process takes the same number of batches, and the same number of them from each component:
    the probabilities, rounded to whole batches. Their order is shuffled. A component is walked through without
    replacement, over the ends of epochs too: each of its batches comes once before any comes again, in another order
    in each walk.

    Args:
        sizes: number of batches in each component.
        probabilities: of each component, summing to 1.
        seed: of all orders.
        epoch_size: batches in an epoch over all processes, rounded up to a multiple of `world_size`.
        world_size: number of processes.

    Raises:
        InputError: an epoch has too few batches to hold one of each component.

    Example:
        >>> schedule = MixtureSchedule(sizes=[40, 60], probabilities=[0.25, 0.75])
        >>> len(schedule), schedule.counts
        (100, [25, 75])
    """

    def __init__(
        self,
        sizes: Sequence[int],
        probabilities: Sequence[float],
        seed: int = 0,
        epoch_size: int | None = None,
        world_size: int = 1,
    ) -> None:
        self.sizes, self.seed, self.world_size = list(sizes), seed, world_size
        wanted = epoch_size or max(sum(self.sizes), _MIN_BATCHES * world_size)
        self.per_process = math.ceil(wanted / world_size)
        if self.per_process < len(self.sizes):
            raise InputError(
                f"distillation.mixture.epoch_size: {wanted} batches for {world_size} processes hold none of some of "
                f"the {len(self.sizes)} components; give at least {len(self.sizes) * world_size}"
            )
        self.counts = _apportion(probabilities, self.per_process)

    def __len__(self) -> int:
        """Return the number of batches in an epoch, over all processes."""
        return self.per_process * self.world_size

    def draws(self, epoch: int, rank: int) -> list[Draw]:
        """Return what one process takes in one epoch, in order."""
        order = np.repeat(np.arange(len(self.sizes)), self.counts)
        np.random.default_rng([self.seed, 0, epoch, rank]).shuffle(order)
        earlier = epoch * self.world_size + rank
        batches = [self._walk(component, count * earlier) for component, count in enumerate(self.counts)]
        return [next(batches[component]) for component in order.tolist()]

    def _walk(self, component: int, start: int) -> Iterator[Draw]:
        """Yield the draws from one component, from number `start` of the whole training on."""
        size = self.sizes[component]
        for walk in itertools.count(start // size):
            order = np.random.default_rng([self.seed, 1, component, walk]).permutation(size).tolist()
            first = start % size if walk == start // size else 0
            yield from (Draw(component, walk, batch) for batch in order[first:])


class MixedDataset(Dataset):
    """Batches of several corpora: number n of the whole training is `dataset[n]`.

    Number n is in epoch `n // len(dataset)`; of the rest, `rank = rest % world_size` takes it. An item has what
    NeMo's `TranslationDataset` gives: source ids [B, S], source mask [B, S], target ids [B, T], target mask [B, T] and
    labels [B, T]. A batch comes whole from one component.

    Args:
        components: their batches.
        schedule: what comes when.
        pads: padding ids of source and target.
        noise: disturbs the sources, where there is noise.
        noisy: numbers of the components that `noise` is for.
        prefixes: for each component the token that stands in front of its sources, of a language, or None.
        mixture: what it was built from.
    """

    def __init__(
        self,
        components: Sequence[Batches],
        schedule: MixtureSchedule,
        pads: tuple[int, int],
        noise: SourceNoise | None = None,
        noisy: Sequence[int] = (),
        prefixes: Sequence[int | None] | None = None,
        mixture: MixtureConfig | None = None,
    ) -> None:
        self.components, self.schedule, self.pads, self.mixture = list(components), schedule, pads, mixture
        self.prefixes = list(prefixes or [None] * len(self.components))
        self.noise, self.noisy = noise, frozenset(noisy)
        self._draws: dict[tuple[int, int], list[Draw]] = {}

    def __len__(self) -> int:
        """Return the number of batches in an epoch, over all processes."""
        return len(self.schedule)

    def draw(self, number: int) -> Draw:
        """Return what batch `number` is, without reading it."""
        epoch, rest = divmod(number, len(self))
        place, rank = divmod(rest, self.schedule.world_size)
        if (epoch, rank) not in self._draws:
            self._draws = {key: draws for key, draws in self._draws.items() if key[0] >= epoch - 1}
            self._draws[epoch, rank] = self.schedule.draws(epoch, rank)
        return self._draws[epoch, rank][place]

    def __getitem__(self, number: int) -> tuple[np.ndarray, ...]:
        """Return batch `number` as five arrays."""
        component, walk, batch = self.draw(number)
        sources, targets, items = self.components[component].rows(batch)
        if component in self.noisy:
            key = (self.schedule.seed, 2, component, walk)
            sources = [self.noise(ids, (*key, item)) for ids, item in zip(sources, items, strict=True)]
        sources = with_prefix(sources, self.prefixes[component])
        return batch_arrays(sources, targets, self.pads)


def mixture_of(model: nn.Module) -> MixtureConfig | None:
    """Return the mixture that a model's training data were built from; None: they are of none, or not set up here."""
    dataset = getattr(model, "_train_ds", None)
    return dataset.mixture if isinstance(dataset, MixedDataset) else None


class MixtureSampler(ResumableSampler):
    """The numbers of the batches that one process takes, epoch by epoch.

    Lightning calls `set_epoch` before each epoch. By itself, every iteration is the next epoch.

    Args:
        dataset: what is sampled.
        rank: of this process.
    """

    def __init__(self, dataset: MixedDataset, rank: int = 0) -> None:
        super().__init__(dataset, num_replicas=dataset.schedule.world_size, rank=rank, shuffle=False)

        self._counts_epochs = True

    def __len__(self) -> int:
        return self.dataset.schedule.per_process

    def start_at(self, epoch: int, items: int) -> None:
        """Leave out the first `items` of every walk through `epoch`; from now on others count the epochs."""
        super().start_at(epoch, items)
        self._counts_epochs = False

    def walk(self) -> Iterator[int]:
        """Return the numbers of one epoch."""
        self.check_ranks()
        start = self.epoch * len(self.dataset) + self.rank
        self.epoch += self._counts_epochs
        return iter(range(start, start + len(self.dataset), self.num_replicas))


def build_mixture_loader(
    mixture: MixtureConfig,
    train_ds: Mapping[str, Any],
    encoder_tokenizer,
    decoder_tokenizer,
    rank: int = 0,
    world_size: int = 1,
    tokens: Mapping[str, int] | None = None,
    positions: Positions | None = None,
) -> DataLoader:
    """Read the components and return the loader of one process, which gives items as NeMo's own training loader does.

    Args:
        mixture: components, probabilities, noise.
        train_ds: the `model.train_ds` section: `tokens_in_batch`, limits of lengths, `num_workers`, `pin_memory`.
        encoder_tokenizer: NeMo tokenizer of the source.
        decoder_tokenizer: NeMo tokenizer of the target.
        rank: of this process.
        world_size: number of processes.
        tokens: what stands in front of a source of each language, for a one-to-many model.
        positions: of the models; pairs of text that need more are left out.

    Raises:
        InputError: a file cannot be used, or a setting does not fit.
    """
    if train_ds.get("reverse_lang_direction", False):
        raise ConfigurationError(
            "model.train_ds.reverse_lang_direction: swap source and target of the mixture instead"
        )
    if train_ds.get("shuffle", True) is False:
        warn("model.train_ds.shuffle is false: a mixture draws its batches by distillation.mixture.seed all the same")
    names, tokenizers = mixture.drawn, (encoder_tokenizer, decoder_tokenizer)
    prefixes = [(tokens or {}).get(mixture.components[name].language) for name in names]
    components = [
        load_batches(name, mixture.components[name], train_ds, *tokenizers, mixture.seed, positions, prefix)
        for name, prefix in zip(names, prefixes, strict=True)
    ]
    schedule = MixtureSchedule(
        [len(batches) for batches in components],
        [mixture.probabilities[name] for name in names],
        mixture.seed,
        mixture.epoch_size,
        world_size,
    )
    noise = SourceNoise(mixture.noise, encoder_tokenizer) if mixture.noise.is_on else None
    noisy = [number for number, name in enumerate(names) if noise and name in mixture.noise.apply_to]
    pads = tuple(tokenizer.pad_id for tokenizer in tokenizers)
    dataset = MixedDataset(components, schedule, pads, noise, noisy, prefixes, mixture)
    shares = ", ".join(
        f"{name} {count / schedule.per_process:.4g} (asked for {mixture.probabilities[name]:.4g}; {size} batches)"
        for name, count, size in zip(names, schedule.counts, schedule.sizes, strict=True)
    )
    walks = ", ".join(
        f"{name} {count * world_size / size:.2g}"
        for name, count, size in zip(names, schedule.counts, schedule.sizes, strict=True)
    )
    logging.info(
        f"mixture: {schedule.per_process} batches in an epoch for each of {world_size} processes; shares {shares}; "
        f"times that a pair is seen in an epoch: {walks}"
    )
    return batch_loader(dataset, MixtureSampler(dataset, rank), train_ds)


def _apportion(probabilities: Sequence[float], total: int) -> list[int]:
    """Divide `total` by largest remainders, with at least one for each."""
    quotas = np.asarray(probabilities, dtype=float) / sum(probabilities) * total
    counts = np.maximum(np.floor(quotas), 1)
    while counts.sum() != total:
        step = 1 if counts.sum() < total else -1
        owed = np.where((step < 0) & (counts == 1), np.inf, quotas - counts) * step
        counts[np.argmax(owed)] += step
    return counts.astype(int).tolist()
