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
"""Has a run stopped improving? Its validation scores tell: they may end it, and its log and its record say so."""

import math
import re
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

from nemo.utils import logging

from nemo_distill.config.reading import inner_section
from nemo_distill.errors import InputError
from nemo_distill.support.validations import Validation, write_validations
from nemo_distill.support.warned import warn
from nemo_distill.training.identity import schedule_to_the_end
from nemo_distill.training.restart import OfOneTraining
from nemo_distill.training.trainer import pl

_FEWEST = 5  # validations in the last half, for a trend
_ERRORS = 3.0  # standard errors of its slope
_RISE = 0.01  # of the least loss; of a moving average of weights, losses from one validation to the next differ less


def has_converged(values: Sequence[float], mode: str) -> bool:
    """Return whether the scores of a run's validations say that it had stopped improving; one at least.

    It had not where the last score is better than all before, or, of a few scores, as good as the best. Nor where the
    scores of the last half, five at least, still rise (in the run's sense of better): where the slope of their
    least-squares line is above three standard errors.

    Args:
        values: scores, in the order of the run.
        mode: `max` or `min`, what is better.

    Example:
        >>> has_converged([20.0, 24.0, 25.1, 25.0], "max")
        True
        >>> has_converged([3.0, 2.5, 2.2], "min")
        False
    """
    values = [each if mode == "max" else -each for each in values]
    last = values[len(values) // 2 :]
    if values[-1] >= max(values) and (len(last) < _FEWEST or values[-1] > max(values[:-1])):
        return False
    if len(last) < _FEWEST:
        return True
    places = list(range(len(last)))
    slope, start = statistics.linear_regression(places, last)
    rest = math.fsum((value - start - slope * place) ** 2 for place, value in zip(places, last, strict=True))
    spread = math.fsum((place - statistics.fmean(places)) ** 2 for place in places)
    return slope <= _ERRORS * math.sqrt(rest / (len(last) - 2) / spread)


def without_gain(values: Sequence[float], mode: str) -> int:
    """Return how many validations in a row, the last ones, brought no better score than the best one before them.

    Example:
        >>> without_gain([20.0, 24.0, 24.0, 23.0], "max"), without_gain([3.0, 2.5], "min"), without_gain([], "min")
        (2, 0, 0)
    """
    best = max(values, default=None) if mode == "max" else min(values, default=None)
    return len(values) - 1 - values.index(best) if values else 0


def loss_rise(validations: Sequence[Validation]) -> tuple[float | None, int | None]:
    """Return by what share of its least the loss in validation has risen at the end, and the step of the least.

    A loss that rises while training goes on is of a model that learns its training text by heart: it grows surer of
    what it has seen, and of what it says wrongly. BLEU may rise all the same for a while.

    Returns:
        (None, None) where it is not 1 % above it, or where there is no loss above 0.

    Example:
        >>> loss_rise([Validation(500, 1.0, 20.0, 2.0), Validation(1000, 2.0, 21.0, 2.2)])
        (0.1, 500)
    """
    losses = [(each.loss, each.step) for each in validations if each.loss is not None]
    least, step = min(losses, default=(0.0, 0))
    rise = losses[-1][0] / least - 1 if least > 0 else 0.0
    return (round(rise, 4), step) if rise > _RISE else (None, None)


def check_patience(config: Mapping[str, Any]) -> None:
    """Refuse patience that would wait for no score, or stop a run whose learning rate is still to fall.

    Args:
        config: of a run, as plain data.

    Raises:
        InputError: as above; the message has the schedule to take.
    """
    if config.get("patience") is None:
        return
    monitor = inner_section(config, "exp_manager", "checkpoint_callback_params").get("monitor") or ""
    if str(monitor).startswith("train_") or monitor == "lr" or not inner_section(config, "model", "validation_ds"):
        raise InputError(
            "patience: counts validations without a better score or loss; give model.validation_ds, and a score of it "
            "as exp_manager.checkpoint_callback_params.monitor, such as val_sacreBLEU"
        )
    trainer = inner_section(config, "trainer")
    if trainer.get("limit_val_batches") == 0:
        raise InputError("patience: counts validations, and trainer.limit_val_batches is 0; leave that out")
    interval, steps = trainer.get("val_check_interval"), trainer.get("max_steps")
    each = trainer.get("accumulate_grad_batches") or 1
    if all(type(count) is int for count in (interval, steps, each)) and 0 < steps * each < interval:
        raise InputError(
            f"patience: counts validations, and trainer.val_check_interval is {interval} batches of a run of "
            f"{steps * each}; give a smaller one"
        )
    schedule = schedule_to_the_end(config)
    if schedule is not None:
        raise InputError(
            f"patience: model.optim.sched ({schedule}) lays the learning rate out over trainer.max_steps, and a run "
            "that ends earlier has not been through that; give model.optim.sched.name=WarmupPolicy, which stays at "
            "its peak, or InverseSquareRootAnnealing, with warmup_steps (a warmup_ratio is a share of all steps), and "
            "ema=0.999 for what a falling rate does"
        )


class ScoreHistory(OfOneTraining):
    """Notes the score by which checkpoints are kept, validation by validation, and says at the end what they tell.

    With `patience` it ends training, too, once neither the score nor the loss gets better, as Marian does by
    `early-stopping-on: all`: BLEU of a thousand sentences goes up and down by tenths while the loss still falls. What
    decides is the notes alone, which checkpoints hold, so a run that was killed ends where it would have; Lightning's
    `EarlyStopping` keeps a count there, but not that it had decided.

    Attributes:
        scores: step and score of each validation of the run; one that is resumed goes on with those before.
        validations: the same with loss, BLEU and time.
        converged: whether patience ended the run, or see `has_converged`; None before the end, and for a run without a
            validation.
        stopped_after: validations in a row without a better score or loss, at the end of a run that patience ended.
        loss_rise, least_loss_at: at the end, see `loss_rise`.

    Args:
        directory: of the run, where `validations` are noted, see `VALIDATIONS`; None: nowhere.
        patience: end training after so many validations in a row without a better score or loss; None: never.
    """

    def __init__(self, directory: Path | None = None, patience: int | None = None) -> None:
        self._directory, self._patience = directory, patience
        self.forget()

    def forget(self) -> None:
        """Know of no validation."""
        self.scores: list[tuple[int, float]] = []
        self.validations: list[Validation] = []
        self.converged: bool | None = None
        self.stopped_after: int | None = None
        self.loss_rise: float | None = None
        self.least_loss_at: int | None = None
        self._seconds_before, self._started = 0.0, None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Go on with the clock; note again what NeMo moves away when a run is started again.

        What was said at the end of an earlier fit, which this one goes on from, is to be said anew.
        """
        self._started = time.monotonic()
        self.converged = self.stopped_after = self.loss_rise = self.least_loss_at = None
        if self.validations:
            self._note(trainer)
        self._end_where_due(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the score of a validation."""
        name, _ = _monitor(trainer)
        value = trainer.callback_metrics.get(name)
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        bleu, loss = (_finite(trainer.callback_metrics.get(each)) for each in _noted(name))
        before = [each for each in self.validations if each.step < trainer.global_step]
        self.validations = [*before, Validation(trainer.global_step, self._seconds(), bleu, loss)]
        self._note(trainer)
        if value is None or not math.isfinite(value):
            return
        earlier = [each for each in self.scores if each[0] < trainer.global_step]
        self.scores = [*earlier, (trainer.global_step, float(value))]
        self._end_where_due(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock, and say whether the run had stopped improving."""
        self._seconds_before, self._started = self._seconds(), None
        self.conclude(trainer)

    def conclude(self, trainer: pl.Trainer) -> None:
        """Say, once, whether the run had stopped improving; for one that is resumed at its end, which trains no more,
        and of whose end Lightning tells nobody.
        """
        name, mode = _monitor(trainer)
        if self.converged is not None or not self.scores or name.startswith("train_"):
            return
        values, waited = [value for _, value in self.scores], self._waited(mode)
        self.stopped_after = waited if self._patience is not None and waited >= self._patience else None
        self.converged = self.stopped_after is not None or has_converged(values, mode)
        step, best = (max if mode == "max" else min)(self.scores, key=lambda each: each[1])
        end, last = self.scores[-1]
        told = f"best {name} {best:.4f} at step {step}, last {last:.4f} at step {end}"
        if self.stopped_after is not None:
            logging.info(f"{told}: converged: stopped after {waited} validations without gain at step {end}")
        elif self.converged:
            logging.info(f"{told}: the run had stopped improving")
        else:
            found = "the run was still improving when it ended" if len(set(values)) > 1 else "they tell no trend"
            warn(
                f"{told}, of {len(self.scores)} validations: not converged, {found}, and what it is compared with may "
                "only have learnt faster; train for more steps (trainer.max_steps)"
            )
        if getattr(trainer.lightning_module, "model_type", "nll") != "nll":
            return  # the loss of a VAE or MIM has terms besides
        rise, least_at = loss_rise(self.validations)
        if rise is not None and trainer.global_step <= (warm_up := _warm_up(trainer)):
            warn(
                f"the loss in validation was at its least at step {least_at}, and the learning rate rose until the "
                f"end: the warm-up is {warm_up} steps (model.optim.sched.warmup_steps) of {trainer.max_steps}; train "
                "for more, or warm up for fewer"
            )
            return
        self.loss_rise, self.least_loss_at = rise, least_at
        if rise is not None:
            warn(
                f"the loss in validation was at its least at step {least_at}, and is "
                f"{100 * rise:.0f} % above that at the end, as where a model learns its text by heart: more "
                "text may make a better one, or more dropout (model.encoder.ffn_dropout and its like; `dropout` of a "
                "recipe), and of a student disturbed copies of its sources (distillation=recommended_disturbed)"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the scores, for checkpoints."""
        validations = [list(astuple(each)) for each in self.validations]
        return {
            "scores": [list(each) for each in self.scores],
            "validations": validations,
            "seconds": self._seconds(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the scores over; what is none is left out."""
        found = state_dict.get("scores")
        self.scores = [
            (each[0], each[1])
            for each in (found if isinstance(found, list) else ())
            if isinstance(each, list | tuple) and len(each) == 2 and type(each[0]) is int and type(each[1]) is float
        ]
        found, seconds = state_dict.get("validations"), state_dict.get("seconds")
        self._seconds_before = seconds if type(seconds) is float and 0 <= seconds < math.inf else 0.0
        self.validations = [
            Validation(*each)
            for each in (found if isinstance(found, list) else ())
            if isinstance(each, list | tuple)
            and len(each) == 4
            and (type(each[0]), type(each[1])) == (int, float)
            and all(value is None or type(value) is float for value in each[2:])
        ]

    def _end_where_due(self, trainer: pl.Trainer) -> None:
        """End training, in all processes alike, where the validation at this step was one too many without a gain."""
        if self._patience is None or not self.scores or self.scores[-1][0] != trainer.global_step:
            return
        waited = self._waited(_monitor(trainer)[1])
        is_due = waited >= self._patience and trainer.fit_loop._can_stop_early
        if trainer.strategy.reduce_boolean_decision(is_due, all=False):
            trainer.should_stop = True

    def _waited(self, mode: str) -> int:
        """Return how many validations in a row brought neither a better score nor a smaller loss."""
        losses = [each.loss for each in self.validations if each.loss is not None]
        waited = without_gain([value for _, value in self.scores], mode)
        return min(waited, without_gain(losses, "min")) if losses else waited

    def _seconds(self) -> float:
        return self._seconds_before + (0.0 if self._started is None else time.monotonic() - self._started)

    def _note(self, trainer: pl.Trainer) -> None:
        if self._directory is not None and trainer.is_global_zero:
            write_validations(self._directory, self.validations)


def _noted(monitor: str) -> tuple[str, str]:
    """Return the names of BLEU and loss of the validation set, or the mean of all, that a monitored score is of.

    Example:
        >>> _noted("val_sacreBLEU_dl_index_1"), _noted("mine")
        (('val_sacreBLEU_dl_index_1', 'val_loss_dl_index_1'), ('val_sacreBLEU', 'val_loss'))
    """
    found = re.fullmatch("val_(?:sacreBLEU|loss)((?:_.+)?)", monitor)
    suffix = found[1] if found else ""
    return f"val_sacreBLEU{suffix}", f"val_loss{suffix}"


def _finite(value: Any) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _monitor(trainer: pl.Trainer) -> tuple[str, str]:
    """Return the score that counts, and what of it is better."""
    callback = trainer.checkpoint_callback
    return getattr(callback, "monitor", None) or "val_loss", getattr(callback, "mode", None) or "min"


def _warm_up(trainer: pl.Trainer) -> int:
    """Return the steps in which the learning rate rises at first."""
    schedules = [each.scheduler for each in getattr(trainer, "lr_scheduler_configs", [])]
    return max((getattr(each, "warmup_steps", None) or 0 for each in schedules), default=0)
