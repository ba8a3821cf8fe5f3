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

import itertools
import pickle
import runpy
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from nemo.collections.nlp.data import TranslationDataset
from torch.utils.data import DataLoader

from nemo_distill.config.mixture import ComponentConfig, MixtureConfig, NoiseConfig
from nemo_distill.data.mixing.dataset import MixedDataset, MixtureSampler, MixtureSchedule, build_mixture_loader
from nemo_distill.errors import ConfigurationError, InputError
from nemo_distill.training.trainer import process_group

TRAIN_DS = {"tokens_in_batch": 400, "num_workers": 0}


@pytest.fixture(scope="module")
def tokenizer(load_tiny_tokenizer):
    return load_tiny_tokenizer()


@pytest.fixture(scope="module")
def gold(tiny_corpus):
    return ComponentConfig(source=str(tiny_corpus / "train.de"), target=str(tiny_corpus / "train.en"))


@pytest.fixture(scope="module")
def loader(tokenizer, gold, tiny_pseudo):
    """A function that builds the loader of one process over gold and pseudo pairs."""

    def build(rank: int = 0, world_size: int = 1, workers: int = 0, train_ds=(), **mixture) -> DataLoader:
        components = {"gold": gold, "pseudo": ComponentConfig(directory=str(tiny_pseudo))}
        settings = {"components": components, "probabilities": {"gold": 0.34, "pseudo": 0.66}, "seed": 1} | mixture
        train_ds = {**TRAIN_DS, "num_workers": workers, **dict(train_ds)}
        return build_mixture_loader(MixtureConfig(**settings), train_ds, tokenizer, tokenizer, rank, world_size)

    return build


def digest(batch) -> tuple[bytes, ...]:
    return tuple(np.ascontiguousarray(item).tobytes() for item in batch)


def sentences(batch) -> list[bytes]:
    """Return the target rows of a batch without padding."""
    return [row[mask.astype(bool)].tobytes() for row, mask in zip(batch[2], batch[3], strict=True)]


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("probabilities", [(0.34, 0.66), (0.1, 0.9), (1 / 3, 2 / 3), (0.2, 0.3, 0.5), (1.0,)])
def test_epochs_are_constant_and_hold_the_shares(world_size, probabilities):
    sizes = [37, 91, 5][: len(probabilities)]
    schedule = MixtureSchedule(sizes, probabilities, seed=3, world_size=world_size)
    for epoch, rank in itertools.product(range(5), range(world_size)):
        draws = schedule.draws(epoch, rank)
        assert len(draws) * world_size == len(schedule) >= max(sum(sizes), 50 * world_size)
        counts = Counter(draw.component for draw in draws)
        for component, probability in enumerate(probabilities):
            assert abs(counts[component] / len(draws) - probability) < 0.02


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_a_component_is_walked_without_replacement(world_size):
    """Over all processes and the ends of epochs: every batch once in each walk, and only the last walk is open."""
    sizes = [7, 40, 300]
    schedule = MixtureSchedule(sizes, [0.3, 0.3, 0.4], seed=2, epoch_size=70, world_size=world_size)
    draws = [draw for epoch in range(5) for rank in range(world_size) for draw in schedule.draws(epoch, rank)]
    assert len(set(draws)) == len(draws)
    for component, size in enumerate(sizes):
        walks = Counter(draw.walk for draw in draws if draw.component == component)
        assert sorted(walks) == list(range(len(walks)))
        assert all(walks[walk] == size for walk in range(len(walks) - 1))
    assert max(draw.walk for draw in draws if draw.component == 0) > 10


def test_the_order_is_that_of_the_seed():
    def order(seed: int, epoch: int = 0, rank: int = 0) -> list:
        return MixtureSchedule([30, 60], [0.5, 0.5], seed, world_size=2).draws(epoch, rank)

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert [d.component for d in order(1)] != [d.component for d in order(1, epoch=1)]
    assert [d.component for d in order(1)] != [d.component for d in order(1, rank=1)]
    first, second = ([d.batch for d in order(1, epoch) if d.component == 0] for epoch in (0, 1))
    assert first != second


