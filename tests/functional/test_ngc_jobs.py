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
"""The NGC jobs: the commands that they print, down to the process on each node."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from nemo_distill.cli.parser import build_parser

ROOT = Path(__file__).parents[2]
JOBS = {
    "label.sh": {"TEACHER": "a teacher.nemo", "INPUT": "it's.de", "OUTPUT_DIR": "labels"},
    "cache.sh": {"TEACHER": "a teacher.nemo", "LABELS": "labels", "OUTPUT_DIR": "cache"},
    "distill.sh": {"TEACHER": "a.nemo", "DATA_DIR": "data", "TOKENIZER": "t.model", "OUTPUT_DIR": "runs/student"},
}
PLACE = {"IMAGE": "registry/nemo-distill:1", "INSTANCE": "dgxa100.80g.8.norm", "WORKSPACE": "work"}


def run(script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("NGC", "SLURM"))}
    return subprocess.run(
        ["bash", str(ROOT / "examples/ngc" / script), *arguments],
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=20,
    )


def printed(script: str, *arguments: str, **variables: str) -> list[str]:
    """Return the words of the one command that a dry run prints."""
    done = run(script, "--dry-run", *arguments, **variables)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    return shlex.split(done.stdout)


def on_a_node(words: list[str], **variables: str) -> list[str]:
    """Follow a job's command line through bcprun and node.sh; return what runs on a node after torchrun's options."""
    line = shlex.split(words[words.index("--commandline") + 1])
    if line[0] == "bcprun":
        line = shlex.split(line[line.index("--cmd") + 1])
    assert line[:2] == ["bash", "/workspace/nemo_distill/examples/ngc/node.sh"]
    return printed("node.sh", *line[2:], NGC_GPUS_PER_NODE="8", **variables)


def test_every_job_is_tested():
    assert {path.name for path in (ROOT / "examples/ngc").iterdir()} == {*JOBS, "common.sh", "node.sh"}


@pytest.mark.parametrize("script", JOBS)
def test_one_node(script):
    words = printed(script, **JOBS[script], **PLACE)
    assert words[:4] == ["ngc", "base-command", "job", "run"]
    given = dict(zip(words[4::2], words[5::2], strict=True))
    assert given["--workspace"] == "work:/mnt/workspace:RW"
    assert given["--preempt"] == "RESUMABLE"
    assert not {"--replicas", "--array-type", "--ace", "--org", "--team"} & given.keys()
    node = on_a_node(words)
    assert node[:3] == [f"{ROOT}/.venv/bin/torchrun", "--nproc-per-node=8", "--standalone"]


@pytest.mark.parametrize("script", JOBS)
def test_several_nodes(script):
    words = printed(script, **JOBS[script], **PLACE, REPLICAS="4", ACE="ace", ORG="org", TEAM="team")
    given = dict(zip(words[4::2], words[5::2], strict=True))
    assert (given["--replicas"], given["--array-type"]) == ("4", "PYTORCH")
    assert (given["--ace"], given["--org"], given["--team"]) == ("ace", "org", "team")
    assert given["--commandline"].startswith("bcprun --nnodes 4 --npernode 1 --cmd ")
    node = on_a_node(words, NGC_ARRAY_SIZE="4", NGC_ARRAY_INDEX="2", NGC_JOB_ID="9")
    assert {"--nnodes=4", "--node-rank=2", "--nproc-per-node=8", "--master-addr=launcher-svc-9"} < set(node)


def test_commands_are_those_of_the_command_line():
    node = on_a_node(printed("label.sh", "--select", "best", **JOBS["label.sh"], **PLACE, REPLICAS="2"))
    args = build_parser().parse_args(node[node.index("pseudo-label") :])
    assert (args.teacher, args.input, args.output_dir) == (["a teacher.nemo"], ["it's.de"], "labels")
    node = on_a_node(printed("cache.sh", "--top-k", "8", **JOBS["cache.sh"], **PLACE))
    args = build_parser().parse_args(node[node.index("cache") :])
    assert (args.teacher, args.labels, args.top_k) == (["a teacher.nemo"], ["labels"], 8)


def test_the_configuration_composes():
    words = printed("distill.sh", "model=wide_3x3", **JOBS["distill.sh"], **PLACE, REPLICAS="2")
    node = on_a_node(words, NGC_ARRAY_SIZE="2", NGC_ARRAY_INDEX="0", NGC_MASTER_ADDR="first")
    assert "--master-addr=first" in node
    script = node.index(f"{ROOT}/examples/distill.py")
    with initialize_config_dir(str(ROOT / "configs"), version_base=None):
        config = compose("distill", node[script + 1 :])
    assert (config.trainer.num_nodes, config.trainer.devices, config.trainer.accelerator) == (2, 8, "gpu")
    assert (config.teacher, config.data.dir, config.output_dir) == ("a.nemo", "data", "runs/student")


@pytest.mark.parametrize("script", JOBS)
def test_a_missing_value_is_one_line(script):
    for variables, message in (
        (PLACE, "no value for [A-Z_ ]*OUTPUT_DIR; give "),
        (JOBS[script], "no value for IMAGE INSTANCE WORKSPACE; give IMAGE="),
    ):
        done = run(script, **variables)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
        assert re.search(message, done.stderr)
