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
"""Commands that pages and configurations show compose as they stand: no key needs a `+` that is not shown. Those of
verbs parse, and what they say of a recipe that is there can be read.
"""

import re
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from nemo_distill.cli import build_parser
from nemo_distill.cli.first_steps import GROUPS
from nemo_distill.jobs.recipe import UI_STRINGS, read_recipe

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "configs").rglob("*.yaml")])
RECIPES = sorted((ROOT / "examples" / "recipes").glob("*.yaml"))
VERB = re.compile(r"^ *nemo-distill ((?:[^\n`]*\\\n)*[^\n`]*)$", flags=re.MULTILINE)
COMMAND = re.compile(r"examples/(distill|train_nmt)\.py((?:[^\n]*\\\n)*[^\n`]*)")


def commands() -> list:
    """Return each command of a page: its entry, and the overrides."""
    found = []
    for page in PAGES:
        text = re.sub(r"^#", " ", page.read_text("utf-8"), flags=re.MULTILINE)
        for entry, rest in COMMAND.findall(text):
            words = shlex.split(rest.replace("\\\n", " "), comments=True)
            overrides = [word for word in words if re.match(r"[+~]{0,2}[a-z_.]+=", word)]
            if overrides:
                found.append(pytest.param(entry, overrides, id=f"{page.stem}-{len(found)}"))
    return found


def test_there_are_commands():
    assert len(commands()) > 30


@pytest.mark.parametrize(("entry", "overrides"), commands())
def test_it_composes(entry, overrides):
    with initialize_config_dir(str(ROOT / "configs"), version_base=None):
        compose(entry, overrides)


def verb_commands() -> list:
    """Return the words of each command of a verb; what is cut short by `...` is none."""
    verbs, found = {verb for group in GROUPS.values() for verb in group}, []
    for page in [*PAGES, *RECIPES]:
        text = re.sub(r"^#", " ", page.read_text("utf-8"), flags=re.MULTILINE)
        for rest in VERB.findall(text):
            words = shlex.split(re.split(r"&&|[|<>]", rest.replace("\\\n", " "))[0], comments=True)
            if words[0] in verbs and "..." not in words:
                found.append(pytest.param(words, id=f"{page.stem}-{len(found)}"))
    return found


def test_there_are_commands_of_verbs():
    assert len(verb_commands()) > 120


@pytest.mark.parametrize("words", verb_commands())
def test_it_parses(words):
    args = build_parser().parse_args(words)
    if Path(getattr(args, "recipe", None) or "").is_relative_to("examples"):
        given = {key: getattr(args, key) for key in ("corpus", "source", "target") if getattr(args, key) is not None}
        corpus = read_recipe(ROOT / args.recipe, {key: str(each) for key, each in given.items()}, args.set).corpus
        assert corpus in (UI_STRINGS, "DIR") or corpus.startswith("data/")
