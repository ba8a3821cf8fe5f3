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
"""Run directories: started, resumed, finished, refused; and trainers from YAML."""

import errno
import functools
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from nemo.collections.nlp.models import MTEncDecModel
from omegaconf import OmegaConf

from nemo_distill import DistilledMTEncDecModel
from nemo_distill.archives.restore import read_archive_config
from nemo_distill.data.tokens import store
from nemo_distill.errors import ConfigurationError, InputError, NonFiniteError, StoppedBySignal, StorageError
from nemo_distill.training import validation
from nemo_distill.training.run import run_training
from nemo_distill.training.trainer import SafeCheckpointIO, build_trainer


@pytest.fixture
def run_config(tmp_path, student_config):
    """A factory of whole run configurations for two steps in `tmp_path / "run"`; keywords are dotted keys."""

    def build(**overrides):
        config = OmegaConf.create(
            {
                "name": "tiny",
                "output_dir": str(tmp_path / "run"),
                "overwrite": False,
                "seed": 1,
                "keep": "last",
                "model": student_config(hidden_size=8, max_generation_delta=3),
                "trainer": {
                    "accelerator": "cpu",
                    "devices": 1,
                    "max_steps": 2,
                    "val_check_interval": 2,
                    "check_val_every_n_epoch": None,
                    "num_sanity_val_steps": 0,
                    "enable_progress_bar": False,
                    "enable_model_summary": False,
                    "logger": False,
                    "enable_checkpointing": False,
                },
                "exp_manager": {
                    "create_tensorboard_logger": False,
                    "create_checkpoint_callback": True,
                    "checkpoint_callback_params": {"monitor": "val_sacreBLEU", "mode": "max", "save_top_k": 1},
                    "create_preemption_callback": False,
                    "log_step_timing": False,
                },
            }
        )
        for key, value in overrides.items():
            OmegaConf.update(config, key, value, force_add=True)
        return config

    return build


