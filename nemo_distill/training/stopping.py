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
"""Stopping a training run by a signal, as a cluster does before it takes a machine away."""

import signal
import threading
import time
from types import FrameType
from typing import Any

import torch

from nemo_distill.errors import InputError, StoppedBySignal
from nemo_distill.support.compat import lightning
from nemo_distill.support.warned import warn

pl = lightning()


class StopOnSignal(pl.Callback):
    """SIGTERM, SIGUSR1 or SIGINT ends training after the step that runs, with a checkpoint of that step.

    A validation that runs is broken off, and made up for by the run that is resumed. The processes of a run agree on
    the step, whichever of them got the signal. A second SIGINT interrupts at once. Until training has begun, and once
    it is over, the signals do what they did before.

    Attributes:
        deadline: of `time.monotonic()`, after which the run ends as by SIGTERM; None for no limit.
    """

    deadline: float | None = None

    SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)

    def __init__(self) -> None:
        self._received = 0
        self._trainer: pl.Trainer | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Forget the signal that has ended an earlier training."""
        if stage == "fit":
            self._received = 0

    def on_sanity_check_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the signals over."""
        self._take_over(trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the signals over."""
        self._take_over(trainer)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Stop here if asked to; not in the middle of a step, whose gradients no checkpoint holds."""
        if not trainer.fit_loop._should_accumulate():
            self._stop_if_asked(trainer)

    def on_validation_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        """Stop here if asked to; all processes have equally many batches."""
        self._stop_if_asked(trainer)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop here if asked to, before anything is made of the scores."""
        self._stop_if_asked(trainer)

    def _take_over(self, trainer: pl.Trainer) -> None:
        """Lightning gives the signals back when training ends, however it ends."""
        if threading.current_thread() is not threading.main_thread():
            return
        if trainer.received_sigterm:  # Lightning's own handler was there before
            self._received = signal.SIGTERM
            trainer._signal_connector.received_sigterm = False
        self._trainer = trainer
        for number in self.SIGNALS:
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._received == number == signal.SIGINT:
            raise KeyboardInterrupt
        self._received = self._received or number
        launcher = self._trainer.strategy.launcher
        if launcher is not None and number != signal.SIGINT:  # a terminal interrupts all processes
            launcher.kill(number)

    def _stop_if_asked(self, trainer: pl.Trainer) -> None:
        if trainer.state.fn != "fit":  # what is scored once training is over, which comes again
            return
        if self.deadline is not None and time.monotonic() > self.deadline:
            self._received = self._received or signal.SIGTERM
        received = torch.tensor(int(self._received), device=trainer.strategy.root_device)
        number = int(trainer.strategy.reduce(received, reduce_op="max"))
        if not number:
            return
        kept = None
        if not trainer.sanity_checking:
            for callback in trainer.checkpoint_callbacks:
                if getattr(callback, "save_last", False):
                    callback._save_last_checkpoint(trainer, callback._monitor_candidates(trainer))
                    kept = callback.last_model_path
        trainer.strategy.barrier("stopped by a signal")
        where = f"{kept} holds it, and the same command goes on from there" if kept else "no checkpoint was asked for"
        late = self.deadline is not None and time.monotonic() > self.deadline
        name = "the time limit" if late else signal.Signals(number).name
        warn(f"{name}: training stops after step {trainer.global_step}; {where}")
        raise StoppedBySignal(number)


def seconds_of(limit: str) -> int:
    """Return the seconds of `DD:HH:MM:SS`.

    Raises:
        InputError: it is written otherwise.
    """
    parts = str(limit).split(":")
    if len(parts) != 4 or not all(part.isdecimal() for part in parts):
        raise InputError(f"exp_manager.max_time_per_run: got '{limit}'; give DD:HH:MM:SS, such as 00:03:55:00")
    return sum(int(part) * unit for part, unit in zip(parts, (86400, 3600, 60, 1), strict=True))
