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
"""Everything that touches Lightning: the trainer, its checkpoints, its process group."""

import collections
import dataclasses
import errno
import inspect
import math
import os
import re
import typing
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import omegaconf
import torch
import torch.distributed as dist
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from nemo_distill.errors import InputError, StorageError
from nemo_distill.support import compat
from nemo_distill.support.files import atomic_path
from nemo_distill.support.progress_bar import progress_bar
from nemo_distill.support.quoting import plain_text
from nemo_distill.training.restart import ExactRestart
from nemo_distill.training.stopping import StopOnSignal
from nemo_distill.training.stored import check_container, check_tensors

pl = compat.lightning()

# What a NeMo checkpoint holds besides tensors and plain data: its configuration, an OmegaConf tree.
CHECKPOINT_GLOBALS = [
    omegaconf.DictConfig,
    omegaconf.ListConfig,
    omegaconf.base.ContainerMetadata,
    omegaconf.base.Metadata,
    omegaconf.nodes.AnyNode,
    omegaconf.nodes.BooleanNode,
    omegaconf.nodes.FloatNode,
    omegaconf.nodes.IntegerNode,
    omegaconf.nodes.StringNode,
    collections.defaultdict,
    dict,
    int,
    list,
    typing.Any,
]


@contextmanager
def safe_checkpoint_globals() -> Iterator[None]:
    """Context in which `torch.load` accepts a NeMo checkpoint while `weights_only` still refuses everything else.

    What was accepted before still is behind it: torch's own context forgets these types whoever has added them.
    """
    known = torch.serialization.get_safe_globals()
    with compat.protected_loading():
        torch.serialization.add_safe_globals(CHECKPOINT_GLOBALS)
        try:
            yield
        finally:
            torch.serialization.clear_safe_globals()
            torch.serialization.add_safe_globals(known)


class SafeCheckpointIO(pl.plugins.io.TorchCheckpointIO):
    """Checkpoints that are whole or absent, and that load under torch's `weights_only` protection (torch >= 2.6)."""

    def save_checkpoint(self, checkpoint: dict, path: str | Path, storage_options: typing.Any = None) -> None:
        """Write beside, flush to disk, rename.

        Raises:
            StorageError: there is no room, or no permission. An older file of that name is left as it was.
        """
        settings = {name: _detached(value) for name, value in checkpoint.get("hyper_parameters", {}).items()}
        checkpoint = {**checkpoint, **({"hyper_parameters": settings} if settings else {})}
        advice = (
            "older checkpoints are whole. Make room, and run the same command again to go on from the newest of them"
        )
        with room_for(path, advice), atomic_path(path) as partial, open(partial, "wb") as file:
            torch.save(checkpoint, file)

    def load_checkpoint(self, path: str | Path, map_location: typing.Any = "cpu", mmap: bool = False) -> dict:
        """Read a checkpoint; with `mmap`, tensors are read where they are used.

        Raises:
            InputError: it is damaged, or holds anything besides tensors, plain data and its configuration.
        """
        try:
            check_container(Path(path))
            with safe_checkpoint_globals():
                content = torch.load(str(path), map_location=map_location, weights_only=True, mmap=mmap)
            if not isinstance(content, dict):
                raise ValueError(f"it holds a {type(content).__name__}")
            check_tensors(content)
        except Exception as error:  # of zipfile and of torch, whatever the bytes
            if isinstance(error, OSError) and error.errno != errno.EINVAL:  # torch says so of a file that was cut
                raise
            foreign = re.search(r"GLOBAL (\S+)", str(error))
            reason = f"it holds {foreign[1]}, no plain data" if foreign else (str(error) or "no data").splitlines()[0]
            raise InputError(
                f"{path} cannot be read as a checkpoint of this library: {plain_text(reason)}. Resume from another "
                "checkpoint"
            ) from error
        return content

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a file; no directory, and not what a link leads to."""
        with suppress(FileNotFoundError, IsADirectoryError):
            os.unlink(path)


@contextmanager
def room_for(path: str | Path, advice: str) -> Iterator[None]:
    """Context of writing a file with torch, which reports a full disk as a RuntimeError of its own.

    Raises:
        StorageError: there is no room, or no permission.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        fault = error if isinstance(error, OSError) else error.__context__
        if not isinstance(fault, OSError) and not re.search("inline_container|PytorchStreamWriter", str(error)):
            raise
        reason = (fault.strerror or fault) if isinstance(fault, OSError) else "no room"
        raise StorageError(f"{path} cannot be written: {reason}; {advice}") from error