def every_file(directory: Path) -> dict[str, tuple[bytes, int]]:
    """Return content and time of each file below a directory; NeMo logs on into the files of the last run."""
    return {
        str(path.relative_to(directory)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not path.name.startswith("nemo_")
    }


def checkpoints(config) -> list[Path]:
    return sorted(Path(config.output_dir, "log/checkpoints").glob("*.ckpt"))


def weights(archive: Path) -> dict[str, torch.Tensor]:
    return MTEncDecModel.restore_from(str(archive)).state_dict()


def test_a_run_leaves_its_configuration_checkpoints_and_archive(run_config):
    config = run_config()
    archive = run_training(config, DistilledMTEncDecModel)
    assert archive == Path(config.output_dir) / "tiny.nemo"
    assert {path.name for path in archive.parent.iterdir()} == {"tiny.nemo", "config.yaml", "inputs.json", "log"}
    stored = OmegaConf.load(archive.parent / "config.yaml")
    assert stored.model.encoder.hidden_size == 8
    assert "output_dir" not in stored
    assert any(path.name.endswith("-last.ckpt") for path in checkpoints(config))
    assert not [path for path in archive.parent.rglob("*") if path.suffix == ".tmp"]
    model = MTEncDecModel.restore_from(str(archive))
    assert type(model) is MTEncDecModel


def test_the_tokens_of_a_large_text_are_kept(run_config, monkeypatch):
    """Whether they are is no part of what is run."""
    small = weights(run_training(run_config(), DistilledMTEncDecModel))
    monkeypatch.setattr(store, "LARGE_TEXT", 1000)
    config = run_config(**{"trainer.max_steps": 3})
    archive = run_training(config, DistilledMTEncDecModel)
    assert (archive.parent / "tokens/texts").is_dir()
    assert "token_store" not in (archive.parent / "config.yaml").read_text()
    config = run_config(overwrite=True)
    stored = weights(run_training(config, DistilledMTEncDecModel))
    assert all(torch.equal(tensor, stored[name]) for name, tensor in small.items())
    config = run_config(**{"model.train_ds.token_store": False, "overwrite": True})
    config.output_dir = str(archive.parent.with_name("other"))
    assert not (run_training(config, DistilledMTEncDecModel).parent / "tokens").exists()


def test_progress_of_a_training(run_config, capfd, monkeypatch):
    """Steps, the time left, the next validation; the last validation comes after the last step."""
    monkeypatch.setenv("NEMO_DISTILL_PROGRESS", "1e-6")
    monkeypatch.setattr(
        validation, "_scores", lambda model, *others: {"loss": 1.0, "sacreBLEU": float(model.trainer.global_step)}
    )
    changes = {"trainer.enable_progress_bar": True, "trainer.max_steps": 5, "trainer.val_check_interval": 2}
    run_training(run_config(**changes), DistilledMTEncDecModel)
    said = capfd.readouterr().err
    lines = re.findall(r"training: \d of 5 steps \(\d+ %\), \d+ s left, (.*)", said)
    assert [each.partition("next validation in ")[2] for each in lines] == ["1 step", "2 steps", "1 step", ""]
    assert re.search(r"validating: (\d+) of \1 batches \(100 %\)", said)
    assert re.findall(r"val BLEU=([0-9.]+)", said)[-1] == "4.00"


def test_a_finished_run_is_left_alone(run_config):
    config = run_config()
    archive = run_training(config, DistilledMTEncDecModel)
    before = every_file(archive.parent)
    assert run_training(run_config(), DistilledMTEncDecModel) == archive
    assert every_file(archive.parent) == before


def test_a_run_without_its_archive_goes_on(run_config):
    """Stopped after the last checkpoint: nothing is trained again, the archive is written."""
    archive = run_training(run_config(), DistilledMTEncDecModel)
    before = weights(archive)
    archive.unlink()
    assert run_training(run_config(), DistilledMTEncDecModel) == archive
    after = weights(archive)
    assert all(torch.equal(before[name], tensor) for name, tensor in after.items())


def test_another_configuration_is_refused_by_its_keys(run_config):
    config = run_config()
    archive = run_training(config, DistilledMTEncDecModel)
    before = every_file(archive.parent)
    other = run_config(**{"seed": 2, "model.optim.lr": 0.5, "model.num_test_examples": 1})
    with pytest.raises(
        InputError,
        match=r"already holds another run, made with model.num_test_examples None \(now 1\), model.optim.lr [\d.]+ "
        r"\(now 0.5\), seed 1 \(now 2\); .*overwrite=",
    ):
        run_training(other, DistilledMTEncDecModel)
    assert every_file(archive.parent) == before


def test_how_a_run_runs_may_change_and_where_its_files_lie(run_config, tmp_path, monkeypatch):
    """What runs is the same: nothing is trained again, and nothing refused."""
    archive = run_training(run_config(), DistilledMTEncDecModel)
    before = weights(archive)
    archive.unlink()
    moved = {}
    for key in ("train_ds.src_file_name", "validation_ds.tgt_file_name", "decoder_tokenizer.tokenizer_model"):
        path = Path(OmegaConf.select(run_config().model, key))
        shutil.copy(path, tmp_path / f"moved-{path.name}")
        moved[f"model.{key}"] = f"moved-{path.name}"  # a relative path besides
    monkeypatch.chdir(tmp_path)
    how = {
        "trainer.log_every_n_steps": 1,
        "trainer.enable_progress_bar": True,
        "exp_manager.max_time_per_run": "00:10:00:00",
        "exp_manager.checkpoint_callback_params.last_every_minutes": 3,
        "model.train_ds.num_workers": 1,
    }
    run_training(run_config(**how, **moved), DistilledMTEncDecModel)
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(archive).items())


