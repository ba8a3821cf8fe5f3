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
"""A model that overrides make wider is told that its learning rate is that of the narrower one."""

import re

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from nemo_distill.jobs import trainings
from nemo_distill.jobs.allowed import setting
from nemo_distill.jobs.running import CONFIGS


@pytest.fixture
def warnings_of(monkeypatch):
    """A function from the overrides of a training script to what it warns of; nothing is trained."""

    def run(entry: str, *overrides: str) -> list[str]:
        said = []
        monkeypatch.setattr(trainings, "warn", said.append)
        # by hand: `hydra.main` would close the logs of other tests
        with initialize_config_dir(str(CONFIGS), version_base=None):
            config = compose(entry, list(overrides), return_hydra_config=True)
            HydraConfig.instance().set_config(config)
            trainings.warn_of_rate(config)
        return said

    yield run
    HydraConfig.instance().cfg = None


@pytest.mark.parametrize(
    ("entry", "overrides", "width", "rate"),
    [
        (
            "train_nmt",
            ["model=tiny_1x1", "model.encoder.hidden_size=512"],
            "512 makes",
            "64, and .* 0.006: .*lr=0.00075",
        ),
        (
            "distill",
            ["model=small_1x1", "model.encoder={hidden_size: 192}"],
            "192 makes",
            "128, and .* 0.004: .*lr=0.00267",
        ),
        (
            "distill",
            ["model=tiny_1x1", "++model.encoder.hidden_size=88", "seed=2"],
            "88 makes",
            "64, and .*lr=0.00436$",
        ),
    ],
)
def test_a_wider_model_with_the_rate_of_the_narrower(warnings_of, entry, overrides, width, rate):
    [said] = warnings_of(entry, *overrides)
    assert said.startswith(f"model.encoder.hidden_size={width} the model wider than its file does, ")
    assert re.search(rate, said)


@pytest.mark.parametrize(
    "overrides",
    [
        ["model=tiny_1x1"],
        ["model=tiny_1x1", "model.encoder.hidden_size=64"],
        ["model=tiny_1x1", "model.encoder.hidden_size=16"],
        ["model=tiny_1x1", "model.encoder.hidden_size=512", "model.optim.lr=0.006"],
        ["model=tiny_1x1", "model.encoder.hidden_size=512", "model.optim={lr: 0.006}"],
        ["model=base", "model.encoder.hidden_size=512"],
    ],
)
def test_nothing_is_said_of_others(warnings_of, overrides):
    assert warnings_of("train_nmt", *overrides) == []


def test_nothing_is_said_of_a_configuration_from_elsewhere(warnings_of, monkeypatch):
    assert warnings_of("train_nmt", "model=tiny_1x1", "model.encoder.hidden_size=512"), "of which nothing is left"
    monkeypatch.setattr(trainings, "warn", pytest.fail)
    trainings.warn_of_rate(OmegaConf.create({"model": {"encoder": {"hidden_size": 512}, "optim": {"lr": 0.006}}}))


def test_a_teacher_whose_path_hydra_cannot_parse_unquoted(warnings_of):
    """The path stands in place of ${teacher}, without its quotes, once that is resolved."""
    teacher = setting("teacher", "Η\u3000μητέρα (1).nemo")
    path = "++model.distillation.teacher.model_path=${teacher}"
    assert not warnings_of("distill", "model=tiny_1x1", teacher, path)
    [said] = warnings_of("distill", "model=tiny_1x1", teacher, path, "model.encoder.hidden_size=96")
    assert "give model.optim.lr=0.004" in said
