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
"""Training on disks that are full, read-only or hold another run's checkpoint: one error, and what was whole stays."""

import os
from pathlib import Path

import pytest
import torch
from damage import small_disk, tree
from omegaconf import OmegaConf

from nemo_distill import DistilledMTEncDecModel
from nemo_distill.errors import InputError, StorageError
from nemo_distill.training.run import run_training
from nemo_distill.training.trainer import SafeCheckpointIO


def config_in(directory: Path, model: dict, **overrides):
    trainer = {"accelerator": "cpu", "devices": 1, "max_steps": 1, "enable_progress_bar": False, "logger": False}
    trainer |= {"enable_model_summary": False, "enable_checkpointing": False, "check_val_every_n_epoch": None}
    trainer |= {"val_check_interval": 1, "num_sanity_val_steps": 0}
    manager = {"create_tensorboard_logger": False, "log_step_timing": False, "create_preemption_callback": False}
    config = {"name": "tiny", "output_dir": str(directory), "overwrite": False, "seed": 1, "keep": "last"}
    return OmegaConf.create({**config, "model": model, "trainer": trainer, "exp_manager": manager, **overrides})


@pytest.fixture
def finished(tmp_path, student_config):
    """The configuration of a run whose archive is lost: the same call writes it from the last checkpoint."""
    config = config_in(tmp_path / "run", student_config(hidden_size=8))
    run_training(config, DistilledMTEncDecModel).unlink()
    return config


def test_a_full_disk_while_the_archive_is_written(finished):
    run = Path(finished.output_dir)
    checkpoints = tree(run / "log" / "checkpoints")
    with small_disk(20_000), pytest.raises((StorageError, OSError)):
        run_training(finished, DistilledMTEncDecModel)
    assert {path.name for path in run.iterdir()} == {"config.yaml", "log"}
    assert checkpoints.keys() <= tree(run / "log" / "checkpoints").keys()
    assert run_training(finished, DistilledMTEncDecModel).is_file()


def test_a_checkpoint_of_another_model_is_one_error(finished):
    (last,) = Path(finished.output_dir).rglob("*-last.ckpt")
    content = SafeCheckpointIO().load_checkpoint(last)
    content["state_dict"] = {name: torch.zeros(3) for name in content["state_dict"]}
    SafeCheckpointIO().save_checkpoint(content, last)
    with pytest.raises(
        InputError, match=r"-last\.ckpt does not fit this run: .*size mismatch.*Move it away"
    ) as caught:
        run_training(finished, DistilledMTEncDecModel)
    assert len(str(caught.value).splitlines()) == 1
    assert last.exists()


def test_a_checkpoint_that_names_other_files_removes_none_of_them(finished):
    """A run is resumed from it and goes on to the end, beyond which older checkpoints are removed."""
    (last,) = Path(finished.output_dir).rglob("*-last.ckpt")
    mine = [last.with_name("my-best.ckpt"), last.with_name("notes.ckpt")]
    for path in mine:
        path.write_text("years of work")
    content = SafeCheckpointIO().load_checkpoint(last)
    for state in content["callbacks"].values():
        if "best_k_models" in state:
            state["best_k_models"] = {str(path): torch.tensor(1e9) for path in mine}
            state |= {"last_model_path": str(mine[0]), "kth_best_model_path": str(mine[1])}
    SafeCheckpointIO().save_checkpoint(content, last)
    finished.trainer.max_steps = 3
    config = Path(finished.output_dir) / "config.yaml"
    config.write_text(config.read_text().replace("max_steps: 1", "max_steps: 3"))
    run_training(finished, DistilledMTEncDecModel)
    assert [path.read_text() for path in mine] == ["years of work"] * 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_cannot_be_written(tmp_path, student_config):
    (tmp_path / "run").mkdir(mode=0o500)
    with pytest.raises((InputError, PermissionError)):
        run_training(config_in(tmp_path / "run", student_config(hidden_size=8)), DistilledMTEncDecModel)
