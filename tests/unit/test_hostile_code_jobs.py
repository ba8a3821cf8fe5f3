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
"""Jobs run no code that lies about, that a plan asks for, or that a file's name or an archive's value would become."""

import argparse
import subprocess
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from nemo_distill.cli.parser import build_parser
from nemo_distill.errors import InputError, StageError
from nemo_distill.jobs import Stage, allowed, read_recipe, run_stages, setting, verb_command
from nemo_distill.jobs.running import LOG_HEAD, Processes, essence, shown_command
from nemo_distill.support import isolated

ROOT = Path(__file__).parents[2]


@pytest.fixture
def traps(tmp_path, monkeypatch):
    """A current directory full of modules that leave a trace when they are imported."""
    here = tmp_path / "here"
    here.mkdir()
    for name in ("yaml", "argparse", "youtokentome", "json", "nemo_distill", "runpy", "sitecustomize"):
        (here / f"{name}.py").write_text(f"open({str(here / name)!r} + '.ran', 'w')")
    monkeypatch.chdir(here)
    return here


@pytest.mark.parametrize("by_option", [True, False])
@pytest.mark.parametrize("paths", [str(ROOT), f"{ROOT}:", f":{ROOT}"])
def test_stages_import_nothing_from_the_current_directory(tmp_path, traps, monkeypatch, by_option, paths):
    if not by_option:
        monkeypatch.setattr(isolated.sys, "version_info", (3, 10))
    monkeypatch.setenv("PYTHONPATH", paths)
    Processes().run("one", verb_command("--version"), tmp_path, 1)
    assert (tmp_path / "logs" / "one.log").read_bytes().startswith(LOG_HEAD + b"nemo-distill ")
    assert not list(traps.glob("*.ran"))


def test_the_key_of_a_stage_is_of_what_it_does(monkeypatch):
    commands = [
        verb_command("report", "--results", "x"),
        ["/other/python", *verb_command("report", "--results", "x")[1:]],
    ]
    assert shown_command(commands[0]) == "nemo-distill report --results x"
    monkeypatch.setattr(isolated.sys, "version_info", (3, 10))
    commands.append(verb_command("report", "--results", "x"))
    assert shown_command(commands[-1]) == "nemo-distill report --results x"
    assert essence(commands[-1]) == ["-m", "nemo_distill.cli", "report", "--results", "x"]
    monkeypatch.undo()
    assert essence(commands[0]) == essence(commands[1]) == ["-m", "nemo_distill.cli", "report", "--results", "x"]
    assert essence(["python", "/somewhere/distill.py", "a=1"]) == essence(["p", "/else/distill.py", "a=1"])


def test_a_shown_command_obeys_no_terminal():
    assert shown_command(["python", "a\x1b]0;x\x07b", "\udcff"]) == "python 'a\\x1b]0;x\\x07b' '\\udcff'"


def test_the_end_of_a_log_obeys_no_terminal(tmp_path):
    code = "import sys; print('good\\x1b[2J\\x1b]0;title\\x07 \\u202eevil'); sys.exit(3)"
    with pytest.raises(StageError) as caught:
        run_stages([Stage("one", ["python3", "-c", code], tmp_path / "x")], tmp_path)
    assert "good" in str(caught.value)
    assert all(each.isprintable() or each == "\n" for each in str(caught.value))


