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

A run directory holds `config.yaml`, `inputs.json` (hashes of text, tokenizers and teachers), `text/` (processed text,
where raw text is processed), `tokens/` (ids of a large training text), `log/` (NeMo's exp_manager: checkpoints,
TensorBoard events, log files) and, once finished, `<name>.nemo`. Running the same configuration again goes on where it
stopped, or returns at once where it has finished; another configuration, or other inputs, are refused unless
`overwrite` is set. One process at a time works there.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from nemo.core.classes import ModelPT
from nemo.utils import logging
from nemo.utils.exceptions import NeMoBaseException
from nemo.utils.exp_manager import exp_manager
from nemo.utils.get_rank import is_global_rank_zero
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nemo_distill.archives.ngc import find_teachers
from nemo_distill.config.model_keys import check_model_keys, check_run_keys
from nemo_distill.config.model_values import check_schedule
from nemo_distill.config.reading import with_home
from nemo_distill.data.checks import check_model_files
from nemo_distill.data.tokenizer import name_libraries
from nemo_distill.data.tokens.store import TOKEN_STORE
from nemo_distill.errors import InputError, NonFiniteError, StorageError
from nemo_distill.support import jieba_dictionary
from nemo_distill.support.children import ending_together
from nemo_distill.support.files import atomic_path
from nemo_distill.support.lock import locked
from nemo_distill.support.quoting import error_line
from nemo_distill.support.threads import settle_torch_threads
from nemo_distill.training.averaging import MovingAverage, check_averages, settle_weights
from nemo_distill.training.beginning import RANKS, check_ranks, plain_config
from nemo_distill.training.checkpoints import (
    RunCheckpoint,
    build_checkpoint_callback,
    newest_checkpoint,
    remove_left_over,
)
from nemo_distill.training.convergence import ScoreHistory, check_patience
from nemo_distill.training.directory import (
    CHECKPOINTS,
    LOG_DIRECTORY,
    archive_path,
    claim_directory,
    is_finished,
    note_archive,
    refuse_other_run,
)
from nemo_distill.training.identity import identity
from nemo_distill.training.inputs import has_large_text, input_hashes, note_inputs, refuse_changed_inputs
from nemo_distill.training.multilingual import languages_of_sets
from nemo_distill.training.non_finite import NonFiniteGuard, check_weights
from nemo_distill.training.origin import is_taught, start_of
from nemo_distill.training.repairs import knowing_slurm, one_storage_error, repair_model, without_git
from nemo_distill.training.stopping import StopOnSignal, seconds_of
from nemo_distill.training.text import read_run_text
from nemo_distill.training.text_settings import origin_model
from nemo_distill.training.trainer import build_trainer, pl, room_for, seed_everything
from nemo_distill.training.validation import (
    check_monitor,
    check_validation_sets,
    name_bleu_tokenizers,
    warn_of_unknown_text,
)

_AVERAGED = 5  # checkpoints
# What NeMo and Lightning raise for a value that does not serve.
_REFUSALS = (KeyError, TypeError, ValueError, AttributeError, IndexError, AssertionError)


