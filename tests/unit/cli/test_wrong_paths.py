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
"""A wrong path ends a verb or a script with its one line, before torch and NeMo are imported, which takes seconds."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nemo_distill import cli
from nemo_distill.cli.jobs import Corpus
from nemo_distill.cli.options import (
    Archive,
    GivenPath,
    InputDirectory,
    InputFile,
    InputPath,
    Model,
    OutputDirectory,
    OutputFile,
)

ROOT = Path(__file__).parents[3]
HEAVY = ("torch", "nemo", "pytorch_lightning", "lightning", "transformers", "ctranslate2")
PROGRAM = f"""
import contextlib, io, json, os, runpy, sys
for script, *sys.argv[1:] in json.load(sys.stdin):
    sys.argv[0], status = script, 0
    with contextlib.redirect_stderr(io.StringIO()) as errors, contextlib.redirect_stdout(io.StringIO()):
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as end:
            status = end.code
    print(json.dumps([status, errors.getvalue(), [name for name in {HEAVY!r} if name in sys.modules]]))
"""
"""Run scripts in one process; print of each its status, what it says, and what has been imported so far."""
VERB = "nemo_distill/cli/__main__.py"
MODEL, TEST = "--model none.nemo", "--test t:none.de:none.en"
DATA = "data.dir=data data.tokenizer=data/tokenizer output_dir=out"
SOURCES, TEACHER = "--source data/train.de --target data/train.en", "--teacher none.nemo"
RECIPE = f"{ROOT}/examples/recipes/multi30k.yaml"
CASES = {
    "corpus ui-strings": ("--cache-dir file --source de --target en --output-dir out", "file"),
    "corpus multi30k": (
        "--from none --source de --target en --output-dir out",
        "'none' does not exist; check the path",
    ),
    "corpus own": (
        "--text none file --source de --target en --output-dir out",
        "'none' does not exist; check the path",
    ),
    "tokenizer": ("--input none.de --vocab-size 100 --output-dir out", "'none.de' does not exist; check the path"),
    "preprocess": ("--source none.de --source-lang de --output-dir out", "'none.de' does not exist; check the path"),
    "tokens": ("--input none.de --tokenizer file --output-dir out", "'none.de' does not exist; check the path"),
    "init": (f"{TEACHER} --student file --output out.nemo", "'none.nemo' does not exist; give the path of a .nemo"),
    "leak-check": ("--train none.de --test file", "'none.de' does not exist; check the path"),
    "pseudo-label": (f"{TEACHER} --input data/train.de --output-dir out", "'none.nemo' does not exist; give the path"),
    "select": ("--nbest none --output-dir out", "'none' does not exist; check the path"),
    "cache": (f"{TEACHER} {SOURCES} --output-dir out", "'none.nemo' does not exist; give the path of a .nemo file"),
    "evaluate": (f"--model file {TEST} --output-dir out", "'none.de' does not exist; check the path"),
    "report": ("--results none --output-dir out", "'none' does not exist; check the path"),
    "export": (f"{MODEL} --output-dir out", "'none.nemo' does not exist; give the path of a .nemo file"),
    "translate": ("none.nemo", "'none.nemo' does not exist; give the path of a .nemo file"),
    "speed": (f"--model file {TEST} --output-dir out", "'none.de' does not exist; check the path"),
    "plan": (f"{RECIPE} --corpus none --output-dir out", "'none' does not exist; check the path"),
    "run": (f"{RECIPE} --corpus none --output-dir out", "'none' does not exist; check the path"),
    "status": ("none", "'none' does not exist; check the path"),
}
MORE = [
    ("preprocess", "--corpus none --source-lang de --target-lang en --output-dir out", "'none' does not exist"),
    ("init", "--teacher file --student none.yaml --output out.nemo", "'none.yaml' does not exist; check the path"),
    ("init", "--teacher file --student file --layers none --output out.nemo", "--layers none copies no layers"),
    ("pseudo-label", "--teacher file --input none.de --output-dir out", "'none.de' does not exist; check the path"),
    ("cache", "--teacher file --source none.de --target file --output-dir out", "'none.de' does not exist"),
    ("cache", "--teacher file --labels none --output-dir out", "'none' does not exist; check the path"),
    ("cache", "--teacher file --source file --output-dir out", "got 1 files in --source and 0 in --target"),
    ("evaluate", f"{MODEL} --test t:file:file --output-dir out", "'none.nemo' does not exist; give the path"),
    ("evaluate", f"--model file {TEST} --output-dir file", "'file' cannot be a directory: 'file' is a file"),
    ("evaluate", f"--model file {TEST} --output-dir file/x/y", "'file/x/y' cannot be a directory: 'file' is a file"),
    ("evaluate", "--model file --test t:file --output-dir out", "test set 't:file': write it as name:source-file"),
    ("evaluate", "--model file --test t:file:file --beam-size 0 --output-dir out", "beam size is 0; give at least 1"),
    ("evaluate", "--model file --test t:file:file --quantization int9 --output-dir out", "quantization is 'int9'"),
    ("evaluate", "--model file --test t:data:file --output-dir out", "'data' is a directory; check the path"),
    ("speed", "--model file --test t:file:data --output-dir out", "'data' is a directory; check the path"),
    ("report", "--results file --layout none.json --output-dir out", "'none.json' does not exist; check the path"),
    ("translate", "file --input none.de", "'none.de' does not exist; check the path"),
    ("translate", "file --output data", "'data' is a directory; give another name"),
    ("translate", "file --n-best 0", "n-best is 0; give at least 1"),
    ("export", "--model file --quantization int9 --output-dir out", "quantization is 'int9'; give one of"),
    ("speed", f"{MODEL} --test t:file:file --output-dir out", "'none.nemo' does not exist; give the path"),
    ("speed", "--model file --test t:file:file --engines int9 --output-dir out", "engine 'int9': give any of nemo"),
    ("run", "--teacher file", "give a recipe, or --teacher and --corpus, or --corpus alone"),
    ("run", "none.yaml --corpus data --output-dir out", "'none.yaml' does not exist; check the path"),
    ("run", "file --corpus data --output-dir out", "file:\n  recipe: got 'text'; give a mapping with any of the keys"),
    ("run", f"{RECIPE} --output-dir out", "the recipe names no corpus; give --corpus DIR"),
    (
        "run",
        f"{RECIPE} --corpus data --source fr --output-dir out",
        "'data' lacks train.fr, valid.fr, test.fr; a corpus",
    ),
    ("run", f"{RECIPE} --corpus data --source ../x --output-dir out", "recipe.source: got '../x'; give letters"),
    ("run", f"{RECIPE} --corpus data --jobs 0 --output-dir out", "--jobs: got 0; give at least 1"),
    ("run", f"{RECIPE} --corpus data --set student.step=3 --output-dir out", "(did you mean 'steps'?)"),
    ("run", f"{RECIPE} --corpus data --set student --output-dir out", "--set student: write it as key=value"),
    ("run", f"{RECIPE} --corpus data --set source.x=1 --output-dir out", "'source' is no section of the recipe"),
    ("run", f"{RECIPE} --corpus data --set seeds=[1 --output-dir out", "--set seeds=[1: the value is not YAML"),
    (
        "run",
        f"{RECIPE} --corpus data --teacher none.nemo --output-dir out",
        "'none.nemo' does not exist; give the path",
    ),
    (
        "run",
        f"{RECIPE} --corpus data --set teacher=data --output-dir out",
        "'data' is a directory without config.json, so no model; give a .nemo archive",
    ),
    ("run", f"{RECIPE} --corpus data --set teacher=no.nemo --output-dir out", "'no.nemo' does not exist"),
    ("status", "data", "in 'data' no job has run: it has no progress.json"),
]
SCRIPTS = [
    ("train_nmt.py", DATA.replace("data.dir=data", "data.dir=none"), "model.train_ds.src_file_name: no file none/"),
    ("train_nmt.py", DATA.replace("output_dir=out", "output_dir=file"), "output_dir: 'file' cannot be a directory"),
    ("distill.py", DATA.replace("=out", "=file/x/y") + " teacher=file", "'file/x/y' cannot be a directory: 'file' is"),
    ("train_nmt.py", DATA.replace("output_dir=out", ""), "no value for output_dir; give output_dir=..."),
    ("distill.py", f"{DATA} teacher=none.nemo", "distillation.teacher.model_path: 'none.nemo' does not exist"),
    ("distill.py", f"{DATA} teacher=file distillation=hybrid pseudo=none", "components.pseudo.directory: 'none' does"),
    (
        "distill.py",
        f"{DATA} distillation=hinton_cached cache=none",
        "teacher.cache: 'none' does not exist",
    ),
    ("distill.py", f"{DATA} teacher=data", "distillation.teacher.model_path: 'data' is a directory; give the path of"),
    ("distill.py", f"{DATA} teacher=file ++model.distillation.init.from_nemo=data", "init.from_nemo: 'data' is a dir"),
    (
        "distill.py",
        f"{DATA} distillation=hinton_cached cache=file",
        "teacher.cache: 'file' is a file; give a directory",
    ),
    ("distill.py", f"{DATA} teacher=file distillation=hybrid pseudo=file", "pseudo.directory: 'file' is a file; give"),
    ("train_nmt.py", DATA.replace("tokenizer=data/tokenizer", "tokenizer=data"), "model: 'data' is a directory"),
    (
        "train_nmt.py",
        f"{DATA} model.train_ds.src_file_name=data",
        "model.train_ds.src_file_name: 'data' is a directory",
    ),
    (
        "distill.py",
        f"{DATA} teacher=file +model.distillation.mixture.components.gold={{source:data,target:file}}",
        "mixture.components.gold.source: 'data' is a directory",
    ),
    (
        "train_nmt.py",
        f"{DATA} ++model.train_ds.use_tarred_dataset=true ++model.train_ds.metadata_file=data",
        "train_ds.metadata_file: 'data' is a directory",
    ),
]


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    """A directory with some data, in which all programs run."""
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    for name in ("file", *(f"data/{split}.{code}" for split in ("train", "valid", "test") for code in ("de", "en"))):
        Path(name).write_text("text\n")
    Path("data/tokenizer").write_text("no tokenizer\n")


def run(commands: list[tuple[str, list[str]]]) -> list[tuple[int, str, list[str]]]:
    """Return of each script with its arguments the status, what it says on standard error, and what is imported."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps([[str(ROOT / script), *arguments] for script, arguments in commands]),
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == len(commands), done.stderr
    return results


