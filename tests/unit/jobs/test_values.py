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
"""Values that a stage would refuse when its turn comes are refused before the first one begins."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from nemo_distill import cli
from nemo_distill.cli.jobs import _check_values as check_values
from nemo_distill.jobs.graph import Graph
from nemo_distill.jobs.recipe import read_recipe

RECIPES = sorted((Path(__file__).parents[3] / "examples/recipes").glob("*.yaml"))

RECIPE = {
    "teacher": {"model": "small_1x1", "steps": 4},
    "student": {"model": "tiny_1x1", "steps": 4},
    "pseudo_labels": {"beam": {"options": ["--beam-size", 2]}, "mine": {"select_from": "beam"}},
    "caches": {"gold": {"options": ["--top-k", 4]}},
    "runs": {"plain": {"plain": True}, "hinton": {"overrides": ["distillation=hinton_cached"], "cache": "gold"}},
}
TEMPERATURE = "model.distillation.objective.word_kd.temperature"
SCALE = "a whole number, at least 1"


@pytest.fixture
def plan(tiny_corpus, tmp_path):
    """A function that plans the recipe with other values of some keys, and returns the status."""

    def run(*settings: str) -> int:
        (tmp_path / "recipe.yaml").write_text(json.dumps(RECIPE))
        command = ["run", str(tmp_path / "recipe.yaml"), "--corpus", str(tiny_corpus)]
        return cli.main([*command, "--output-dir", str(tmp_path / "out"), *(settings and ["--set", *settings])])

    return run


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "overrides=[exp_manager.checkpoint_callback_params.monitor=val_loss]",
            "run plain: exp_manager.checkpoint_callback_params.mode: got 'max', and of val_loss the smaller",
        ),
        (
            "teacher.overrides=[exp_manager.checkpoint_callback_params.mode=min]",
            "teacher: exp_manager.checkpoint_callback_params.mode: got 'min', and of val_sacreBLEU the larger is the",
        ),
        ("pseudo_labels.beam.options=[--beam-size, 0]", "stage pseudo-beam: search settings: beam_size: got 0"),
        ("pseudo_labels.beam.options=[--beam-size, many]", "stage pseudo-beam: argument --beam-size: invalid int"),
        (
            "pseudo_labels.beam.options=[--search, bean]",
            "stage pseudo-beam: argument --search: invalid choice: 'bean'",
        ),
        ("pseudo_labels.beam.options=[--shard-lines, 0]", "stage pseudo-beam: shard_lines: got 0; give at least 1"),
        ("pseudo_labels.beam.options=[--batch-tokens, 0]", "stage pseudo-beam: batch tokens is 0; give at least 1"),
        ("pseudo_labels.beam.options=[--max-length-ratio, 0.5]", "stage pseudo-beam: filters: max_length_ratio: got"),
        ("pseudo_labels.mine.options=[--select, closest-bleu]", "stage pseudo-mine: target: got None with select"),
        ("caches.gold.options=[--top-k, 0]", "stage cache-gold: top k is 0; give at least 1"),
        ("caches.gold.options=[--temperatures, 1, -2]", "stage cache-gold: temperatures are [1.0, -2.0]; give finite"),
        ("caches.gold.options=[--precision, fp8]", "stage cache-gold: precision is 'fp8'; give one of"),
        (
            f"runs.hinton.overrides=[distillation=hinton, {TEMPERATURE}=-1]",
            "run hinton: 1 fault in the `distillation`",
        ),
        (f"overrides=[{TEMPERATURE}=2]", f"teacher: {TEMPERATURE} is set, and a plain training has no"),
        (f"runs.plain.overrides=[{TEMPERATURE}=2]", f"run plain: {TEMPERATURE} is set, and a plain training has no"),
        (
            "runs.hinton.overrides=[distillation=hintom]",
            "run hinton: model tiny_1x1: In 'distill': Could not find 'distillation/hint",
        ),
        (
            "runs.hinton.overrides=[distillation=hinton]",
            "run hinton: cache: got 'gold', which nothing of this run reads",
        ),
        ("runs.b={pseudo: beam}", "run b: pseudo: got 'beam', which nothing of this run reads"),
        ("runs.hinton={overrides: [distillation=hinton_cached]}", "run hinton: no value for cache; give cache="),
        ("runs.hinton={overrides: [distillation=seq_level]}", "run hinton: no value for pseudo; give pseudo="),
        (
            "runs.hinton={cache: gold, plain: true}",
            "run hinton: cache: got 'gold', and a plain training reads the gold",
        ),
        (
            "runs.plain={plain: true, start: every_nth, pseudo: beam}",
            "run plain: pseudo: got 'beam', which nothing of this run reads",
        ),
        (
            "runs.plain.overrides=[distillation=hinton]",
            "recipe.runs.plain.overrides: distillation=hinton is given, and",
        ),
        (
            "runs.plain={plain: true, start: every_nth, overrides: [distillation=hinton]}",
            "recipe.runs.plain.overrides: distillation=hinton is given, and a plain run learns from labels alone",
        ),
        (
            "runs.plain.overrides=[trainer.min_steps=2]",
            "run plain: model tiny_1x1: Could not override 'trainer.min_st",
        ),
        (
            "student.overrides=[model.optim.name=adamww]",
            "model.optim.name: got 'adamww' (did you mean 'adamw'?); give",
        ),
        ("student.overrides=[model.optim.sched.name=Cosine]", "model.optim.sched.name: got 'Cosine'"),
        ("student.overrides=[model.optim.momentum=0.9]", "model tiny_1x1: Could not override 'model.optim.momentum'"),
        ("student.overrides=[+model.optim.momentum=0.9]", "model.optim.momentum: unknown key"),
        ("student.overrides=[model.train_ds.shuffle=no]", "model.train_ds.shuffle: got 'no'; give true or false"),
        ("student.overrides=[model.encoder.pre_ln=no]", "model.encoder.pre_ln is 'no'; true or false is needed"),
        ("student.overrides=[model.len_pen=much]", "model.len_pen is 'much'; a number from -10 to 10 is needed"),
        ("student.overrides=[trainer.precision=bf17]", "'trainer.precision=bf17' is not 16 or 32 or 64 or bf16 or"),
        ("student.overrides=[trainer.accelerator=tpuu]", "'trainer.accelerator=tpuu' is not auto or cpu or gpu"),
        ("bleu_tokenizer=chars", "recipe.bleu_tokenizer: got chars; sacreBLEU has"),
        (
            "overrides=[data.bleu_tokenizer=char]",
            "'data.bleu_tokenizer=char' is of the whole job, its table too; give",
        ),
        (
            "student.overrides=[+model.validation_ds.bleu_tokenizer=char]",
            "is of the whole job, its table too; give bleu_tokenizer at the recipe's top",
        ),
        (
            "runs.plain.overrides=[trainer=gpuu]",
            "run plain: model tiny_1x1: In 'train_nmt': Could not find 'trainer/gpuu'",
        ),
        (
            "runs.plain.overrides=[patience=2]",
            "run plain: patience: is set in overrides, and model.optim.sched (Warmup",
        ),
        (
            "teacher.model=foo",
            "teacher: model foo: In 'train_nmt': Could not find 'model/foo'; model: got 'foo'; give",
        ),
        (
            "runs.hinton.overrides=[distillation=recomended]",
            "seq_level, word_kd (did you mean 'recommended'?)",
        ),
        ("overrides=[data.max_seq_len=64]", "cannot be set in a recipe (did you mean 'max_seq_length'?); "),
        (
            "student.overrides=[distillation=hinton]",
            "recipe.student.overrides: 'distillation=hinton' is for runs that",
        ),
        ("overrides=[distillation=hinton]", "recipe.overrides: 'distillation=hinton' is for runs that have a teacher"),
        ("student.overrides=[seed=7]", "recipe.student.overrides: 'seed=7' is set by the job; give seeds"),
        ("overrides=[seed=7]", "recipe.overrides: 'seed=7' is set by the job; give seeds"),
        (
            "changes={T: {rows: {r: [hinton, nosuch]}}}",
            "recipe.changes.T: got nosuch; give rows of the table: plain, hi",
        ),
        *(
            (
                f"runs.a={{start: every_nth, overrides: [distillation=recommended, model.distillation.init{each}]}}",
                "recipe.runs.a.overrides: model.distillation.init",
            )
            for each in (".from_teacher=first", "=null", ".width=null")
        ),
        ("overrides=[data.max_seq_length=0]", f"recipe.overrides: 'data.max_seq_length=0' is not {SCALE}"),
        ("teacher.overrides=[data.tokens_in_batch=0.5]", f"'data.tokens_in_batch=0.5' is not {SCALE}"),
        (
            "student.overrides=['model.encoder={max_sequence_length: 0}']",
            f"{{max_sequence_length: 0}}' is not {SCALE}",
        ),
        (
            "student.overrides=['model.encoder={hidden_size: 0}']",
            f"{{hidden_size: 0}}' is not {SCALE}",
        ),
        ("student.overrides=[model.optim.lr=abc]", "'model.optim.lr=abc' is not a number above 0"),
        ("student.overrides=[model.optim.lr=-1e-3]", "'model.optim.lr=-1e-3' is not a number above 0"),
        ("student.overrides=[model.optim.lr=.inf]", "'model.optim.lr=.inf' is not a number above 0"),
        ("student.overrides=[model.optim.sched.warmup_steps=-1]", "is not a whole number, at least 0"),
        ("student.overrides=[model.decoder.ffn_dropout=3]", "is not a number from 0 to 1"),
        ("overrides=[model.label_smoothing=1]", "is not a number from 0 to below 1"),
        ("overrides=[ema=1]", "'ema=1' is not a number above 0 and below 1"),
        ("overrides=[average=0]", f"'average=0' is not {SCALE}"),
        ("overrides=[trainer.check_val_every_n_epoch=1]", "'trainer.check_val_every_n_epoch=1' is not null"),
    ],
)
def test_is_refused_before_anything_runs(plan, tmp_path, capfd, setting, message):
    assert plan(setting) == 2
    output, errors = capfd.readouterr()
    assert message in errors
    assert output == ""
    assert not (tmp_path / "out").exists()


def test_languages_of_a_student_are_its_teacher_s(plan, tiny_teacher_path, tmp_path, capfd):
    """They were refused once a cache was made of the teacher, or the student read raw text under their names."""
    given = ["teacher=" + str(tiny_teacher_path), "student.overrides=[model.tgt_language=zh]"]
    assert plan(*given, "runs={plain: {plain: true}}", "pseudo_labels={}", "caches={}") == 2
    wanted = (
        "run plain: model.tgt_language: got zh, and the teacher's is en; leave it out, or say what the teacher's text"
    )
    assert wanted in capfd.readouterr().err
    assert not (tmp_path / "out/plain").exists()


def test_an_export_that_does_not_convert_is_refused_before_anything_runs(tiny_corpus, tmp_path, plan, capfd):
    """It was once all was trained. What is not exported may be as it is."""
    unlike = "runs.hinton.overrides=[distillation=hinton_cached, model.encoder.mask_future=true]"
    assert plan("export=int8", unlike) == 2
    message = "run hinton: its model cannot be exported: .*mask_future: true .*; name another run as export_run, or"
    assert re.search(message, capfd.readouterr().err)
    for settings in (["export=int8", "export_run=plain", unlike], [unlike]):
        recipe = read_recipe(tmp_path / "recipe.yaml", {"corpus": str(tiny_corpus)}, settings)
        check_values(Graph(recipe, tmp_path / "out", False))


def test_a_nested_value_of_another_key_and_none_serve(plan, monkeypatch):
    monkeypatch.setattr("nemo_distill.jobs.stages.run_stages", lambda *arguments: 1 / 0)  # all is in order
    values = (
        "data.tokens_in_batch=512, 'model.optim={lr: 1e-3, sched: {min_lr: 0}}', model.train_ds.max_seq_length=null"
    )
    with pytest.raises(ZeroDivisionError):
        plan(
            f"overrides=[{values}, 'model.beam_size=${{model.encoder.num_layers}}']",
            f"student.overrides=[{TEMPERATURE}=3]",
            "runs.plain=null",
        )


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_those_of_every_recipe_serve(path, tmp_path):
    recipe = read_recipe(path, {"corpus": "ui-strings"})
    recipe.unlabelled = [str(RECIPES[0]) for _ in recipe.unlabelled]  # any text
    check_values(Graph(recipe, tmp_path / "out"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.encoder.hidden_size=63", r"model.encoder.hidden_size: got 63 with 2 heads"),
        ("model.decoder.hidden_size=32", r"model.decoder.hidden_size: got 32, and the encoder has 64"),
        ("model.optim.betas=[0.9]", r"model.optim.betas: got \[0.9\]; give two"),
    ],
)
def test_widths_of_which_no_model_is_made_are_told_at_once(plan, override, message, capsys):
    assert plan(f"runs.plain.overrides=['{override}']") == 2
    assert re.search(f"run plain: {message}", capsys.readouterr().err)


def test_the_bleu_tokenizer_is_one_for_the_whole_job(tiny_corpus, tmp_path, monkeypatch, capfd):
    """Of a language whose tokenizer is not there, told before anything runs; another one is that of all stages."""
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for split in ("train", "valid", "test"):
        for code in ("de", "ja"):
            shutil.copy(tiny_corpus / f"{split}.{code.replace('ja', 'en')}", corpus / f"{split}.{code}")
    monkeypatch.setitem(sys.modules, "MeCab", None)
    (tmp_path / "recipe.yaml").write_text(json.dumps(RECIPE))
    command = ["run", str(tmp_path / "recipe.yaml"), "--corpus", str(corpus), "--target", "ja"]
    assert cli.main([*command, "--output-dir", str(tmp_path / "out")]) == 2
    errors = capfd.readouterr().err
    assert "sacreBLEU's tokenizer 'ja-mecab' is not installed" in errors
    assert "or give bleu_tokenizer: char" in errors
    assert not (tmp_path / "out").exists()
    given = {"corpus": str(corpus), "target": "ja"}
    graph = Graph(read_recipe(tmp_path / "recipe.yaml", given, ["bleu_tokenizer=char"]), tmp_path / "out")
    check_values(graph)
    stages = {stage.name: stage.command for stage in graph.stages()}
    assert all("data.bleu_tokenizer=char" in stages[name] for name in ("teacher", "plain", "hinton"))
    place = stages["evaluation"].index("--bleu-tokenizer")
    assert stages["evaluation"][place + 1] == "char"
