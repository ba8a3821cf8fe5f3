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
"""A run that is resumed from any checkpoint is the run without the stop, to the bit: with dropout, on the CPU."""

import random
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from nemo.collections.nlp.models import MTEncDecModel
from omegaconf import OmegaConf
from slow_cases import quick, slow
from torch.utils.data import DataLoader

from nemo_distill import DistilledMTEncDecModel
from nemo_distill.support import compat
from nemo_distill.training.multilingual import languages_of_sets
from nemo_distill.training.trainer import SafeCheckpointIO, seed_everything

pl = compat.lightning()
STEPS = 16  # of batches


class SaveInEveryHook(pl.Callback):
    """Saves wherever Lightning's and NeMo's checkpoint callbacks do."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def save(self, trainer, hook: str) -> None:
        batch = trainer.fit_loop.epoch_loop.batch_progress.total.processed
        trainer.save_checkpoint(self.directory / f"{batch:03d}-{hook}.ckpt")

    def on_train_batch_end(self, trainer, pl_module, *args) -> None:
        if not trainer.fit_loop._should_accumulate():  # gradients are not stored
            self.save(trainer, "batch")

    def on_validation_end(self, trainer, pl_module) -> None:
        self.save(trainer, "validation")

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        self.save(trainer, "epoch")


class Record(pl.Callback):
    """What a run did: every batch and loss by its number, every validation, what the logs are told."""

    def __init__(self) -> None:
        self.steps: dict[int, tuple] = {}
        self.validations: dict[int, tuple] = {}
        self.epoch_ends: list[int] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        number = trainer.fit_loop.epoch_loop.total_batch_idx
        assert number not in self.steps
        draws = (random.random(), np.random.random(), torch.rand(1).item())
        tokens = [item.flatten().tolist() for item in batch]
        logged = trainer.fit_loop.epoch_loop._batches_that_stepped
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        place = (trainer.current_epoch, batch_idx, trainer.global_step, logged, rate)
        self.steps[number] = (outputs["loss"].item(), tokens, draws, place)

    def on_validation_end(self, trainer, pl_module) -> None:
        number = trainer.fit_loop.epoch_loop.total_batch_idx
        assert number not in self.validations
        logged = trainer.fit_loop.epoch_loop._batches_that_stepped
        scores = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val")}
        self.validations[number] = (scores, logged)

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        self.epoch_ends.append(trainer.current_epoch)


class Run(NamedTuple):
    record: Record
    weights: dict[str, torch.Tensor]
    trainer: Any


@pytest.fixture
def train(tiny_trainer, student_config, tiny_corpus, tiny_pseudo, tiny_tarred, tmp_path):
    """A function that trains one kind of model, from a checkpoint if one is given."""

    def section(kind: str):
        if kind.startswith("stored "):
            config = section(kind.removeprefix("stored "))
            OmegaConf.update(config, "train_ds.token_store", str(tmp_path / "tokens"), force_add=True)
            return config
        scheduled = {"optim.sched": {"name": "CosineAnnealing", "warmup_steps": 3, "max_steps": STEPS}}
        scheduled["train_ds.tokens_in_batch"] = 600 if kind == "accumulating" else 1300
        if kind in ("plain", "accumulating", "by epochs", "workers", "unbatched", "given", "files", "tarred"):
            overrides = {"train_ds.num_workers": 2} if kind == "workers" else {}
            if kind == "tarred":
                overrides = {"train_ds.use_tarred_dataset": True, "train_ds.metadata_file": str(tiny_tarred)}
            if kind == "files":
                for key, side in (("src_file_name", "de"), ("tgt_file_name", "en")):
                    overrides[f"train_ds.{key}"] = [
                        str(tiny_corpus / f"{split}.{side}") for split in ("train", "valid")
                    ]
            return student_config(hidden_size=8, **scheduled, **overrides)
        objective = {"word_kd": {"weight": 1}, "hidden": {"weight": 1, "projection": True}}  # it is trained too
        if kind == "mixture":
            scheduled.pop("optim.sched")  # NeMo's schedules end where the trainer does
        config = student_config(hidden_size=8, objective=objective, **scheduled)
        if kind == "mixture":
            gold = {"source": str(tiny_corpus / "train.de"), "target": str(tiny_corpus / "train.en")}
            components = {"gold": gold, "pseudo": {"directory": str(tiny_pseudo)}}
            noise = {"word_dropout": 0.1, "apply_to": ["gold"]}
            config.distillation.mixture = {
                "components": components,
                "probabilities": {"gold": 0.5, "pseudo": 0.5},
                "noise": noise,
                "epoch_size": 6,
            }
        return config

    def run(kind: str, checkpoint: Path | None = None, steps: int = STEPS, save_in: Path | None = None) -> Run:
        seed_everything(3)
        arguments = {"max_steps": steps, "val_check_interval": 4, "limit_val_batches": 1}
        if kind == "accumulating":  # validation falls into the middle of a step too
            arguments |= {"accumulate_grad_batches": 3, "max_steps": steps // 3 + 1}
        if kind == "by epochs":
            arguments |= {"max_steps": -1, "max_epochs": 2, "check_val_every_n_epoch": 1}
        trainer = tiny_trainer(**arguments)
        record = Record()
        trainer.callbacks.append(record)
        if save_in is not None:
            trainer.callbacks.append(SaveInEveryHook(save_in))
        students = ("student", "mixture", "stored mixture")
        with languages_of_sets():  # as `run_training` builds models
            model = (DistilledMTEncDecModel if kind in students else MTEncDecModel)(section(kind), trainer=trainer)
        if kind not in students:
            from nemo_distill.training.repairs import repair_model

            repair_model(model)
        if kind == "unbatched":  # the items of the data set are batches
            model._train_dl = DataLoader(model._train_ds, batch_size=None, shuffle=True)
        given = DataLoader(model._train_ds, batch_size=None, shuffle=True) if kind == "given" else None
        if given:
            model._train_dl = None
        trainer.fit(model, given, ckpt_path=checkpoint)
        return Run(record, {name: tensor.clone() for name, tensor in model.state_dict().items()}, trainer)

    return run


def assert_goes_on(whole: Run, resumed: Run, checkpoint: Path) -> None:
    """The resumed run did what the whole run did after the checkpoint, and nothing else."""
    done = SafeCheckpointIO().load_checkpoint(checkpoint)["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    done = done["total"]["completed"]
    assert list(resumed.record.steps) == [number for number in whole.record.steps if number >= done]
    for number, step in resumed.record.steps.items():
        assert step == whole.record.steps[number], f"batch {number}"
    saved, hook = checkpoint.stem.split("-")
    first = int(saved) - (hook == "batch")  # a validation that is done does not come again
    assert resumed.record.validations == {
        number: scores for number, scores in whole.record.validations.items() if number >= first
    }
    assert all(torch.equal(tensor, resumed.weights[name]) for name, tensor in whole.weights.items())


KINDS = ("plain", "accumulating", "by epochs", "workers", "files", "tarred", "student", "mixture")
# In the middle of an epoch and of its validations, and at its end: in the hooks where checkpoints are written.
MOMENTS = {
    "plain": ("003-batch", "008-batch", "008-validation", "016-batch"),
    "accumulating": ("004-validation", "006-batch"),
    "by epochs": ("004-batch", "*-epoch"),  # the tokenizer decides where an epoch ends
    "workers": ("005-batch",),
    "unbatched": ("005-batch",),
    "given": ("005-batch",),  # to `fit`
    "files": ("005-batch",),
    "tarred": ("005-batch",),
    "student": ("004-validation", "009-batch"),
    "mixture": ("006-batch", "006-epoch"),
}


@pytest.mark.parametrize("kind", quick(MOMENTS, "plain", "unbatched", "given", "tarred", "student", "mixture"))
def test_a_resumed_run_is_the_run_without_the_stop(train, tmp_path, kind):
    whole = train(kind, save_in=tmp_path)
    for moment in MOMENTS[kind]:
        checkpoint = min(tmp_path.glob(f"{moment}.ckpt"))
        assert_goes_on(whole, train(kind, checkpoint), checkpoint)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_at_every_moment(train, tmp_path, kind):
    whole = train(kind, save_in=tmp_path)
    checkpoints = sorted(tmp_path.iterdir())
    assert len(checkpoints) > 8
    for checkpoint in checkpoints:
        assert_goes_on(whole, train(kind, checkpoint), checkpoint)


@pytest.mark.slow
def test_resumed_again_and_again(train, tmp_path):
    whole = train("mixture")
    checkpoint, steps = None, {}
    for stop in (1, 5, 6, 11, STEPS):
        part = train("mixture", checkpoint, steps=stop)
        assert not set(part.record.steps) & set(steps)
        steps |= part.record.steps
        checkpoint = tmp_path / f"{stop}.ckpt"
        part.trainer.save_checkpoint(checkpoint)
    assert steps == whole.record.steps
    assert all(torch.equal(tensor, part.weights[name]) for name, tensor in whole.weights.items())


@pytest.mark.parametrize("kind", ["plain", *slow("mixture")])
def test_token_ids_in_a_store_change_nothing(train, tmp_path, kind):
    """A run that was begun without a store goes on with one, and the other way round."""
    whole = train(kind, save_in=tmp_path / "whole")
    checkpoint = sorted((tmp_path / "whole").glob("*-batch.ckpt"))[4]
    stored = train(f"stored {kind}", save_in=tmp_path / "stored")
    assert stored.record.steps == whole.record.steps
    assert all(torch.equal(tensor, stored.weights[name]) for name, tensor in whole.weights.items())
    assert_goes_on(whole, train(f"stored {kind}", checkpoint), checkpoint)
    assert_goes_on(stored, train(kind, tmp_path / "stored" / checkpoint.name), checkpoint)
