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
"""What a student is attached to: its base classes, and a trainer that this library did not build."""

import pytest
import torch
from nemo.collections.nlp.models import MTEncDecModel
from nemo.core.classes import ModelPT

from nemo_distill import DistillationModelPT, DistilledMTEncDecModel
from nemo_distill.archives.restore import restore_model
from nemo_distill.errors import ConfigurationError
from nemo_distill.training.averaging import MovingAverage
from nemo_distill.training.convergence import ScoreHistory
from nemo_distill.training.non_finite import NonFiniteGuard
from nemo_distill.training.restart import ExactRestart
from nemo_distill.training.trainer import SafeCheckpointIO, pl


class OwnStep(MTEncDecModel):
    """A recipe with a loss of its own."""

    def training_step(self, batch, batch_idx):
        raise AssertionError("is not called")


class Undecided(DistillationModelPT, OwnStep):
    """Which step is meant?"""


class Decided(DistillationModelPT, OwnStep):
    """The objective."""

    training_step = DistillationModelPT.training_step


class StepInFront(DistillationModelPT, MTEncDecModel):
    """Another step around that of the mixin."""

    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx)


class Helper:
    """Something of a recipe's that is no model."""

    def describe(self) -> str:
        return f"{len(self.state_dict())} weights"


class HelperInFront(Helper, DistillationModelPT, MTEncDecModel):
    pass


class HelperBetween(DistillationModelPT, Helper, MTEncDecModel):
    pass


class StepOfAHelper:
    def training_step(self, batch, batch_idx):
        raise AssertionError("is not called")


class UndecidedBetween(DistillationModelPT, StepOfAHelper, MTEncDecModel):
    """Which step is meant?"""


def test_the_mixin_behind_the_model_is_refused():
    """It would train plainly, and say nothing."""
    with pytest.raises(ConfigurationError, match=r"MTEncDecModel comes before .*Wrong\(DistillationModelPT, MTEncDec"):

        class Wrong(MTEncDecModel, DistillationModelPT):
            pass


def test_models_of_another_kind_are_refused():
    with pytest.raises(ConfigurationError, match=r"class Other: ModelPT is no MTEncDecModel.* not of Megatron"):

        class Other(DistillationModelPT, ModelPT):
            pass


def test_extensions_of_the_mixin_may_be_made_before_a_model_is_there():
    class Extended(DistillationModelPT):
        pass

    class Student(Extended, MTEncDecModel):
        pass

    assert Student.plain_class() is MTEncDecModel


@pytest.mark.parametrize("kind", [HelperInFront, HelperBetween])
def test_an_archive_is_of_the_model_and_not_of_a_helper(student_config, tmp_path, kind):
    student = kind(student_config())
    assert student.describe().endswith("weights")
    student.save_to(str(tmp_path / "student.nemo"))
    assert type(restore_model(tmp_path / "student.nemo")) is MTEncDecModel


def test_a_class_that_nobody_else_can_import_is_told_when_it_is_saved(student_config, tmp_path, caplog):
    class Local(MTEncDecModel):
        pass

    class OfLocal(DistillationModelPT, Local):
        pass

    DistilledMTEncDecModel(student_config()).save_to(str(tmp_path / "stock.nemo"))
    assert "another program cannot import" not in caplog.text
    OfLocal(student_config()).save_to(str(tmp_path / "local.nemo"))
    assert "<locals>.Local, which another program cannot import: it would open the archive as" in caplog.text


def test_a_helpers_training_step_is_not_dropped_in_silence(student_config):
    with pytest.raises(ConfigurationError, match=r"StepOfAHelper has a training_step .*class UndecidedBetween"):
        UndecidedBetween(student_config())


def test_a_training_step_is_not_dropped_in_silence(student_config):
    for config in (student_config(), {}):  # before the configuration is looked at
        with pytest.raises(
            ConfigurationError, match=r"OwnStep has a training_step .*class Undecided\(...\): training"
        ):
            Undecided(config)


@pytest.mark.parametrize("kind", [Decided, StepInFront])
def test_a_trainer_of_the_recipe_gets_what_every_run_has(student_config, tmp_path, kind):
    settings = {"accelerator": "cpu", "devices": 1, "max_steps": 2, "val_check_interval": 2, "logger": False}
    trainer = pl.Trainer(
        **settings, default_root_dir=tmp_path, enable_progress_bar=False, num_sanity_val_steps=0,
        callbacks=[NonFiniteGuard("skip")],
    )  # fmt: skip
    student = kind(student_config(), trainer=trainer)
    trainer.fit(student)
    assert trainer.callback_metrics["train_word_kd"] > 0
    assert sum(isinstance(each, ExactRestart) for each in trainer.callbacks) == 1
    (guard,) = (each for each in trainer.callbacks if isinstance(each, NonFiniteGuard))
    assert guard.policy == "skip"  # the recipe's own
    assert type(trainer.strategy.checkpoint_io) is SafeCheckpointIO
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    assert SafeCheckpointIO().load_checkpoint(checkpoint)["restart"]["batches"] == 2
    again = kind.load_from_checkpoint(checkpoint, map_location="cpu")
    with pytest.raises(ConfigurationError, match=r"from_section\(model.cfg.distillation\)"):
        pl.Trainer(**settings).fit(again)


class Watched(MTEncDecModel):
    """A recipe with a callback of its own, given alone."""

    def configure_callbacks(self):
        return MovingAverage(0.99)


class DistilledWatched(DistillationModelPT, Watched):
    """A student of it."""