def test_epoch_size():
    assert len(MixtureSchedule([10, 10], [0.5, 0.5], epoch_size=31, world_size=2)) == 32
    assert MixtureSchedule([10, 10], [0.001, 0.999], epoch_size=40).counts == [1, 39]
    assert MixtureSchedule([10, 10, 10], [0.001, 0.001, 0.998], epoch_size=3).counts == [1, 1, 1]
    assert MixtureSchedule([10, 10], [2.0, 1.0], epoch_size=9).counts == [6, 3]
    with pytest.raises(InputError, match="epoch_size: 4 batches for 2 processes hold none of some of the 3 .*least 6"):
        MixtureSchedule([9, 9, 9], [0.2, 0.3, 0.5], epoch_size=4, world_size=2)


def test_one_component_gives_the_batches_of_nemo(tokenizer, gold, loader):
    stock = TranslationDataset(gold.source, gold.target, tokens_in_batch=400, clean=True, max_seq_length=30)
    stock.batchify(tokenizer, tokenizer)
    limits = {"clean": True, "max_seq_length": 30}
    mixed = loader(components={"gold": gold}, probabilities={"gold": 1.0}, epoch_size=len(stock), train_ds=limits)
    assert 1 < len(stock) == len(mixed)
    batches = [[item[0].numpy() for item in batch] for batch in mixed]
    assert Counter(map(digest, batches)) == Counter(digest(stock[number]) for number in range(len(stock)))
    for item, expected in zip(next(iter(mixed)), next(iter(DataLoader(stock, batch_size=1))), strict=True):
        assert (item.dtype, item.ndim) == (expected.dtype, expected.ndim)


@pytest.mark.parametrize("world_size", [1, 2])
def test_workers_change_nothing(loader, world_size):
    """The same batches in the same order in each epoch of each process, and no sentence is lost."""
    seen = set()
    for rank in range(world_size):
        plain, with_workers = (loader(rank, world_size, workers, epoch_size=80) for workers in (0, 2))
        for _ in range(2):
            batches = list(plain)
            assert len(batches) == len(plain) == 80 // world_size
            assert [digest(batch) for batch in batches] == [digest(batch) for batch in with_workers]
            seen.update(sentence for batch in batches for sentence in sentences([item[0].numpy() for item in batch]))
    assert len(seen) == 320  # 160 gold and 160 pseudo targets


def test_every_pair_comes_equally_often(loader):
    """After any number of epochs, over both processes, within one."""
    loaders = [loader(rank, 2, epoch_size=70) for rank in range(2)]
    per_component = [Counter(), Counter()]
    for epoch in range(4):
        for each in loaders:
            for number in each.sampler:
                draw = each.dataset.draw(number)
                _, _, items = each.dataset.components[draw.component].rows(draw.batch)
                per_component[draw.component].update(items)
        for counts in per_component:
            assert len(counts) == 160 or epoch == 0
            assert max(counts.values()) - min(counts.values()) <= 1


def test_the_sampler_counts_epochs_by_itself_and_obeys_lightning(loader):
    sampler = loader(epoch_size=10).sampler
    assert [list(sampler) for _ in range(3)] == [list(range(start, start + 10)) for start in (0, 10, 20)]
    sampler.set_epoch(7)
    assert list(sampler) == list(range(70, 80))
    assert list(sampler) == list(range(80, 90))
    assert list(loader(1, 2, epoch_size=6).sampler) == [1, 3, 5]


def test_a_sampler_of_another_process_is_refused(loader):
    sampler = loader(0, 2).sampler
    with process_group(), pytest.raises(RuntimeError, match="built for process 0 of 2, this is process 0 of 1; give"):
        list(sampler)
    with process_group():
        assert list(loader(epoch_size=5).sampler) == list(range(5))


