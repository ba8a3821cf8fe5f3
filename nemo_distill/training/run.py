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
"""One training run in one directory: refuse, resume or start; train; leave a `.nemo` archive.

A run directory holds `config.yaml`, `log/` (NeMo's exp_manager: checkpoints, TensorBoard events, log files) and, once
finished, `<name>.nemo`. Running the same configuration again goes on where the run stopped, or returns at once where
it has finished; another configuration is refused unless `overwrite` is set.
"""

import shutil
import time
from pathlib import Path
from typing import Any

from nemo.core.classes import ModelPT
from nemo.utils import logging
from nemo.utils.exp_manager import exp_manager
from nemo.utils.get_rank import is_global_rank_zero
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nemo_distill.data.checks import check_model_files
from nemo_distill.data.tokenizer import name_libraries
from nemo_distill.errors import InputError
from nemo_distill.support.children import ending_together
from nemo_distill.support.files import atomic_path, is_unfinished, write_text_atomic
from nemo_distill.support.lock import LOCK
from nemo_distill.support.manifest import refuse_other
from nemo_distill.training.checkpoints import (
    RunCheckpoint,
    build_checkpoint_callback,
    newest_checkpoint,
    remove_left_over,
)
from nemo_distill.training.non_finite import NonFiniteGuard, check_weights
from nemo_distill.training.repairs import repair_model
from nemo_distill.training.stopping import StopOnSignal, seconds_of
from nemo_distill.training.trainer import build_trainer, seed_everything
from nemo_distill.training.validation import check_validation_sets

_CONFIG_FILE = "config.yaml"
_LOG_DIRECTORY = "log"
_CHECKPOINTS = f"{_LOG_DIRECTORY}/checkpoints"
# These say how to run, not what is run.
_RUN_KEYS = ("output_dir", "overwrite", "on_non_finite")
# Asked for only where another key refers to them, as ${teacher}: not every objective does.
_READ_BY_SOME = ("teacher", "pseudo", "cache")


def run_training(config: DictConfig, model_class: type[ModelPT]) -> Path:
    """Train one model as `config` says, and save it.

    Args:
        config: `name`, `output_dir`, `overwrite`, `seed`, `keep` (`best`: the checkpoint of the best validation score;
            `last`: the final weights), `on_non_finite` (`stop` or `skip`, see `NonFiniteGuard`), and the sections
            `model`, `trainer` and `exp_manager`.
        model_class: what to build from `config.model`.

    Returns:
        Path of the archive, `<output_dir>/<name>.nemo`.

    Raises:
        InputError: a value is missing, the directory holds another run, or data, teacher or configuration do not
            serve. Nothing has been written then.
        StoppedBySignal: a signal or the time limit ended training; the same call goes on.
        StorageError: a checkpoint cannot be written.
        NonFiniteError: a loss or gradients became NaN or infinite; the checkpoints before that stay.
    """
    plain = _plain_config(config)
    directory = Path(config.output_dir)
    archive = directory / f"{config.name}.nemo"
    guard = NonFiniteGuard(config.get("on_non_finite", "stop"))
    check_model_files(config.model)
    name_libraries(plain["model"])
    if is_global_rank_zero():
        _refuse_other_run(directory, plain, config.overwrite)
    if archive.exists() and not config.overwrite:
        logging.info(f"{archive} is finished; nothing to do")
        return archive
    seed_everything(config.seed)
    trainer = build_trainer(config.trainer)
    manager, checkpoint_callback = _exp_manager_config(config.exp_manager, directory, trainer)
    trainer.callbacks.append(guard)
    model = repair_model(model_class(OmegaConf.create(plain["model"]), trainer=trainer))
    check_validation_sets(model)
    if is_global_rank_zero():
        _claim_directory(directory, archive, plain, config.overwrite)
    checkpoint = None if config.overwrite else newest_checkpoint(directory / _CHECKPOINTS)
    if is_global_rank_zero():
        remove_left_over(directory / _CHECKPOINTS, checkpoint)
    exp_manager(trainer, manager | ({"resume_from_checkpoint": str(checkpoint)} if checkpoint else {}))
    if checkpoint_callback is not None:
        trainer.callbacks.append(checkpoint_callback)
    with ending_together():
        trainer.fit(model)
    if trainer.interrupted:
        raise KeyboardInterrupt
    best_path = getattr(trainer.checkpoint_callback, "best_model_path", "")
    if config.keep == "best" and best_path:
        model.load_state_dict(trainer.strategy.load_checkpoint(best_path)["state_dict"])
    check_weights(model, f"{archive} is not written")
    if is_global_rank_zero():
        with atomic_path(archive) as partial:
            model.save_to(str(partial))
        logging.info(f"saved {archive}")
    return archive


