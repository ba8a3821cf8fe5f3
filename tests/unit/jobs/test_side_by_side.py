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
"""How many stages fit side by side, and beside how many each runs."""

import pytest

from nemo_distill.jobs import devices, side_by_side
from nemo_distill.jobs.graph import Graph
from nemo_distill.jobs.recipe import read_recipe
from nemo_distill.jobs.side_by_side import beside, fitting_jobs, free_memory


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A factory of machines with cores, free memory, the user's threads and GPUs."""

    def make(cores: int, free: float, threads: str | None = None, gpus: bool = False, visible: str | None = None):
        monkeypatch.setattr("nemo_distill.support.threads.cores", lambda: cores)
        monkeypatch.setattr(side_by_side, "cores", lambda: cores)
        monkeypatch.setattr(side_by_side, "free_memory", lambda: free)
        for variable, value in (("OMP_NUM_THREADS", threads), ("CUDA_VISIBLE_DEVICES", visible)):
            if value is None:
                monkeypatch.delenv(variable, raising=False)
            else:
                monkeypatch.setenv(variable, value)
        monkeypatch.setattr(devices, "_GPUS", tmp_path if gpus else tmp_path / "none")

    return make


@pytest.mark.parametrize(
    ("given", "jobs"),
    [
        ({"cores": 2, "free": 20e9}, 2),
        ({"cores": 16, "free": 9e9}, 4),
        ({"cores": 16, "free": 1e9}, 1),
        ({"cores": 16, "free": 100e9, "threads": "4"}, 4),
        ({"cores": 2, "free": 100e9, "threads": "2"}, 1),
        ({"cores": 16, "free": 100e9, "gpus": True}, 1),
        ({"cores": 16, "free": 100e9, "gpus": True, "visible": "0,1"}, 1),
        ({"cores": 16, "free": 100e9, "gpus": True, "visible": ""}, 16),
    ],
)
def test_as_many_as_fit(machine, given, jobs):
    machine(**given)
    assert fitting_jobs() == jobs


def test_a_large_teacher_leaves_room_for_fewer(machine, tmp_path):
    machine(8, 30e9)
    teacher = tmp_path / "large.nemo"
    with open(teacher, "wb") as file:
        file.truncate(2_000_000_000)
    assert fitting_jobs([teacher]) == 3  # 2 GB, and four times its own


def test_a_control_group_limits_memory(monkeypatch, tmp_path):
    (tmp_path / "limit").write_text("5000\n")
    (tmp_path / "used").write_text("2000\n")
    (tmp_path / "none").write_text("max\n")
    stat = ["file 900", "inactive_file 500", "active_file 200", "total_inactive_file 600", "total_active_file 300"]
    (tmp_path / "memory.stat").write_text("\n".join(stat) + "\n")
    own = [files for *_, files in side_by_side._LIMITS]
    for files, free in zip(own, (3700, 3900), strict=True):  # text that was read makes room, as `available` counts
        limits = [tuple(tmp_path / name for name in (limit, "used")) for limit in ("none", "limit", "missing")]
        monkeypatch.setattr(side_by_side, "_LIMITS", [(*each, files) for each in limits])
        assert free_memory() == free
    (tmp_path / "memory.stat").unlink()
    assert free_memory() == 3000
    monkeypatch.setattr(side_by_side, "_LIMITS", ())
    assert free_memory() > 1e8


def test_who_runs_alone_has_all_cores(tmp_path):
    recipe = read_recipe(None, {"corpus": "ui-strings"}, ["student={}"])
    needs = {stage.name: stage.needs for stage in Graph(recipe, tmp_path).stages()}
    assert beside(needs, 1) == dict.fromkeys(needs, 1)
    shared = beside(needs, 8)
    assert {name for name, count in shared.items() if count == 1} == {"corpus", "tokenizer", "evaluation", "report"}
    assert {shared[name] for name in ("teacher", "plain", "cache-teacher")} == {2}
    assert beside({"a": (), "b": (), "c": (), "d": ("a",), "e": ("elsewhere",)}, 3)["d"] == 3
