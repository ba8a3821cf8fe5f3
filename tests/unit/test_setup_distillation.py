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
"""`setup_distillation` once more, a teacher that is given by hand, and training data that are set up elsewhere."""

import pytest
import torch
from nemo.collections.nlp.models import MTEncDecModel
from nemo.utils import logging

from nemo_distill import DistillationConfig, DistillationModelPT, DistilledMTEncDecModel
from nemo_distill.archives.restore import restore_model
from nemo_distill.data.positions import Positions
from nemo_distill.errors import ConfigurationError, TeacherError
from nemo_distill.losses.signals import TopKTargets
from nemo_distill.teachers.cache_format import LogitCache
from nemo_distill.teachers.cache_writer import CacheSettings, write_cache
from nemo_distill.teachers.cached import CachedTeacher
from nemo_distill.teachers.ensemble import EnsembleTeacher
from nemo_distill.teachers.frozen import FrozenTeacher, TeacherOutputs
from nemo_distill.teachers.multilingual import MultilingualTeacher
from nemo_distill.training.reading import positions_of

NLL_ALONE = {"objective": {"word_kd": {"weight": 0}, "computation": "lean"}}


class OwnLoader(MTEncDecModel):
    """Sets a loader up, and no data set beside it."""

    def setup_training_data(self, train_data_config) -> None:
        super().setup_training_data(train_data_config)
        del self._train_ds


class OwnLoaderStudent(DistillationModelPT, OwnLoader):
    pass


@pytest.fixture
def said(monkeypatch) -> list[str]:
    """Lines of the log."""
    lines = []
    monkeypatch.setattr(logging, "info", lambda text, *rest, **options: lines.append(str(text)))
    return lines


@pytest.fixture
def cache_of(tiny_teacher_path, tiny_corpus, tmp_path):
    """A function that gives the directory of a cache over the text of a split."""

    def write(split: str) -> str:
        pair = str(tiny_corpus / f"{split}.de"), str(tiny_corpus / f"{split}.en")
        write_cache([str(tiny_teacher_path)], [pair], tmp_path / split, CacheSettings(4))
        return str(tmp_path / split)

    return write


@pytest.fixture
def section_of(tiny_corpus, tiny_teacher_path):
    """A function that gives a checked section, with a mixture of one split, or without."""

    def build(split: str | None = None, **keys) -> DistillationConfig:
        section = {"teacher": {"model_path": str(tiny_teacher_path)}, **keys}
        if split is not None:
            gold = {"source": str(tiny_corpus / f"{split}.de"), "target": str(tiny_corpus / f"{split}.en")}
            section["mixture"] = {"components": {"gold": gold}, "epoch_size": 50}
        return DistillationConfig.from_section(section)

    return build


def test_training_data_that_are_given_to_the_trainer(student_config, tiny_trainer, said):
    config, trainer = student_config(), tiny_trainer(2, limit_val_batches=0)
    loader = DistilledMTEncDecModel(config)._train_dl
    config.pop("train_ds")
    trainer.fit(DistilledMTEncDecModel(config, trainer=trainer), train_dataloaders=loader)
    assert trainer.global_step == 2
    assert trainer.callback_metrics["train_word_kd"] > 0
    assert sum("what the teacher makes of it is not looked at" in line for line in said) == 1


@pytest.mark.parametrize("cached", [False, True])
def test_a_model_that_sets_up_a_loader_alone(student_config, tiny_trainer, cache_of, cached):
    config, trainer = student_config(), tiny_trainer(2, limit_val_batches=0)
    if cached:
        config.distillation.teacher = {"cache": cache_of("train")}
    trainer.fit(OwnLoaderStudent(config, trainer=trainer))
    assert trainer.global_step == 2


