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
"""Training data of several files, and text that needs more positions than the models have."""

import pytest
from nemo.collections.nlp.models import MTEncDecModel
from omegaconf import OmegaConf
from torch.utils.data import ConcatDataset

from nemo_distill import DistilledMTEncDecModel
from nemo_distill.errors import InputError
from nemo_distill.support.text_files import read_lines
from nemo_distill.teachers.cache_writer import CacheSettings, write_cache
from nemo_distill.training.multilingual import languages_of_sets
from nemo_distill.training.repairs import repair_model

SIDES = ("encoder", "decoder")
LINE = 7
"""Which line is long."""


@pytest.fixture
def text(tiny_corpus, tmp_path):
    """Training files of which one line is 60 words long on both sides, as keys of a data set."""
    names = {}
    for key, language in (("src_file_name", "de"), ("tgt_file_name", "en")):
        lines = read_lines(tiny_corpus / f"train.{language}")
        lines[LINE - 1] = " ".join(lines)[:400]
        path = tmp_path / f"long.{language}"
        path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
        names[key] = str(path)
    return names


def config_of(student_config, text, section="train_ds", learned=True, positions=64, **overrides):
    config = student_config(objective={"nll": {"weight": 1}, "word_kd": {"weight": 0}}, **overrides)
    for side in SIDES:
        config[side].max_sequence_length = positions
        OmegaConf.update(config, f"{side}.learn_positional_encodings", learned, force_add=True)
    config[section].update(text)
    return config


def lines_of(text) -> list[int]:
    """Return the lines that are read, from 1."""
    return [text.line(number) for number in range(len(text.sources))]


def build(config, plain):
    if not plain:
        return DistilledMTEncDecModel(config)
    config.pop("distillation")
    with languages_of_sets():
        return repair_model(MTEncDecModel(config))


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("learned", [False, True])
def test_a_training_pair_without_positions_is_left_out(student_config, text, first_batch, plain, learned):
    model = build(config_of(student_config, text, learned=learned), plain)
    assert lines_of(model._train_ds.text) == [line for line in range(1, 161) if line != LINE]
    assert all(batch[0].shape[-1] <= 64 and batch[2].shape[-1] <= 64 for batch in model._train_dl)
    model(*first_batch(model)[:4])


@pytest.mark.parametrize("plain", [False, True])
def test_a_validation_line_without_positions_is_named(student_config, text, plain):
    config = config_of(student_config, text, "validation_ds")
    message = rf"model.validation_ds: '{text['src_file_name']}', line {LINE}, has \d+ tokens, .* learns 64 positions"
    with pytest.raises(InputError, match=message):
        build(config, plain)


def test_sine_and_cosine_go_on_in_validation(student_config, text):
    model = build(config_of(student_config, text, "validation_ds", learned=False), plain=False)
    assert len(model._validation_ds[0].text.sources) == 160


def test_no_pair_with_positions(student_config, text):
    with pytest.raises(InputError, match="no sentence pair is left of 160; give more text, or look at max_seq_length"):
        build(config_of(student_config, text, positions=3), plain=False)


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("mixed", [False, True])
def test_a_teacher_with_fewer_positions(student_config, tiny_model_config, text, tmp_path, mixed, cached):
    positions = {f"{side}.max_sequence_length": 16 for side in SIDES}
    MTEncDecModel(tiny_model_config(**positions)).save_to(str(tmp_path / "short.nemo"))
    config = student_config()
    config.distillation.teacher.model_path = str(tmp_path / "short.nemo")
    every = DistilledMTEncDecModel(student_config())._train_ds.text.sources
    if cached:
        pairs = [(config.train_ds.src_file_name, config.train_ds.tgt_file_name)]
        write_cache([str(tmp_path / "short.nemo")], pairs, tmp_path / "cache", CacheSettings(8, (1.0,)))
        config.distillation.teacher = {"cache": str(tmp_path / "cache")}
    if mixed:
        names = {"source": config.train_ds.src_file_name, "target": config.train_ds.tgt_file_name}
        config.distillation.mixture = {"components": {"gold": names}}
    model = DistilledMTEncDecModel(config)
    kept = model._train_ds.components[0].sources if mixed else model._train_ds.text.sources
    assert 0 < len(kept) < len(every)
    assert all(batch[0].shape[-1] <= 16 and batch[2].shape[-1] <= 16 for batch in model._train_dl)


@pytest.mark.parametrize("plain", [False, True])
def test_several_files_are_one_corpus(student_config, text, tiny_corpus, plain):
    names = {
        "src_file_name": [str(tiny_corpus / "train.de"), str(tiny_corpus / "valid.de")],
        "tgt_file_name": [str(tiny_corpus / "train.en"), str(tiny_corpus / "valid.en")],
    }
    model = build(config_of(student_config, names), plain)
    assert isinstance(model._train_ds, ConcatDataset)
    pairs = [len(part.text.sources) for part in model._train_ds.datasets]
    assert pairs == [160, 20]
    for _ in range(2):  # epochs
        assert sum(batch[0].shape[-2] for batch in model._train_dl) == sum(pairs)
