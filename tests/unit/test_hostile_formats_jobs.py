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
"""Files of jobs and runs with wrong values and types: only documented errors and warnings, in bounded time."""

import contextlib
import json
import os
import random
from pathlib import Path

import pytest
import torch
import yaml
from damage import JSON_VALUES, damaged, damaged_json, odd_files, time_limit, tree, write_damaged_json

from nemo_distill import DistilledMTEncDecModel
from nemo_distill.errors import InputError, StageError
from nemo_distill.jobs import Graph, Stage, read_recipe, run_stages
from nemo_distill.jobs.noted import RECORD_NAME
from nemo_distill.jobs.progress import PROGRESS_NAME, table_of
from nemo_distill.training.checkpoints import build_checkpoint_callback, newest_checkpoint, remove_left_over
from nemo_distill.training.directory import claim_directory, is_finished, refuse_other_run
from nemo_distill.training.restart import ExactRestart
from nemo_distill.training.trainer import SafeCheckpointIO, seed_everything

ROOT = Path(__file__).parents[2]
PLAIN = {"name": "a", "seed": 1, "model": {"x": 1}, "trainer": {"max_steps": 1}, "exp_manager": {"y": None}}


def test_damaged_records_of_stages(tmp_path):
    generator, result = random.Random(3), tmp_path / "done"
    result.write_text("x")
    content = {"one": {"key": "0" * 64, "sha256": "1" * 64}, "two": {"key": "1" * 64, "sha256": None}}
    with time_limit(60):
        for _ in range(60):
            write_damaged_json(tmp_path / RECORD_NAME, content, generator)
            with contextlib.suppress(InputError, StageError):
                run_stages([Stage("one", ["false", "script.py"], result)], tmp_path)
            kept = [result] if result.exists() else sorted((tmp_path / "earlier").iterdir())[-1:]
            assert [path.read_text() for path in kept] == ["x"]
            result.write_text("x")


def test_damaged_records_of_progress(tmp_path):
    generator = random.Random(4)
    content = {"stages": {"a": {"state": "running", "started": 1.5, "seconds": None}, "b": {"state": "done"}}}
    with time_limit(60):
        for _ in range(100):
            write_damaged_json(tmp_path / PROGRESS_NAME, content, generator)
            with contextlib.suppress(InputError):
                assert "stages done" in table_of(tmp_path)
    (tmp_path / PROGRESS_NAME).write_text(json.dumps({"stages": {"../../x": {"state": "failed"}}}))
    with pytest.raises(InputError, match="progress.json' is damaged: stage '../../x'"):
        table_of(tmp_path)


@pytest.mark.parametrize("kind", ["fifo", "directory", "device", "dangling", "loop"])
def test_odd_files_in_the_place_of_records_and_results(tmp_path, kind):
    odd = odd_files(tmp_path / "odd")[kind]
    stage = Stage("one", ["false", "script.py"], tmp_path / "result")
    for name, place in (("stages.json", tmp_path / "a"), ("result", tmp_path)):
        place.mkdir(exist_ok=True)
        os.rename(odd, place / name) if name == "stages.json" else os.rename(
            tmp_path / "a" / "stages.json", place / name
        )
        with time_limit(20), pytest.raises(InputError, match=f"{name}'.*|{name} "):
            run_stages([stage], place)


def test_damaged_recipes(tmp_path, tmp_path_factory, monkeypatch):
    """What is read as a recipe gives stages that stay below the output directory."""
    monkeypatch.chdir(tmp_path_factory.mktemp("texts"))
    for name in ("a.de", "a.en"):
        Path(name).write_text("one line\n")
    generator = random.Random(5)
    path, out = tmp_path / "recipe.yaml", tmp_path / "out"
    contents = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "examples" / "recipes").glob("*.yaml"))]
    contents[1] |= {"corpus": "ui-strings", "seeds": [1], "export": "int8", "tests": {"a": ["a.de", "a.en"]}}
    good = 0
    with time_limit(60):
        for number in range(50):
            content = contents[number % 2 if number < 20 else 1]
            for _ in range(generator.choice((1, 1, 2))):
                content = damaged_json(content, generator) if isinstance(content, dict) else content
            text = json.dumps(content).encode() if generator.random() < 0.5 else yaml.safe_dump(content).encode()
            path.write_bytes(damaged(text, generator) if generator.random() < 0.3 else text)
            with contextlib.suppress(InputError):
                stages = Graph(read_recipe(path, {"corpus": "ui-strings"}), out).stages()
                good += 1
                for stage in stages:
                    assert out in Path(os.path.normpath(stage.result)).parents
                    assert all("\0" not in part for part in stage.command)
    assert good > 5
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", ["fifo", "directory", "device", "dangling", "loop", "missing"])
def test_odd_files_in_the_place_of_a_recipe(tmp_path, kind):
    with time_limit(10), pytest.raises(InputError):
        read_recipe(odd_files(tmp_path)[kind])


