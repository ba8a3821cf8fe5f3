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
"""What jobs and runs remove or write over proves to be theirs; links are not followed."""

import os
import sys
from pathlib import Path

import pytest
import torch
from damage import tree

from nemo_distill.errors import InputError
from nemo_distill.jobs import Stage, run_stages
from nemo_distill.training.checkpoints import build_checkpoint_callback, remove_left_over
from nemo_distill.training.directory import claim_directory, is_finished, note_archive, refuse_other_run
from nemo_distill.training.trainer import SafeCheckpointIO

PLAIN = {"name": "a", "seed": 1, "model": {}, "trainer": {}, "exp_manager": {}}
BEST, LAST = "val_loss=0.5000-epoch=0-step=3.ckpt", "val_loss=0.5000-epoch=0-step=4-last.ckpt"


@pytest.fixture
def run(tmp_path):
    """The directory of a finished run."""
    run = tmp_path / "run"
    claim_directory(run, run / "a.nemo", PLAIN, overwrite=False)
    (run / "log" / "checkpoints").mkdir(parents=True)
    for name in (BEST, LAST):
        (run / "log" / "checkpoints" / name).write_bytes(b"weights")
    (run / "log" / "nemo_error_log.txt").write_text("")
    (run / "a.nemo").write_bytes(b"weights")
    note_archive(run / "a.nemo", run / "a.nemo")
    return run


def test_overwriting_removes_what_is_of_the_run_and_nothing_else(run):
    mine = (
        "log/notes.txt",
        "log/nemo_my_log.txt",
        "log/run_0/hparams.yaml",
        "log/events.out.tfevents.mine",
        "thesis.txt",
    )
    (run / "log" / "run_0").mkdir()
    for name in (*mine, "log/run_0/nemo_log_globalrank-0_localrank-0.txt", "log/events.out.tfevents.17.host.12.0"):
        (run / name).write_text("x")
    assert is_finished(run / "a.nemo", {})
    refuse_other_run(run, run / "b.nemo", PLAIN, overwrite=True)
    claim_directory(run, run / "b.nemo", {**PLAIN, "name": "b"}, overwrite=True)
    left = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert left == {"config.yaml", *mine}


def foreign_archive(run):
    (run / "a.nemo").write_bytes(b"another's")


def archive_of_another_name(run):
    (run / "b.nemo").write_bytes(b"another's")


def unknown_checkpoint(run):
    (run / "log" / "checkpoints" / "my-best.ckpt").write_bytes(b"mine")


def checkpoint_of_another_run(run):
    path = run / "log" / "checkpoints" / LAST
    SafeCheckpointIO().save_checkpoint({"global_step": 9, "state_dict": {}, "restart": {"seed": 2}}, path)


def linked_checkpoint(run):
    (run / "log" / "checkpoints" / f"{BEST}-v1.ckpt").symlink_to(run / "config.yaml")


def linked_log(run):
    (run / "log").rename(run.parent / "elsewhere")
    (run / "log").symlink_to(run.parent / "elsewhere")


def linked_checkpoints(run):
    (run / "log" / "checkpoints").rename(run.parent / "elsewhere")
    (run / "log" / "checkpoints").symlink_to(run.parent / "elsewhere")


def lost_record(run):
    (run / "log" / "finished.json").unlink()


def other_configuration(run):
    (run / "config.yaml").write_text("a: thesis")


def name_with_a_path(run):
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace("name: a", "name: ../../x"))


@pytest.mark.parametrize(
    "change",
    [
        foreign_archive,
        archive_of_another_name,
        unknown_checkpoint,
        checkpoint_of_another_run,
        linked_checkpoint,
        linked_log,
        linked_checkpoints,
        lost_record,
        other_configuration,
        name_with_a_path,
    ],
)
def test_overwriting_what_is_not_provably_of_the_run_is_refused(run, change):
    change(run)
    before = tree(run.parent)
    for function in (refuse_other_run, claim_directory):
        with pytest.raises(InputError):
            function(run, run / "b.nemo", {**PLAIN, "name": "b"}, overwrite=True)
    assert tree(run.parent) == before


