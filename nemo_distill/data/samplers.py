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
"""Samplers that can start in the middle of an epoch: its order follows from the seed and the epoch alone."""

import itertools
from collections.abc import Iterator, Mapping, Sized
from typing import Any

import numpy as np
import torch.distributed as dist
from torch.utils.data import DataLoader, Dataset, DistributedSampler, RandomSampler, SequentialSampler


class ResumableSampler(DistributedSampler):
    """A sampler that can start in the middle of an epoch; other epochs are walked from their start."""

    _start = (0, 0)

    def start_at(self, epoch: int, items: int) -> None:
        """Leave out the first `items` of every walk through `epoch`, which becomes the current one."""
        self.set_epoch(epoch)
        self._start = (epoch, items)

    def __iter__(self) -> Iterator[int]:
        """Start a walk."""
        epoch, items = self._start
        return itertools.islice(self.walk(), items if epoch == self.epoch else 0, None)

    def walk(self) -> Iterator[int]:
        """Return the items of the epoch that `set_epoch` named."""
        raise NotImplementedError

    def check_ranks(self) -> None:
        """Make sure that the processes that train are those that the items are shared out to.

        Raises:
            RuntimeError: they are not.
        """
        if dist.is_available() and dist.is_initialized():
            really = dist.get_world_size(), dist.get_rank()
            if really != (self.num_replicas, self.rank):
                raise RuntimeError(
                    f"the training data were built for process {self.rank} of {self.num_replicas}, this is process "
                    f"{really[1]} of {really[0]}; give the model its trainer before its data, or call "
                    "model.setup_training_data(model.cfg.train_ds) again"
                )


def batch_loader(dataset: Dataset, sampler: ResumableSampler, section: Mapping[str, Any]) -> DataLoader:
    """Return a loader of the items of one process, which are batches themselves.

    Args:
        dataset: what is read.
        sampler: of this process.
        section: of the data set: `num_workers`, `pin_memory`.
    """
    return DataLoader(
        dataset,
        batch_size=1,
        sampler=sampler,
        num_workers=section.get("num_workers", 2),
        pin_memory=section.get("pin_memory", False),
    )


class EpochSampler(ResumableSampler):
    """Every item once in each epoch, in an order that follows from the seed and the epoch alone.

    Several processes share the items; a last round that is not full is filled up from the start of the order, as by
    torch's `DistributedSampler`.

    Args:
        dataset: what is sampled.
        shuffle: another order in each epoch, else that of the data.
        seed: of all orders.
        rank: of this process.
        world_size: number of processes.

    Example:
        >>> sampler = EpochSampler(range(5), shuffle=False)
        >>> sampler.start_at(epoch=2, items=3)
        >>> list(sampler)
        [3, 4]
    """

    def __init__(self, dataset: Sized, shuffle: bool, seed: int = 0, rank: int = 0, world_size: int = 1) -> None:
        super().__init__(dataset, num_replicas=world_size, rank=rank, shuffle=shuffle, seed=seed)

    def walk(self) -> Iterator[int]:
        """Return the items of the epoch that `set_epoch` named."""
        size = len(self.dataset)
        order = np.random.default_rng([self.seed, self.epoch]).permutation(size) if self.shuffle else np.arange(size)
        return iter(np.resize(order, self.total_size)[self.rank :: self.num_replicas].tolist())


def resumable_loader(loader: object, seed: int, rank: int, world_size: int) -> object:
    """Return a loader of the same batches whose sampler is an `EpochSampler`.

    A loader that has a sampler or batches of its own, or data without a length, is returned as it is.
    """
    if not isinstance(loader, DataLoader) or type(loader.sampler) not in (RandomSampler, SequentialSampler):
        return loader
    own_batches = loader.batch_size is None and loader.batch_sampler is not None
    own_draws = getattr(loader.sampler, "replacement", False) or len(loader.sampler) != len(loader.dataset)
    if own_batches or own_draws:
        return loader
    shuffle = isinstance(loader.sampler, RandomSampler)
    copied = ("batch_size", "num_workers", "collate_fn", "pin_memory", "drop_last", "timeout", "worker_init_fn")
    copied += ("multiprocessing_context", "generator", "prefetch_factor", "persistent_workers", "pin_memory_device")
    return DataLoader(
        loader.dataset,
        sampler=EpochSampler(loader.dataset, shuffle, seed, rank, world_size),
        **{name: getattr(loader, name) for name in copied},
    )