def _detached(config: typing.Any) -> typing.Any:
    """Return a copy of a configuration, resolved and without the tree around it, in which hydra keeps other things."""
    if dataclasses.is_dataclass(config):
        config = OmegaConf.structured(config)
    if not OmegaConf.is_config(config):
        return config
    return OmegaConf.create(OmegaConf.to_container(config, resolve=True))


@contextmanager
def process_group() -> Iterator[None]:
    """Make sure of a process group: the one there is, or for the length of the block a group of this process alone."""
    if not dist.is_available() or dist.is_initialized():
        yield
        return
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


class StepProgressBar(pl.callbacks.ProgressBar):
    """One bar over all training steps, with the newest loss and validation score and the steps to the next validation,
    and one over each validation; Lightning's own starts anew with each epoch and does not know how many are to come.
    """

    def __init__(self) -> None:
        super().__init__()
        self._bar: tqdm | None = None
        self._validation: tqdm | None = None
        self._enabled = True

    def disable(self) -> None:
        """Show nothing: Lightning calls this on all ranks but one."""
        self._enabled = False

    def enable(self) -> None:
        """Show the bar."""
        self._enabled = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar, at the step that a resumed run starts from."""
        total = trainer.max_steps if trainer.max_steps > 0 else None
        self._bar = progress_bar("training", total, "steps", self._enabled, trainer.global_step)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: typing.Any) -> None:
        """Move on to the trainer's step count, which gradient accumulation makes smaller than the batch count."""
        self._show(trainer)  # first, so that a line in a log has it
        self._bar.update(trainer.global_step - self._bar.n)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar of a validation."""
        if self._bar is not None:
            batches = trainer.num_val_batches
            total = sum(batches) if isinstance(batches, list) else batches
            known = math.isfinite(total)
            self._validation = progress_bar(
                "validating", int(total) if known else None, "batches", self._enabled, leave=False
            )

    def on_validation_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: typing.Any) -> None:
        """Move on in the validation."""
        if self._validation is not None:
            self._validation.update()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the new score at once: after the last validation no step comes."""
        if self._validation is not None:
            self._validation.close()
            self._validation = None
        if self._bar is not None:
            self._show(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the bar."""
        self._bar.close()

    def _show(self, trainer: pl.Trainer) -> None:
        shown = {"train_loss": "loss", "val_sacreBLEU": "val BLEU"}
        metrics = trainer.progress_bar_metrics | trainer.logged_metrics
        parts = [f"{label}={float(metrics[name]):.2f}" for name, label in shown.items() if name in metrics]
        left = steps_to_validation(trainer)
        parts += [f"next validation in {left} step{'s' * (left > 1)}"] if left else []
        self._bar.set_postfix_str(", ".join(parts), refresh=False)


def steps_to_validation(trainer: pl.Trainer) -> int | None:
    """Return the steps from this one to the next validation, as Lightning counts; None: none is known to come."""
    if not trainer.enable_validation or not math.isfinite(trainer.val_check_batch):
        return None
    loop = trainer.fit_loop.epoch_loop
    batches = loop.total_batch_idx + 1 if trainer.check_val_every_n_epoch is None else loop.batch_idx + 1
    left = -(-(trainer.val_check_batch - batches % trainer.val_check_batch) // trainer.accumulate_grad_batches)
    return left if trainer.max_steps < 0 or trainer.global_step + left <= trainer.max_steps else None


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch, in data workers too."""
    pl.seed_everything(seed, workers=True)


_REFUSED = {
    "max_time": "after which a run would count as finished, its learning rate still to fall; give "
    "exp_manager.max_time_per_run, after which the same command goes on",
    "fast_dev_run": "which trains on a few batches and would write an archive of that; give trainer.max_steps",
    "overfit_batches": "whose few batches come in another order after a restart; give a file of as many lines",
}
"""Arguments of Lightning's trainer that say other than how a run is made, or make it another one."""


def build_trainer(config: DictConfig) -> pl.Trainer:
    """Build a trainer from a `trainer` section: any argument of Lightning's `Trainer`.

    Several devices train with DDP, over NCCL on GPUs and gloo on CPUs, without Apex. NeMo's embedding holds a table of
    token types that translation does not use, so DDP is told to look for unused parameters. Checkpoints hold all that
    an exact restart needs, see `nemo_distill.training.restart`.

    Raises:
        InputError: an argument that the trainer does not know, or a value that it refuses.
    """
    arguments = OmegaConf.to_container(config, resolve=True)
    ours = {"plugins", "callbacks"}
    known = inspect.signature(pl.Trainer).parameters
    unknown = set(arguments) - (set(known) - ours)
    if unknown:
        raise InputError(
            f"trainer: unknown key {', '.join(sorted(unknown))}; see Lightning's Trainer for its arguments"
        )
    for key, value in arguments.items():  # any text is on to Lightning, `no` too
        if known[key].annotation in (bool, bool | None) and value not in (None, True, False):
            raise InputError(f"trainer.{key}: got {str(value)[:80]!r}; give true or false")
    for key, reason in _REFUSED.items():
        if arguments.get(key):
            raise InputError(f"trainer.{key}: got {str(arguments[key])[:80]!r}, {reason}")
    callbacks = [ExactRestart(), StopOnSignal()]
    callbacks += [StepProgressBar()] if arguments.get("enable_progress_bar", True) else []
    try:
        if arguments.get("strategy", "auto") in ("auto", "ddp") and _device_count(arguments) > 1:
            on_gpu = arguments.get("accelerator", "auto") != "cpu" and torch.cuda.is_available()
            backend = "nccl" if on_gpu else "gloo"
            arguments["strategy"] = pl.strategies.DDPStrategy(
                process_group_backend=backend, find_unused_parameters=True
            )
        trainer = pl.Trainer(**arguments, plugins=[SafeCheckpointIO()], callbacks=callbacks)
    except (pl.utilities.exceptions.MisconfigurationException, ValueError, TypeError) as error:
        raise InputError(f"trainer: {error}") from error
    if trainer.world_size > 1 and arguments.get("use_distributed_sampler") is False:
        raise InputError(
            "trainer.use_distributed_sampler: got False, and all processes would train on the same batches; leave it "
            "out"
        )
    if trainer.max_epochs not in (None, -1) and trainer.check_val_every_n_epoch is None:
        raise InputError(
            f"trainer.check_val_every_n_epoch: got null with {trainer.max_epochs} epochs, which NeMo's exp_manager "
            "cannot compare; give a number, with val_check_interval a share of an epoch, or count max_steps alone"
        )
    return trainer


def _device_count(arguments: dict) -> int:
    devices = arguments.get("devices", 1)
    if devices in ("auto", -1, "-1"):
        per_node = max(torch.cuda.device_count(), 1)
    elif isinstance(devices, str) and "," in devices:
        per_node = len(devices.strip(", ").split(","))
    else:
        per_node = int(devices) if isinstance(devices, (int, str)) else len(devices)
    return per_node * int(arguments.get("num_nodes", 1))
