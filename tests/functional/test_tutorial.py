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
"""The commands of docs/tutorial.md, as they stand, one after the other; a slow test runs them all on a tiny corpus."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nemo_distill import cli
from nemo_distill.jobs.recipe import read_recipe

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tutorial.md"
SIZES = [
    "student={model: tiny_1x1, steps: 2, overrides: [model.encoder.hidden_size=16, model.encoder.inner_size=32]}",
    "validations=1",
    "overrides=[exp_manager.create_tensorboard_logger=false]",
    "runs={plain: {plain: true}, student: {overrides: [distillation=hinton]}}",
]
"""What the slow test sets besides, by the last word of `plan` and `run`: later settings win. Without the hybrid: what
the tiny teacher writes looks raw, though it is said to be processed, and training refuses that."""
WRAPPER = """#!{python}
import sys
from nemo_distill.cli.__main__ import main
sizes = {sizes!r} if sys.argv[1:2] in (["plan"], ["run"]) else []
sys.argv += ["--set", *sizes] if sizes else []
sys.exit(main())
"""


def commands() -> list[str]:
    """Return the commands of the page, in order; text between them is what they print."""
    blocks = re.findall(r"^```bash\n(.*?)^```", PAGE.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def test_there_are_ten():
    assert len(commands()) == 10
    assert PAGE.read_text("utf-8").count("```text\n") >= 8


@pytest.mark.parametrize("command", commands(), ids=lambda command: command[:40])
def test_each_can_be_typed(command):
    """Verbs and options are there, and so are the keys that are set."""
    words = shlex.split(command.partition(" <")[0].rpartition("| ")[2])
    if words[0] != "nemo-distill":
        assert words[0] in ("python", "tar")
        return
    args = cli.build_parser().parse_args(words[1:])
    assert args.verb == words[1]
    if args.verb in ("plan", "run"):
        recipe = read_recipe(None, {"corpus": "mine", "teacher": list(map(str, args.teacher))}, args.set)
        assert recipe.student.steps == 1200


@pytest.mark.slow
def test_they_do_what_the_page_says(tiny_teacher_path, tiny_corpus, tmp_path):
    """All in one shell, but for the corpus, which is fetched: a user has one."""
    shutil.copytree(tiny_corpus, tmp_path / "mine")
    shutil.copy(tiny_teacher_path, tmp_path / "my.nemo")
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "nemo-distill").write_text(WRAPPER.format(python=sys.executable, sizes=SIZES))
    (programs / "nemo-distill").chmod(0o755)
    fetch, *others = commands()
    assert fetch.startswith("nemo-distill corpus")
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(others)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| teacher |" in done.stdout
    assert "To deploy: runs/first/export, made of " in done.stdout
    assert "[plain] finished before" in done.stdout
    assert "Predicted by `nemo-distill plan`, and real:" in done.stdout
    assert "the job is finished" in done.stdout
    assert (tmp_path / "runs/first/report/report.html").stat().st_size > 10_000
    assert len((tmp_path / "test.en").read_text("utf-8").splitlines()) == 20
    assert (tmp_path / "student.tgz").stat().st_size > 1000
    assert (tmp_path / "speed" / "speed.md").is_file()
