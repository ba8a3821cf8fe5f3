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
"""Archives whose values, types, shapes are changed in one place: only the documented error, or a model that works."""

import random

import torch
from damage import damaged_json, rebuilt_archive, time_limit, tree

from nemo_distill.archives.restore import read_archive_config, restore_model
from nemo_distill.decoding.engine import SearchSettings, archive_settings
from nemo_distill.decoding.opening import open_engine
from nemo_distill.errors import InputError

USED = ("beam_size", "len_pen", "max_generation_delta", "src_language", "tgt_language", "encoder", "decoder", "head")


def test_values_of_the_configuration(tiny_teacher_path, tmp_path):
    """What opens can also translate: no value waits to fail later."""
    generator, refused = random.Random(7), 0
    for _ in range(20):

        def change(section: dict) -> object:
            for key in ("train_ds", "validation_ds", "test_ds", "optim"):
                section.pop(key, None)
            if generator.random() < 0.7:
                key = generator.choice([*USED, "encoder_tokenizer", "multilingual", "shared_embeddings"])
                if isinstance(section.get(key), dict) and generator.random() < 0.8:
                    section[key] = damaged_json(section[key], generator)
                else:
                    section[key] = damaged_json([section.get(key)], generator)
                return section
            return damaged_json(section, generator)

        path = rebuilt_archive(tiny_teacher_path, tmp_path / "changed.nemo", config=change)
        before = tree(tmp_path)
        with time_limit(30):
            for trust in (False, True):
                try:
                    read_archive_config(path, trust=trust)
                    model = restore_model(path, trust=trust)
                    assert isinstance(archive_settings(model), SearchSettings)
                    if not trust:
                        assert list(open_engine(path).translate(["Die Lampe ist rot."]))
                except InputError as error:
                    assert "\n" not in str(error)  # noqa: PT017
                    refused += 1
        assert tree(tmp_path) == before
    assert refused > 20


def test_types_and_shapes_of_weights(tiny_teacher_path, tmp_path):
    generator, refused = random.Random(8), 0
    types = [torch.float16, torch.float64, torch.int32, torch.bool, torch.complex64, torch.uint8]
    changes = [
        lambda tensor: tensor.to(generator.choice(types)),
        lambda tensor: tensor[:0],
        lambda tensor: tensor[:-1],
        lambda tensor: tensor.unsqueeze(0),
        lambda tensor: tensor.t().contiguous().t() if tensor.ndim == 2 else tensor.clone(),
        lambda tensor: tensor.sum(),
        lambda tensor: tensor[:1].expand(tensor.shape),
        lambda tensor: torch.cat([tensor, tensor]),
        lambda tensor: tensor / 0,
    ]
    for _ in range(15):

        def change(state: dict) -> None:
            name = generator.choice(list(state))
            if generator.random() < 0.1:
                state[generator.choice(["", "x", "\n", "a" * 5000])] = state.pop(name)
            else:
                state[name] = generator.choice(changes)(state[name])

        path = rebuilt_archive(tiny_teacher_path, tmp_path / "changed.nemo", weights=change)
        with time_limit(30):
            try:
                model = restore_model(path)
                assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
            except InputError as error:
                assert "\n" not in str(error)  # noqa: PT017
                refused += 1
    assert 7 < refused < 15