def test_equal_seeds_give_equal_batches(loader):
    first, again, other = ([digest(batch) for batch in loader(seed=seed)] for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_the_dataset_can_be_sent_to_another_process(loader):
    dataset = loader(noise=NoiseConfig(word_swap=3)).dataset
    copy = pickle.loads(pickle.dumps(dataset))
    assert digest(copy[5]) == digest(dataset[5])


def test_probability_zero_leaves_a_component_out(loader, gold):
    components = {"gold": gold, "pseudo": ComponentConfig(directory="nowhere")}
    dataset = loader(components=components, probabilities={"gold": 1.0, "pseudo": 0.0}).dataset
    assert isinstance(dataset, MixedDataset)
    assert len(dataset.components) == 1


def test_fractions(loader, gold, tiny_pseudo):
    components = {
        "gold": ComponentConfig(source=gold.source, target=gold.target, fraction=0.1),
        "pseudo": ComponentConfig(directory=str(tiny_pseudo), fraction=0.1),
    }
    dataset = loader(components=components).dataset
    some_gold, some_pseudo = ({row.tobytes() for row in part.sources} for part in dataset.components)
    assert len(some_gold) == 16
    assert some_gold == some_pseudo  # the same source sentences
    other = loader(components=components, seed=2).dataset
    assert {row.tobytes() for row in other.components[0].sources} != some_gold


def test_noise_is_for_named_components_new_in_each_walk_and_seeded(loader):
    def epoch(noise: NoiseConfig, number: int = 0, seed: int = 1) -> list[tuple[int, tuple]]:
        each = loader(noise=noise, seed=seed)
        each.sampler.set_epoch(number)
        return [(each.dataset.draw(place), each.dataset[place]) for place in each.sampler]

    noise = NoiseConfig(word_dropout=0.2, word_swap=3, word_mask=0.2)
    disturbed, plain, again = epoch(noise), epoch(NoiseConfig()), epoch(noise)
    assert [digest(batch) for _, batch in disturbed] == [digest(batch) for _, batch in again]
    changed = Counter()
    for (draw, noisy), (_, clean) in zip(disturbed, plain, strict=True):
        assert digest(noisy[2:]) == digest(clean[2:])  # targets never are
        assert noisy[0].shape[1] <= clean[0].shape[1]
        changed[draw.component] += digest(noisy[:2]) != digest(clean[:2])
    assert changed[0] == 0
    assert changed[1] > 20
    walks = {}
    for draw, batch in disturbed + epoch(noise, 1):
        walks.setdefault((draw.component, draw.batch), set()).add(digest(batch))
    assert any(len(versions) > 1 for (component, _), versions in walks.items() if component == 1)
    assert all(len(versions) == 1 for (component, _), versions in walks.items() if component == 0)


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("workers", [0, 2])
def test_tarred_sets_mix_with_text(loader, tiny_tarred, tiny_pseudo, world_size, workers):
    """Every batch of every shard is taken, that of the remainder too, and processes keep step."""
    components = {
        "gold": ComponentConfig(metadata_file=str(tiny_tarred)),
        "pseudo": ComponentConfig(directory=str(tiny_pseudo)),
    }
    loaders = [loader(rank, world_size, workers, components=components) for rank in range(world_size)]
    dataset = loaders[0].dataset
    taken = Counter()
    for _ in range(2):
        for each in loaders:
            batches = [digest(batch) for batch in each]
            assert len(batches) == dataset.schedule.per_process
            taken.update(batches)
    tarred = dataset.components[0]
    numbers = {dataset.draw(number).batch: number for number in range(2 * len(dataset)) if not dataset.draw(number)[0]}
    assert sorted(numbers) == list(range(len(tarred)))
    counts = [taken[digest(torch.as_tensor(item)[None] for item in dataset[number])] for number in numbers.values()]
    assert min(counts) > 0
    assert max(counts) - min(counts) <= 1


def test_a_tarred_set_gives_the_batches_of_its_text(loader, gold, tiny_tarred):
    settings = {"probabilities": {"gold": 1.0}, "epoch_size": 200}
    from_tar = loader(components={"gold": ComponentConfig(metadata_file=str(tiny_tarred))}, **settings).dataset
    from_text = loader(components={"gold": gold}, **settings).dataset
    assert {digest(from_tar[number]) for number in range(200)} == {digest(from_text[number]) for number in range(200)}


def test_settings_that_do_not_fit(loader, gold):
    with pytest.raises(ConfigurationError, match="reverse_lang_direction: swap source and target of the mixture"):
        loader(train_ds={"reverse_lang_direction": True})
    too_short = {"clean": True, "max_seq_length": 3}
    with pytest.raises(InputError, match="components.gold: no sentence pair is left of 160; give more text, or look"):
        loader(train_ds=too_short)


def test_the_sampler_is_of_the_kind_that_lightning_leaves_alone(loader):
    each = loader()
    assert isinstance(each.sampler, MixtureSampler)
    assert isinstance(each.sampler, torch.utils.data.DistributedSampler)


@pytest.mark.slow
def test_the_table_of_the_documentation(tmp_path):
    """Its line for two processes, measured anew."""
    docs = Path(__file__).parents[4] / "docs"
    script = runpy.run_path(str(docs / "mixing_table.py"))
    page = (docs / "mixing.md").read_text("utf-8")
    assert script["row"](script["HEADINGS"]) in page
    assert script["measure"](script["write_corpora"](tmp_path), processes=2, workers=0) in page
