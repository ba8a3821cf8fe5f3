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
"""Recipes whose teacher is not NeMo's: what they become, what of them is refused, which languages the model gets."""

import json
import shutil
from pathlib import Path

import pytest

from nemo_distill import cli
from nemo_distill.config.languages import Languages
from nemo_distill.decoding.exporting import export
from nemo_distill.errors import InputError
from nemo_distill.jobs import foreign_teacher
from nemo_distill.jobs.graph import Graph
from nemo_distill.jobs.noted import open_job
from nemo_distill.jobs.recipe import read_recipe
from nemo_distill.jobs.running import essence
from nemo_distill.jobs.short_runs import ShortRuns


@pytest.fixture
def graph(foreign_model, tiny_corpus, tmp_path):
    """A function that returns the default job of a teacher, with settings as of `--set`."""

    def make(*settings: str, teacher: object = None, corpus: object = None) -> Graph:
        given = {"corpus": str(corpus or tiny_corpus), "teacher": str(teacher or foreign_model("marian"))}
        return Graph(read_recipe(None, given, settings), tmp_path / "out")

    return make


def test_students_learn_its_labels_with_a_tokenizer_of_their_own(graph, foreign_model):
    made = graph()
    stages = {stage.name: stage for stage in made.stages()}
    assert {name: stage.needs for name, stage in stages.items()} == {
        "tokenizer": (),
        "pseudo-beam": (),
        "plain": ("tokenizer",),
        "student": ("tokenizer", "pseudo-beam"),
        "interpolation": ("tokenizer", "pseudo-beam"),
        "evaluation": ("plain", "student", "interpolation"),
        "report": ("evaluation",),
    }
    student, directory = essence(stages["student"].command), foreign_model("marian")
    assert f"data.tokenizer={made.directory}/tokenizer/tokenizer.model" in student
    assert "distillation=seq_level" in student
    assert not [each for each in student if each.startswith("teacher=")]
    weights = directory / "model.safetensors"
    reading = {name for name, stage in stages.items() if weights in stage.reads}
    assert reading == {"pseudo-beam", "evaluation"}
    for name in reading:
        command = stages[name].command
        assert str(directory) in command
        assert command[command.index("--source-lang") :][:4] == ["--source-lang", "de", "--target-lang", "en"]
    assert made.student.model == "small_3x3"
    assert made.export_of(stages["student"]).needs == ("student",)


def test_a_corpus_that_is_fetched_comes_first(graph):
    needs = {stage.name: stage.needs for stage in graph(corpus="ui-strings").stages()}
    assert needs["pseudo-beam"] == needs["tokenizer"] == ("corpus",)
    assert needs["plain"] == ("tokenizer",)


def test_all_that_it_cannot_give_is_refused_at_once(graph):
    settings = [
        "student={compression: 5}",
        "caches={top: {}}",
        "pseudo_labels.beam.options=[--engine, nemo]",
        "runs.started={start: every_nth, plain: true}",
        "runs.cached={cache: top, overrides: [distillation=hinton_cached]}",
        "runs.empty={}",
        "runs.hybrid={pseudo: beam, overrides: [distillation=hybrid]}",
        "runs.mixed={pseudo: beam, overrides: [distillation=nll, model.distillation.objective.word_kd.weight=1]}",
        "runs.nll={overrides: [distillation=nll]}",
    ]
    with pytest.raises(InputError, match="is no .nemo archive, so labels alone can be had of it") as refused:
        graph(*settings)
    faults = [line.strip() for line in str(refused.value).splitlines()[1:]]
    assert [fault.partition(":")[0] for fault in faults] == [
        "recipe.student.compression",
        "recipe.caches.top",
        "recipe.pseudo_labels.beam.options",
        "recipe.runs.started.start",
        "recipe.runs.cached.cache",
        "recipe.runs.empty.overrides",
        "recipe.runs.hybrid.overrides",
        "recipe.runs.mixed.overrides",
    ]
    assert faults[0].endswith(
        "got 5; the weights of such a teacher are not counted: give size_mb, latency_ms or model"
    )
    assert "got every_nth; students start from weights of .nemo archives alone: leave it out" in faults[3]
    assert faults[6].endswith("give it pseudo and overrides: [distillation=seq_level] or [distillation=interpolation]")


def test_a_grid_of_labels_is_none_of_distributions(graph):
    grid = {"temperatures": [1], "starts": {"random": []}, "objectives": {"kd": {"label": "word-level"}}}
    with pytest.raises(InputError, match=r"recipe\.runs\.kd_random_1\.overrides: got \[model\.distillation"):
        graph(f"grid={json.dumps(grid)}")


def test_only_one_teaches(graph, foreign_model, tiny_teacher_path):
    with pytest.raises(InputError, match="give one teacher"):
        graph(f"teacher=[{foreign_model('marian')}, {tiny_teacher_path}]")


