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
"""The checkpoints of a run directory: when they are written, which one a run goes on from, what is left over."""

import contextlib
import os
import re
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nemo_distill.errors import InputError
from nemo_distill.support.files import is_plain, remove_unfinished
from nemo_distill.support.quoting import plain_text
from nemo_distill.support.warned import warn
from nemo_distill.training.monitored import MONITOR, WHERE, check_moments, mode_of
from nemo_distill.training.stored import (
    FIELD,
    NO_SCORE,
    content_fault,
    damaged_entry,
    name_pattern,
    origin_fault,
    steps_of,
)
from nemo_distill.training.trainer import SafeCheckpointIO, pl

_DEFAULTS = {"monitor": MONITOR, "save_top_k": 3, "save_last": True, "verbose": True}  # as NeMo's
_PASSED_ON = {*_DEFAULTS, "mode", "filename", "auto_insert_metric_name"}
_PASSED_ON |= {"every_n_epochs", "every_n_train_steps", "save_on_train_epoch_end"}
_REFUSED = {"dirpath", "save_weights_only"}
# NeMo's own, for archives that a run of this library writes once, at its end.
_WITHOUT_EFFECT = {"prefix", "postfix", "save_best_model", "always_save_nemo", "save_nemo_on_train_end"}
_OURS = ("last_every_n_steps", "last_every_minutes")
_DEFAULT_MINUTES = 15


