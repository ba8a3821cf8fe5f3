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
"""A tarred set of NeMo's as training data by itself, whose batches can be taken in any order.

NeMo's own data set reads shards from start to end: a run that is resumed in the middle begins an epoch anew, and
processes have whole shards, of which some may be left over.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from nemo_distill.config.mixture import ComponentConfig
from nemo_distill.data.line_dataset import batch_arrays, with_prefix
from nemo_distill.data.mixing.tarred import TarredBatches, index_shards, is_tarred
from nemo_distill.data.samplers import EpochSampler


class TarredDataset(Dataset):
    """Items as of NeMo's `TarredTranslationDataset`; sampler and loader choose the order.

    Args:
        batches: of the set.
        pads: padding ids of source and target.
        prefix: token in front of each source.
        is_reversed: sources are read as targets.
    """

    def __init__(
        self, batches: TarredBatches, pads: tuple[int, int], prefix: int | None = None, is_reversed: bool = False
    ) -> None:
        self.batches, self.pads, self.prefix, self.is_reversed = batches, pads, prefix, is_reversed

    def __len__(self) -> int:
        return len(self.batches)

    def rows(self, number: int) -> tuple[Sequence[np.ndarray], Sequence[np.ndarray]]:
        """Return the sentences of a batch as they are read: sources with the prefix, and targets."""
        sources, targets, _ = self.batches.rows(number)
        sources, targets = (targets, sources) if self.is_reversed else (sources, targets)
        return with_prefix(sources, self.prefix), targets

    def __getitem__(self, number: int) -> tuple[np.ndarray, ...]:
        """Return batch `number` as five arrays."""
        if not 0 <= number < len(self):
            raise IndexError(number)
        return batch_arrays(*self.rows(number), self.pads)


def tarred_component(dataset: Mapping[str, Any]) -> ComponentConfig | None:
    """Return the tarred set that a `train_ds` section names; None where there is none, or several."""
    metadata, shards = (_only(dataset.get(key)) for key in ("metadata_file", "tar_files"))
    if not is_tarred(dataset) or not isinstance(metadata, str):
        return None
    return ComponentConfig(metadata_file=metadata, tar_files=shards)


def open_tarred(component: ComponentConfig, source, target, prefix: int | None, is_reversed: bool) -> TarredDataset:
    """Return a tarred set.

    Args:
        component: its files.
        source: NeMo tokenizer of the set's sources.
        target: the same of its targets.
        prefix: token in front of each source that is read.
        is_reversed: the set's targets are read as sources.

    Raises:
        InputError: as `index_shards`.
    """
    pads = source.pad_id, target.pad_id
    batches = TarredBatches(index_shards(component), pads, (source.vocab_size, target.vocab_size))
    return TarredDataset(batches, pads[::-1] if is_reversed else pads, prefix, is_reversed)


class TarredSampler(EpochSampler):
    """The batches of one process, shared out whatever the trainer does with samplers, as NeMo's tarred sets are."""

    def walk(self) -> Iterator[int]:
        """Return the batches of the epoch that `set_epoch` named."""
        self.check_ranks()
        return super().walk()


def _only(names: Any) -> Any:
    """Return the one item of a list of one; others as they are."""
    return names[0] if not isinstance(names, str) and isinstance(names, Sequence) and len(names) == 1 else names
