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
"""The order of data, by place."""

import pytest
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, SequentialSampler

from nemo_distill.data.samplers import EpochSampler, resumable_loader


def test_every_item_comes_once_in_each_epoch_in_another_order():
    sampler = EpochSampler(range(50), shuffle=True, seed=3)
    orders = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
        assert sorted(orders[-1]) == list(range(50))
    assert orders[0] != orders[1] != orders[2]
    again = EpochSampler(range(50), shuffle=True, seed=3)
    again.set_epoch(2)
    assert list(again) == orders[2]
    # Torch's DistributedSampler adds the epoch to the seed: epoch 1 of seed 3 would be epoch 0 of seed 4.
    assert list(EpochSampler(range(50), shuffle=True, seed=4)) != orders[1]


@pytest.mark.parametrize("size", [1, 7, 8])
def test_processes_share_the_items(size):
    shares = [list(EpochSampler(range(size), shuffle=True, seed=1, rank=rank, world_size=3)) for rank in range(3)]
    assert len({len(share) for share in shares}) == 1
    assert {item for share in shares for item in share} == set(range(size))
    assert len(shares[0]) == -(-size // 3)


def test_a_start_in_the_middle_counts_for_its_epoch_alone():
    sampler = EpochSampler(range(10), shuffle=True, seed=1)
    sampler.set_epoch(4)
    whole = list(sampler)
    sampler = EpochSampler(range(10), shuffle=True, seed=1)
    sampler.start_at(epoch=4, items=7)
    assert list(sampler) == list(sampler) == whole[7:]
    assert len(sampler) == 10
    sampler.set_epoch(5)
    assert sorted(sampler) == list(range(10))


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_loader_gives_the_same_batches_in_an_order_of_its_own(shuffle):
    loader = DataLoader(range(10), batch_size=4, shuffle=shuffle, collate_fn=sorted, drop_last=True)
    ours = resumable_loader(loader, seed=1, rank=0, world_size=1)
    assert (ours.dataset, ours.batch_size, ours.drop_last, ours.collate_fn) == (loader.dataset, 4, True, sorted)
    assert len(ours) == len(loader) == 2
    assert (list(ours) == [[0, 1, 2, 3], [4, 5, 6, 7]]) is not shuffle


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(3))


@pytest.mark.parametrize(
    "loader",
    [
        DataLoader(Stream()),
        [1, 2],
        None,
        DataLoader(range(3), sampler=EpochSampler(range(3), True)),
        DataLoader(range(3), batch_sampler=[[2, 0], [1]]),
        DataLoader(range(3), batch_sampler=BatchSampler(SequentialSampler(range(3)), 2, False)),
        DataLoader(range(3), sampler=RandomSampler(range(3), replacement=True)),
        DataLoader(range(3), sampler=RandomSampler(range(3), num_samples=2)),
    ],
)
def test_other_loaders_are_left_alone(loader):
    assert resumable_loader(loader, 1, 0, 1) is loader
