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
"""Recipes come with dataclasses, plain data, archives and overrides; each of them gives a student, or one error."""

import copy

import pytest
import torch
from nemo.collections.nlp.models import MTEncDecModel
from nemo.collections.nlp.models.machine_translation.mt_enc_dec_bottleneck_model import MTBottleneckModel
from nemo.utils.app_state import AppState
from omegaconf import OmegaConf

from nemo_distill import DistilledMTEncDecModel
from nemo_distill.errors import ConfigurationError, InputError, TeacherError
from nemo_distill.recipes import (
    DistilledAAYNBaseConfig,
    DistilledMTBottleneckModelConfig,
    DistilledMTEncDecModelConfig,
)

CONFIGURATIONS = (DistilledMTEncDecModelConfig, DistilledAAYNBaseConfig, DistilledMTBottleneckModelConfig)


@pytest.mark.parametrize("kind", CONFIGURATIONS)
def test_any_section_can_be_merged_into_the_dataclasses(kind, monkeypatch):
    """What it says is checked where the student is built, with all faults at once."""
    section = {
        "teacher": {"model_path": "${oc.env:TEACHER}"},
        "objective": {"terms": [{"_target_": "a.B", "weight": 1}], "wordkd": {}},
        "mixture": {"components": {"gold": {"source": ["${src_language}"]}}},
    }
    monkeypatch.setenv("TEACHER", "teacher.nemo")
    merged = OmegaConf.merge(OmegaConf.structured(kind()), OmegaConf.create({"distillation": section}))
    assert merged.distillation.teacher.model_path == "teacher.nemo"
    assert merged.distillation.mixture.components.gold.source == ["en"]
    with pytest.raises(ConfigurationError, match=r"objective.wordkd: unknown key \(did you mean 'word_kd'"):
        DistilledMTEncDecModel(merged)
    for wrong in (3, "teacher.nemo", ["teacher.nemo"]):
        merged = OmegaConf.merge(OmegaConf.structured(kind()), {"distillation": wrong})
        with pytest.raises(ConfigurationError, match="distillation: got .*give a mapping"):
            DistilledMTEncDecModel(merged)
    with pytest.raises(ConfigurationError, match="no `distillation` section"):
        DistilledMTEncDecModel(kind())


def test_students_of_dataclasses_and_of_plain_data(student_config, first_batch):
    config = student_config(objective={"word_kd": {"weight": 1.0}}, **{"encoder.embedding_dropout": 0.0})
    merged = OmegaConf.merge(OmegaConf.structured(DistilledAAYNBaseConfig()), config)
    merged.test_ds = None
    dataclass = OmegaConf.to_object(merged)
    assert type(dataclass) is DistilledAAYNBaseConfig
    losses = []
    for given in (config, OmegaConf.to_container(config), dataclass):
        before = copy.deepcopy(given)
        torch.manual_seed(1)
        student = DistilledMTEncDecModel.from_config_dict(given) if given is config else DistilledMTEncDecModel(given)
        assert type(student) is DistilledMTEncDecModel
        assert given == before
        student.eval()
        student.setup_training_data(student.cfg.train_ds)  # once more
        losses.append(float(student.distillation_terms(first_batch(student))["loss"].detach()))
    assert len(set(losses)) == 1


@pytest.fixture
def override(student_config, tiny_teacher_path):
    """A function that gives what enc_dec_nmt_finetune.py restores with; keywords are those of `student_config`."""

    def build(**keywords):
        config = student_config(**keywords)
        archived = MTEncDecModel.restore_from(str(tiny_teacher_path), return_config=True)
        for part in ("train_ds", "validation_ds", "optim"):
            archived.pop(part, None)
        parts = {key: config.get(key) for key in ("train_ds", "validation_ds", "optim", "distillation")}
        return OmegaConf.merge(archived, {key: part for key, part in parts.items() if part is not None})

    return build


def test_an_archive_goes_on_learning_by_the_section_of_its_override(override, tiny_teacher_path, tiny_trainer):
    trainer = tiny_trainer(2)
    student = DistilledMTEncDecModel.restore_from(
        restore_path=str(tiny_teacher_path), override_config_path=override(), trainer=trainer
    )
    student.setup_training_data(student.cfg.train_ds)
    student.setup_multiple_validation_data(student.cfg.validation_ds)
    first = next(iter(student.train_dataloader()))
    student.eval()
    terms = student.distillation_terms([item.squeeze(0) for item in first])
    assert terms["word_kd"].item() == pytest.approx(0, abs=1e-5)  # it begins as the teacher
    trainer.fit(student)
    assert {"train_word_kd", "val_loss", "val_sacreBLEU"} <= trainer.callback_metrics.keys()
    assert student.src_language == "de"


def test_a_faulty_override_is_refused_before_the_archive_is_opened(override, tiny_teacher_path, tmp_path):
    def restore(config, path=tmp_path / "no.nemo"):
        return DistilledMTEncDecModel.restore_from(str(path), override_config_path=config)

    with pytest.raises(ConfigurationError, match=r"teacher.modelpath: unknown key \(did you mean 'model_path'"):
        restore(OmegaConf.merge(override(), {"distillation": {"teacher": {"modelpath": "a"}}}))
    with pytest.raises(ConfigurationError, match=r"distillation.init: the weights are those of .*no.nemo; leave init"):
        restore(OmegaConf.merge(override(), {"distillation": {"init": {"from_teacher": "first"}}}))
    with pytest.raises(TeacherError, match=r"gone.nemo' does not exist"):
        restore(OmegaConf.merge(override(), {"distillation": {"teacher": {"model_path": "gone.nemo"}}}))
    with pytest.raises(InputError, match="train_ds.src_file_name: no file gone.de"):
        restore(OmegaConf.merge(override(), {"train_ds": {"src_file_name": "gone.de"}}))
    with pytest.raises(FileNotFoundError):
        restore(override())
    with pytest.raises(RuntimeError, match="size mismatch"):
        restore(OmegaConf.merge(override(), {"encoder": {"inner_size": 8}}), tiny_teacher_path)
    assert not AppState().is_model_being_restored  # else the next model would have no data


def test_without_a_section_it_is_opened_for_inference_and_says_so_when_trained(
    override, tiny_teacher_path, tiny_trainer
):
    config, trainer = override(), tiny_trainer(2, num_sanity_val_steps=1)
    config.distillation = None
    student = DistilledMTEncDecModel.restore_from(str(tiny_teacher_path), config, trainer=trainer)
    student.setup_training_data(config.train_ds)
    student.setup_multiple_validation_data(config.validation_ds)
    with pytest.raises(ConfigurationError, match="restored without a `distillation` section"):
        trainer.fit(student)
    assert trainer.state.stage is None or not trainer.sanity_checking  # nothing was translated before
    returned = DistilledMTEncDecModel.restore_from(str(tiny_teacher_path), return_config=True)
    assert returned.target.endswith("MTEncDecModel")


def test_an_archive_of_another_class_is_no_student(tiny_model_config, tmp_path):
    """NeMo gives the class that the archive names, which would train plainly."""
    sizes = {"encoder.arch": "bridge", "encoder.hidden_steps": 2}
    path = tmp_path / "bottleneck.nemo"
    MTBottleneckModel(tiny_model_config(16, 1, **sizes)).save_to(str(path))
    with pytest.raises(ConfigurationError, match="holds a MTBottleneckModel, and DistilledMTEncDecModel is a student"):
        DistilledMTEncDecModel.restore_from(str(path))