def check(cases: list[tuple[str, list[str], str]]) -> None:
    """Run scripts with wrong arguments, and look for what is to be said."""
    results = run([(script, arguments) for script, arguments, _ in cases])
    for (script, arguments, said), (status, errors, heavy) in zip(cases, results, strict=True):
        assert status == 2, (script, arguments, errors)
        assert said in errors, (script, arguments, errors)
        assert "Traceback" not in errors, (script, arguments, errors)
        assert not heavy, (script, arguments)
    assert not Path("out").exists()


def test_every_verb_has_a_case():
    verbs = next(action for action in cli.build_parser()._actions if action.dest == "verb").choices
    assert {words.split()[0] for words in CASES} == set(verbs)


RIGHT = {
    **dict.fromkeys((InputFile, InputPath, Archive, Model), "file"),
    InputDirectory: "data",
    OutputDirectory: "out",
    OutputFile: "out",
}
WRONG = {
    InputFile: [("data", "'data' is a directory; check the path"), ("none", "does not exist")],
    InputPath: [("none", "'none' does not exist; check the path")],
    InputDirectory: [
        ("file", "'file' is a file; give a directory"),
        ("none", "'none' does not exist; check the path"),
    ],
    Archive: [("data", "'data' is a directory; give the path of a .nemo"), ("none.nemo", "does not exist")],
    Model: [("data", "'data' is a directory without config.json, so no model"), ("none.nemo", "does not exist")],
    Corpus: [
        ("file", "'file' is a file; give a directory"),
        ("./ui-strings", "'ui-strings' does not exist; check the path"),
    ],
    OutputDirectory: [("file", "'file' cannot be a directory: 'file' is a file"), ("file/x", "cannot be a directory")],
    OutputFile: [("data", "'data' is a directory; give another name"), ("file/x", "'file' cannot be a dir")],
}
"""Of each kind of path what is none, and what is said of it."""
OTHERS = {"--test": "t:file:file", "--source": "de", "--target": "en", "--vocab-size": "100"}
"""Of options that are required and are no paths."""


