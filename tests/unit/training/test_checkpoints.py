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
"""Which checkpoint a run goes on from, what is left over, and how often one is written."""

import os
import resource
import signal
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from nemo_distill.errors import InputError, StorageError
from nemo_distill.training.checkpoints import build_checkpoint_callback, newest_checkpoint, remove_left_over
from nemo_distill.training.trainer import CHECKPOINT_GLOBALS, SafeCheckpointIO


def write(path: Path, step: int, best: tuple[str, ...] = (), age: int = 0) -> Path:
    """Write a checkpoint; the older ones of a test have a higher age."""
    state = {"best_k_models": {f"/elsewhere/{name}": torch.tensor(1.0) for name in best}}
    state |= {"best_model_path": f"/elsewhere/{best[0]}" if best else "", "best_model_score": None}
    content = {"global_step": step, "state_dict": {"weight": torch.zeros(1000)}, "callbacks": {"RunCheckpoint": state}}
    SafeCheckpointIO().save_checkpoint(content, path)
    os.utime(path, (1e9 - age, 1e9 - age))
    return path


def cut(path: Path, share: float) -> Path:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return path


@pytest.fixture
def warnings(monkeypatch):
    messages = []
    monkeypatch.setattr("nemo.utils.logging.warning", messages.append)
    return messages


def test_the_most_steps_win_over_the_newest_file(tmp_path, warnings):
    write(tmp_path / "step=9-last.ckpt", 9)
    most = write(tmp_path / "step=11-last.ckpt", 11, age=100)
    assert newest_checkpoint(tmp_path) == most
    assert not warnings


def test_of_one_step_the_last_counts(tmp_path):
    write(tmp_path / "score-step=9.ckpt", 9)
    last = write(tmp_path / "score-step=9-last.ckpt", 9, age=5)
    assert newest_checkpoint(tmp_path) == last


def test_no_directory_and_no_checkpoint(tmp_path):
    assert newest_checkpoint(tmp_path / "none") is None
    assert newest_checkpoint(tmp_path) is None


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_cut_checkpoints_are_passed_over(tmp_path, warnings, share):
    whole = write(tmp_path / "step=3-last.ckpt", 3)
    broken = cut(write(tmp_path / "step=4-last.ckpt", 4), share)
    assert newest_checkpoint(tmp_path) == whole
    assert len(warnings) == 1
    assert f"passing over {broken}" in warnings[0]
    remove_left_over(tmp_path, whole, "{step}")
    assert broken.exists()


def test_a_flipped_bit_is_found(tmp_path, warnings):
    whole = write(tmp_path / "step=3-last.ckpt", 3)
    broken = write(tmp_path / "step=4-last.ckpt", 4)
    content = bytearray(broken.read_bytes())
    content[content.index(b"\0" * 1000) + 500] = 1  # a weight
    broken.write_bytes(content)
    assert newest_checkpoint(tmp_path) == whole
    assert "step=4-last.ckpt: it is damaged (checksum of" in warnings[0]


def test_where_no_last_is_whole_the_best_serves(tmp_path, warnings):
    best = write(tmp_path / "score=5-step=3.ckpt", 3)
    cut(write(tmp_path / "step=4-last.ckpt", 4), 0.5)
    assert newest_checkpoint(tmp_path) == best
    assert len(warnings) == 1


def test_all_damaged(tmp_path, warnings):
    cut(write(tmp_path / "step=4-last.ckpt", 4), 0.5)
    (tmp_path / "other-last.ckpt").write_text("no checkpoint")
    assert newest_checkpoint(tmp_path) is None
    assert len(warnings) == 2


