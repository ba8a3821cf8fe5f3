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
"""Which GPUs the stages of a job see, by processes that write down what they are told; no GPU is needed."""

import json
import sys
from pathlib import Path

import pytest
import torch

from nemo_distill.jobs import devices
from nemo_distill.jobs.devices import Devices, visible_devices
from nemo_distill.jobs.graph import Graph
from nemo_distill.jobs.noted import Stage
from nemo_distill.jobs.recipe import read_recipe
from nemo_distill.jobs.short_runs import ShortRuns
from nemo_distill.jobs.stages import run_stages

SEES = """
import json, os, time
seen = os.environ.get("CUDA_VISIBLE_DEVICES")
json.dump(seen, open({result!r} + ".begun", "w"))
while not all(map(os.path.exists, {signs!r})): time.sleep(0.01)
json.dump(seen, open({result!r}, "w"))
"""
"""Ends once all that are to run at that time have begun."""


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A function that says whether there are GPUs, and which the user names."""

    def make(listed: str | None, has_gpus: bool = True) -> None:
        monkeypatch.setattr(devices, "_GPUS", tmp_path if has_gpus else tmp_path / "none")
        if listed is None:
            monkeypatch.delenv(devices.VARIABLE, raising=False)
        else:
            monkeypatch.setenv(devices.VARIABLE, listed)

    return make


def seen_by(tmp_path: Path, jobs: int, *names: str, more: dict[str, list[str]] | None = None) -> dict[str, str | None]:
    """Return what stages see: those that are named run at a time, `alone` after them."""
    signs = [str(tmp_path / f"{name}.begun") for name in names]
    stages = []
    for name in (*names, "alone"):
        needs = names if name == "alone" else ()
        code = SEES.format(result=str(tmp_path / name), signs=signs)
        stages.append(Stage(name, [sys.executable, "-c", code, *(more or {}).get(name, [])], tmp_path / name, needs))
    run_stages(stages, tmp_path, jobs)
    return {stage.name: json.loads(stage.result.read_text()) for stage in stages}


@pytest.mark.parametrize(
    ("listed", "jobs", "one", "two"),
    [
        ("3,5", 2, "3", "5"),
        ("0,1,2,3", 2, "0,1", "2,3"),
        ("GPU-8f6e, MIG-77/1/0", 2, "GPU-8f6e", "MIG-77/1/0"),
        ("4,7,9,-1,2", 2, "4", "7"),
        ("3", 2, "3", "3"),
        ("", 2, "", ""),
    ],
)
def test_stages_side_by_side_share_out_what_the_user_lists(machine, tmp_path, capfd, listed, jobs, one, two):
    machine(listed)
    assert seen_by(tmp_path, jobs, "one", "two") == {"one": one, "two": two, "alone": listed}
    told = [line for line in capfd.readouterr().out.splitlines() if "CUDA_VISIBLE_DEVICES=" in line]
    assert len(told) == (2 if one != two else 0)
    assert not told or told[0].startswith(f"[one] CUDA_VISIBLE_DEVICES={one} ")


def test_more_stages_than_gpus_are_spread_evenly(machine, tmp_path):
    machine("0,1")
    seen = seen_by(tmp_path, 4, "a", "b", "c", "d")
    assert sorted(seen[name] for name in "abcd") == ["0", "0", "1", "1"]


@pytest.mark.parametrize("listed", [None, "0,1"])
def test_without_a_gpu_nothing_changes(machine, tmp_path, listed):
    machine(listed, has_gpus=False)
    assert seen_by(tmp_path, 2, "one", "two") == dict.fromkeys(("one", "two", "alone"), listed)


def test_where_nothing_is_listed_all_that_there_are_count(machine, monkeypatch):
    machine(None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert visible_devices() == ["0", "1", "2"]
    machine(None, has_gpus=False)
    assert visible_devices() == []


def test_who_needs_several_gets_several_and_who_names_them_sees_all():
    shared = Devices(["0", "1", "2", "3"])
    assert shared.take("small", ["trainer.devices=4", "++trainer.devices=1"], 3) == ["0"]
    assert shared.take("large", ["trainer=gpu", "trainer.devices=2"], 3) == ["1", "2"]
    assert shared.take("named", ["trainer.devices=[0,3]"], 3) is None
    assert shared.take("told", ["pseudo-label", "--device", "cuda:2"], 3) is None
    assert shared.take("any", ["trainer=gpu", "trainer.devices=-1", "--device", "cuda"], 3) == ["3"]
    shared.give_back("large")
    assert shared.take("next", [], 3) == ["1"]
    assert shared.take("whole", ["trainer.devices=8"], 3) == ["0", "1", "2", "3"]


def test_short_runs_of_a_plan_see_what_the_stages_will(machine, tmp_path):
    """A training is measured beside others like it, which would wait for it on one GPU."""
    machine("0,1")
    graph = Graph(read_recipe(None, {"corpus": "ui-strings"}, ["student={}"]), tmp_path / "out")
    runs = ShortRuns(graph, tmp_path, 2, 100.0)
    runs.imports = 1.0
    code = (
        "import os, sys, time\n"
        f"open({str(tmp_path / 'seen')!r}, 'a').write(sys.argv[-1][-8:] + os.environ['CUDA_VISIBLE_DEVICES'] + ' ')\n"
        f"while len(open({str(tmp_path / 'seen')!r}).read().split()) < 2: time.sleep(0.01)"
    )
    stage = Stage("plain", [sys.executable, "-c", code, "measured"], tmp_path / "plain" / "plain.nemo")
    runs._run(stage, beside=2, trains=True)
    assert sorted((tmp_path / "seen").read_text().split()) == ["beside-1" + "1", "measured" + "0"]
