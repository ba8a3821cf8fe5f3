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
"""What messages tell people to do can be done: the options that they name are there."""

import argparse
import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from nemo_distill.cli.parser import build_parser

ROOT = Path(__file__).parents[2]
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*[a-z](?!\w)")
OTHERS = {"--disable-pip-version-check", "--only-binary", "--dest", "--no-deps", "--ignore-requires-python"}
OTHERS |= {"--no-build-isolation"}
"""Of pip."""
OF_SLURM = {
    "--allocations",
    "--chdir",
    "--dependency",
    "--gpus-per-node",
    "--job-name",
    "--kill-on-invalid-dep",
    "--me",
    "--noheader",
    "--ntasks-per-node",
    "--open-mode",
    "--parsable",
    "--requeue",
    "--signal",
    "--state",
    "--states",
    "--test-only",
    "--time",
    "--wrap",
}
"""Of sbatch, squeue, sacct, sinfo and scancel."""


def verbs(parser: argparse.ArgumentParser, name: str = "") -> Iterator[tuple[str, set[str]]]:
    """Yield each verb and its options."""
    yield name, {option for action in parser._actions for option in action.option_strings}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb, inner in action.choices.items():
                yield from verbs(inner, f"{name} {verb}".lstrip())


def words_of(path: Path) -> set[str]:
    """Return the options in the texts of a file, of which messages are made; not in docstrings."""
    tree = ast.parse(path.read_text("utf-8"))
    documented = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    texts = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return {word for node in texts if id(node) not in documented for word in OPTION.findall(node.value)}


VERBS = dict(verbs(build_parser()))
KNOWN = OTHERS.union(OF_SLURM, *VERBS.values())


@pytest.mark.parametrize("path", sorted((ROOT / "nemo_distill").rglob("*.py")), ids=lambda path: path.stem)
def test_options_in_messages_are_there(path):
    assert words_of(path) <= KNOWN


def test_who_opens_an_archive_can_trust_it():
    """`archives/config.py` gives this advice wherever it refuses one."""
    opening = [verb for verb, options in VERBS.items() if {"--teacher", "--model"} & options]
    assert len(opening) > 5
    assert [verb for verb in opening if "--trust-archive" not in VERBS[verb]] == ["report"]  # which opens none
    assert "$(if $(TRUST_ARCHIVE),--trust-archive)" in (ROOT / "Makefile").read_text("utf-8")