def test_damaged_configurations_of_a_run(tmp_path):
    generator, run = random.Random(7), tmp_path / "run"
    run.mkdir()
    with time_limit(60):
        for _ in range(150):
            content = damaged_json(PLAIN, generator)
            text = yaml.safe_dump(content, allow_unicode=True).encode("utf-8", "replace")
            (run / "config.yaml").write_bytes(damaged(text, generator) if generator.random() < 0.4 else text)
            before = tree(run)
            for overwrite in (False, True):
                with contextlib.suppress(InputError):
                    refuse_other_run(run, run / "a.nemo", PLAIN, overwrite)
            assert tree(run) == before


@pytest.mark.parametrize(
    "text", ["a: ${b", "a: 2000-99-99", "? [a]\n: 1", "!!python/object/apply:os.system [x]", "[" * 9999]
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_configurations_that_are_none(tmp_path, text, overwrite):
    (tmp_path / "config.yaml").write_text(text)
    with time_limit(10), pytest.raises(InputError, match=r"config\.yaml"):
        refuse_other_run(tmp_path, tmp_path / "a.nemo", PLAIN, overwrite)


@pytest.mark.parametrize("kind", ["fifo", "directory", "device", "dangling", "loop"])
@pytest.mark.parametrize("name", ["config.yaml", "a.nemo", "log/finished.json"])
def test_odd_files_in_a_run_directory(tmp_path, kind, name):
    odd = odd_files(tmp_path / "odd")[kind]
    run = tmp_path / "run"
    claim_directory(run, run / "a.nemo", PLAIN, overwrite=False)
    (run / "log").mkdir()
    (run / "a.nemo").write_bytes(b"")
    (run / name).unlink(missing_ok=True)
    os.rename(odd, run / name)
    with time_limit(10), pytest.raises(InputError):
        refuse_other_run(run, run / "a.nemo", PLAIN, overwrite=True)
    with time_limit(10), pytest.raises(InputError):
        refuse_other_run(run, run / "a.nemo", PLAIN, overwrite=False)
        is_finished(run / "a.nemo", {})
    assert os.path.lexists(run / name)


STATE_VALUES = [
    *JSON_VALUES,
    float("nan"),
    torch.tensor(float("nan")),
    torch.zeros(3),
    b"x",
    ("a",),
    {1: 2},
    {"a": {}},
]
STATE_VALUES += [torch.zeros(1).expand(10**12), {"/etc/passwd": 1.0}, {"..": torch.tensor(1.0)}, -1, 2**70]


def damaged_state(content, generator):
    """Return a checkpoint, or a part of it, with one place replaced or removed."""
    content = content.copy()
    key = generator.choice(list(content) if isinstance(content, dict) else range(len(content)))
    if isinstance(content[key], (dict, list)) and content[key] and generator.random() < 0.85:
        content[key] = damaged_state(content[key], generator)
    elif generator.random() < 0.3:
        del content[key]
    else:
        content[key] = generator.choice(STATE_VALUES)
    return content


@pytest.fixture(scope="module")
def checkpoint(tiny_trainer, student_config, tmp_path_factory):
    """A real checkpoint of one step, its trainer, and the callback of its run."""
    directory = tmp_path_factory.mktemp("checkpoints")
    seed_everything(1)
    trainer = tiny_trainer(1, limit_val_batches=0)
    trainer.callbacks.append(callback := build_checkpoint_callback({"monitor": "train_loss"}, directory))
    trainer.fit(DistilledMTEncDecModel(student_config(hidden_size=8), trainer=trainer))
    trainer.save_checkpoint(directory / "x.ckpt")
    return SafeCheckpointIO().load_checkpoint(directory / "x.ckpt"), trainer, callback


def test_damaged_values_in_a_checkpoint(checkpoint, tmp_path):
    """What is not passed over can be taken over by the callbacks; what is passed over stays."""
    content, trainer, callback = checkpoint
    generator, path = random.Random(11), tmp_path / "train_loss=1.0000-epoch=0-step=1.ckpt"
    loops = trainer.fit_loop.state_dict()
    passed = 0
    with time_limit(100):
        for number in range(15):
            key = [None, "callbacks", "restart", "loops", "optimizer_states"][number % 5]
            part = damaged_state(content if key is None else content[key], generator)
            changed = part if key is None else {**content, key: part}
            torch.save(changed, path)
            found = newest_checkpoint(tmp_path, loops)
            passed += found is None
            if found is not None:
                loaded = SafeCheckpointIO().load_checkpoint(found)
                for name, state in loaded.get("callbacks", {}).items():
                    if name == callback.state_key:
                        callback.load_state_dict(state)
                ExactRestart().on_load_checkpoint(trainer, None, loaded)
                trainer.fit_loop.load_state_dict(loaded["loops"]["fit_loop"])
                remove_left_over(tmp_path, found, callback.filename)
            assert path.exists()
    assert passed > 5


@pytest.mark.parametrize("kind", ["fifo", "directory", "device", "dangling", "loop"])
def test_odd_files_among_checkpoints(checkpoint, tmp_path, kind):
    odd = odd_files(tmp_path / "odd")[kind]
    run = tmp_path / "run"
    run.mkdir()
    os.rename(odd, run / "train_loss=1.0000-epoch=0-step=9.ckpt")
    whole = run / "train_loss=1.0000-epoch=0-step=1-last.ckpt"
    torch.save(checkpoint[0], whole)
    with time_limit(20):
        assert newest_checkpoint(run) == whole
        remove_left_over(run, whole, checkpoint[2].filename)
    assert len(list(run.iterdir())) == 2


@pytest.mark.parametrize("steps", [True, 10**400, -1, 1.0, "1", None, torch.tensor(1)])
def test_steps_that_are_no_number(checkpoint, tmp_path, steps):
    torch.save({**checkpoint[0], "global_step": steps}, tmp_path / "a-last.ckpt")
    assert newest_checkpoint(tmp_path) is None


def test_weights_that_are_not_finite_are_passed_over(checkpoint, tmp_path):
    weights = {name: tensor * float("nan") for name, tensor in checkpoint[0]["state_dict"].items()}
    torch.save({**checkpoint[0], "global_step": 7, "state_dict": weights}, tmp_path / "b-last.ckpt")
    torch.save(checkpoint[0], tmp_path / "a-last.ckpt")
    assert newest_checkpoint(tmp_path) == tmp_path / "a-last.ckpt"


def test_compressed_and_old_checkpoints_are_passed_over(checkpoint, tmp_path):
    import zipfile

    torch.save(checkpoint[0], tmp_path / "whole")
    with (
        zipfile.ZipFile(tmp_path / "whole") as old,
        zipfile.ZipFile(tmp_path / "a.ckpt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
        new.writestr("archive/data/bomb", bytes(1 << 24))
    torch.save({"global_step": 1}, tmp_path / "b.ckpt", _use_new_zipfile_serialization=False)
    with time_limit(20):
        assert newest_checkpoint(tmp_path) is None


def test_bytes_of_a_checkpoint(checkpoint, tmp_path):
    generator, path = random.Random(2), tmp_path / "a.ckpt"
    torch.save({**checkpoint[0], "optimizer_states": []}, path)
    whole = path.read_bytes()
    with time_limit(60):
        for _ in range(60):
            path.write_bytes(damaged(whole, generator))
            newest_checkpoint(tmp_path)
