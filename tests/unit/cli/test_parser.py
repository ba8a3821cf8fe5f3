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
"""The command line as a whole: quick, documented, with the exit status that it promises."""

import argparse
import os
import re
import shlex
import subprocess
import sys

import pytest

from nemo_distill import cli
from nemo_distill.cli import options
from nemo_distill.cli.first_steps import FIRST
from nemo_distill.errors import InputError

HEAVY = ("torch", "nemo", "pytorch_lightning", "lightning", "transformers", "sacrebleu", "matplotlib", "omegaconf")


def verbs() -> dict[str, argparse.ArgumentParser]:
    """Return each verb with its parser; `corpus ui-strings` and other verbs of two words under both words."""
    found = {}

    def walk(parser: argparse.ArgumentParser, words: tuple[str, ...]) -> None:
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for word, child in action.choices.items():
                    found[" ".join((*words, word))] = child
                    walk(child, (*words, word))

    walk(cli.build_parser(), ())
    return found


VERBS = verbs()


@pytest.mark.parametrize("words", ["", *VERBS])
def test_help_is_quick_and_imports_nothing_heavy(words):
    code = (
        "import sys\n"
        "from nemo_distill import cli\n"
        "try:\n    cli.main(sys.argv[1:])\n"
        f"finally:\n    print('HEAVY', [name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    before = os.times()
    done = subprocess.run(
        [sys.executable, "-c", code, *words.split(), "--help"], capture_output=True, text=True, timeout=60
    )
    after = os.times()
    assert done.returncode == 0, done.stderr
    assert "usage: nemo-distill" in done.stdout
    assert "HEAVY []" in done.stdout
    # Of processor time: by the clock a busy machine is slow.
    assert after.children_user + after.children_system - before.children_user - before.children_system < 2


@pytest.mark.parametrize("words", list(VERBS))
def test_every_option_is_documented(words):
    silent = [
        action.metavar or action.dest
        for action in VERBS[words]._actions
        if not action.help or action.help is argparse.SUPPRESS
        if not isinstance(action, argparse._SubParsersAction)
    ]
    assert not silent, f"`nemo-distill {words}` does not say what these are for: {silent}"
    assert VERBS[words].description, f"`nemo-distill {words} --help` needs a description"


def test_every_verb_is_in_the_overview():
    overview = cli.build_parser().format_help()
    for verb in VERBS:
        assert verb.split()[0] in overview


@pytest.mark.parametrize("arguments", [["distil"], ["--no-such-option"]])
def test_bad_usage_gives_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert "usage: nemo-distill" in capsys.readouterr().err


def test_without_a_verb_it_says_what_to_do_first():
    """It said that an argument is missing. Each verb is there once, with what it does; quickly, as the help is."""
    code = "import sys; from nemo_distill import cli; status = cli.main([]); "
    code += f"print('HEAVY', [name for name in {HEAVY!r} if name in sys.modules]); sys.exit(status)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    assert done.stderr == ""
    assert "HEAVY []" in done.stdout
    first, _, verbs = done.stdout.partition("A whole job:")
    shown = [line.split()[0] for line in verbs.splitlines() if line.startswith("    ")]
    assert sorted(shown) == sorted(words for words in VERBS if " " not in words)
    for verb in VERBS:
        if " " not in verb:
            assert re.search(rf"    {verb} +\w.{{20}}", verbs)
    assert max(map(len, first.splitlines())) <= 119


def test_what_is_to_be_done_first_can_be_typed():
    """Each command that is said parses as it stands."""
    commands = re.findall(r"^    nemo-distill (.*?)(?:  .*)?$", FIRST, flags=re.MULTILINE)
    assert len(commands) == 4
    for command in commands:
        words = shlex.split(command.partition(" <")[0])
        assert cli.build_parser().parse_args(words).verb == words[0]


def test_unknown_verb_is_named(capsys):
    with pytest.raises(SystemExit):
        cli.main(["distil"])
    assert "distil" in capsys.readouterr().err


def test_input_error_gives_one_line_and_status_2(monkeypatch, capsys):
    def run(args: argparse.Namespace) -> None:
        raise InputError("the file 'x' does not exist; give another")

    parser = argparse.ArgumentParser(prog="nemo-distill")
    parser.add_argument("verb")
    parser.set_defaults(run=run)
    monkeypatch.setattr("nemo_distill.cli.parser.build_parser", lambda: parser)
    assert cli.main(["evaluate"]) == 2
    assert capsys.readouterr().err.strip() == "nemo-distill evaluate: the file 'x' does not exist; give another"


def test_version(capsys):
    from nemo_distill import __version__

    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.strip() == f"nemo-distill {__version__}"


def path_options() -> list[tuple[str, str]]:
    """Return every option that takes a path, with its verb; one without a name by the word that help has for it."""
    return [
        (words, (*action.option_strings, action.metavar)[0])
        for words, parser in VERBS.items()
        for action in parser._actions
        if action.metavar in ("FILE", "DIR", "PATH") or (action.option_strings and action.dest.endswith("_dir"))
    ]


def test_an_empty_path_is_refused(capsys):
    """As of a variable of the shell that is not set: it would be the current directory."""
    options = path_options()
    assert len(options) > 25
    for words, option in options:
        with pytest.raises(SystemExit) as stopped:
            cli.main([*words.split(), *([option] if option.startswith("-") else []), ""])
        assert stopped.value.code == 2
        error = capsys.readouterr().err
        assert error.splitlines()[-1].endswith(f"argument {option}: it is empty; give a path"), (words, error)


def test_a_home_directory_in_every_path(monkeypatch, tmp_path):
    """`--option=~/file` comes without the shell's expansion. Every option that takes a path is of a kind of them."""
    monkeypatch.setenv("HOME", str(tmp_path))
    paths, named = set(), set()
    for verb, parser in VERBS.items():
        for action in parser._actions:
            if isinstance(action.type, type) and issubclass(action.type, options.GivenPath):
                paths.add((verb, action.dest))
            if action.metavar in ("FILE", "DIR", "PATH") or (action.option_strings and action.dest.endswith("_dir")):
                named.add((verb, action.dest))
    assert named <= paths
    assert len(paths) >= 20
    assert {("cache", "source"), ("evaluate", "output_dir"), ("pseudo-label", "teacher")} <= paths
    assert options.GivenPath("~/a.nemo") == str(tmp_path / "a.nemo")
    assert options.GivenPath("a/~/b") == "a/~/b"