def test_a_directory_of_no_model_says_what_is_missing(graph, tiny_corpus):
    with pytest.raises(InputError, match=r"is a directory without config.json, so no model"):
        graph(teacher=tiny_corpus)


@pytest.mark.parametrize(
    ("family", "settings", "found"),
    [
        ("t5", [], Languages("de", "en")),
        ("nllb", ["teacher_source=deu_Latn", "teacher_target=eng_Latn"], Languages("deu_Latn", "eng_Latn")),
        ("nllb", [], r"teacher_source: .*has no language 'de'; did you mean deu_Latn"),
        ("marian_to_many", ["teacher_target=deu"], Languages("de", "deu")),
        ("marian_to_many", [], r"teacher_target: .*has no language 'en'; .*It has deu, fra"),
        ("marian", ["target=fr"], r"its target language is en, not fr"),
    ],
)
def test_languages_are_those_of_the_recipe_in_the_models_words(
    graph, foreign_model, tmp_path, family, settings, found
):
    corpus = tmp_path / "corpus"
    if isinstance(found, Languages):
        made = graph(*settings, teacher=foreign_model(family))
        assert made.foreign.languages == found
        return
    corpus.mkdir()
    for name in (f"{split}.{code}" for split in ("train", "valid", "test") for code in ("de", "en", "fr")):
        (corpus / name).write_text("a\n")
    with pytest.raises(InputError, match=found):
        graph(*settings, teacher=foreign_model(family), corpus=corpus)


def test_an_export_of_one_pair_is_given_no_languages(graph, tiny_teacher_path, tmp_path):
    export(tiny_teacher_path, tmp_path / "int8", "int8")
    made = graph(teacher=tmp_path / "int8")
    assert made.foreign.languages == Languages()
    with pytest.raises(InputError, match="teacher_source.*got deu and None, and .* has no languages to choose from"):
        graph("teacher_source=deu", teacher=tmp_path / "int8")
    with pytest.raises(InputError, match="got --quantization float16, and the model is converted to int8"):
        graph("pseudo_labels.beam.options=[--quantization, float16]", teacher=tmp_path / "int8")
    graph("pseudo_labels.beam.options=[--quantization, int8]", teacher=tmp_path / "int8")


def test_where_it_lies_does_not_count(graph, foreign_model, tmp_path):
    """A job goes on with a copy of the model in another place, and not with a model that is another."""
    there = tmp_path / "elsewhere" / "model"
    shutil.copytree(foreign_model("marian"), there)
    origins = []
    for teacher in (foreign_model("marian"), there, foreign_model("t5")):
        stages = [stage for stage in graph(teacher=teacher).stages() if stage.name == "pseudo-beam"]
        with open_job(stages, tmp_path / "out") as job:
            origins.append(job.expected("pseudo-beam").origin)
    assert origins[0] == origins[1] != origins[2]


def test_a_plan_looks_at_it_once(graph, tiny_corpus, tmp_path, monkeypatch):
    """Each short run has a graph of its own; a large model is not hashed for each."""
    made = graph()
    shutil.copytree(tiny_corpus, tmp_path / "some")
    monkeypatch.setattr(foreign_teacher, "read_foreign", None)
    runs = ShortRuns(made, tmp_path, 1, 100.0)
    assert [stage.name for stage in runs.stages][:2] == ["tokenizer", "pseudo-beam"]
    assert list(runs._short("some", seeds=[1]))[:3] == ["tokenizer", "pseudo-beam", "plain"]


def test_the_default_is_said_in_one_line(foreign_model, tiny_corpus, tmp_path, capfd):
    """And is left alone where a recipe says what to do; here the job is refused right after."""
    command = ["run", "--corpus", str(tiny_corpus), "--teacher", str(foreign_model("marian")), "--finish"]
    assert cli.main([*command, "--output-dir", str(tmp_path / "out")]) == 2
    said = capfd.readouterr()
    assert said.out.count("gives labels alone: the default runs are plain, student, interpolation, of small_3x3") == 1
    assert "report cannot run: evaluation must be made first" in said.err
    recipe = tmp_path / "own.yaml"
    recipe.write_text("student: {}\nruns: {nll: {overrides: [distillation=nll]}}")
    assert cli.main([*command[:1], str(recipe), *command[1:], "--output-dir", str(tmp_path / "own")]) == 2
    assert "default" not in capfd.readouterr().out


def test_without_a_teacher_the_default_is_as_before(tmp_path):
    assert list(read_recipe(None, {"teacher": str(tmp_path / "none.nemo")}).runs) == ["plain", "student"]
    assert list(read_recipe(None, {"teacher": [str(Path(tmp_path))]}).runs) == ["plain", "student", "interpolation"]