def test_a_run_may_go_on_for_more_steps_but_not_for_fewer(run_config, tmp_path, monkeypatch):
    """And is then the run that had so many from the beginning, killed at the last moment or not."""
    schedule = {"model.optim.sched": {"name": "InverseSquareRootAnnealing", "warmup_steps": 1}}
    run_config = functools.partial(run_config, **schedule)
    whole = run_training(
        run_config(output_dir=str(tmp_path / "whole"), **{"trainer.max_steps": 4}), DistilledMTEncDecModel
    )
    archive = run_training(run_config(), DistilledMTEncDecModel)
    short = weights(archive)

    class Killed(BaseException):
        pass

    def killed(source, target, real=os.replace):
        if Path(target) == archive:
            raise Killed
        real(source, target)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(os, "replace", killed)
        run_training(run_config(**{"trainer.max_steps": 4}), DistilledMTEncDecModel)
    assert all(torch.equal(short[name], tensor) for name, tensor in weights(archive).items())
    run_training(run_config(**{"trainer.max_steps": 4}), DistilledMTEncDecModel)
    found, wanted = weights(archive), weights(whole)
    assert any(not torch.equal(short[name], tensor) for name, tensor in wanted.items())
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())
    with pytest.raises(InputError, match=r"trainer.max_steps 4 \(now 2\)"):
        run_training(run_config(), DistilledMTEncDecModel)
    config = OmegaConf.load(archive.parent / "config.yaml")
    config.model.optim.sched.name = "WarmupAnnealing"  # to 0 at the last step
    OmegaConf.save(config, archive.parent / "config.yaml")
    longer = {"model.optim.sched.name": "WarmupAnnealing", "trainer.max_steps": 8}
    with pytest.raises(InputError, match=r"max_steps 4 \(now 8\); model.optim.sched \(WarmupAnnealing\) lays the"):
        run_training(run_config(**longer), DistilledMTEncDecModel)