def test_what_a_killed_run_left_is_removed(tmp_path, warnings):
    """The run was moved since, so its checkpoints name other directories."""
    last = write(tmp_path / "step=4-last.ckpt", 4, best=("score=5-step=3.ckpt",))
    best = write(tmp_path / "score=5-step=3.ckpt", 3)
    left = [
        write(tmp_path / "score=4-step=2-last.ckpt", 2),
        write(tmp_path / "score=4-step=2.ckpt", 2),
        tmp_path / ".step=5-last.ckpt.nemo_distill-0123abcd.tmp",
    ]
    left[-1].write_bytes(b"unfinished")
    remove_left_over(tmp_path, last, "{score}-{step}")
    assert sorted(tmp_path.iterdir()) == sorted([last, best])
    assert len(warnings) == 2


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"monitr": "x"}, "checkpoint_callback_params: unknown key monitr; it takes auto_insert_metric_name, every_n"),
        ({"last_every_n_steps": 0}, "checkpoint_callback_params.last_every_n_steps: got 0; give a number above 0"),
        ({"last_every_minutes": "ten"}, "last_every_minutes: got 'ten'; give a number above 0, or null"),
        ({"save_top_k": -2}, "checkpoint_callback_params: .*save_top_k=-2"),
        ({"mode": "best"}, "params.mode: got 'best', and of val_loss the smaller is the better; give min"),
        ({"mode": "best", "monitor": "mine"}, "checkpoint_callback_params: .*best"),
        ({"mode": "min", "monitor": "val_sacreBLEU_de"}, "mode: got 'min', and of val_sacreBLEU_de the larger is the"),
        ({"dirpath": "d"}, "params.dirpath: checkpoints lie in log/checkpoints of output_dir"),
        ({"save_weights_only": True}, "params.save_weights_only: a run that stopped could not go on"),
        ({"every_n_train_steps": 5}, "every_n_train_steps: checkpoints are written after each validation, .*interval"),
        ({"every_n_epochs": 2}, "every_n_epochs: checkpoints are written after each validation"),
        ({"save_on_train_epoch_end": True}, "save_on_train_epoch_end: checkpoints are written after each validation"),
    ],
)
def test_bad_settings(tmp_path, params, message):
    with pytest.raises(InputError, match=message):
        build_checkpoint_callback(params, tmp_path)


@pytest.mark.parametrize(
    ("params", "mode"),
    [
        ({}, "min"),
        ({"monitor": "val_sacreBLEU"}, "max"),
        ({"monitor": "val_sacreBLEU_avg", "mode": "max"}, "max"),
        ({"monitor": "train_loss", "every_n_train_steps": 5}, "min"),
        ({"monitor": "mine", "mode": "max", "every_n_epochs": 1, "save_on_train_epoch_end": False}, "max"),
    ],
)
def test_the_better_of_two_scores(tmp_path, params, mode):
    assert build_checkpoint_callback(params, tmp_path).mode == mode


@pytest.mark.parametrize("monitor", ["val_loss", "val_sacreBLEU"])
@pytest.mark.parametrize("left", [(2, 1), (2,), ()])
def test_files_that_are_gone_are_none_of_the_best(tmp_path, warnings, monitor, left):
    """Best first; a run that goes on would never find a better one, and could not read it at its end."""
    scores = {number: -float(number) if monitor == "val_loss" else float(number) for number in (1, 2, 3)}
    paths = {number: str(tmp_path / f"{number}.ckpt") for number in scores}
    for number in left:
        Path(paths[number]).touch()
    state = {"best_k_models": {paths[number]: score for number, score in scores.items()}, "last_model_path": ""}
    state |= {"best_model_path": paths[3], "best_model_score": scores[3]}
    state |= {"kth_best_model_path": paths[1], "kth_value": scores[1]}
    callback = build_checkpoint_callback({"monitor": monitor}, tmp_path)
    callback.load_state_dict(state)
    assert callback.best_k_models == {paths[number]: scores[number] for number in left}
    best, worst = (left[0], left[-1]) if left else (None, None)
    assert (callback.best_model_path, callback.best_model_score) == (paths.get(best, ""), scores.get(best))
    assert callback.kth_best_model_path == paths.get(worst, "")
    assert [line for line in warnings if "3.ckpt, one of the best checkpoints, is not there" in line]
    assert len(warnings) == 3 - len(left)
    assert callback.check_monitor_top_k(None, torch.tensor(0.0))