def test_what_fails_in_the_first_process_is_told_to_the_others(student_config, tiny_trainer, monkeypatch):
    student = DistilledMTEncDecModel(student_config(), trainer=tiny_trainer(1))
    student._train_ds.text = None
    told = []
    monkeypatch.setattr(student.trainer.strategy, "broadcast", lambda own, src=0: told.append(own))
    with pytest.raises(AttributeError):
        student.on_fit_start()
    assert "the first process failed to look at the training text: AttributeError" in told[0]


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [(None, "train", "without it"), ("train", "valid", "from another one"), ("train", None, "from another one")],
)
def test_training_data_of_an_earlier_section_are_refused(
    student_config, section_of, tiny_trainer, first, second, message
):
    trainer = tiny_trainer(1, limit_val_batches=0)
    student = DistilledMTEncDecModel(student_config(), trainer=trainer)
    student.setup_distillation(section_of(first))
    student.setup_training_data(student.cfg.train_ds)
    before = student._train_ds
    student.setup_distillation(section_of(second))
    with pytest.raises(
        ConfigurationError, match=f"were set up before setup_distillation, {message}; call model.setup"
    ):
        trainer.fit(student)
    student.setup_training_data(student.cfg.train_ds)
    trainer.fit(student)
    assert trainer.global_step == 1
    assert student._train_ds is not before


def test_the_same_mixture_once_more(student_config, section_of, tiny_trainer):
    trainer = tiny_trainer(1, limit_val_batches=0)
    student = DistilledMTEncDecModel(student_config(), trainer=trainer)
    student.setup_distillation(section_of("train"))
    student.setup_training_data(student.cfg.train_ds)
    student.setup_distillation(section_of("train", objective={"word_kd": {"temperature": 2.0}}))
    trainer.fit(student)
    assert trainer.global_step == 1


def test_another_mixture_with_a_cache_of_its_own(student_config, section_of, cache_of):
    student = DistilledMTEncDecModel(student_config())
    student.setup_distillation(section_of("train"))
    student.setup_training_data(student.cfg.train_ds)
    student.setup_distillation(section_of("valid", teacher={"cache": cache_of("valid")}))
    student.setup_training_data(student.cfg.train_ds)
    student._check_ready()


def test_a_section_without_a_teacher_forgets_an_ensemble(student_config, tiny_teacher_path, section_of):
    student = DistilledMTEncDecModel(student_config())
    student.setup_distillation(section_of(teacher={"model_path": [str(tiny_teacher_path)] * 2}))
    student.setup_distillation(DistillationConfig.from_section(NLL_ALONE))
    assert student._teacher is None
    assert student._lean


def test_a_section_without_a_teacher_forgets_a_cache(student_config, tiny_corpus, cache_of):
    config = student_config()
    config.distillation.teacher = {"cache": cache_of("train")}
    student = DistilledMTEncDecModel(config)
    student.setup_distillation(DistillationConfig.from_section(NLL_ALONE))
    train_ds = student.cfg.train_ds.copy()
    train_ds.src_file_name, train_ds.tgt_file_name = (str(tiny_corpus / f"valid.{side}") for side in ("de", "en"))
    student.setup_training_data(train_ds)
    student._check_ready()


def test_a_section_that_fails_leaves_no_teacher_and_says_so(student_config, section_of):
    student = DistilledMTEncDecModel(student_config())
    with pytest.raises(TeacherError, match="no.nemo' does not exist"):
        student.setup_distillation(section_of(teacher={"model_path": "no.nemo"}))
    with pytest.raises(ConfigurationError, match="last call of setup_distillation failed, .*; call it once more"):
        student.training_step([], 0)
    student.setup_distillation(section_of())
    student._check_ready()


def test_the_positions_of_an_earlier_teacher_are_forgotten(student_config, random_model, section_of):
    student = DistilledMTEncDecModel(student_config(**{"encoder.max_sequence_length": 60}))
    short = {"encoder.max_sequence_length": 40, "decoder.max_sequence_length": 40}
    student.setup_distillation(section_of(), teacher=FrozenTeacher(random_model(1, **short)))
    assert positions_of(student) == Positions(40, 40)
    student.setup_distillation(DistillationConfig.from_section(NLL_ALONE))
    assert positions_of(student) == Positions.of_model(student)


