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
"""Configurations of whole runs of one step, for tests of directories and jobs."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

TINY = [
    "model.encoder.hidden_size=16",
    "model.encoder.inner_size=32",
    "trainer.max_steps=2",
    "trainer.val_check_interval=2",
    "trainer.enable_progress_bar=false",
    "exp_manager.create_tensorboard_logger=false",
]
"""Overrides of the example scripts for a small model and two steps."""


def config_in(directory: Path, model: dict, **overrides) -> DictConfig:
    """Return the configuration of a run of one step in a directory; keywords are keys at the top."""
    trainer = {"accelerator": "cpu", "devices": 1, "max_steps": 1, "enable_progress_bar": False, "logger": False}
    trainer |= {"enable_model_summary": False, "enable_checkpointing": False, "check_val_every_n_epoch": None}
    trainer |= {"val_check_interval": 1, "num_sanity_val_steps": 0}
    manager = {"create_tensorboard_logger": False, "log_step_timing": False, "create_preemption_callback": False}
    config = {"name": "tiny", "output_dir": str(directory), "overwrite": False, "seed": 1, "keep": "last"}
    return OmegaConf.create({**config, "model": model, "trainer": trainer, "exp_manager": manager, **overrides})
