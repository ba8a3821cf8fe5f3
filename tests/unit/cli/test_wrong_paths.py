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

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nemo_distill import cli

ROOT = Path(__file__).parents[3]
HEAVY = ("torch", "nemo", "pytorch_lightning", "lightning", "transformers", "ctranslate2")
PROGRAM = (
    "import runpy, sys\n"
    "sys.argv = sys.argv[1:]\n"
    "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
    f"finally:\n    print('HEAVY', [name for name in {HEAVY!r} if name in sys.modules])\n"
)
"""Run a script, and print what it has imported."""
VERB = "nemo_distill/cli/__main__.py"
MODEL, TEST = "--model none.nemo", "--test t:none.de:none.en"
DATA = "data.dir=data data.tokenizer=data/tokenizer output_dir=out"
SOURCES, TEACHER = "--source data/train.de --target data/train.en", "--teacher none.nemo"
CASES = {
    "corpus ui-strings": ("--cache-dir file --source de --target en --output-dir out", "file"),
    "corpus multi30k": ("--from none --source de --target en --output-dir out", "'none' is not a directory"),
    "tokenizer": ("--input none.de --vocab-size 100 --output-dir out", "'none.de' does not exist; check the path"),
    "preprocess": ("--source none.de --source-lang de --output-dir out", "'none.de' does not exist; check the path"),
    "init": (f"{TEACHER} --student file --output out.nemo", "'none.nemo' does not exist; give the path of a .nemo"),
    "leak-check": ("--train none.de --test file", "'none.de' does not exist; check the path"),
    "pseudo-label": (f"{TEACHER} --input data/train.de --output-dir out", "'none.nemo' does not exist; give the path"),
    "select": ("--nbest none --output-dir out", "'none' holds no finished n-best lists"),
    "cache": (f"{TEACHER} {SOURCES} --output-dir out", "'none.nemo' does not exist; give the path of a .nemo file"),
    "evaluate": (f"--model file {TEST} --output-dir out", "'none.de' does not exist; check the path"),
    "report": ("--results none --output-dir out", "'none' does not exist; check the path"),
    "export": (f"{MODEL} --output-dir out", "'none.nemo' does not exist; give the path of a .nemo file"),
    "speed": (f"--model file {TEST} --output-dir out", "'none.de' does not exist; check the path"),
}
MORE = [
    ("preprocess", "--corpus none --source-lang de --target-lang en --output-dir out", "'none' does not exist"),
    ("init", "--teacher file --student none.yaml --output out.nemo", "'none.yaml' does not exist; give the YAML file"),
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
    ("report", "--results file --layout none.json --output-dir out", "'none.json' does not exist; check the path"),
    ("export", "--model file --quantization int9 --output-dir out", "quantization is 'int9'; give one of"),
    ("speed", f"{MODEL} --test t:file:file --output-dir out", "'none.nemo' does not exist; give the path"),
    ("speed", "--model file --test t:file:file --engines int9 --output-dir out", "engine 'int9': give any of nemo"),
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
    ("sweep.py", "none.yaml --corpus data --output-dir out", "there is no file none.yaml"),
    (
        "sweep.py",
        f"{ROOT}/examples/plans/multi30k.yaml --corpus none --output-dir out",
        "the corpus 'none' does not exist",
    ),
    ("end_to_end/run.py", "--corpus none --output-dir out", "the corpus 'none' does not exist"),
    ("end_to_end/run.py", "--corpus data --teacher none.nemo --output-dir out", "'none.nemo' does not exist"),
]


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    """A directory with some data, in which all programs run."""
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    for name in ("file", *(f"data/{split}.{code}" for split in ("train", "valid", "test") for code in ("de", "en"))):
        Path(name).write_text("text\n")
    Path("data/tokenizer").write_text("no tokenizer\n")


def run(script: str, arguments: str) -> tuple[int, list[str], str]:
    """Return the status of a script, its lines on standard error, and what it has printed."""
    command = [sys.executable, "-c", PROGRAM, str(ROOT / script), *arguments.split()]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    return done.returncode, done.stderr.splitlines(), done.stdout


def check(script: str, arguments: str, said: str) -> None:
    status, errors, printed = run(script, arguments)
    assert status == 2, errors
    assert said in "\n".join(errors), errors
    assert not any(line.startswith("Traceback") for line in errors)
    assert "HEAVY []" in printed
    assert not Path("out").exists()


def test_every_verb_has_a_case():
    verbs = next(action for action in cli.build_parser()._actions if action.dest == "verb").choices
    assert {words.split()[0] for words in CASES} == set(verbs)


@pytest.mark.parametrize("words", CASES)
def test_a_wrong_path_imports_nothing_heavy(words):
    arguments, said = CASES[words]
    check(VERB, f"{words} {arguments}", said)


@pytest.mark.parametrize(("words", "arguments", "said"), MORE, ids=[f"{each[0]}: {each[2][:30]}" for each in MORE])
def test_other_wrong_arguments_import_nothing_heavy(words, arguments, said):
    check(VERB, f"{words} {arguments}", said)


@pytest.mark.parametrize(
    ("script", "arguments", "said"), SCRIPTS, ids=[f"{each[0]}: {each[2][:30]}" for each in SCRIPTS]
)
def test_a_wrong_path_of_a_script_imports_nothing_heavy(script, arguments, said):
    check(f"examples/{script}", arguments, said)


@pytest.mark.parametrize("script", ["distill.py", "train_nmt.py", "sweep.py", "end_to_end/run.py"])
def test_help_of_a_script_imports_nothing_heavy(script):
    status, errors, printed = run(f"examples/{script}", "--help")
    assert status == 0, errors
    assert "HEAVY []" in printed
