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
"""Several models as one teacher."""

from pathlib import Path

import pytest
import torch
from nemo.collections.nlp.models import MTEncDecModel

from nemo_distill import DistilledMTEncDecModel
from nemo_distill.archives.restore import restore_model
from nemo_distill.errors import ConfigurationError, TeacherError
from nemo_distill.teachers.cache_writer import CacheSettings, write_cache
from nemo_distill.teachers.ensemble import EnsembleTeacher
from nemo_distill.teachers.frozen import FrozenTeacher


@pytest.fixture
def other_teacher(tiny_teacher_path, tmp_path) -> Path:
    """A second model over the same vocabulary."""
    model = restore_model(tiny_teacher_path)
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_to(str(tmp_path / "second.nemo"))
    return tmp_path / "second.nemo"


def test_an_ensemble_is_the_mean_of_the_probabilities(student_config, tiny_teacher_path, other_teacher, first_batch):
    paths = [str(tiny_teacher_path), str(other_teacher)]
    config = student_config()
    config.distillation.teacher = {"model_path": paths}
    student = DistilledMTEncDecModel(config)
    assert isinstance(student._teacher, EnsembleTeacher)
    batch = first_batch(student)
    q = [FrozenTeacher(restore_model(path)).logits(batch).softmax(-1) for path in paths]
    assert (q[0] - q[1]).abs().max() > 0.01
    torch.testing.assert_close(student._teacher.outputs(batch).signal.values.exp(), (q[0] + q[1]) / 2)
    terms = student.distillation_terms(batch)
    terms["loss"].backward()
    assert terms["word_kd"] > 0
    config.distillation.objective = {"hidden": {"weight": 1.0}}
    with pytest.raises(ConfigurationError, match="hidden reads inner layers of the teacher, which needs one teacher"):
        DistilledMTEncDecModel(config)


def test_an_ensemble_can_be_cached_and_trains(
    tiny_corpus, student_config, tiny_teacher_path, other_teacher, tiny_trainer, tmp_path
):
    paths = [str(tiny_teacher_path), str(other_teacher)]
    text = (str(tiny_corpus / "train.de"), str(tiny_corpus / "train.en"))
    write_cache(paths, [text], tmp_path / "c", CacheSettings(120))
    config = student_config()
    config.distillation.teacher = {"model_path": paths}
    trainer = tiny_trainer(2)
    live = DistilledMTEncDecModel(config, trainer=trainer)
    config.distillation.teacher = {"cache": str(tmp_path / "c"), "model_path": paths}
    cached = DistilledMTEncDecModel(config)
    cached.load_state_dict(live.state_dict())
    batch = [item.squeeze(0) for item in next(iter(live._train_dl))]
    wanted, found = (each.eval().distillation_terms(batch)["word_kd"] for each in (live, cached))
    torch.testing.assert_close(found, wanted, atol=1e-3, rtol=1e-3)
    live.train()
    trainer.fit(live)
    assert trainer.global_step == 2


def test_an_ensemble_needs_one_vocabulary(
    student_config, tiny_teacher_path, tiny_model_config, tiny_corpus, train_tokenizer, tmp_path
):
    tokenizer = str(train_tokenizer([tiny_corpus / "train.en"], 110))
    keys = {f"{side}_tokenizer.tokenizer_model": tokenizer for side in ("encoder", "decoder")}
    MTEncDecModel(tiny_model_config(16, 1, **keys)).save_to(str(tmp_path / "other.nemo"))
    config = student_config()
    config.distillation.teacher = {"model_path": [str(tiny_teacher_path), str(tmp_path / "other.nemo")]}
    with pytest.raises(
        TeacherError, match=r"encoder_tokenizer of .*other.nemo differs from that of the first model: 110"
    ):
        DistilledMTEncDecModel(config)