def test_one_callback_of_a_recipe_may_be_given_alone(student_config):
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    kinds = [type(each) for each in DistilledWatched(student_config(), trainer=trainer).configure_callbacks()]
    assert kinds == [MovingAverage, ExactRestart, NonFiniteGuard, ScoreHistory]


def test_callbacks_of_two_trainings_begin_anew(student_config, tmp_path):
    """As callbacks of its own would; and a training that goes on with its trainer goes on with them."""
    kinds = ExactRestart, NonFiniteGuard, ScoreHistory, lambda: MovingAverage(0.99)

    def train(callbacks: list, seed: int) -> pl.Trainer:
        pl.seed_everything(seed)
        trainer = pl.Trainer(
            accelerator="cpu", max_steps=2, val_check_interval=2, limit_val_batches=1, num_sanity_val_steps=0,
            logger=False, enable_checkpointing=False, enable_progress_bar=False, callbacks=list(callbacks),
        )  # fmt: skip
        trainer.fit(DistilledMTEncDecModel(student_config(hidden_size=8), trainer=trainer))
        return trainer

    def averages(trainer: pl.Trainer) -> dict:
        (found,) = (each for each in trainer.callbacks if isinstance(each, MovingAverage))
        return dict(found._average)

    shared = [kind() for kind in kinds]
    train(shared, seed=1)
    shared[1].skipped = 3
    second, alone = train(shared, seed=2), train([kind() for kind in kinds], seed=2)
    found, wanted = averages(second), averages(alone)
    assert all(torch.equal(each, wanted[name]) for name, each in found.items())
    assert shared[0]._seed == 2
    assert shared[1].skipped == 0
    assert [step for step, _ in shared[2].scores] == [2]

    second.save_checkpoint(tmp_path / "two.ckpt")
    assert SafeCheckpointIO().load_checkpoint(tmp_path / "two.ckpt")["restart"]["seed"] == 2
    second.fit_loop.epoch_loop.max_steps = 4
    second.fit(second.lightning_module)
    assert second.global_step == 4
    assert shared[2].scores[0][0] == 2


class Data(pl.LightningDataModule):
    """A recipe's own data."""

    def __init__(self, loader) -> None:
        super().__init__()
        self.loader = loader

    def train_dataloader(self):
        return self.loader


class OwnLoader(DistilledMTEncDecModel):
    """A recipe that reads its data in its own way."""

    def train_dataloader(self):
        return self._train_dl


def a_trainer(**settings) -> pl.Trainer:
    settings = {"max_steps": 2, "num_sanity_val_steps": 0, "limit_val_batches": 0, **settings}
    return pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, **settings)


@pytest.mark.parametrize("kind", ["module", "class", "overfit"])
def test_data_that_cannot_be_resumed_exactly_are_told(student_config, tmp_path, caplog, kind):
    def train(checkpoint=None) -> pl.Trainer:
        trainer = a_trainer(enable_checkpointing=False, overfit_batches=3 if kind == "overfit" else 0)
        model = (OwnLoader if kind == "class" else DistilledMTEncDecModel)(student_config(hidden_size=8), trainer)
        data = Data(model._train_dl) if kind == "module" else None
        trainer.fit(model, datamodule=data, ckpt_path=checkpoint)
        return trainer

    pl.seed_everything(1)
    train().save_checkpoint(tmp_path / "one.ckpt")
    told = "the training data cannot be resumed in the middle: the epoch's first batches come again"
    assert told not in caplog.text
    assert SafeCheckpointIO().load_checkpoint(tmp_path / "one.ckpt")["restart"]["batches"] == 2
    train(tmp_path / "one.ckpt")
    assert told in caplog.text


@pytest.mark.parametrize("kind", ["loader", "module", "class"])
def test_a_mixture_that_nothing_would_read_is_refused(student_config, tiny_corpus, tiny_pseudo, kind):
    config, gold = student_config(hidden_size=8), [str(tiny_corpus / f"train.{side}") for side in ("de", "en")]
    components = {
        "gold": dict(zip(("source", "target"), gold, strict=True)),
        "pseudo": {"directory": str(tiny_pseudo)},
    }
    shares = {"gold": 0.5, "pseudo": 0.5}
    config.distillation.mixture = {"components": components, "probabilities": shares}
    trainer = a_trainer(enable_checkpointing=False)
    model = (OwnLoader if kind == "class" else DistilledMTEncDecModel)(config, trainer)
    loader = torch.utils.data.DataLoader(model._train_ds)
    data = {"loader": {"train_dataloaders": loader}, "module": {"datamodule": Data(loader)}, "class": {}}[kind]
    with pytest.raises(ConfigurationError, match=r"distillation\.mixture: nothing would read it, since .* leave one"):
        trainer.fit(model, **data)


def test_a_checkpoint_plugin_of_the_recipe_stays(student_config):
    class Own(pl.plugins.io.TorchCheckpointIO):
        pass

    trainer = pl.Trainer(accelerator="cpu", logger=False, plugins=[Own()])
    student = DistilledMTEncDecModel(student_config(), trainer=trainer)
    student.setup("fit")
    assert type(trainer.strategy.checkpoint_io) is Own


def test_a_forward_in_front_of_the_mixin_is_refused():
    """The student would train with it, and the archive open without."""
    with pytest.raises(
        ConfigurationError, match=r"class Scaled: its forward comes before .* archives are of MTEncDec"
    ):

        class Scaled(DistillationModelPT, MTEncDecModel):
            def forward(self, src, src_mask, tgt, tgt_mask):
                return super().forward(src=src, src_mask=src_mask, tgt=tgt, tgt_mask=tgt_mask) * 2