def test_progress_obeys_no_terminal(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    code = "print('training: 3 of 9 steps (33 %) \\x1b]0;title\\x07')"
    Processes().run("one", ["python3", "-c", code], tmp_path, 1)
    shown = capsys.readouterr().err
    assert "[one] training: 3 of 9" in shown
    assert "\x1b]" not in shown


@pytest.mark.parametrize(
    "override",
    [
        "output_dir=/home",
        "name=../x",
        "overwrite=true",
        "teacher=x",
        "pseudo=x",
        "cache=x",
        "seed=5",
        "hydra.run.dir=/x",
        "hydra/launcher=x",
        "+hydra.searchpath=[/x]",
        "'++model.encoder={_target_: os.system}'",
        "+model.optim._target_=os.system",
        "'+model.optim={a: [{_target_: os.system}]}'",
        "+model.optim.args.cls=os.system",
        "'model.train_ds.tar_files=pipe:touch x'",
        "'+model.train_ds={tar_files: [\"pipe:touch x\"]}'",
        "model.encoder.library=huggingface",
        "+model.distillation.teacher.trust_archive=true",
        "++model.distillation.init.trust_archive=true",
        "'model.x=${oc.env:HOME}'",
        "trainer.default_root_dir=/x",
        "+trainer.logger=true",
        "exp_manager.exp_dir=/x",
        "'exp_manager={explicit_log_dir: /x}'",
        "exp_manager.checkpoint_callback_params.dirpath=/x",
        "exp_manager.checkpoint_callback_params.filename=../x",
        "model=../../x",
        "distillation=../../x",
        "data.dir=/x",
        "data.target=../x",
        "++model.train_ds.use_cache=true",
        "'+model.validation_ds={cache_ids: true}'",
        "seed=-1",
        "keep=/tmp",
        "+trainer.fast_dev_run=true",
        "++trainer.enable_checkpointing=false",
        "++trainer.barebones=true",
        "trainer.devices=9999",
        "model.train_ds.num_workers=9999",
        "'+model.train_ds.tar_files=\"p\\ipe:x\"'",
        "+model.preproc_out_dir=/tmp/x",
        "+model.nemo_path=/tmp/x.nemo",
        "+model.encoder_tokenizer.vocab_file=x",
        "+model.artifacts=x",
        "exp_manager.checkpoint_callback_params.monitor=../../../esc",
        "model.train_ds.src_file_name=/x/train.fr",
        "'+model.optim.name=\"../x\"'",
        "model.distillation.mixture.components.gold.source=/etc/passwd",
        "++model.distillation.teacher.model_path=x.nemo",
        "++model.distillation.teacher.model_name=nmt_de_en_transformer12x2",
        "'a=1,2'",
        "'data@model=x'",
        "--config-dir=/x",
        "'='",
        "[keep=last]",
        "null",
    ],
)
def test_a_recipe_sets_no_place_and_runs_no_code(tmp_path, override):
    recipe = tmp_path / "recipe.yaml"
    for text in ("runs: {a: {overrides: [X]}}", "{overrides: [X], runs: {a: {}}}"):
        recipe.write_text(text.replace("X", override))
        if override == "seed=5" and text.startswith("{"):
            continue
        with pytest.raises(InputError, match=r"recipe.*overrides: "):
            read_recipe(recipe)


@pytest.mark.parametrize(
    "override",
    [
        *("trainer=gpu", "trainer.precision=bf16-mixed", "trainer.devices=2", "trainer.devices=auto", "keep=last"),
        *(
            "data.tokens_in_batch=512",
            "data.processing=languages",
            "data.processed=true",
            "data.num_workers=2",
            "model.encoder.hidden_size=512",
            "model.encoder.pre_ln=false",
        ),
        *("model.optim.betas=[0.9,0.98]", "model.optim.sched.name=WarmupAnnealing", "~model.optim.sched"),
        *("model.optim.lr=1e-3", "model.encoder.hidden_act=gelu", "model.train_ds.max_seq_length=64", "seed=3"),
        *("exp_manager.checkpoint_callback_params.monitor=val_loss", "exp_manager.max_time_per_run=00:04:00:00"),
        *("model.distillation.objective.hidden.encoder=[[0,1],[1,3]]", "~model.distillation.objective.hidden"),
        "+model.distillation.mixture.components.more={directory: '${pseudo}', fraction: 0.5}",
        "model.distillation.mixture.components.gold.target='${data.dir}/train.${data.target}'",
        "model.decoder.inner_size='${model.encoder.inner_size}'",
    ],
)
def test_a_recipe_says_how_models_are_trained(override):
    assert allowed.override_faults([override], "recipe") == []


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("runs: {../../x: {}}", "recipe.runs: a name"),
        ("runs: {/tmp/x: {}}", "recipe.runs: a name"),
        ("runs: {'a b': {}}", "recipe.runs: a name"),
        ("runs: {-a: {}}", "recipe.runs: a name"),
        ("runs: {'': {}}", "recipe.runs: a name"),
        ("{runs: {a: {}}, pseudo_labels: {../x: {}}}", "recipe.pseudo_labels: a name"),
        ("{runs: {a: {}}, caches: {.x: {}}}", "recipe.caches: a name"),
        ("{runs: {a: {}}, source: ../x}", "recipe.source"),
        ("{runs: {a: {}}, target: 'e n'}", "recipe.target"),
        ("{runs: {a: {}}, teacher: {model: ../../x}}", "recipe.teacher.model"),
        ("{runs: {a: {}}, validations: 0}", "recipe.validations"),
        ("{runs: {a: {seeds: [1, 1]}}}", "recipe.runs.a.seeds"),
        ("{runs: {a: {seeds: [true]}}}", "recipe.runs.a.seeds"),
        ("{runs: {a: {seeds: ['../x']}}}", "recipe.runs.a.seeds"),
        ("{runs: {a: {}}, caches: {c: {options: [--output-dir, /x]}}}", "recipe.caches.c.options"),
        ("{runs: {a: {}}, caches: {c: {options: [--output-dir=/x]}}}", "recipe.caches.c.options"),
        ("{runs: {a: {}}, caches: {c: {options: [--out, /x]}}}", "recipe.caches.c.options"),
        ("{runs: {a: {}}, caches: {c: {options: [--overwrite]}}}", "recipe.caches.c.options"),
        ("{runs: {a: {}}, pseudo_labels: {c: {options: [--trust-archive]}}}", "recipe.pseudo_labels.c.options"),
        ("{runs: {a: {}}, pseudo_labels: {c: {options: [--teacher, x]}}}", "recipe.pseudo_labels.c.options"),
        ("{runs: {a: {}}, pseudo_labels: {c: {options: [--target, /etc/passwd]}}}", "recipe.pseudo_labels.c.options"),
        ("{runs: {a: {}}, pseudo_labels: {c: {options: [--target, '{gold}', /x]}}}", "recipe.pseudo_labels.c.options"),
        ("{runs: {a: {}}, pseudo_labels: {c: {options: [x, --keep-copies]}}}", "recipe.pseudo_labels.c.options"),
        ("{runs: {a: {}}, pseudo_labels: {c: {options: [--engine, ../x]}}}", "recipe.pseudo_labels.c.options"),
        ("{runs: {a: {}}, pseudo_labels: {c: {options: [--]}}}", "recipe.pseudo_labels.c.options"),
        ("{runs: {a: {}}, corpus: --output-dir}", "recipe.corpus"),
        ("{runs: {a: {}}, corpus: 'x${oc.env:HOME}'}", "recipe.corpus"),
        ("{runs: {a: {}}, teacher: --trust-archive}", "recipe.teacher"),
        ("{runs: {a: {}}, teacher: [a.nemo, --overwrite]}", "recipe.teacher"),
        ("{runs: {a: {}}, teacher: [[a.nemo]]}", "recipe.teacher"),
        ("{runs: {a: {}}, teacher: []}", "recipe.teacher"),
        ("{runs: {a: {}}, tests: {t: [a, --overwrite]}}", "recipe.tests.t"),
        ("{runs: {a: {}}, tests: {t: ['a:b', c]}}", "recipe.tests.t"),
        ("{runs: {a: {}}, tests: {--names: [a, b]}}", "recipe.tests: a name"),
        ("{runs: {a: {}}, tests: {t: [a]}}", "recipe.tests.t: got 1 files"),
        ("{runs: {a: {}}, export: ../x}", "recipe.export"),
        ("{runs: {a: {}}, export: int8, export_run: ../x}", "recipe.export_run"),
        ("{runs: {a: {}}, seeds: ['../x']}", "recipe.seeds"),
        ("runs: {logs: {}}", "recipe.runs.logs: the job has something of that name"),
        ("runs: {evaluation: {}}", "recipe.runs.evaluation: the job has something of that name"),
        ("runs: {pseudo-a: {}}", "recipe.runs.pseudo-a: the job has something of that name"),
        ("grid: {temperatures: [../x], starts: {a: []}, objectives: {b: {}}}", "recipe.grid.temperatures"),
        ("grid: {temperatures: [1], starts: {../a: []}, objectives: {b: {}}}", "recipe.runs: a name"),
        ("grid: {temperatures: [1], starts: {a: [name=x]}, objectives: {b: {}}}", "recipe.grid.starts.a"),
    ],
)
def test_names_and_options_of_a_recipe(tmp_path, text, where):
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        read_recipe(tmp_path / "recipe.yaml")
    assert where in str(caught.value)


