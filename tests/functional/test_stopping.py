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
"""Runs that are stopped by a signal or killed, and started again by the same command: nothing but time is lost."""

import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from training_process import TrainingProcesses

from nemo_distill.support.finished_run import read_finished
from nemo_distill.training.checkpoints import newest_checkpoint
from nemo_distill.training.trainer import SafeCheckpointIO

STEPS = 12  # an epoch has 8 in one process, 4 in each of two
KILLS = int(os.environ.get("NEMO_DISTILL_KILLS", "100"))


@pytest.fixture
def run_config(tmp_path, student_config):
    """A factory of run configurations, plain data, in `tmp_path / name`; keywords are dotted keys."""

    def build(name: str, processes: int = 1, **overrides) -> dict:
        trainer = {"accelerator": "cpu", "devices": processes, "max_steps": STEPS, "val_check_interval": 3}
        trainer |= {"check_val_every_n_epoch": None, "num_sanity_val_steps": 0, "limit_val_batches": 2}
        trainer |= {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
        manager = {"create_tensorboard_logger": False, "log_step_timing": False, "seconds_to_sleep": 0}
        manager["checkpoint_callback_params"] = {"monitor": "val_sacreBLEU", "mode": "max", "save_top_k": 1}
        config = {"name": "tiny", "output_dir": str(tmp_path / name), "overwrite": False, "seed": 1, "keep": "last"}
        config |= {"model": student_config(hidden_size=8, objective={"word_kd": {"weight": 1}})}
        config |= {"trainer": trainer | {"enable_checkpointing": False}, "exp_manager": manager}
        config = OmegaConf.create(config)
        config.model.train_ds.tokens_in_batch = 1300
        config.model.validation_ds.tokens_in_batch = 120
        for key, value in overrides.items():
            OmegaConf.update(config, key, value, force_add=True)
        return OmegaConf.to_container(config)

    return build


def checkpoint_of(config: dict) -> dict:
    """Return the newest checkpoint of a run."""
    path = newest_checkpoint(Path(config["output_dir"], "log/checkpoints"))
    assert path is not None
    return SafeCheckpointIO().load_checkpoint(path)


def run_whole(config: dict, diary: Path, **kind) -> dict:
    """Run without a stop; return the last checkpoint."""
    started = TrainingProcesses(config, diary, **kind)
    assert set(started.statuses()) == {0}
    return checkpoint_of(config)


def trained(diary: Path) -> dict[int, tuple[str, ...]]:
    """Return losses and batches by step; a step that was repeated must have been the same."""
    found: dict[int, tuple[str, ...]] = {}
    for line in diary.read_text("utf-8").splitlines():
        kind, *rest = line.split()
        if kind == "step":
            assert found.setdefault(int(rest[0]), tuple(rest[1:])) == tuple(rest[1:]), line
    return found


def scores(diary: Path) -> dict[int, str]:
    lines = [line.split() for line in diary.read_text("utf-8").splitlines() if line.startswith("scored")]
    return {int(step): score for _, step, score in lines}


def assert_same_end(whole: dict, resumed: dict) -> None:
    """Weights, optimizer and best scores of two last checkpoints are the same."""
    assert whole["global_step"] == resumed["global_step"] == STEPS
    assert all(torch.equal(tensor, resumed["state_dict"][name]) for name, tensor in whole["state_dict"].items())
    for one, other in zip(whole["optimizer_states"], resumed["optimizer_states"], strict=True):
        for number, state in one["state"].items():
            assert all(torch.equal(value, other["state"][number][key]) for key, value in state.items())
    assert whole["lr_schedulers"] == resumed["lr_schedulers"]
    best = [state for name, state in whole["callbacks"].items() if name.startswith("RunCheckpoint")]
    again = [state for name, state in resumed["callbacks"].items() if name.startswith("RunCheckpoint")]
    names = [[(Path(path).name, score) for path, score in each[0]["best_k_models"].items()] for each in (best, again)]
    assert names[0] == names[1]
    assert whole["restart"] == resumed["restart"]


# What the first process was doing when the signal came; the place in the run differs from case to case.
IN_TRAINING, IN_VALIDATION, IN_SAVING = "trains 5", "validates 6", "saves 6"


@pytest.mark.parametrize(
    ("doing", "number", "rank", "processes"),
    [
        (IN_SAVING, signal.SIGUSR1, 0, 1),
        (IN_VALIDATION, signal.SIGTERM, 1, 2),
        pytest.param(IN_TRAINING, signal.SIGTERM, 0, 1, marks=pytest.mark.slow),
        pytest.param(IN_VALIDATION, signal.SIGINT, 0, 1, marks=pytest.mark.slow),
        pytest.param(IN_TRAINING, signal.SIGTERM, 1, 2, marks=pytest.mark.slow),
        pytest.param(IN_TRAINING, signal.SIGINT, 0, 2, marks=pytest.mark.slow),
        pytest.param(IN_VALIDATION, signal.SIGTERM, 0, 2, marks=pytest.mark.slow),
        pytest.param(IN_SAVING, signal.SIGTERM, 0, 2, marks=pytest.mark.slow),
        pytest.param(IN_SAVING, signal.SIGUSR1, 1, 2, marks=pytest.mark.slow),
    ],
)
def test_a_signal_stops_with_a_checkpoint_and_the_run_goes_on(run_config, tmp_path, doing, number, rank, processes):
    plain = number != signal.SIGTERM
    whole = run_whole(run_config("whole", processes), tmp_path / "whole.txt", plain=plain, world_size=processes)
    config, diary = run_config("stopped", processes), tmp_path / "stopped.txt"
    run = TrainingProcesses(config, diary, plain, processes, hold=doing)
    run.wait_for(lambda lines: doing in lines)
    assert run.processes[rank].is_alive()
    run.send(number, rank)
    run.let_go()
    assert run.statuses() == [128 + number] * processes
    at_signal = int(doing.split()[1])
    stopped = checkpoint_of(config)
    done = max(int(line.split()[1]) for line in run.lines() if line.startswith("step"))
    assert stopped["global_step"] == done  # no step is lost
    assert done - at_signal in (0, 1)  # and it stopped at once
    assert not Path(config["output_dir"], "tiny.nemo").exists()
    assert_same_end(whole, run_whole(config, diary, plain=plain, world_size=processes))
    assert trained(diary) == trained(tmp_path / "whole.txt")
    assert scores(diary) == scores(tmp_path / "whole.txt")
    assert Path(config["output_dir"], "tiny.nemo").exists()


def test_patience_ends_all_processes_together(run_config, tmp_path):
    """With a moving average, and a mean of checkpoints that both score at the end; a rate of 0 brings no gain."""
    config = run_config("patient", 2, **{"model.optim.lr": 0.0, "patience": 1, "ema": 0.9, "keep": "average"})
    run = TrainingProcesses(config, tmp_path / "patient.txt", world_size=2)
    assert run.statuses() == [0, 0]
    assert run.lines()[-1] == "finished"
    assert list(trained(tmp_path / "patient.txt"))[-1] == 6  # validated after 3 and 6 of 12 steps
    noted = read_finished(Path(config["output_dir"]))
    assert (noted.stopped_after, noted.steps, noted.converged) == (1, 6, True)


def kill_often(run_config, tmp_path: Path, kills: int, generator: random.Random) -> int:
    """Kill runs at random moments and start them again; return how many runs that were killed have finished."""
    often = {"exp_manager.checkpoint_callback_params.last_every_n_steps": 1}
    whole = run_whole(run_config("whole", **often), tmp_path / "whole.txt")
    steps, whole_scores = trained(tmp_path / "whole.txt"), scores(tmp_path / "whole.txt")
    killed = finished = 0
    while killed < kills:
        config, diary = run_config(f"run{finished}", **often), tmp_path / f"run{finished}.txt"
        for _ in range(1000):
            before = diary.read_text("utf-8").count("\n") if diary.exists() else 0
            run = TrainingProcesses(config, diary)
            if killed < kills:
                # By what it does, not by the clock: each run then gets further on a slow machine too. 0: at its start.
                more = before + generator.randint(0, 14)
                run.wait_for(lambda lines, more=more: len(lines) >= more)
                time.sleep(generator.expovariate(1 / 0.05))
                run.send(signal.SIGKILL)
            (status,) = run.statuses()
            assert status in (0, -signal.SIGKILL)
            if status == 0:
                break
            killed += 1
            saved = [int(line.split()[1]) for line in run.lines() if line.startswith("saved")]
            newest = newest_checkpoint(Path(config["output_dir"], "log/checkpoints"))
            if saved:
                assert SafeCheckpointIO().load_checkpoint(newest)["global_step"] >= saved[-1]
        finished += 1
        assert_same_end(whole, checkpoint_of(config))
        assert (trained(diary), scores(diary)) == (steps, whole_scores)
        left = {path.name for path in Path(config["output_dir"]).rglob("*") if path.suffix in (".ckpt", ".tmp")}
        wanted = {path.name for path in (tmp_path / "whole").rglob("*.ckpt")}
        assert left == wanted
    return finished


def test_killed_twice(run_config, tmp_path):
    assert kill_often(run_config, tmp_path, 2, random.Random(1)) >= 1


@pytest.mark.slow
def test_killed_a_hundred_times(run_config, tmp_path):
    """NEMO_DISTILL_KILLS sets another number."""
    assert kill_often(run_config, tmp_path, KILLS, random.Random(2)) >= 3