def run_training(config: DictConfig, model_class: type[ModelPT]) -> Path:
    """Train one model as `config` says, and save it.

    Args:
        config: `name`, `output_dir`, `overwrite`, `seed`, `keep` (`best`: the checkpoint of the best validation score;
            `last`: the final weights; `average`: the mean of the best checkpoints, `average` in number, 5 by default),
            `patience` (training ends after so many validations in a row without a better score or loss; null: at
            `trainer.max_steps` alone), `ema` (decay of a moving average of the weights, see `MovingAverage`; null:
            none), `on_non_finite` (`stop` or `skip`, see `NonFiniteGuard`), and the sections `model`, `trainer` and
            `exp_manager`.
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
    check_ranks()
    config = OmegaConf.create(with_home(OmegaConf.to_container(config)))
    check_run_keys(OmegaConf.to_container(config))
    plain = plain_config(config)
    directory = Path(str(config.output_dir))
    archive = archive_path(directory, config.name)
    guard = NonFiniteGuard(config.get("on_non_finite", "stop"))
    check_model_keys(plain["model"], model_class)
    check_schedule(plain["model"], plain["trainer"].get("max_steps"))
    check_patience(plain)
    check_averages(plain)
    check_model_files(config.model)
    name_libraries(plain["model"])
    find_teachers(plain["model"])
    name_bleu_tokenizers(plain)
    text = read_run_text(plain)
    with locked(directory) if is_global_rank_zero() else contextlib.nullcontext():
        if is_global_rank_zero():
            refuse_other_run(directory, archive, plain, config.overwrite)
        hashes = input_hashes(plain["model"]) if is_global_rank_zero() else {}
        if is_global_rank_zero() and not config.overwrite:
            refuse_changed_inputs(directory, hashes)
        wanted = (plain["trainer"].get("max_steps"), plain.get("patience"))
        if not config.overwrite and is_finished(archive, plain["model"], *wanted):
            logging.info(f"{archive} is finished; nothing to do")
        else:
            with one_storage_error(directory), text.prepared(directory, config.overwrite) as model:
                _train(config, plain, model, model_class, archive, guard, hashes)
    return archive


def _train(
    config: DictConfig,
    plain: dict[str, Any],
    section: dict[str, Any],
    model_class: type[ModelPT],
    archive: Path,
    guard: NonFiniteGuard,
    hashes: dict[str, list[str]],
) -> None:
    """Start or resume the run, and write its archive.

    Args:
        config: as for `run_training`.
        plain: the same as plain data: what the run is.
        section: `model` section with the text that the model reads.
        model_class: as for `run_training`.
        archive: where it goes.
        guard: against NaN.
        hashes: of the files that the run is begun with.
    """
    directory = archive.parent
    seed_everything(config.seed)
    with _mendable("trainer", RuntimeError):
        trainer = build_trainer(config.trainer)
    if trainer.world_size == 1 and not is_global_rank_zero():
        ranks = ", ".join(f"{name}={os.environ[name]}" for name in RANKS if name in os.environ)
        raise InputError(
            f"{ranks}, left by another job, says that this is not the first process, and it is alone; unset it"
        )
    train_ds = section.get("train_ds") or {}
    if train_ds and train_ds.get("token_store") is None and has_large_text(section):
        section = {**section, "train_ds": {**train_ds, "token_store": str(directory / TOKEN_STORE)}}
    kept = {"average": plain.get("average") or _AVERAGED, "best": 1}.get(config.keep, 0)
    manager, checkpoint_callback = _exp_manager_config(config.exp_manager, directory, trainer, kept)
    moving = MovingAverage(plain["ema"]) if plain.get("ema") is not None else None
    trainer.callbacks[:0] = [moving] if moving else []
    trainer.callbacks.append(guard)
    jieba_dictionary.keep_private()
    with _mendable("model"), languages_of_sets():
        model = repair_model(model_class(OmegaConf.create(section), trainer=trainer))
    threads = settle_torch_threads()
    logging.info(f"computing with {threads} CPU threads; OMP_NUM_THREADS chooses another number")
    check_validation_sets(model)
    warn_of_unknown_text(model)
    check_monitor(model, getattr(checkpoint_callback, "monitor", None))
    if is_global_rank_zero():
        if input_hashes(plain["model"]) != hashes:
            raise InputError("text, tokenizers or teachers have changed while they were read; run the command again")
        claim_directory(directory, archive, plain, config.overwrite)
        note_inputs(directory, hashes)
    checkpoint = None
    origin = (identity({"model": origin_model(plain)})["model"], plain["seed"])
    if not config.overwrite:
        checkpoint = newest_checkpoint(directory / CHECKPOINTS, trainer.fit_loop.state_dict(), origin)
    if is_global_rank_zero() and checkpoint_callback is not None:
        remove_left_over(directory / CHECKPOINTS, checkpoint, checkpoint_callback.filename, origin)
    with without_git(), knowing_slurm(), _mendable("exp_manager"):
        exp_manager(trainer, manager | ({"resume_from_checkpoint": str(checkpoint)} if checkpoint else {}))
    trainer.callbacks.append(history := ScoreHistory(directory, plain.get("patience")))  # before what writes its state
    if checkpoint_callback is not None:
        trainer.callbacks.append(checkpoint_callback)
    with ending_together(), _resumed_from(checkpoint, trainer):
        trainer.fit(model)
        if trainer.interrupted:
            raise KeyboardInterrupt
        history.conclude(trainer)
        steps = trainer.global_step
        settle_weights(trainer, model, config.keep, kept, moving)
    check_weights(model, f"{archive} is not written")
    if is_global_rank_zero():
        with room_for(archive, "make room, and run the same command again"), atomic_path(archive) as partial:
            model.save_to(str(partial))
            told = {"converged": history.converged, "taught": is_taught(model), "start": start_of(model)}
            told |= {"steps": steps, "stopped_after": history.stopped_after}
            told |= {"loss_rise": history.loss_rise, "least_loss_at": history.least_loss_at}
            note_archive(partial, archive, plain["trainer"].get("max_steps"), **told)
        logging.info(f"saved {archive}")


@contextlib.contextmanager
def _mendable(where: str, *further: type[Exception]) -> Iterator[None]:
    """Context of a call to NeMo, whose errors there are of values that the user gave.

    Raises:
        InputError: in place of such an error.
    """
    try:
        yield
    except InputError:
        raise
    except (*_REFUSALS, *further, HydraException, OmegaConfBaseException, NeMoBaseException) as error:
        raise InputError(f"{where}: {error_line(error)} ({type(error).__name__})") from error


class _Begun(pl.Callback):
    """Notes that a run has begun, with all that its checkpoint holds in place."""

    begun = False

    def on_sanity_check_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Before the first validation."""
        self.begun = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Before the first step."""
        self.begun = True


@contextlib.contextmanager
def _resumed_from(checkpoint: Path | None, trainer: pl.Trainer) -> Iterator[None]:
    """Context of fitting; a checkpoint that does not fit the run is bad input, and so is what stops its beginning.

    Raises:
        InputError: it does not fit, or training cannot begin.
    """
    trainer.callbacks.append(begun := _Begun())
    try:
        yield
    except pl.utilities.exceptions.MisconfigurationException as error:
        raise InputError(error_line(error)) from error
    except (*_REFUSALS, RuntimeError, OverflowError, HydraException) as error:
        known = isinstance(error, InputError | StorageError | NonFiniteError)
        if begun.begun or known:
            raise
        if checkpoint is None:
            with _mendable("training cannot begin"):
                raise
        raise InputError(
            f"{checkpoint} does not fit this run: {error_line(error)}. Move it away to go on from an older one, or "
            "start the run anew with overwrite=true"
        ) from error


def _exp_manager_config(
    section: DictConfig, directory: Path, trainer, kept: int
) -> tuple[dict[str, Any], RunCheckpoint | None]:
    """Return what exp_manager gets, which keeps to the log directory, and the checkpoint callback in its stead."""
    manager = OmegaConf.to_container(section, resolve=True)
    limit = manager.pop("max_time_per_run", None)
    if limit is not None:
        (stopping,) = (callback for callback in trainer.callbacks if isinstance(callback, StopOnSignal))
        stopping.deadline = time.monotonic() + seconds_of(limit)
    if (manager.get("ema") or {}).get("enable"):
        raise InputError("exp_manager.ema.enable: a run with NeMo's EMA cannot be resumed; give ema=0.999 instead")
    if manager.get("create_early_stopping_callback"):
        raise InputError(
            "exp_manager.create_early_stopping_callback: a run that is started again forgets that NeMo's had ended "
            "it; give patience=5 instead"
        )
    params = manager.pop("checkpoint_callback_params", None) or {}
    callback = None
    if manager.get("create_checkpoint_callback", True):
        callback = build_checkpoint_callback(params, directory / CHECKPOINTS, kept)
    ours = {"explicit_log_dir": str(directory / LOG_DIRECTORY), "resume_if_exists": False}
    return {**manager, **ours, "create_checkpoint_callback": False, "disable_validation_on_resume": False}, callback
