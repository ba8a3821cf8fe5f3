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
"""What training does where a loss or a gradient is NaN or infinite: stop before the step, or leave the step out."""

from typing import Any

import torch

from nemo_distill.errors import InputError, NonFiniteError
from nemo_distill.support.warned import warn
from nemo_distill.training.ranks import mean_over_processes
from nemo_distill.training.restart import OfOneTraining
from nemo_distill.training.trainer import pl

POLICIES = ("stop", "skip")
MOST_IN_A_ROW = 25
_REMEDY = "lower the learning rate, warm up longer or clip gradients (trainer.gradient_clip_val)"


class NonFiniteGuard(OfOneTraining):
    """Callback that keeps NaN and infinities out of the weights, of any model, whatever brings them.

    Losses and gradients are looked at in front of every step, and all processes decide alike. Where one is not finite:

    - `stop` raises `NonFiniteError` in every process; the weights are those of the step before;
    - `skip` leaves the step out: neither weights nor the optimizer's moments change, the learning rate's schedule goes
      on. After `most_in_a_row` such steps training stops all the same.

    Weights that are not finite are never written into a checkpoint. A GradScaler (fp16) finds infinite gradients by
    itself and lowers its scale; there only the loss is looked at.

    Args:
        policy: `stop` or `skip`.
        most_in_a_row: steps left out one after the other before training stops.

    Attributes:
        skipped (int): steps left out so far; kept in checkpoints, logged as `train_skipped_steps`.

    Raises:
        InputError: an unknown policy.

    Example:
        >>> trainer = pl.Trainer(callbacks=[NonFiniteGuard("skip")])  # doctest: +SKIP
    """

    def __init__(self, policy: str = "stop", most_in_a_row: int = MOST_IN_A_ROW) -> None:
        if policy not in POLICIES:
            raise InputError(f"on_non_finite: got '{policy}'; give {' or '.join(POLICIES)}")
        self.policy, self.most_in_a_row = policy, most_in_a_row
        self.forget()

    def forget(self) -> None:
        """Count anew."""
        self._has_ended = False
        self.skipped = self._in_a_row = 0
        self._loss_is_bad: torch.Tensor | None = None
        self._reason: str | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Count anew where another training begins than the one that has ended: counts may be loaded by hand."""
        if self._has_ended:
            super().setup(trainer, pl_module, stage)

    def note(self, reason: str) -> None:
        """Keep what a student's `distillation_terms` found out about a loss that is not finite."""
        self._reason = self._reason or reason

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take over from the student, which by itself raises."""
        pl_module.on_non_finite = self.note

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Leave the student as it was."""
        pl_module.on_non_finite = None
        self._has_ended = self._has_ended or stage == "fit"

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: torch.Tensor) -> None:
        """Look at the loss of one batch, of which a step may take several."""
        bad = ~torch.isfinite(loss.detach()).all()
        self._loss_is_bad = bad if self._loss_is_bad is None else self._loss_is_bad | bad

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Decide, together with all other processes, whether the step may be taken.

        Raises:
            NonFiniteError: it may not, and the policy is `stop`, or too many were left out before.
        """
        if self._loss_is_bad is None:  # no batch gave a loss
            return
        has_scaler = getattr(trainer.precision_plugin, "scaler", None) is not None
        gradients = torch.zeros_like(self._loss_is_bad) if has_scaler else _gradients_are_bad(pl_module)
        found = mean_over_processes({"loss": self._loss_is_bad, "gradients": gradients})
        loss_is_bad, gradients_are_bad = (bool(value > 0) for value in found.values())
        reason = self._reason or f"step {trainer.global_step}: {_describe(loss_is_bad, bool(self._loss_is_bad))}"
        self._loss_is_bad = self._reason = None
        if not (loss_is_bad or gradients_are_bad):
            self._in_a_row = 0
        elif self.policy == "stop":
            raise NonFiniteError(reason)
        else:
            self._leave_out(trainer.global_step, reason, optimizer)
        if self.policy == "skip":
            pl_module.log("train_skipped_steps", float(self.skipped))

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict) -> None:
        """Refuse to store weights that are not finite; older checkpoints stay.

        Raises:
            NonFiniteError: there are such weights.
        """
        check_weights(pl_module, f"step {trainer.global_step}: no checkpoint is written")

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"skipped": self.skipped, "in_a_row": self._in_a_row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.skipped = state_dict["skipped"]
        self._in_a_row = state_dict.get("in_a_row", 0)  # earlier versions did not note it

    def _leave_out(self, step: int, reason: str, optimizer: torch.optim.Optimizer) -> None:
        self.skipped += 1
        self._in_a_row += 1
        if self._in_a_row > self.most_in_a_row:
            raise NonFiniteError(f"{self._in_a_row} steps in a row were left out, {self.skipped} in all. {reason}")
        found = reason.partition("; training stops")[0]
        warn(f"{found}; this step is left out ({self._in_a_row} in a row, {self.skipped} in all)")
        optimizer.zero_grad(set_to_none=True)  # an optimizer passes over what has no gradient


def check_weights(model: torch.nn.Module, consequence: str) -> None:
    """Make sure that all weights are finite.

    Raises:
        NonFiniteError: one is not; the message names it, and begins with `consequence`.
    """
    parameters = dict(model.named_parameters())
    finite = torch.stack([parameter.detach().isfinite().all() for parameter in parameters.values()]).tolist()
    bad = [name for name, is_finite in zip(parameters, finite, strict=True) if not is_finite]
    if bad:
        raise NonFiniteError(
            f"{consequence}, since {len(bad)} of {len(parameters)} weights are NaN or infinite ({bad[0]}); training "
            f"stops. To go on from the last checkpoint: {_REMEDY}"
        )


def _gradients_are_bad(model: torch.nn.Module) -> torch.Tensor:
    largest = [parameter.grad.detach().abs().amax() for parameter in model.parameters() if parameter.grad is not None]
    return ~torch.isfinite(torch.stack(largest)).all() if largest else torch.tensor(False)


def _describe(loss_is_bad: bool, own_loss_is_bad: bool) -> str:
    what = "gradients are not finite though the loss is"
    if loss_is_bad:
        what = "loss is NaN or infinite" if own_loss_is_bad else "loss of another process is NaN or infinite"
    return f"the {what}; training stops. To go on: {_REMEDY}"
