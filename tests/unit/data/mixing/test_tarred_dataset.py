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
from collections import Counter

import pytest
import torch
from nemo.collections.nlp.data import TarredTranslationDataset
from nemo.collections.nlp.models import MTEncDecModel
from omegaconf import OmegaConf

from nemo_distill import DistilledMTEncDecModel
from nemo_distill.config.mixture import ComponentConfig
from nemo_distill.data.checks import check_model_files
from nemo_distill.data.mixing.tarred import shard_paths
from nemo_distill.data.mixing.tarred_dataset import TarredDataset, TarredSampler, open_tarred
from nemo_distill.errors import InputError
from nemo_distill.training.multilingual import languages_of_sets
from nemo_distill.training.repairs import repair_model


def items(dataset) -> Counter:
    """Return the items of a data set, in no order."""
    numbers = range(len(dataset)) if isinstance(dataset, TarredDataset) else None
    found = (dataset[number] for number in numbers) if numbers else iter(dataset)
    return Counter(tuple(tuple(map(tuple, torch.as_tensor(each).tolist())) for each in item) for item in found)


@pytest.mark.parametrize("prefix", [None, 7])
@pytest.mark.parametrize("is_reversed", [False, True])
def test_the_items_are_nemos(tiny_tarred, load_tiny_tokenizer, prefix, is_reversed):
    tokenizer, component = load_tiny_tokenizer(), ComponentConfig(metadata_file=str(tiny_tarred))
    settings = {"reverse_lang_direction": is_reversed, "prepend_id": prefix}
    shards = list(map(str, shard_paths(component)))
    stock = TarredTranslationDataset(shards, str(tiny_tarred), tokenizer, tokenizer, **settings)
    ours = open_tarred(component, tokenizer, tokenizer, prefix, is_reversed)
    assert items(ours) == items(stock)
    assert len(list(itertools.islice(ours, 1000))) == len(ours)


def build(config, plain: bool):
    if not plain:
        return DistilledMTEncDecModel(config)
    config.pop("distillation")
    with languages_of_sets():
        return repair_model(MTEncDecModel(config))


@pytest.fixture
def config(student_config, tiny_tarred):
    config = student_config(objective={"nll": {"weight": 1}, "word_kd": {"weight": 0}})
    for key, value in (("use_tarred_dataset", True), ("metadata_file", str(tiny_tarred))):
        OmegaConf.update(config, f"train_ds.{key}", value, force_add=True)
    return config


@pytest.mark.parametrize("plain", [False, True])
def test_every_batch_comes_once_in_an_order_of_its_own(config, plain):
    model = build(config, plain)
    assert isinstance(model._train_ds, TarredDataset)
    orders = []
    for epoch in (0, 1):
        model._train_dl.sampler.set_epoch(epoch)
        orders.append([tuple(batch[0].flatten().tolist()) for batch in model._train_dl])
    assert Counter(orders[0]) == Counter(orders[1])
    assert len(orders[0]) == len(model._train_ds)
    assert orders[0] != orders[1]


@pytest.mark.parametrize("plain", [False, True])
def test_pairs_without_positions_are_left_out(config, plain):
    for side in ("encoder", "decoder"):
        config[side].max_sequence_length = 14
    model = build(config, plain)
    shapes = [(batch[0].shape[-1], batch[2].shape[-1]) for batch in model._train_dl]
    assert max(map(max, shapes)) <= 14


def test_processes_share_the_batches(config, tiny_tarred):
    dataset = build(config, plain=False)._train_ds
    shares = [list(TarredSampler(dataset, shuffle=True, rank=rank, world_size=2)) for rank in (0, 1)]
    assert set(shares[0]) | set(shares[1]) == set(range(len(dataset)))
    assert len(shares[0]) == len(shares[1]) == -(-len(dataset) // 2)


@pytest.mark.parametrize("technique", ["temperature", None])
def test_several_sets_are_refused(config, tiny_tarred, technique):
    """NeMo's ConcatDataset gives less of them in each epoch; as components of a mixture they are read whole."""
    config.train_ds.metadata_file = [str(tiny_tarred)] * 2
    OmegaConf.update(config, "train_ds.concat_sampling_technique", technique, force_add=True)
    with pytest.raises(
        InputError, match="model.train_ds.metadata_file: got 2 tarred sets, which NeMo's ConcatDataset"
    ):
        check_model_files(config)
