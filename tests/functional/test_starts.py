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
"""A recipe's student that starts from a teacher of another structure than those of configs/model: it trains."""

import pytest
from hydra import compose, initialize_config_dir
from nemo.collections.nlp.models import MTEncDecModel

from nemo_distill import DistilledMTEncDecModel
from nemo_distill.jobs.graph import Graph
from nemo_distill.jobs.recipe import read_recipe
from nemo_distill.jobs.running import CONFIGS, essence
from nemo_distill.training.run import run_training

SIDES = ("encoder", "decoder")
OTHERWISE = {"pre_ln": False, "hidden_act": "gelu", "num_token_types": 2, "num_attention_heads": 8}
"""Than in configs/model: a layer norm behind each block, as NGC's first models, heads of 4."""


@pytest.fixture
def other_teacher(tiny_model_config, tmp_path):
    """An archive with a table of embeddings for each side, and learnt positions in the decoder alone."""
    changes = {f"{side}.{key}": value for side in SIDES for key, value in OTHERWISE.items()}
    changes |= {"shared_embeddings": False, "decoder.learn_positional_encodings": True}
    MTEncDecModel(tiny_model_config(**changes)).save_to(str(tmp_path / "teacher.nemo"))
    return tmp_path / "teacher.nemo"


def test_a_student_of_another_structure_than_the_presets_trains(other_teacher, tiny_corpus, tmp_path):
    slim = ["model.encoder.hidden_size=16", "model.encoder.inner_size=32", "trainer.enable_progress_bar=false"]
    given = {"teacher": str(other_teacher), "corpus": str(tiny_corpus)}
    given |= {"student": {"model": "tiny_1x1", "steps": 2, "overrides": slim}, "validations": 1}
    given |= {"runs": {"started": {"start": "every_nth", "overrides": ["distillation=hinton"]}}}
    stages = {stage.name: stage for stage in Graph(read_recipe(None, given), tmp_path / "job").stages()}
    with initialize_config_dir(str(CONFIGS), version_base=None):
        config = compose("distill", essence(stages["started"].command)[1:])
    student = MTEncDecModel.restore_from(str(run_training(config, DistilledMTEncDecModel)))
    assert not student.cfg.shared_embeddings
    for side in SIDES:
        section = student.cfg[side]
        assert (section.pre_ln, section.hidden_act, section.num_attention_heads) == (False, "gelu", 4)
        assert section.learn_positional_encodings == (side == "decoder")