def test_overwrite_replaces_a_run(run_config):
    archive = run_training(run_config(), DistilledMTEncDecModel)
    before = weights(archive)
    stale, mine = (
        archive.parent / "log" / "events.out.tfevents.1700000000.host.12.0",
        archive.parent / "log" / "mine.txt",
    )
    stale.write_text("of the older run")
    mine.write_text("a person's")
    run_training(run_config(seed=2, overwrite=True), DistilledMTEncDecModel)
    after = weights(archive)
    assert any(not torch.equal(before[name], tensor) for name, tensor in after.items())
    assert OmegaConf.load(archive.parent / "config.yaml").seed == 2
    assert not stale.exists()
    assert [path.read_text() for path in (archive.parent / "log").rglob("mine.txt")] == ["a person's"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_foreign_directory_is_refused_and_untouched(run_config, overwrite):
    config = run_config(overwrite=overwrite)
    directory = Path(config.output_dir)
    directory.mkdir()
    (directory / "thesis.txt").write_text("years of work")
    before = every_file(directory)
    with pytest.raises(InputError, match="output_dir: .* is not empty and holds no run; give another directory"):
        run_training(config, DistilledMTEncDecModel)
    assert every_file(directory) == before


def test_a_file_in_place_of_the_directory(run_config):
    config = run_config()
    Path(config.output_dir).write_text("a file")
    with pytest.raises(InputError, match="output_dir: .*run' is a file; give another path"):
        run_training(config, DistilledMTEncDecModel)


def test_a_home_directory_in_the_configuration(run_config, tmp_path, monkeypatch):
    """Of the run, of its data, directly or through another key, and of the teacher."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "file").touch()
    for key, value, message in (
        ("output_dir", "~/file", f"output_dir: '{tmp_path}/file' cannot be a directory"),
        ("output_dir", f"{tmp_path}/a\u3000b/$HOME", "$HOME' names a variable of the environment, and logs would go"),
        ("model.train_ds.src_file_name", "${elsewhere}/a.de", f"no file {tmp_path}/data/a.de"),
        ("model.distillation.teacher.model_path", "~/t.nemo", f"'{tmp_path}/t.nemo' does not exist"),
    ):
        with pytest.raises(InputError, match=re.escape(message)):
            run_training(run_config(elsewhere="~/data", **{key: value}), DistilledMTEncDecModel)
    with pytest.raises(InputError, match=re.escape(f"'{tmp_path}/t.nemo' does not exist")):
        read_archive_config("~/t.nemo")


def test_an_empty_directory_serves(run_config):
    config = run_config()
    Path(config.output_dir).mkdir()
    assert run_training(config, DistilledMTEncDecModel).exists()


def test_damaged_and_several_last_checkpoints(run_config):
    """The complete one with the most steps counts, whatever the files' times say."""
    config = run_config()
    archive = run_training(config, DistilledMTEncDecModel)
    before = weights(archive)
    archive.unlink()
    (last,) = [path for path in checkpoints(config) if path.name.endswith("-last.ckpt")]
    empty, cut = (last.with_name(f"{name}-last.ckpt") for name in ("empty", "cut"))
    older = last.with_name("val_sacreBLEU=0.0000-epoch=0-step=1-last.ckpt")
    empty.write_bytes(b"")
    cut.write_bytes(last.read_bytes()[:-100])
    SafeCheckpointIO().save_checkpoint({**SafeCheckpointIO().load_checkpoint(last), "global_step": 1}, older)
    times = last.stat()
    os.utime(older, ns=(times.st_atime_ns, times.st_mtime_ns + 10**9))  # some file systems have one time for a second
    run_training(run_config(), DistilledMTEncDecModel)
    after = weights(archive)
    assert all(torch.equal(before[name], tensor) for name, tensor in after.items())
    assert not older.exists()
    assert cut.exists()  # nobody knows what is in it


def test_a_run_on_a_full_disk(run_config, monkeypatch):
    """Room for checkpoints comes to an end at the third step; with room again, the run goes on."""
    often = {"trainer.max_steps": 4, "exp_manager.checkpoint_callback_params.last_every_n_steps": 1}
    run_training(whole := run_config(**often), DistilledMTEncDecModel)
    (expected,) = [path for path in checkpoints(whole) if path.name.endswith("-last.ckpt")]
    expected = SafeCheckpointIO().load_checkpoint(expected)["state_dict"]
    config = run_config(**often, output_dir=f"{whole.output_dir}2")
    save = torch.save

    def save_while_there_is_room(checkpoint, file):
        save(checkpoint, file)
        if checkpoint["global_step"] == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(torch, "save", save_while_there_is_room)
    with pytest.raises(StorageError, match=r"step=3-last.ckpt cannot be written: No space left on device; older"):
        run_training(config, DistilledMTEncDecModel)
    monkeypatch.undo()
    assert any("step=2-last.ckpt" in path.name for path in checkpoints(config))
    run_training(config, DistilledMTEncDecModel)
    (last,) = [path for path in checkpoints(config) if path.name.endswith("-last.ckpt")]
    resumed = SafeCheckpointIO().load_checkpoint(last)["state_dict"]
    assert all(torch.equal(expected[name], tensor) for name, tensor in resumed.items())


def test_a_time_limit_stops_with_a_checkpoint(run_config):
    config = run_config(**{"exp_manager.max_time_per_run": "00:00:00:00"})
    with pytest.raises(StoppedBySignal) as stopped:
        run_training(config, DistilledMTEncDecModel)
    assert stopped.value.code == 143
    assert not (Path(config.output_dir) / "tiny.nemo").exists()
    assert len(checkpoints(config)) == 1
    with pytest.raises(StoppedBySignal):
        run_training(config, DistilledMTEncDecModel)
    (last,) = checkpoints(config)
    assert "step=2-last" in last.name


def test_a_moved_run_finds_its_best_checkpoint(run_config, tmp_path):
    archive = run_training(run_config(keep="best"), DistilledMTEncDecModel)
    before = weights(archive)
    archive.unlink()
    archive.parent.rename(tmp_path / "moved")
    archive = run_training(run_config(keep="best", output_dir=str(tmp_path / "moved")), DistilledMTEncDecModel)
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(archive).items())


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        ({"keep": "all"}, InputError, "keep: got 'all'; give best, last or average"),
        ({"output_dir": "???"}, InputError, "no value for output_dir; give output_dir=..."),
        ({"model.train_ds.src_file_name": "???"}, InputError, "no value for model.train_ds.src_file_name"),
        ({"model.train_ds.src_file_name": "${nowhere}"}, InputError, "cannot be resolved: .*nowhere"),
        ({"model.train_ds.src_file_name": "no.de"}, InputError, "model.train_ds.src_file_name: no file no.de"),
        ({"model.encoder_tokenizer.tokenizer_model": "no.model"}, InputError, "encoder_tokenizer.tokenizer_model: no"),
        ({"model.distillation.objectiv": {}}, ConfigurationError, "objectiv: unknown key"),
        ({"model.distillation.teacher.model_path": "no.nemo"}, InputError, "no.nemo' does not exist"),
        ({"trainer.max_step": 3}, InputError, "trainer: unknown key max_step; see Lightning's Trainer"),
        (
            {"trainer.use_distributed_sampler": "no"},
            InputError,
            "trainer.use_distributed_sampler: got 'no'; give true",
        ),
        (
            {"trainer.max_time": "00:00:00:02"},
            InputError,
            "trainer.max_time: got .*; give exp_manager.max_time_per_run",
        ),
        ({"trainer.fast_dev_run": 2}, InputError, "trainer.fast_dev_run: got '2', .*; give trainer.max_steps"),
        ({"trainer.overfit_batches": 4}, InputError, "trainer.overfit_batches: got '4', whose few batches come in"),
        (
            {"trainer.use_distributed_sampler": False, "trainer.devices": 2},
            InputError,
            "trainer.use_distributed_sampler: got False, and all processes would train on the same batches",
        ),
        ({"patience": 1, "trainer.limit_val_batches": 0}, InputError, "patience: counts validations, .* is 0; leave"),
        (
            {"patience": 1, "trainer.val_check_interval": 99},
            InputError,
            "val_check_interval is 99 batches of a run of",
        ),
        ({"trainer.callbacks": []}, InputError, "trainer: unknown key callbacks"),
        ({"trainer.accelerator": "abacus"}, InputError, "trainer: .*abacus"),
        ({"trainer.devices": "two"}, InputError, "trainer: .*two"),
        ({"exp_manager.checkpoint_callback_params.mod": 1}, InputError, "checkpoint_callback_params: unknown key mod"),
        ({"exp_manager.max_time_per_run": "4h"}, InputError, "max_time_per_run: got '4h'; give DD:HH:MM:SS"),
        (
            {"exp_manager.ema": {"enable": True}},
            InputError,
            "exp_manager.ema.enable: a run with NeMo's EMA cannot be resumed; give ema=0.999 instead",
        ),
        (
            {"exp_manager.create_early_stopping_callback": True},
            InputError,
            "exp_manager.create_early_stopping_callback: .* give patience=5 instead",
        ),
        ({"patience": 0}, InputError, "patience: got '0'; give a whole number of at least 1, or null"),
        ({"average": True}, InputError, "average: got 'True'; give a whole number of at least 2, or null"),
        ({"ema": 1.0}, InputError, "ema: got '1.0'; give a number above 0 and below 1, such as 0.999, or null"),
        (
            {"patience": 3, "model.optim.sched": {"name": "WarmupAnnealing"}},
            InputError,
            "patience: model.optim.sched .WarmupAnnealing. lays the learning rate out over trainer.max_steps",
        ),
        (
            {"exp_manager.checkpoint_callback_params.save_weights_only": True},
            InputError,
            r"checkpoint_callback_params.save_weights_only: a run that stopped could not go on; leave it out",
        ),
        (
            {"exp_manager.checkpoint_callback_params.dirpath": "elsewhere"},
            InputError,
            r"checkpoint_callback_params.dirpath: checkpoints lie in log/checkpoints of output_dir",
        ),
        (
            {"exp_manager.checkpoint_callback_params.monitor": "val_loss"},
            InputError,
            r"checkpoint_callback_params.mode: got 'max', and of val_loss the smaller is the better; give min",
        ),
        *(
            (
                {"keep": keep, "exp_manager.create_checkpoint_callback": False},
                InputError,
                f"keep: '{keep}' is of checkpoints, and exp_manager.create_checkpoint_callback is false",
            )
            for keep in ("average", "best")
        ),
        ({"trainer.max_epochs": 2}, InputError, "trainer.check_val_every_n_epoch: got null with 2 epochs"),
    ],
)
def test_bad_input_leaves_nothing_behind(run_config, overrides, error, message):
    """So that the next call, with the fault mended, is not refused as another run."""
    config = run_config(**overrides)
    with pytest.raises(error, match=message):
        run_training(config, DistilledMTEncDecModel)
    assert not Path(run_config().output_dir).exists()


