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
"""The callback that makes a training run exact to resume."""

import os
from typing import Any

import torch
from nemo.core.classes import ModelPT

from nemo_distill.data.samplers import EpochSampler, ResumableSampler, resumable_loader
from nemo_distill.support.compat import NEMO_2, lightning
from nemo_distill.support.warned import warn
from nemo_distill.training.replay import seed_generators, settle_progress

pl = lightning()


def reads_own_data(trainer: pl.Trainer, pl_module: pl.LightningModule) -> bool:
    """Return whether a fit reads what the model's own `train_ds` gave, and not a loader or data module given to it."""
    return (
        trainer.fit_loop._data_source.instance in (None, pl_module)
        and getattr(pl_module.train_dataloader, "__func__", None) is ModelPT.train_dataloader
    )


class OfOneTraining(pl.Callback):
    """A callback that may be given to several trainers, one after the other: what it keeps is of one training."""

    def forget(self) -> None:
        """Set what is kept to what it is before a training."""
        raise NotImplementedError

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Begin anew where the training does, before a checkpoint is read."""
        if stage == "fit" and trainer.global_step == 0:
            self.forget()


class ExactRestart(OfOneTraining):
    """A run that is resumed from any of its checkpoints goes on as if it had not been stopped.

    `build_trainer` adds it to every trainer. Batches, dropout, losses, weights, scores and logged steps are those of
    the run without the stop; on one kind of machine, since a GPU may add numbers up in another order.

    Under `restart`, a checkpoint holds the run's seed, the epoch, the batches of it that are done, and whether a
    validation is due at this point and was not finished. The seed is that of `seed_everything`, or torch's own. In the
    middle of an accumulated step the place is the step's first batch, and `validated_batches` says after how many
    batches of the epoch a validation is not to come again.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Know of no run."""
        self._seed: int | None = None
        self._place: dict[str, Any] = {}  # where the run was resumed
        self._epoch = 0
        self._validated = False  # since the last training batch
        self._last_step_done = False
        self._begun = False  # fitting
        self._horizons: list[int | None] = []  # `max_steps` of the schedules of the learning rate

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict) -> None:
        """Read where the run stopped."""
        self._place = checkpoint.get("restart", {})
        if not self._place:
            warn("the checkpoint holds no place in the data: it is resumed, but not exactly")
            return
        self._seed, self._epoch = self._place["seed"], self._place["epoch"]
        self._validated = not self._place["validation_due"]
        self._last_step_done = 0 < trainer.max_steps <= checkpoint["global_step"]
        if self._place["processes"] != trainer.world_size:
            warn(
                f"the run had {self._place['processes']} processes and goes on with {trainer.world_size}: "
                "it is resumed, but not exactly"
            )
        if self._begun:  # NeMo's NLPDDPStrategy has checkpoints read that late
            self._go_to_place(trainer, pl_module)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give the training data an order that follows from the seed, and go to the place in it."""
        self._begun = True
        self._horizons = [getattr(each.scheduler, "max_steps", None) for each in trainer.lr_scheduler_configs]
        self._go_to_place(trainer, pl_module)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Take a checkpoint that is read from now on for that of another run."""
        self._begun = False

    def _go_to_place(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._seed is None:
            self._seed = trainer.strategy.broadcast(int(os.environ.get("PL_GLOBAL_SEED") or torch.initial_seed()))
        share, source = (trainer.global_rank, trainer.world_size), trainer.fit_loop._data_source
        own = reads_own_data(trainer, pl_module)  # else what fit was given; a data module has no loader yet
        loader = resumable_loader(
            getattr(pl_module, "_train_dl", None) if own else source.instance, self._seed, *share
        )
        sampler = getattr(loader, "sampler", None) if trainer.overfit_batches == 0 else None  # Lightning puts another
        if isinstance(sampler, ResumableSampler):
            if own:
                pl_module._train_dl = loader
            else:
                source.instance = loader
            if isinstance(sampler, EpochSampler):
                sampler.seed = self._seed
            done = self._place.get("batches", 0) * (loader.batch_size or 1)  # None: each item is a batch
            sampler.start_at(self._epoch, len(sampler) if self._place.get("epoch_done") else done)
        elif self._place.get("batches"):
            warn("the training data cannot be resumed in the middle: the epoch's first batches come again")
        seed_generators(self._seed, trainer.global_rank, self._epoch)
        if self._last_step_done and not self._validated:  # Lightning would take the run for finished
            trainer.fit_loop.epoch_loop.max_steps += 1

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let a validation that was done before the stop be, and make up for one that was not."""
        self._restore_horizons(trainer)
        if not self._place:
            return
        loop, answers = trainer.fit_loop.epoch_loop, [self._place["validation_due"]]
        validated = (self._place["epoch"], self._place.get("validated_batches", -1))
        self._place = {}
        by_schedule = loop._should_check_val_fx

        def should_validate(*args: Any) -> bool:
            if not (loop.restarting and answers):
                place = (trainer.current_epoch, loop.batch_progress.current.ready)
                return place != validated and by_schedule(*args)
            loop._restarting = False
            if self._last_step_done and answers[0]:
                loop.max_steps -= 1
            return answers.pop()

        loop._should_check_val_fx = should_validate

    def _restore_horizons(self, trainer: pl.Trainer) -> None:
        """Let schedules end where this run does; NeMo's end where the checkpoint's run did, at `min_lr`."""
        for config, horizon in zip(trainer.lr_scheduler_configs, self._horizons, strict=True):
            before = getattr(config.scheduler, "max_steps", None)
            if before != horizon:
                warn(f"the schedule of the learning rate was for {before} steps, and goes on for {horizon}")
                config.scheduler.max_steps = horizon

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Seed what data workers are seeded from."""
        self._epoch = trainer.current_epoch
        seed_generators(self._seed, trainer.global_rank, self._epoch)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed all generators by the place in the run."""
        self._validated = False
        seed_generators(self._seed, trainer.global_rank, self._epoch, batch_idx)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note that the validation is done; the checkpoint callbacks come after this one."""
        self._validated = True

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict) -> None:
        """Store the place, and make Lightning's counters agree with it."""
        if self._seed is None:  # no training yet
            return
        due = not self._validated and self.validation_is_due(trainer)
        logged_steps = trainer.global_step - (due and not trainer.fit_loop._should_accumulate())
        loops = checkpoint["loops"]["fit_loop"]
        epoch, batches, done, again = settle_progress(
            loops, self._epoch, trainer.num_training_batches, logged_steps, trainer.accumulate_grad_batches
        )
        checkpoint["restart"] = {
            "seed": self._seed,
            "processes": trainer.world_size,
            "epoch": epoch,
            "batches": batches,
            "epoch_done": done,
            "validation_due": due and not again,
            "validated_batches": batches + again if again and self._validated else -1,
        }

    @staticmethod
    def validation_is_due(trainer: pl.Trainer) -> bool:
        """Return whether the schedule has a validation after the batch that was trained last."""
        loop = trainer.fit_loop
        return bool(loop.epoch_loop._should_check_val_fx(*([loop._data_fetcher] if NEMO_2 else [])))