@pytest.mark.parametrize("members", [1, 2])
def test_a_teacher_by_hand_with_other_words_or_text(
    student_config, random_model, train_tokenizer, tiny_corpus, section_of, members
):
    student = DistilledMTEncDecModel(student_config())

    def teach(**overrides) -> None:
        teachers = [FrozenTeacher(random_model(1, **overrides)) for _ in range(members)]
        student.setup_distillation(section_of(), teacher=teachers[0] if members == 1 else EnsembleTeacher(teachers))

    other = str(train_tokenizer([tiny_corpus / "train.en"], 120))
    with pytest.raises(TeacherError, match="student and teacher have different source vocabularies"):
        teach(**{f"{side}_tokenizer.tokenizer_model": other for side in ("encoder", "decoder")})
    with pytest.raises(TeacherError, match="processes text in another way"):
        teach(src_language="ignore")
    teach()
    assert isinstance(student._teacher, FrozenTeacher if members == 1 else EnsembleTeacher)


def test_a_cache_by_hand_is_held_to_what_an_opened_one_is(student_config, section_of, cache_of):
    longer = {f"{side}.max_sequence_length": 80 for side in ("encoder", "decoder")}
    student = DistilledMTEncDecModel(student_config(**longer, objective={"word_kd": {"weight": 0}}))
    assert positions_of(student) == Positions(80, 80)

    def teach(split: str) -> None:
        cache = LogitCache(cache_of(split))
        teacher = CachedTeacher(cache, (student.encoder_tokenizer, student.decoder_tokenizer), 1.0)
        student.setup_distillation(section_of(teacher={"cache": str(cache.directory)}), teacher)

    with pytest.raises(TeacherError, match="160 of 160 sentence pairs are not in '.*valid'"):
        teach("valid")
    teach("train")
    assert positions_of(student) == Positions(64, 64)  # of the cache's teacher


class TwoWords(FrozenTeacher):
    """Of each token the two best words."""

    def outputs(self, batch, lean=False) -> TeacherOutputs:
        logits = super().outputs(batch).signal.values[batch[4] != 0]
        best = logits.topk(2)
        return TeacherOutputs(TopKTargets(best.indices, best.values, logits.logsumexp(-1)))


def test_a_teacher_by_hand_that_says_part_of_its_words(student_config, section_of, tiny_trainer, tiny_model, said):
    trainer = tiny_trainer(2, limit_val_batches=0)
    student = DistilledMTEncDecModel(student_config(), trainer=trainer)
    student.setup_distillation(section_of(), TwoWords(tiny_model))
    trainer.fit(student)
    assert trainer.callback_metrics["train_word_kd"] > 0
    assert sum("the teacher gives no logits of all words: what it makes" in line for line in said) == 1


def test_members_by_hand_that_differ(student_config, random_model, section_of):
    student = DistilledMTEncDecModel(student_config())
    members = [FrozenTeacher(random_model(1)), FrozenTeacher(random_model(2, src_language="ignore"))]
    with pytest.raises(TeacherError, match="model 2 has text of another form than the first model"):
        student.setup_distillation(section_of(), teacher=EnsembleTeacher(members))


def test_a_teacher_by_hand_of_several_languages(multilingual_config, multilingual_teacher_paths):
    section = {"teacher": {"model_path": "by hand", "target_language": "es"}}
    torch.manual_seed(0)
    student = DistilledMTEncDecModel(
        multilingual_config("en-es", distillation={"objective": {"word_kd": {"weight": 0}}})
    )
    teacher = FrozenTeacher(restore_model(str(multilingual_teacher_paths["one_to_many"])))
    student.setup_distillation(DistillationConfig.from_section(section), teacher=teacher)
    assert isinstance(student._teacher, MultilingualTeacher)
    assert student._teacher.teacher is teacher
