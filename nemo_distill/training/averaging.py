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
"""Which weights a run keeps: those of one checkpoint, the mean of several, a moving average over all its steps."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from nemo.utils import logging
from torch.optim.swa_utils import get_ema_multi_avg_fn

from nemo_distill.config.reading import inner_section
from nemo_distill.errors import InputError
from nemo_distill.support.warned import warn
from nemo_distill.training.checkpoints import checkpoint_fault
from nemo_distill.training.restart import OfOneTraining
from nemo_distill.training.trainer import pl


class MovingAverage(OfOneTraining):
    """Keeps an exponential moving average of a model's weights beside those that train, and validates it.

    After step t the average is `share * average + (1 - share) * weights`, `share = min(decay, (1 + t) / (10 + t))`: so
    it forgets the random beginning, as in Marian (https://arxiv.org/abs/1804.00344, `--exponential-smoothing`). torch
    computes it, in float32 at least; all processes, whose weights are the same, have the same. A
    weight that several modules share is one, and what an objective learns, such as projections, is averaged too; a
    teacher is outside of the module tree, and so of this.

    Checkpoints hold the weights that train as the model's, and the average as this callback's state: from them a run
    goes on to the bit. It must be the first callback of the trainer, before those that write checkpoints.

    Args:
        decay: above 0 and below 1; about `1 / (1 - decay)` steps count.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.forget()

    def forget(self) -> None:
        """Have no average."""
        self._average: dict[str, torch.Tensor] = {}
        self._aside: dict[str, torch.Tensor] | None = None  # what trains, while a validation has the average

    def on_sanity_check_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin with the model's weights, or with what a checkpoint held."""
        self._begin(trainer, pl_module)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin with the model's weights, or with what a checkpoint held."""
        self._begin(trainer, pl_module)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Take the weights of a step in."""
        if trainer.fit_loop._should_accumulate():
            return
        share = min(self.decay, (1 + trainer.global_step) / (10 + trainer.global_step))
        average = list(self._average.values())
        weights = [each.detach().to(kept.dtype) for each, kept in zip(pl_module.parameters(), average, strict=True)]
        get_ema_multi_avg_fn(share)(average, weights, None)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validate the average."""
        if trainer.state.fn == "fit":
            self._aside = {name: each.detach().clone() for name, each in pl_module.named_parameters()}
            self.put_into(pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Go on with the weights that train."""
        if self._aside is not None:
            _copy(self._aside, pl_module)
            self._aside = None

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict) -> None:
        """Store the weights that train where a run is stopped in the middle of a validation, too."""
        if self._aside is not None:
            _copy(self._aside, pl_module)
            weights = trainer.strategy.lightning_module_state_dict()
            checkpoint["state_dict"] = {name: each.clone() for name, each in weights.items()}
            self.put_into(pl_module)

    def state_dict(self) -> dict[str, Any]:
        """Return the average, for checkpoints."""
        return {"average": dict(self._average)} if self._average else {}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take the average of a checkpoint."""
        self._average = dict(state_dict["average"])

    def put_into(self, model: torch.nn.Module) -> None:
        """Give a model the average for its weights."""
        _copy(self._average, model)

    def _begin(self, trainer: pl.Trainer, model: pl.LightningModule) -> None:
        weights = {name: each.detach() for name, each in model.named_parameters()}
        if trainer.global_step and {name: each.shape for name, each in self._average.items()} != {
            name: each.shape for name, each in weights.items()
        }:
            raise InputError("ema: the checkpoint holds no moving average of these weights; it is of another run")
        self._average = {
            name: self._average.get(name, each).to(
                each.device, torch.promote_types(each.dtype, torch.float32), copy=True
            )
            for name, each in weights.items()
        }


def check_averages(config: Mapping[str, Any]) -> None:
    """Refuse averages of what a run does not store.

    Args:
        config: of a run, as plain data.

    Raises:
        InputError: as above; the message names the key.
    """
    manager = inner_section(config, "exp_manager")
    if config.get("keep") in ("best", "average") and not manager.get("create_checkpoint_callback", True):
        raise InputError(
            f"keep: '{config['keep']}' is of checkpoints, and exp_manager.create_checkpoint_callback is false; give "
            "keep: last, or have checkpoints"
        )


def settle_weights(
    trainer: pl.Trainer, model: pl.LightningModule, keep: str, count: int, moving: MovingAverage | None = None
) -> None:
    """Give a model the weights that its run keeps, once that has ended. All processes must call this together.

    A checkpoint that was lost or damaged is passed over for the next best; without any, the last weights are kept.

    Args:
        trainer: of the run.
        model: which holds the weights of the last step.
        keep: `last`; `best`: those of the best validation; or `average`: the mean of the best `count`, computed in
            float64 and validated.
        count: of checkpoints, 0 for `last` and 1 for `best`.
        moving: the run's moving average, which stands for the weights of each checkpoint.
    """
    best = _best_of(trainer.checkpoint_callback, count) if trainer.is_global_zero else {}
    best = trainer.strategy.broadcast(best)
    if count and not best and getattr(model, "_validation_dl", None):
        warn(
            f"keep: '{keep}', and no validation with a finite score has a checkpoint: the weights of the last step "
            "are kept"
        )
    if best:  # in an order that is always the same, by which sums are rounded
        model.load_state_dict(_mean(_weights_of(trainer, model, path, moving) for path in sorted(best)))
    elif moving is not None:
        moving.put_into(model)
    if len(best) > 1 and getattr(model, "_validation_dl", None):
        _validate(trainer, model, list(best.values()))


def _best_of(callback: Any, count: int) -> dict[str, float]:
    """Return the best complete checkpoints and their scores, the earliest of equals first.

    Lightning takes NaN for infinite.
    """
    scores = {path: float(score) for path, score in getattr(callback, "best_k_models", {}).items()}
    scores = {path: score for path, score in scores.items() if math.isfinite(score)}
    found: dict[str, float] = {}
    for path in sorted(scores, key=scores.get, reverse=getattr(callback, "mode", "min") == "max"):
        if len(found) == count:
            break
        if fault := checkpoint_fault(Path(path)):
            warn(f"passing over {path}: {fault}")
        else:
            found[path] = scores[path]
    return found


def _weights_of(
    trainer: pl.Trainer, model: pl.LightningModule, path: str, moving: MovingAverage | None
) -> dict[str, torch.Tensor]:
    """Return the weights of a checkpoint, its moving average in their place; a model is needed for shared ones."""
    checkpoint = trainer.strategy.load_checkpoint(path)
    if moving is None:
        return checkpoint["state_dict"]
    model.load_state_dict(checkpoint["state_dict"])
    moving.load_state_dict(checkpoint["callbacks"][moving.state_key])
    moving.put_into(model)
    return model.state_dict()


def _mean(models: Iterable[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Return the mean of several models' weights, rounded once; of what is no floating-point number the last."""
    totals: dict[str, torch.Tensor] = {}
    for number, weights in enumerate(models, start=1):
        for name, each in weights.items():
            if number == 1:
                totals[name] = each.to(torch.float64, copy=True) if each.is_floating_point() else each.clone()
            elif each.is_floating_point():
                totals[name] += each
            else:
                totals[name] = each.clone()
    kinds = {name: each.dtype for name, each in weights.items()}
    return {
        name: (each / number).to(kinds[name]) if kinds[name].is_floating_point else each
        for name, each in totals.items()
    }


def _validate(trainer: pl.Trainer, model: pl.LightningModule, scores: Sequence[float]) -> None:
    """Say how good the mean of checkpoints with these scores is, of which the best comes first."""
    callback = trainer.checkpoint_callback
    trainer.ckpt_path = None  # NeMo sets that from which a run goes on, and it would be loaded again
    trainer.validate(model, verbose=False)
    if trainer.interrupted:
        raise KeyboardInterrupt
    value, best = trainer.callback_metrics.get(callback.monitor), scores[0]
    if value is None:  # of training
        return
    is_worse = value < best if callback.mode == "max" else value > best
    say = warn if is_worse else logging.info
    say(
        f"mean of the {len(scores)} best checkpoints: {callback.monitor} {float(value):.4f}, of the best alone "
        f"{best:.4f}" + (": the mean is worse, and keep=best is better here" if is_worse else "")
    )


def _copy(weights: Mapping[str, torch.Tensor], model: torch.nn.Module) -> None:
    with torch.no_grad():
        for name, each in model.named_parameters():
            each.copy_(weights[name])
