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
"""The `model` section, in whatever form a recipe hands it over."""

import pytest
from nemo.collections.nlp.models.machine_translation.mt_enc_dec_config import AAYNBaseConfig
from omegaconf import OmegaConf

from nemo_distill.config.model_section import as_model_config, as_override
from nemo_distill.errors import ConfigurationError


def test_omegaconf_stays_the_same_object():
    section = OmegaConf.create({"teacher": "a.nemo", "model": {"path": "${teacher}"}}).model
    assert as_model_config(section) is section
    assert as_model_config(section).path == "a.nemo"


def test_dataclasses_and_plain_data():
    assert as_model_config(AAYNBaseConfig(beam_size=7)).get("beam_size") == 7
    assert as_model_config(AAYNBaseConfig()).get("distillation") is None
    assert as_model_config({"encoder": {"num_layers": 2}}).encoder.num_layers == 2


@pytest.mark.parametrize("given", [None, 3, ["a"], "teacher.nemo"])
def test_what_is_no_section(given):
    with pytest.raises(ConfigurationError, match=f"got a {type(given).__name__}; give OmegaConf's DictConfig"):
        as_model_config(given)


def test_a_value_that_omegaconf_cannot_hold():
    with pytest.raises(ConfigurationError, match="configuration cannot be read: .*Value 'object' is not a supported"):
        as_model_config({"encoder": object()})


def test_an_override_is_a_section_or_a_file_with_one(tmp_path):
    whole = {"model": {"beam_size": 3}, "trainer": {"devices": 1}}
    path = tmp_path / "override.yaml"
    path.write_text("model: {beam_size: 3}\n")
    for given in (whole, OmegaConf.create(whole), whole["model"], path, str(path)):
        assert as_override(given) == {"beam_size": 3}
    assert as_override(None) is None


@pytest.mark.parametrize("text", ["model: {", "- a\n", "a: &x [*x]\n"])
def test_a_file_that_is_no_override(tmp_path, text):
    path = tmp_path / "override.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError):
        as_override(path)
    with pytest.raises(ConfigurationError, match=r"no.yaml"):
        as_override(tmp_path / "no.yaml")