def verbs_of(parser: argparse.ArgumentParser) -> Iterator[tuple[list[str], list[argparse.Action]]]:
    """Yield the words of each verb, and its options."""
    inner = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not inner:
        yield [], parser._actions
    for name, verb in inner[0].choices.items() if inner else ():
        for words, actions in verbs_of(verb):
            yield [name, *words], actions


def is_path(action: argparse.Action) -> bool:
    return isinstance(action.type, type) and issubclass(action.type, GivenPath)


def test_every_path_of_every_verb_is_checked_for_its_kind_before_anything_heavy_is_imported():
    cases = []
    for words, actions in verbs_of(cli.build_parser()):
        needed = [
            action for action in actions if action.required or (*words, action.dest) == ("pseudo-label", "teacher")
        ]
        for tried in filter(is_path, actions):
            names = ["".join(action.option_strings[:1]) for action in needed]  # that of a positional is empty
            given = {name: RIGHT.get(action.type) or OTHERS[name] for name, action in zip(names, needed, strict=True)}
            if tried.dest == "hypotheses":  # which stands in the teacher's place
                del given["--teacher"]
            for wrong, said in WRONG[tried.type]:
                given["".join(tried.option_strings[:1])] = wrong
                rest = [wrong] * (tried.nargs - 1) if isinstance(tried.nargs, int) else []
                cases.append((VERB, [*words, *(text for pair in given.items() for text in pair if text), *rest], said))
    assert len(cases) > 60
    check(cases)


def test_wrong_arguments_of_verbs_import_nothing_heavy():
    cases = [(words, *case) for words, case in CASES.items()] + MORE
    check([(VERB, f"{words} {arguments}".split(), said) for words, arguments, said in cases])


def test_wrong_paths_of_scripts_import_nothing_heavy():
    check([(f"examples/{script}", arguments.split(), said) for script, arguments, said in SCRIPTS])


def test_help_of_a_script_imports_nothing_heavy():
    scripts = ["distill.py", "train_nmt.py"]
    for status, errors, heavy in run([(f"examples/{script}", ["--help"]) for script in scripts]):
        assert (status, heavy) == (0, []), errors
