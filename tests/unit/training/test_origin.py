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
"""What a run notes of a teacher: whether it taught, and where the student started."""

import pytest
from nemo.collections.nlp.models import MTEncDecModel
from short_runs import config_in

from nemo_distill import DistilledMTEncDecModel
from nemo_distill.support.files import sha256
from nemo_distill.support.finished_run import run_of
from nemo_distill.training.origin import is_taught, start_of
from nemo_distill.training.run import run_training

NLL_ALONE = {"nll": {"weight": 1.0}, "word_kd": {"weight": 0}}


def test_what_a_run_notes(student_config, tiny_teacher_path, tmp_path):
    model = student_config(objective=NLL_ALONE)
    model.distillation.init = {"from_teacher": "every_nth", "width": "project", "trust_archive": False}
    archive = run_training(config_in(tmp_path / "run", model), DistilledMTEncDecModel)
    noted = run_of(archive, sha256(archive))
    assert (noted.taught, noted.start) == (False, "from_teacher: every_nth, width: project")


@pytest.mark.parametrize(
    ("objective", "labels", "expected"),
    [(None, False, True), (NLL_ALONE, False, False), (NLL_ALONE, True, True)],
)
def test_who_is_taught(student_config, tiny_pseudo, objective, labels, expected):
    """By a term that reads the teacher, or by its labels in a mixture."""
    config = student_config(objective=objective, data=False)
    if labels:
        config.distillation.mixture = {"components": {"pseudo": {"directory": str(tiny_pseudo)}}}
        config.train_ds = {"tokens_in_batch": 400}
    model = DistilledMTEncDecModel(config)
    assert is_taught(model) is expected
    if labels:  # processed by the run
        names = {"source": "source.txt", "target": "hypotheses.txt"}
        sides = {side: str(tiny_pseudo / name) for side, name in names.items()}
        config.distillation.mixture.components.pseudo = {**sides, "labels": str(tiny_pseudo)}
        assert is_taught(DistilledMTEncDecModel(config)) is expected
    assert start_of(model) == "random"


def test_a_stock_model_is_not_taught(tiny_model_config):
    model = MTEncDecModel(tiny_model_config(16, 1))
    assert (is_taught(model), start_of(model)) == (False, "random")