def test_no_gpu_is_bad_input(run_config):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(InputError, match="trainer: No supported gpu backend found"):
        run_training(run_config(**{"trainer.accelerator": "gpu"}), DistilledMTEncDecModel)


def test_best_keeps_the_checkpoint_of_the_best_score(run_config):
    config = run_config(**{"keep": "best", "trainer.max_steps": 4, "trainer.val_check_interval": 2})
    archive = run_training(config, DistilledMTEncDecModel)
    (best,) = [path for path in checkpoints(config) if not path.name.endswith("-last.ckpt")]
    expected = SafeCheckpointIO().load_checkpoint(best)["state_dict"]
    saved = weights(archive)
    assert all(torch.equal(expected[name], tensor) for name, tensor in saved.items())


def test_a_run_that_stops_on_nan_leaves_no_archive(run_config):
    config = run_config(**{"model.optim.lr": 1e30, "trainer.max_steps": 8})
    with pytest.raises(NonFiniteError, match="step [1-7]: the student's logits are NaN or infinite"):
        run_training(config, DistilledMTEncDecModel)
    assert not (Path(config.output_dir) / "tiny.nemo").exists()


def trainer_section(**arguments):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return OmegaConf.create({"accelerator": "cpu", "max_steps": 1, **quiet, **arguments})


