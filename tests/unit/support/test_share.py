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
"""Which process this is, of how many."""

import os

import pytest

from nemo_distill.cli import main
from nemo_distill.errors import InputError
from nemo_distill.support.share import Share, local_rank

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")


@pytest.fixture
def environment(monkeypatch):
    """A function that sets variables, with no others of torchrun and Slurm."""
    for name in list(os.environ):
        if name in VARIABLES or name.startswith("SLURM_"):
            monkeypatch.delenv(name)

    def choose(variables: dict[str, str]) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return choose


IN_STEP = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_LOCALID": "0"}
TORCHRUN = {"RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "0"}


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({}, (0, 1)),
        (TORCHRUN, (2, 4)),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, (1, 2)),
        (IN_STEP, (1, 2)),
        (IN_STEP | {"SLURM_STEP_NUM_TASKS": "3"}, (1, 3)),  # of the step, not of the job
        (IN_STEP | TORCHRUN, (2, 4)),  # torchrun in a step of Slurm
        (IN_STEP | {"WORLD_SIZE": "2"}, (1, 2)),  # as scripts export it beside MASTER_ADDR
        ({"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, (0, 1)),  # a batch script without srun
        ({"WORLD_SIZE": "1"}, (0, 1)),
    ],
)
def test_rank_of_how_many(environment, variables, place):
    environment(variables)
    share = Share.from_environment()
    assert (share.rank, share.world_size) == place


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK is 2 of WORLD_SIZE 2; it must be 0 to WORLD_SIZE - 1"),
        ({"RANK": "one"}, "environment variable RANK is 'one'"),
        ({"WORLD_SIZE": "-1"}, "environment variable WORLD_SIZE is '-1'"),
        ({"SLURM_PROCID": "x"}, "environment variable SLURM_PROCID is 'x'"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is set, and RANK is not: .* start them with torchrun or srun"),
        ({"RANK": "0"}, "RANK is set, and WORLD_SIZE is not: .* or unset RANK"),
        ({"SLURM_PROCID": "2", "SLURM_NTASKS": "2"}, "SLURM_PROCID is 2 of SLURM_NTASKS 2"),
        (IN_STEP | {"WORLD_SIZE": "8"}, "WORLD_SIZE is 8, without RANK, but srun started 2 tasks"),
    ],
)
def test_bad_environment(environment, variables, message):
    environment(variables)
    with pytest.raises(InputError, match=message):
        Share.from_environment()


@pytest.mark.parametrize(
    ("variables", "place"),
    [({}, None), (IN_STEP, ("SLURM_LOCALID", 0)), (IN_STEP | TORCHRUN | {"LOCAL_RANK": "3"}, ("LOCAL_RANK", 3))],
)
def test_place_on_this_machine(environment, variables, place):
    environment(variables)
    assert local_rank() == place


def test_tasks_of_srun_share_the_labels(environment, tmp_path, capsys):
    """Each says which one it is, and the first alone writes translations that are there already."""
    source, given, outputs = tmp_path / "train.de", tmp_path / "given.en", tmp_path / "labels"
    source.write_text("".join(f"Das ist Satz {number}.\n" for number in range(12)))
    given.write_text("".join(f"This is line {number}.\n" for number in range(12)))
    command = ["pseudo-label", "--hypotheses", str(given), "--input", str(source), "--output-dir", str(outputs)]
    for rank in (1, 0):
        environment(IN_STEP | {"SLURM_PROCID": str(rank)})
        assert main(command) == 0
        assert capsys.readouterr().out.startswith(f"process {rank + 1} of 2 (rank {rank})\n")
        assert outputs.exists() == (rank == 0)
