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

import logging
import os
import threading
from pathlib import Path

import pytest
import torch
from damage import small_disk, tree
from nemo.collections.nlp.models import MTEncDecModel
from omegaconf import OmegaConf
from short_runs import config_in

from nemo_distill import DistilledMTEncDecModel
from nemo_distill.errors import InputError, StorageError
from nemo_distill.training.run import run_training
from nemo_distill.training.trainer import SafeCheckpointIO


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
    assert {path.name for path in run.iterdir()} == {"config.yaml", "inputs.json", "log"}
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


def test_a_checkpoint_of_another_run_is_passed_over_and_stays(finished, tmp_path, student_config):
    """Of another model of the same sizes, or of another seed: with more steps, it would be adopted."""
    (last,) = Path(finished.output_dir).rglob("*-last.ckpt")
    others = []
    for name, key, value in (("seed", "seed", 2), ("optim", "model.optim.lr", 0.1)):
        other = config_in(tmp_path / name, student_config(hidden_size=8))
        OmegaConf.update(other, key, value)
        other.trainer.max_steps = 2
        run_training(other, DistilledMTEncDecModel)
        (path,) = (tmp_path / name).rglob("*step=2-last.ckpt")
        others.append(last.with_name(path.name.replace("val_loss=", "val_loss=9")))
        others[-1].write_bytes(path.read_bytes())
    archive = run_training(finished, DistilledMTEncDecModel)
    assert all(path.exists() for path in (*others, last))
    kept = SafeCheckpointIO().load_checkpoint(last)["state_dict"]
    saved = MTEncDecModel.restore_from(str(archive)).state_dict()
    assert all(torch.equal(saved[key], value) for key, value in kept.items() if key in saved)


def test_a_full_disk_at_the_start_is_one_error(tmp_path, student_config, capfd):
    """TensorBoard writes in a thread of its own, logs are handlers': neither prints a traceback."""
    config = config_in(tmp_path / "run", student_config(hidden_size=8))
    config.exp_manager.create_tensorboard_logger = True
    config.trainer = {**config.trainer, "max_steps": 300, "log_every_n_steps": 1, "val_check_interval": 300}
    hooks = logging.raiseExceptions, threading.excepthook
    with small_disk(4000), pytest.raises(StorageError, match=r"run' cannot be written: File too large; make room"):
        run_training(config, DistilledMTEncDecModel)
    assert (logging.raiseExceptions, threading.excepthook) == hooks
    assert "Traceback" not in capfd.readouterr().err


def test_the_archive_of_another_run_is_not_taken_for_that_of_an_earlier_version(finished, tmp_path, student_config):
    archive = run_training(finished, DistilledMTEncDecModel)
    other = run_training(config_in(tmp_path / "o", student_config(hidden_size=16)), DistilledMTEncDecModel)
    (archive.parent / "log" / "finished.json").unlink()
    assert run_training(finished, DistilledMTEncDecModel) == archive
    archive.write_bytes(other.read_bytes())
    with pytest.raises(InputError, match=r"tiny\.nemo' is of another run, with other model\.encoder\.hidden_size"):
        run_training(finished, DistilledMTEncDecModel)


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
