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
"""What a student brings along to a trainer that this library did not build, as that of NeMo's training scripts."""

import torch

from nemo_distill.training.non_finite import NonFiniteGuard
from nemo_distill.training.restart import ExactRestart
from nemo_distill.training.trainer import CHECKPOINT_GLOBALS, SafeCheckpointIO, pl


def missing_callbacks(trainer: pl.Trainer) -> list[pl.Callback]:
    """Return `ExactRestart` and `NonFiniteGuard`, without those that the trainer has."""
    return [
        kind()
        for kind in (ExactRestart, NonFiniteGuard)
        if not any(isinstance(callback, kind) for callback in trainer.callbacks)
    ]


def secure_checkpoints(trainer: pl.Trainer) -> None:
    """Let the trainer write checkpoints whole or not at all, and read them where torch is 2.6 or newer.

    A trainer with a checkpoint plugin of its own keeps it. NeMo's `save_best_model` reads checkpoints beside the
    trainer, by `torch.load`, which is told that OmegaConf's types are plain data.
    """
    if type(trainer.strategy.checkpoint_io) is pl.plugins.io.TorchCheckpointIO:
        trainer.strategy.checkpoint_io = SafeCheckpointIO()
    torch.serialization.add_safe_globals(CHECKPOINT_GLOBALS)
