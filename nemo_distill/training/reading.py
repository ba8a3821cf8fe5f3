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
"""How training and validation read their text: as everything else here does, and no more tokens than models have room.

A model's data are built before its encoder and decoder: where these turn out to have no positions for some training
pairs, the data are built again without them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from nemo.collections.nlp.models import MTEncDecModel
from nemo.collections.nlp.models.machine_translation import mt_enc_dec_model as nemo_module
from omegaconf import OmegaConf
from torch.utils.data import ConcatDataset, Dataset

from nemo_distill.data.line_dataset import LineDataset
from nemo_distill.data.mixing.dataset import MixedDataset
from nemo_distill.data.mixing.tarred import TarredBatches, is_tarred
from nemo_distill.data.mixing.tarred_dataset import TarredDataset, TarredSampler, open_tarred, tarred_component
from nemo_distill.data.positions import Positions
from nemo_distill.data.samplers import batch_loader
from nemo_distill.data.tokens.pairs import TextBatches
from nemo_distill.data.tokens.store import store_of
from nemo_distill.errors import InputError

_SETS = {"validation_ds": "_validation_ds", "test_ds": "_test_ds"}


@contextmanager
def read_alike(model: MTEncDecModel, section: str, config: Any) -> Iterator[None]:
    """Context in which NeMo builds the data of a section from `LineDataset`, and a tarred set from `TarredDataset`.

    Several training files are one corpus: each batch comes once in an epoch. Several tarred sets, and files with a
    `concat_sampling_technique`, stay NeMo's, and `check_model_files` refuses them.

    Args:
        model: whose data are built.
        section: `train_ds`, `validation_ds` or `test_ds`.
        config: the section.
    """
    stock, build = nemo_module.TranslationDataset, vars(MTEncDecModel)["_setup_dataset_from_config"]
    load = vars(MTEncDecModel)["_setup_dataloader_from_config"]
    training = section == "train_ds"
    store = store_of(config or {}) if training else None
    lines = partial(LineDataset, training=training, positions=positions_of(model), store=store)

    def build_all(cls: type, cfg: Any, *arguments: Any, multilingual_ids: Any, **named: Any) -> Dataset:
        def build_one(cfg: Any, ids: Any) -> Dataset:
            return build.__func__(cls, cfg, *arguments, multilingual_ids=ids, **named)

        if component := tarred_component(cfg):
            prefix = multilingual_ids[0] if named.get("multilingual") else None
            tokenizers = model.encoder_tokenizer, model.decoder_tokenizer
            return open_tarred(component, *tokenizers, prefix, cfg.get("reverse_lang_direction", False))
        pairs = list(zip(_names(cfg, "src_file_name"), _names(cfg, "tgt_file_name"), strict=False))
        if is_tarred(cfg) or len(pairs) < 2 or cfg.get("concat_sampling_technique"):
            return build_one(cfg, multilingual_ids)
        ids = multilingual_ids if named.get("multilingual") else [None] * len(pairs)
        return ConcatDataset([
            build_one(OmegaConf.merge(cfg, {"src_file_name": source, "tgt_file_name": target}), [each])
            for (source, target), each in zip(pairs, ids, strict=True)
        ])  # fmt: skip

    def load_one(cls: type, cfg: Any, dataset: Dataset) -> Any:
        if isinstance(dataset, TarredDataset):
            share = {"rank": model.global_rank, "world_size": model.world_size}
            return batch_loader(dataset, TarredSampler(dataset, shuffle=True, **share), cfg)
        return load.__func__(cls, cfg, dataset)

    nemo_module.TranslationDataset = lines
    MTEncDecModel._setup_dataloader_from_config = classmethod(load_one)
    MTEncDecModel._setup_dataset_from_config = classmethod(build_all)
    try:
        yield
    finally:
        nemo_module.TranslationDataset = stock
        MTEncDecModel._setup_dataset_from_config = build
        MTEncDecModel._setup_dataloader_from_config = load


def _names(config: Any, key: str) -> list[str]:
    value = config.get(key)
    return [value] if isinstance(value, str) else list(value or ())


def positions_of(model: MTEncDecModel) -> Positions:
    """Return the positions to which a model's training data are kept; without end until `keep_to_positions`."""
    return getattr(model, "_positions", Positions())


def forget_positions(model: MTEncDecModel) -> None:
    """Keep training data that are set up from now on to a model's own positions, no longer to an earlier teacher's."""
    model._positions = Positions.of_model(model)


def keep_to_positions(model: MTEncDecModel, teacher: Positions | None = None) -> None:
    """Leave out the training pairs that a model, or its teacher, has no positions for; check validation's lines.

    Sine and cosine positions go on beyond `max_sequence_length`, and a validation may use them; training pairs are
    kept to it, as in a cache of a teacher.

    Args:
        model: with its data.
        teacher: what its teacher has for the student's text.

    Raises:
        InputError: a line of validation or test is longer than a table of learned positions; or no pair is left.
    """
    model._positions = positions_of(model) & Positions.of_model(model) & (teacher or Positions())
    if not all(_within(each, model._positions) for each in _parts(getattr(model, "_train_ds", None))):
        model.setup_training_data(model.cfg.train_ds)
    for batches, prefix, is_reversed in _tarred_parts(getattr(model, "_train_ds", None)):
        batches.keep_to(partial(_have_room, model._positions, prefix is not None, is_reversed))
    learned = Positions.of_model(model, learned=True)
    for section, name in _SETS.items():
        for dataset in getattr(model, name, None) or ():
            beyond = dataset.first_beyond(learned) if isinstance(dataset, LineDataset) else None
            if beyond is not None:
                path, line, tokens = beyond
                raise InputError(
                    f"model.{section}: '{path}', line {line}, has {tokens} tokens, and the model learns "
                    f"{learned.source} positions of a source and {learned.target} of a target; leave the line out, "
                    "or give more (model.encoder.max_sequence_length, model.decoder.max_sequence_length)"
                )


def _have_room(
    positions: Positions, has_prefix: bool, is_reversed: bool, source: np.ndarray, target: np.ndarray
) -> bool:
    """Return whether a pair of sentences of a set, as ids, has positions."""
    lengths = (len(target), len(source)) if is_reversed else (len(source), len(target))
    return positions.hold(*lengths, has_prefix)


def _parts(dataset: Any) -> list[Any]:
    """Return the data sets in memory that training data are made of."""
    if isinstance(dataset, MixedDataset):
        return list(zip(dataset.components, dataset.prefixes, strict=True))
    return list(getattr(dataset, "datasets", None) or [dataset])


def _tarred_parts(dataset: Any) -> list[tuple[TarredBatches, int | None, bool]]:
    """Return the tarred sets of training data, what stands in front of sources, and whether they are reversed."""
    if isinstance(dataset, TarredDataset):
        return [(dataset.batches, dataset.prefix, dataset.is_reversed)]
    parts = _parts(dataset) if isinstance(dataset, MixedDataset) else []
    return [(*part, False) for part in parts if isinstance(part[0], TarredBatches)]


def _within(part: Any, positions: Positions) -> bool:
    """Return whether all pairs have positions; those of tarred sets are looked at where they are read."""
    if isinstance(part, LineDataset):
        return part.first_beyond(positions) is None
    if not isinstance(part, tuple) or not isinstance(part[0], TextBatches):
        return True
    batches, prefix = part
    return positions.hold(*batches.longest, prefix is not None)