class RunCheckpoint(pl.callbacks.ModelCheckpoint):
    """Lightning's checkpoint callback, with a `last` checkpoint as often as one asks for, and one at any time.

    What a checkpoint names as the best so far is removed only after a newer `last` names another one, so a run that is
    killed between the two finds its best checkpoint.

    Args:
        last_every_n_steps: write `last` after every so many optimizer steps; None: by time alone.
        last_every_minutes: write `last` at the first step after so many minutes without one; None: by steps alone.
        settings: of Lightning's `ModelCheckpoint`. By them, checkpoints are written after each validation.
    """

    def __init__(
        self, last_every_n_steps: int | None = None, last_every_minutes: float | None = None, **settings: Any
    ) -> None:
        super().__init__(**settings)
        self.CHECKPOINT_NAME_LAST = f"{self.filename}-last"
        self.last_every_n_steps, self.last_every_minutes = last_every_n_steps, last_every_minutes
        self._last_saved_at = time.monotonic()
        self._to_remove: list[str] = []
        self._scores: dict[str, float] = {}

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Write `last` where it is time to, besides what Lightning does."""
        super().on_train_batch_end(trainer, pl_module, *args)
        if self.save_last and not trainer.fit_loop._should_accumulate() and self._last_is_due(trainer):
            self.save_now(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write `last` if the last step has none."""
        if not self._should_skip_saving_checkpoint(trainer):
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    def save_now(self, trainer: pl.Trainer) -> None:
        """Write `last`; the validation after this step, if there is one, still writes its own checkpoints."""
        before = self._last_global_step_saved
        self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))
        self._last_global_step_saved = before

    def format_checkpoint_name(
        self, metrics: dict[str, Any], filename: str | None = None, ver: int | None = None
    ) -> str:
        """Name a checkpoint by its newest scores; one that the run has not got yet is `none`, where Lightning says 0.

        A run that goes on has those of its checkpoint until it computes its own.
        """
        fields = {field["name"] for field in FIELD.finditer(filename or self.filename)} - {"epoch", "step"}
        self._scores |= {name: float(metrics[name]) for name in fields & metrics.keys()}
        metrics = {**self._scores, **metrics}

        def named(field: re.Match) -> str:
            name = field["name"]
            return field[0] if name in metrics else f"{name}={NO_SCORE}" if self.auto_insert_metric_name else NO_SCORE

        return super().format_checkpoint_name(metrics, FIELD.sub(named, filename or self.filename), ver)

    def state_dict(self) -> dict[str, Any]:
        """Return what Lightning's has, and the scores of names."""
        return {**super().state_dict(), "scores": dict(self._scores)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the scores over; the files are those beside the checkpoint, though the directory was moved.

        A file that is not there any more is none of the best, or nothing that comes might be better.
        """
        self._scores = dict(state_dict.get("scores", {}))  # earlier versions noted none
        here = {key: self._beside(path) for key, path in state_dict.items() if key.endswith("_path")}
        best = {self._beside(path): score for path, score in state_dict["best_k_models"].items()}
        state_dict = {**state_dict, **here, "best_k_models": best, "dirpath": self.dirpath}
        gone = [path for path in {**best, here["best_model_path"]: None} if path and not os.path.isfile(path)]
        for path in gone:
            warn(f"{path}, one of the best checkpoints, is not there: the best are chosen without it")
            best.pop(path, None)
        if gone:
            order = sorted(best, key=best.get, reverse=self.mode == "max") or [""]
            state_dict |= {"best_model_path": order[0], "best_model_score": best.get(order[0])}
            state_dict |= {"kth_best_model_path": order[-1], "kth_value": best.get(order[-1], self.kth_value)}
        super().load_state_dict(state_dict)

    def _beside(self, path: str) -> str:
        return str(Path(self.dirpath) / Path(path).name) if path else path

    def _last_is_due(self, trainer: pl.Trainer) -> bool:
        if self.last_every_n_steps and trainer.global_step % self.last_every_n_steps == 0:
            return True
        if not self.last_every_minutes:
            return False
        elapsed = time.monotonic() - self._last_saved_at >= 60 * self.last_every_minutes
        return trainer.strategy.reduce_boolean_decision(trainer.is_global_zero and elapsed, all=False)

    def _save_last_checkpoint(self, trainer: pl.Trainer, monitor_candidates: dict) -> None:
        super()._save_last_checkpoint(trainer, monitor_candidates)
        self._last_saved_at = time.monotonic()
        while self._to_remove:
            super()._remove_checkpoint(trainer, self._to_remove.pop())

    def _should_remove_checkpoint(self, trainer: pl.Trainer, previous: str, current: str) -> bool:
        """Remove the one that the run was resumed from too: Lightning 2.4 keeps it for good, 2.0 does not ask."""
        return previous != current and Path(self.dirpath) in Path(previous).parents

    def _remove_checkpoint(self, trainer: pl.Trainer, filepath: str) -> None:
        path = Path(filepath)
        if path.parent != Path(self.dirpath) or not is_own(path, self.filename):  # a checkpoint may name any file
            return
        if self.save_last:
            self._to_remove.append(filepath)
        else:
            super()._remove_checkpoint(trainer, filepath)


def build_checkpoint_callback(params: Mapping[str, Any], directory: Path, at_least: int = 0) -> RunCheckpoint:
    """Build the callback from `exp_manager.checkpoint_callback_params`: NeMo's keys and those of `RunCheckpoint`.

    Args:
        params: the section.
        directory: where checkpoints go.
        at_least: keep so many of the best, though `save_top_k` says fewer.

    Raises:
        InputError: a key is unknown, or a value does not serve.
    """
    known = {*_PASSED_ON, *_OURS}
    unknown = sorted(set(params) - known - _REFUSED - _WITHOUT_EFFECT)
    if unknown:
        raise InputError(f"{WHERE}: unknown key {', '.join(unknown)}; it takes {', '.join(sorted(known))}")
    check_moments(params)
    settings = _DEFAULTS | {key: value for key, value in params.items() if key in known} | {"mode": mode_of(params)}
    for key in _OURS:
        value = settings.setdefault(key)
        if value is not None and not (isinstance(value, (int, float)) and value > 0):
            raise InputError(f"{WHERE}.{key}: got {value!r}; give a number above 0, or null")
    if not any(settings[key] for key in _OURS):
        settings["last_every_minutes"] = _DEFAULT_MINUTES
    if isinstance(settings["save_top_k"], int) and settings["save_top_k"] >= 0:
        settings["save_top_k"] = max(settings["save_top_k"], at_least)
    settings["dirpath"] = str(directory)
    settings["filename"] = file_name_of(params)
    try:
        return RunCheckpoint(**settings)
    except pl.utilities.exceptions.MisconfigurationException as error:
        raise InputError(f"{WHERE}: {error}") from error


def file_name_of(params: Mapping[str, Any]) -> str:
    """Return how a run with these `exp_manager.checkpoint_callback_params` names its checkpoints."""
    if not isinstance(params, Mapping):
        raise InputError(f"{WHERE}: got {ascii(params)[:80]}; give a section")
    monitor = params.get("monitor") or MONITOR
    return str(params.get("filename") or f"{{{monitor}:.4f}}-{{epoch}}-{{step}}")


def newest_checkpoint(
    directory: Path, loops: Mapping[str, Any] | None = None, origin: tuple[Mapping[str, Any], int] | None = None
) -> Path | None:
    """Return the complete checkpoint with the most steps, or None; others are passed over with a warning.

    Complete means that its checksums hold, that it loads under torch's `weights_only` protection, and that its values
    are of the right types and finite.

    Args:
        directory: of the checkpoints.
        loops: `trainer.fit_loop.state_dict()` of a new trainer, with which the stored one is compared.
        origin: `model` section and seed of the run; checkpoints that say that they are of another one are passed over.
    """
    found = []
    for path in directory.glob("*.ckpt"):
        step = _steps(path)
        if step is not None:
            with contextlib.suppress(FileNotFoundError):  # another process removes what it has found to be left over
                found.append((step, path.name.endswith("last.ckpt"), path.stat().st_mtime_ns, path))
    for *_, path in sorted(found, reverse=True):
        fault = checkpoint_fault(path, loops, origin)
        if fault is None:
            return path
        warn(f"passing over {path}: {fault}")
    return None


def remove_left_over(
    directory: Path, resumed: Path | None, filename: str, origin: tuple[Mapping[str, Any], int] | None = None
) -> None:
    """Remove what a killed run left: unfinished files, older `last` checkpoints, best ones of steps not kept.

    Only what this run wrote goes: readable checkpoints, named as it names them. Links and all else stay.

    Args:
        directory: of the checkpoints.
        resumed: the checkpoint that the run goes on from.
        filename: how the run names its checkpoints, see `name_pattern`.
        origin: as for `newest_checkpoint`; those of another run stay.
    """
    wanted = {resumed}
    if resumed is not None:
        states = SafeCheckpointIO().load_checkpoint(resumed, mmap=True).get("callbacks", {}).values()
        wanted |= {directory / Path(path).name for state in states for path in state.get("best_k_models", {})}
    left = [path for path in directory.glob("*.ckpt") if path not in wanted and is_own(path, filename)]
    left = [path for path in left if _steps(path, aloud=False) is not None]
    left = [path for path in left if origin is None or other_origin(path, *origin) is None]
    remove_unfinished(directory)
    for path in left:
        warn(f"removing {path}, which an interrupted run left")
        path.unlink(missing_ok=True)


def is_own(path: Path, filename: str) -> bool:
    """Return whether a file is named as a run names its checkpoints, and no link or the like."""
    if not name_pattern(filename).fullmatch(path.name):
        return False
    with contextlib.suppress(OSError):
        return is_plain(path)
    return False


def other_origin(path: Path, model: Mapping[str, Any], seed: int) -> str | None:
    """Return why a checkpoint is not of the run with this `model` section and seed; None if nothing says so."""
    try:
        content = SafeCheckpointIO().load_checkpoint(path, mmap=True)
    except (InputError, OSError):
        return None
    return origin_fault(content, model, seed)


def _steps(path: Path, aloud: bool = True) -> int | None:
    """Return the steps that a checkpoint holds; None, with a warning, for one that cannot be read."""
    try:
        return steps_of(SafeCheckpointIO().load_checkpoint(path, mmap=True))
    except (InputError, OSError) as error:
        if aloud and os.path.lexists(path):
            warn(f"passing over {path}: {error}")
        return None


def checkpoint_fault(
    path: Path, loops: Mapping[str, Any] | None = None, origin: tuple[Mapping[str, Any], int] | None = None
) -> str | None:
    """Return why a checkpoint is not complete, or not of a run, see `newest_checkpoint`; None if nothing says so."""
    try:
        damaged = damaged_entry(path)
        if damaged is not None:
            return f"it is damaged (checksum of {plain_text(damaged)})"
        content = SafeCheckpointIO().load_checkpoint(path, mmap=True)
        return content_fault(content, loops) or (origin and origin_fault(content, *origin))
    except (InputError, OSError, ValueError, zipfile.BadZipFile) as error:
        return str(error)
