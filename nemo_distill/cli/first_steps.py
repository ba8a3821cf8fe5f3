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
"""What `nemo-distill` says where no verb is given: what to do first. Imports nothing heavy."""

import argparse

FIRST = """\
Teach a small translation model what a big one knows.

You have a teacher, a .nemo archive or the name of one on NGC, and a directory with train, valid and test files
of both languages (train.de, train.en ...):

    nemo-distill plan --teacher my.nemo --corpus DIR     how long it will take, and what would be quicker
    nemo-distill run --teacher my.nemo --corpus DIR      students, their table and page, the best one to deploy
    nemo-distill translate runs/run-DIR-my/export < in.de > out.en

You have such a directory alone: the same without --teacher; one is trained first.

You have nothing: fetch a small corpus, real text in 60 languages, and go on with it:

    nemo-distill corpus ui-strings --source de --target en --output-dir data/ui

The same command again goes on where it was stopped. `nemo-distill VERB --help` has the options; docs/tutorial.md
goes all the way, with what each command prints.
"""
GROUPS = {
    "A whole job": ("plan", "run", "status"),
    "Text": ("corpus", "tokenizer", "preprocess", "tokens", "leak-check"),
    "What a teacher gives a student": ("pseudo-label", "select", "cache", "init"),
    "How good, how fast": ("evaluate", "report", "speed"),
    "In use": ("export", "translate"),
}
"""All verbs by what they are for."""


def first_steps(parser: argparse.ArgumentParser) -> str:
    """Return what a newcomer does first, and all verbs of a parser with what they do."""
    (verbs,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    said = {each.dest: each.help for each in verbs._choices_actions}
    width = max(map(len, said)) + 2
    lines = [FIRST]
    for title, names in GROUPS.items():
        lines += [f"{title}:", *(f"    {name:<{width}}{said[name]}" for name in names), ""]
    return "\n".join(lines).rstrip()