def checkpoint(path: Path, step: int, best=()) -> Path:
    state = {"best_k_models": dict.fromkeys(best, 1.0), "best_model_path": "", "best_model_score": None}
    content = {"global_step": step, "state_dict": {"x": torch.zeros(2)}, "callbacks": {"RunCheckpoint": state}}
    SafeCheckpointIO().save_checkpoint(content, path)
    return path


def test_what_a_run_did_not_write_stays_among_its_checkpoints(tmp_path):
    template = build_checkpoint_callback({}, tmp_path).filename
    last = checkpoint(tmp_path / LAST, 4, [f"/old/{BEST}"])
    best = checkpoint(tmp_path / BEST, 3)
    mine = checkpoint(tmp_path / "my-best.ckpt", 3)
    copy = checkpoint(tmp_path / "val_loss=0.5000-epoch=0-step=3-copy.ckpt", 3)
    left = checkpoint(tmp_path / "val_loss=0.7000-epoch=0-step=2.ckpt", 2)
    link = tmp_path / "val_loss=0.7000-epoch=0-step=1.ckpt"
    link.symlink_to(mine)
    remove_left_over(tmp_path, last, template)
    assert set(tmp_path.iterdir()) == {last, best, mine, copy, link}
    assert not left.exists()


@pytest.mark.parametrize("name", ["..", ".", "thesis.txt", "../thesis.txt", "link.ckpt", "folder.ckpt"])
def test_a_checkpoint_does_not_choose_what_is_removed(tmp_path, name):
    checkpoints = tmp_path / "log" / "checkpoints"
    (checkpoints / "folder.ckpt").mkdir(parents=True)
    for path in (checkpoints / "thesis.txt", checkpoints.parent / "thesis.txt", checkpoints / "folder.ckpt" / "x"):
        path.write_text("years of work")
    (checkpoints / "link.ckpt").symlink_to(checkpoints / "thesis.txt")
    before = tree(tmp_path)

    class Trainer:
        class strategy:
            remove_checkpoint = staticmethod(SafeCheckpointIO().remove_checkpoint)

    for save_last in (True, False):
        callback = build_checkpoint_callback({"save_last": save_last}, checkpoints)
        state = {"best_k_models": {name: 1.0}, "best_model_path": name, "best_model_score": None}
        callback.load_state_dict(state)
        for path in [*callback.best_k_models, str(checkpoints / name), name]:
            callback._remove_checkpoint(Trainer, path)
        assert callback._to_remove == []
    for path in (checkpoints, checkpoints / "folder.ckpt"):
        SafeCheckpointIO().remove_checkpoint(path)
    assert tree(tmp_path) == before


def test_a_link_in_the_place_of_a_log_is_not_followed(tmp_path):
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    job = tmp_path / "job"
    (job / "logs").mkdir(parents=True)
    (job / "logs" / "one.log").symlink_to(mine)
    with pytest.raises(InputError, match=r"one\.log' cannot be written"):
        run_stages([Stage("one", ["true"], job / "one")], job)
    os.unlink(job / "logs" / "one.log")
    os.rmdir(job / "logs")
    (job / "logs").symlink_to(tmp_path)
    with pytest.raises(InputError, match="logs' is a link"):
        run_stages([Stage("one", ["true"], job / "one")], job)
    assert mine.read_text() == "mine"
    assert not (tmp_path / "one.log").exists()


def test_a_log_that_is_not_of_a_stage_stays(tmp_path):
    stages = [Stage("one", [sys.executable, "-c", f"open({str(tmp_path / 'one')!r}, 'w')"], tmp_path / "one")]
    log = tmp_path / "logs" / "one.log"
    log.parent.mkdir()
    log.write_text("my diary")
    with pytest.raises(InputError, match=r"one\.log' is not the log of a stage; move it away"):
        run_stages(stages, tmp_path)
    assert log.read_text() == "my diary"
    log.write_text("")
    for _ in range(2):
        run_stages(stages, tmp_path)
        (tmp_path / "one").unlink()


@pytest.mark.parametrize("name", ["../x", "/x", "", ".x", "a/b"])
def test_the_name_of_a_stage_is_no_path(tmp_path, name):
    with pytest.raises(InputError, match="stage name"):
        run_stages([Stage(name, ["true"], tmp_path / "one")], tmp_path / "job")
    assert not list(tmp_path.iterdir())