@pytest.mark.parametrize(
    ("verb", "options"),
    [("pseudo-label", allowed.LABELS), ("select", allowed.SELECTION), ("cache", allowed.CACHES)],
)
def test_the_options_of_a_recipe_are_options_of_its_verbs(verb, options):
    (verbs,) = (each for each in build_parser()._actions if isinstance(each, argparse._SubParsersAction))
    known = {option for action in verbs.choices[verb]._actions for option in action.option_strings}
    assert options <= known


@pytest.mark.parametrize(
    "value",
    ["a b", "a,b", "{_target_: os.system}", "müller/x", "it's", "x\\'y\\", "null", "1e5", "a=b", "[x]", "~", ""],
)
def test_a_value_stays_a_value(value):
    parsed = OverridesParser.create().parse_override(setting("data.dir", value))
    assert (parsed.key_or_group, parsed.value()) == ("data.dir", value)
    assert OverridesParser.create().parse_override(setting("k", [value, None, True])).value() == [value, None, True]


@pytest.mark.parametrize("value", ["${oc.env:HOME}", "a\nb", "a\0b"])
def test_what_no_quoting_keeps_is_refused(value):
    with pytest.raises(InputError, match="data.dir: .* cannot be given to a training"):
        setting("data.dir", value)


def test_the_shell_reads_no_path_of_make_demo_as_code(tmp_path):
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    python.chmod(0o755)
    (tmp_path / "venv" / ".installed-nemo-1.23.txt").touch()
    values = {"CORPUS": f"a b`touch {tmp_path}/ran`", "TEACHER": '"; exit 3; "', "OUT": "x'y", "SOURCE": "$$(exit 3)"}
    command = ["make", "-s", "demo", "NEMO=1.23", f"VENV={tmp_path / 'venv'}"]
    command += [f"{name}={value}" for name, value in values.items()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        *("-m", "nemo_distill.cli", "run", "examples/recipes/demo.yaml", "--output-dir", values["OUT"]),
        *("--corpus", values["CORPUS"], "--set", "overrides=[data.tokens_in_batch=2048,data.max_seq_length=128]"),
        *("--teacher", values["TEACHER"], "--source", "$(exit 3)"),
    ]
    assert not (tmp_path / "ran").exists()