def _plain_config(config: DictConfig) -> dict[str, Any]:
    """Return what is run as plain data, every value known; without what `_READ_BY_SOME` names and no key reads."""
    unresolved = OmegaConf.to_container(config)
    unread = [key for key in _READ_BY_SOME if f"${{{key}}}" not in str(unresolved)]
    missing = [key for key in _missing_keys(unresolved) if key not in unread]
    if missing:
        raise InputError(f"no value for {', '.join(missing)}; give {' '.join(f'{key}=...' for key in missing)}")
    try:
        plain = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise InputError(f"the configuration cannot be resolved: {error}") from error
    if config.keep not in ("best", "last"):
        raise InputError(f"keep: got '{config.keep}'; give best or last")
    return {key: value for key, value in plain.items() if key not in {*_RUN_KEYS, *unread}}


def _missing_keys(section: Any, where: str = "") -> list[str]:
    """Return the dotted keys whose value is still `???`; interpolations to them are not listed."""
    if isinstance(section, dict):
        return [found for key, item in section.items() for found in _missing_keys(item, f"{where}.{key}".lstrip("."))]
    return [where] if section == "???" else []


def _refuse_other_run(directory: Path, plain: dict[str, Any], overwrite: bool) -> None:
    """Make sure that the directory is free, or belongs to this very configuration, or may be overwritten."""
    if directory.exists() and not directory.is_dir():
        raise InputError(f"output_dir: {directory} is a file; give a directory")
    if not directory.exists() or all(is_unfinished(path) or path.name == LOCK for path in directory.iterdir()):
        return
    stored_path = directory / _CONFIG_FILE
    if not stored_path.is_file():
        raise InputError(f"output_dir: {directory} is not empty and holds no run; give another directory")
    if not overwrite:
        stored = OmegaConf.to_container(OmegaConf.load(stored_path))
        refuse_other(directory, stored, plain, advice="give another output_dir, or overwrite=true to replace it")


def _claim_directory(directory: Path, archive: Path, plain: dict[str, Any], overwrite: bool) -> None:
    """Record the configuration of a new run, over an older one if so asked; make ready to go on with the same run."""
    stored_path = directory / _CONFIG_FILE
    if overwrite and stored_path.exists():
        logging.info(f"overwrite: removing the run in {directory}")
        archive.unlink(missing_ok=True)
        shutil.rmtree(directory / _LOG_DIRECTORY, ignore_errors=True)
    write_text_atomic(stored_path, OmegaConf.to_yaml(OmegaConf.create(plain)))


def _exp_manager_config(section: DictConfig, directory: Path, trainer) -> tuple[dict[str, Any], RunCheckpoint | None]:
    """Return what exp_manager gets, which keeps to the log directory, and the checkpoint callback in its stead."""
    manager = OmegaConf.to_container(section, resolve=True)
    limit = manager.pop("max_time_per_run", None)
    if limit is not None:
        (stopping,) = (callback for callback in trainer.callbacks if isinstance(callback, StopOnSignal))
        stopping.deadline = time.monotonic() + seconds_of(limit)
    if (manager.get("ema") or {}).get("enable"):
        raise InputError("exp_manager.ema.enable: a run with NeMo's EMA cannot be resumed; leave it out")
    params = manager.pop("checkpoint_callback_params", None) or {}
    callback = None
    if manager.get("create_checkpoint_callback", True):
        callback = build_checkpoint_callback(params, directory / _CHECKPOINTS)
    ours = {"explicit_log_dir": str(directory / _LOG_DIRECTORY), "resume_if_exists": False}
    return {**manager, **ours, "create_checkpoint_callback": False, "disable_validation_on_resume": False}, callback