@pytest.mark.parametrize(("keep", "kept"), [(0, 0), (1, 1), (5, 5)])
def test_as_many_are_kept_as_the_weights_are_of(tmp_path, keep, kept):
    assert build_checkpoint_callback({"save_top_k": 0}, tmp_path, keep).save_top_k == kept
    assert build_checkpoint_callback({"save_top_k": -1}, tmp_path, keep).save_top_k == -1


@pytest.mark.parametrize(
    ("params", "steps", "minutes"),
    [({}, None, 15), ({"last_every_n_steps": 5}, 5, None), ({"last_every_minutes": 0.5}, None, 0.5)],
)
def test_how_often(tmp_path, params, steps, minutes):
    callback = build_checkpoint_callback(params, tmp_path)
    assert (callback.last_every_n_steps, callback.last_every_minutes) == (steps, minutes)
    assert (callback.monitor, callback.save_top_k, callback.save_last) == ("val_loss", 3, True)


@pytest.fixture
def small_disk():
    """A limit on the size of files, which a full disk looks like to who writes one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_leaves_the_older_checkpoint(tmp_path, small_disk):
    path = tmp_path / "step=1-last.ckpt"
    SafeCheckpointIO().save_checkpoint({"global_step": 1, "state_dict": {"weight": torch.zeros(10)}}, path)
    with pytest.raises(StorageError, match=r"step=1-last.ckpt cannot be written: File too large; older"):
        SafeCheckpointIO().save_checkpoint({"global_step": 2, "weight": torch.zeros(100_000)}, path)
    assert [item.name for item in tmp_path.iterdir()] == [path.name]
    assert newest_checkpoint(tmp_path) == path


@pytest.mark.parametrize(
    ("params", "name"),
    [
        ({"monitor": "val_sacreBLEU"}, "val_sacreBLEU=none-epoch=0-step=10-last.ckpt"),
        ({"filename": "{step}_{val_loss:.2f}"}, "step=10_val_loss=none-last.ckpt"),
        ({"filename": "{step}_{val_loss:.2f}", "auto_insert_metric_name": False}, "10_none-last.ckpt"),
    ],
)
def test_a_score_that_is_not_there_yet_is_none_in_the_name(tmp_path, params, name):
    """Lightning says 0, a score as any other; such a checkpoint is found, and removed as the run's own, too."""
    callback = build_checkpoint_callback(params, tmp_path)
    now = {"epoch": torch.tensor(0), "step": torch.tensor(10)}
    path = Path(callback.format_checkpoint_name(now, callback.CHECKPOINT_NAME_LAST))
    assert path == tmp_path / name
    scored = callback.format_checkpoint_name(
        {**now, "val_loss": torch.tensor(0.0), "val_sacreBLEU": torch.tensor(0.0)}
    )
    assert "none" not in scored
    resumed = build_checkpoint_callback(params, tmp_path)  # it had no validation yet, and the run that it goes on had
    resumed.load_state_dict(callback.state_dict())
    later = Path(resumed.format_checkpoint_name({**now, "step": torch.tensor(11)}, resumed.CHECKPOINT_NAME_LAST))
    assert later == tmp_path / name.replace("none", f"{0:.{2 if 'filename' in params else 4}f}").replace("10", "11")
    write(path, 10)
    assert newest_checkpoint(tmp_path) == path
    remove_left_over(tmp_path, None, callback.filename)
    assert not path.exists()


def test_types_that_torch_knew_before_it_knows_after(tmp_path):
    """NeMo's callbacks read checkpoints by themselves, also after a run has been resumed from one."""
    content = {"hyper_parameters": {"cfg": OmegaConf.create({"name": "tiny"})}}
    SafeCheckpointIO().save_checkpoint(content, tmp_path / "a.ckpt")
    before = torch.serialization.get_safe_globals()
    try:
        torch.serialization.add_safe_globals(CHECKPOINT_GLOBALS)  # as a student does when its training begins
        assert SafeCheckpointIO().load_checkpoint(tmp_path / "a.ckpt") == content
        assert torch.load(tmp_path / "a.ckpt", weights_only=True) == content
        torch.serialization.clear_safe_globals()
        assert SafeCheckpointIO().load_checkpoint(tmp_path / "a.ckpt") == content
        assert not torch.serialization.get_safe_globals()
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)