@pytest.mark.parametrize(("devices", "count"), [(2, 2), ("2", 2), ("auto", 1), (1, 1)])
def test_several_devices_train_with_ddp(devices, count):
    trainer = build_trainer(trainer_section(devices=devices))
    assert trainer.num_devices == count
    strategy = type(trainer.strategy).__name__
    assert strategy == ("DDPStrategy" if count > 1 else "SingleDeviceStrategy")
    if count > 1:
        assert trainer.strategy._process_group_backend == "gloo"
        assert trainer.strategy._ddp_kwargs == {"find_unused_parameters": True}


def test_a_strategy_that_is_named_is_taken():
    trainer = build_trainer(trainer_section(devices=2, strategy="ddp_spawn"))
    assert trainer.strategy._start_method == "spawn"


def test_every_trainer_writes_safe_checkpoints():
    assert isinstance(build_trainer(trainer_section(devices=1)).strategy.checkpoint_io, SafeCheckpointIO)


def test_no_git_is_started_in_the_current_directory(run_config, tmp_path, monkeypatch):
    """A repository's configuration names programs that git runs, and its diff may be private."""
    here = tmp_path / "repository"
    here.mkdir()
    trap = here / "trap"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path / 'ran'}\n")
    trap.chmod(0o755)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "trap"], ["commit", "-qm", "x"], ["config", "core.fsmonitor", str(trap)]):
        subprocess.run([*git, *command], cwd=here, check=True)
    trap.write_text(trap.read_text() + "# private\n")
    monkeypatch.chdir(here)
    archive = run_training(run_config(), DistilledMTEncDecModel)
    assert not (tmp_path / "ran").exists()
    assert not list(archive.parent.rglob("git-info.log"))
    subprocess.run(["git", "diff"], cwd=here, check=False, capture_output=True)
    assert (tmp_path / "ran").exists()  # the trap is one


@pytest.mark.parametrize("monitor", ["val_sacrebleu", "val_loss_avg", "val_loss_dl_index_1", "../x"])
def test_an_unknown_score_to_keep_checkpoints_by(run_config, monitor):
    params = "exp_manager.checkpoint_callback_params"
    config = run_config(**{f"{params}.monitor": monitor, f"{params}.mode": None})
    with pytest.raises(InputError, match=r"monitor: got .*; give one of val_loss, val_sacreBLEU, or a loss of the"):
        run_training(config, DistilledMTEncDecModel)
    assert not Path(config.output_dir).exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"exp_manager.checkpoint_callback_params.monitor": "train_none"}, "could not find the monitored key"),
        ({"model.optim._target_": "torch.optim.Abacus"}, "training cannot begin: .*Abacus"),
        ({"model.encoder.hidden_act": "abacus"}, "model: .*abacus"),
        (
            {"exp_manager.log_local_rank_0_only": True, "exp_manager.log_global_rank_0_only": True},
            "exp_manager: .*both",
        ),
        ({"exp_manager.no_such_key": True}, "exp_manager: .*no_such_key"),
    ],
)
def test_what_nemo_and_lightning_refuse_is_bad_input(run_config, overrides, message):
    with pytest.raises(InputError, match=message) as caught:
        run_training(run_config(**overrides), DistilledMTEncDecModel)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "1"}, "RANK=1, left by another job, says that this is not the first process"),
        ({"LOCAL_RANK": "1"}, "LOCAL_RANK=1, left by another job"),
        ({"RANK": "x"}, "environment variable RANK is 'x'; unset it"),
    ],
)
def test_ranks_that_another_job_left(run_config, monkeypatch, variables, message):
    """Such a run would end well and leave no archive."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    config = run_config()
    with pytest.raises(InputError, match=message):
        run_training(config, DistilledMTEncDecModel)
    assert not Path(config.output_dir).exists()
