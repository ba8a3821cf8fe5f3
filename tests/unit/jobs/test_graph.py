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
"""From recipes to commands: given teachers, test sets, exports, installed packages."""

import gzip
import random
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from made_up_results import an_evaluation, finish
from nemo.collections.nlp.models import MTEncDecModel

from nemo_distill.cli import build_parser
from nemo_distill.cli.jobs import _graph as find_graph
from nemo_distill.errors import InputError
from nemo_distill.evaluation.results import hypotheses_path
from nemo_distill.jobs.graph import Graph
from nemo_distill.jobs.recipe import read_recipe
from nemo_distill.jobs.running import essence
from nemo_distill.jobs.teachers import GivenTeachers
from nemo_distill.support import compat

ROOT = Path(__file__).parents[3]
DEMO = ROOT / "examples" / "recipes" / "demo.yaml"


def graph(tmp_path: Path, more: Sequence[str] = (), **changes) -> Graph:
    given = {"corpus": "ui-strings", "export": "int8", **changes}
    settings = [
        "runs.student={overrides: [distillation=hinton]}",  # no student starts from so small a teacher, or two
        "pseudo_labels={beam: {}}",
        "runs.hybrid={pseudo: beam, overrides: [distillation=hybrid]}",
    ]
    return Graph(read_recipe(DEMO, given, [*settings, *more]), tmp_path / "out")


def write_texts(*names: str) -> None:
    for name in names:
        Path(name).write_text("one line\nanother\n")


def test_a_given_teacher_brings_its_tokenizers_and_languages(tiny_teacher_path, tiny_corpus, tmp_path):
    made = graph(tmp_path, teacher=str(tiny_teacher_path), corpus=str(tiny_corpus), student={"model": "tiny_1x1"})
    stages = {stage.name: stage for stage in made.stages()}
    assert list(stages) == ["pseudo-beam", "cache-gold", "plain", "student", "hybrid", "evaluation", "report"]
    plain = essence(stages["plain"].command)
    kept = tmp_path / "out" / "tokenizer"
    assert f"model.encoder_tokenizer.tokenizer_model={kept}/encoder.model" in plain
    assert {"data.tokenizer=null", "data.processing=languages", "model.src_language=de"} <= set(plain)
    assert Path(tiny_teacher_path) in stages["student"].reads
    assert Path(tiny_teacher_path) not in stages["plain"].reads
    assert stages["plain"].needs == ()
    (kept / "encoder.model").write_text("of another teacher")
    again = {stage.name: stage for stage in made.stages()}
    (other,) = tmp_path.joinpath("out").glob("tokenizer-*")
    assert f"model.encoder_tokenizer.tokenizer_model={other}/encoder.model" in essence(again["plain"].command)
    assert (kept / "encoder.model").read_text() == "of another teacher"
    (other / "encoder.model").write_text("changed")
    with pytest.raises(InputError, match="the tokenizers in .* have changed; remove it"):
        made.stages()


def test_students_read_text_as_their_teacher_does(
    tiny_model_config, train_tokenizer, tiny_corpus, tiny_tokenizer, tmp_path
):
    """From right to left, and with a table of embeddings for each side where each has a tokenizer, start or not."""
    backwards = {f"{side}_tokenizer.r2l": True for side in ("encoder", "decoder")}
    other = {"decoder_tokenizer.tokenizer_model": str(train_tokenizer([tiny_corpus / "train.en"], 110))}
    kinds = {"backwards": backwards, "two": {**other, "shared_embeddings": False, "shared_tokenizer": False}}
    for name, changes in kinds.items():
        MTEncDecModel(tiny_model_config(16, 1, **changes)).save_to(str(tmp_path / f"{name}.nemo"))
    commands = {}
    for name in kinds:
        made = graph(tmp_path / name, teacher=str(tmp_path / f"{name}.nemo"), corpus=str(tiny_corpus), student={})
        stages = {stage.name: stage.command for stage in made.stages()}
        commands[name] = [set(essence(stages[run])) for run in ("plain", "student")]
    sides = ("encoder", "decoder") if compat.DEFAULT_TOKENIZER_LIBRARY == "yttm" else ()
    reading = {f"++model.{side}_tokenizer.r2l=true" for side in sides}
    assert all(reading <= command for command in commands["backwards"])
    assert all("model.shared_embeddings=false" in command for command in commands["two"])
    assert not any("shared_embeddings" in each or "r2l" in each for each in commands["backwards"][0] - reading)
    assert not any("r2l" in each for each in commands["two"][0])
    given = GivenTeachers.open([str(tmp_path / "backwards.nemo")])  # NeMo reads from right to left by one library
    assert given.reading("encoder", "yttm") == {"r2l": True}
    assert given.reading("encoder", "sentencepiece") == {}
    tied = {"model": "tiny_1x1", "overrides": ["model.shared_embeddings=true"]}
    with pytest.raises(InputError, match="shared_embeddings=true makes one vector of each id .* one for each side"):
        graph(tmp_path / "t", teacher=str(tmp_path / "two.nemo"), corpus=str(tiny_corpus), student=tied)


def test_a_place_that_no_verb_can_be_given_is_refused_where_the_corpus_is_fetched_there(tmp_path):
    with pytest.raises(InputError, match="--output-dir, where the corpus is fetched to: got '.*T10:00.*no ':'"):
        graph(tmp_path / "2024-01-01T10:00")


def test_several_teachers_teach_by_their_mean(tiny_teacher_path, tiny_corpus, tmp_path):
    paths = [str(tiny_teacher_path)] * 2
    made = graph(tmp_path, teacher=paths, corpus=str(tiny_corpus), student={"model": "tiny_1x1"})
    stages = {stage.name: stage for stage in made.stages()}
    (teacher,) = (each for each in stages["student"].command if each.startswith("teacher="))
    assert teacher.count(str(tiny_teacher_path)) == 2
    labels = stages["pseudo-beam"].command
    assert labels[labels.index("--teacher") + 1 : labels.index("--input")] == paths
    names = stages["evaluation"].command
    assert names[names.index("--names") + 1 :][:3] == ["teacher_1", "teacher_2", "plain"]
    compared = names[names.index("--compare") + 1 : names.index("--test")]
    assert {"teacher_1:plain", "teacher_2:plain", "student:plain"} <= {*compared}
    report = stages["report"].command
    assert report[report.index("--teacher") + 1 : report.index("--plain")] == ["teacher_1", "teacher_2"]


def commands(made: Graph) -> dict[str, list[str]]:
    return {stage.name: essence(stage.command) for stage in made.stages()}


def given_to_verb(command: list[str]) -> list[str]:
    return [
        each
        for option in ("--source-lang", "--target-lang")
        if option in command
        for each in command[command.index(option) :][:2]
    ]


@pytest.mark.parametrize(
    ("kind", "pair", "more", "side", "language"),
    [
        ("many_to_one", ("fr", "en"), [], "source", "fr"),
        ("one_to_many", ("en", "de"), [], "target", "de"),
        ("one_to_many", ("en", "fr"), ["teacher_target=es"], "target", "es"),
    ],
)
def test_of_several_languages_a_teacher_is_told_that_of_the_corpus(
    kind, pair, more, side, language, multilingual_teacher_paths, multilingual_corpus, tmp_path
):
    given = {"teacher": str(multilingual_teacher_paths[kind]), "corpus": str(multilingual_corpus)}
    given |= {"source": pair[0], "target": pair[1], "student": {"model": "tiny_1x1"}}
    made = commands(graph(tmp_path, more, **given))
    for name in ("pseudo-beam", "cache-gold", "evaluation"):
        assert given_to_verb(made[name]) == [f"--{side}-lang", language], name
    short = {"source": "src", "target": "tgt"}[side]
    for name in ("plain", "student", "hybrid"):
        assert f"model.{short}_language={language}" in made[name]
        assert "model.multilingual=true" not in made[name]
        live = f"++model.distillation.teacher.{side}_language={language}"
        assert (live in made[name]) == (name != "plain")


def test_several_languages_of_which_none_is_the_corpus_s_are_named(
    multilingual_teacher_paths, multilingual_corpus, tmp_path
):
    given = {"teacher": str(multilingual_teacher_paths["many_to_one"]), "corpus": str(multilingual_corpus)}
    said = "recipe.teacher_source: .* has several source languages, de, es, fr, and none is 'en'; .*teacher_source=de"
    with pytest.raises(InputError, match=said):
        graph(tmp_path, source="en", target="de", **given)
    with pytest.raises(InputError, match=said):
        graph(tmp_path, ["teacher_source=en"], source="fr", target="en", **given)


def test_a_teacher_that_names_no_languages_is_told_those_of_the_recipe(tiny_model_config, tiny_corpus, tmp_path):
    unnamed = {"src_language": None, "tgt_language": None}
    MTEncDecModel(tiny_model_config(16, 1, **unnamed)).save_to(str(tmp_path / "old.nemo"))
    given = {"teacher": str(tmp_path / "old.nemo"), "corpus": str(tiny_corpus), "student": {"model": "tiny_1x1"}}
    raw = graph(tmp_path / "raw", **given)
    assert not any("names no languages" in note for note in raw.notes)  # its words are of raw text
    made = commands(raw)
    assert not any("lang" in each for name in ("pseudo-beam", "cache-gold", "evaluation") for each in made[name])
    assert "data.processing=languages" not in made["student"]
    made = commands(graph(tmp_path / "told", ["teacher_source=de", "teacher_target=en"], **given))
    for name in ("pseudo-beam", "cache-gold", "evaluation"):
        assert given_to_verb(made[name]) == ["--source-lang", "de", "--target-lang", "en"]
    for name in ("plain", "student"):
        assert {"data.processing=languages", "model.src_language=de", "model.tgt_language=en"} <= set(made[name])
    told = {f"++model.distillation.teacher.{each}" for each in ("source_language=de", "target_language=en")}
    assert told <= set(made["student"])
    with pytest.raises(InputError, match="recipe.teacher_source: got de, and the teacher is trained here; leave it"):
        graph(tmp_path, ["teacher_source=de"])


def test_a_teacher_of_tokenized_text_that_names_no_languages_is_noted(
    tiny_model_config, train_tokenizer, tiny_corpus, tmp_path
):
    apart = tmp_path / "apart.txt"
    apart.write_text("".join((tiny_corpus / f"train.{code}").read_text() for code in ("de", "en")).replace(".", " ."))
    changes = {
        f"{side}_tokenizer.tokenizer_model": str(train_tokenizer([apart], 110)) for side in ("encoder", "decoder")
    }
    MTEncDecModel(tiny_model_config(16, 1, src_language=None, tgt_language=None, **changes)).save_to(
        str(tmp_path / "old.nemo")
    )
    given = {"teacher": str(tmp_path / "old.nemo"), "corpus": str(tiny_corpus), "student": {"model": "tiny_1x1"}}
    (note,) = (each for each in graph(tmp_path / "raw", **given).notes if "names no languages" in each)
    assert "old.nemo' names no languages, and its vocabulary is of tokenized text" in note
    assert "--set teacher_source=de teacher_target=en" in note
    told = graph(tmp_path / "told", ["teacher_source=de", "teacher_target=en"], **given)
    assert not any("names no languages" in each for each in told.notes)


def test_by_default_the_student_starts_from_its_teacher_where_it_can(tiny_teacher_path, tiny_corpus, tmp_path, capfd):
    """Of two teachers none is the one to start from: said in a line, and not the user's fault, who wrote no recipe."""
    options = ["--corpus", str(tiny_corpus), "--output-dir", str(tmp_path / "out"), "--set", "student={}"]
    for count in (1, 2):
        args = build_parser().parse_args(["run", "--teacher", *[str(tiny_teacher_path)] * count, *options])
        overrides = "model.encoder.hidden_size=16, model.encoder.inner_size=32, model.encoder.num_attention_heads=2"
        args.set[-1] = f"student={{overrides: [{overrides}]}}"
        command = {stage.name: stage.command for stage in find_graph(args).stages()}["student"]
        assert ("distillation=recommended" in command) == (count == 1) == any("init=" in each for each in command)
        assert (
            "the student starts at random: recipe.runs.student.start: got every_nth, and there are 2 teachers"
            in capfd.readouterr().out
        ) == (count == 2)


def test_trust_is_of_the_command_line_alone(tiny_teacher_path, tiny_corpus, tmp_path):
    recipe = read_recipe(
        None, {"teacher": str(tiny_teacher_path), "corpus": str(tiny_corpus)}, ["student={}"], starts=False
    )
    for trust in (True, False):
        commands = [stage.command for stage in Graph(recipe, tmp_path / "out", trust).stages()]
        assert sum("--trust-archive" in command for command in commands) == (1 if trust else 0)
        assert sum("trust_archive" in " ".join(command) for command in commands) == (1 if trust else 0)


def test_text_without_translations_is_translated_behind_the_training_text(tmp_path, monkeypatch):
    """Less what validation and test sets hold; another text makes the labels anew; one that is missing is told now."""
    monkeypatch.chdir(tmp_path)
    write_texts("n.de", "n.en")
    files = [str(tmp_path / "news.de"), str(tmp_path / "mono.de.gz")]
    changes = {"unlabelled": files, "tests": {"news": ["n.de", "n.en"]}, "student": {}}
    more = ["pseudo_labels.beam.unlabelled=true", "pseudo_labels.own={}", "pseudo_labels.again={select_from: beam}"]
    with pytest.raises(InputError, match=r"news\.de"):
        graph(tmp_path, more, **changes)
    for file in files:
        Path(file).write_bytes(gzip.compress(b"a line\n") if file.endswith("gz") else b"a line\n")
    stages = {stage.name: stage for stage in graph(tmp_path, more, **changes).stages()}
    command, corpus = stages["pseudo-beam"].command, tmp_path / "out" / "corpus"
    assert command[command.index("--input") + 1 :][:3] == [str(corpus / "train.de"), *files]
    assert command[command.index("--test") + 1 :][:2] == [str(corpus / "valid.de"), "n.de"]
    again = stages["pseudo-again"]  # the n-best lists have all lines
    assert again.command[again.command.index("--test") + 1 :][:2] == [str(corpus / "valid.de"), "n.de"]
    for stage in (stages["pseudo-beam"], again):
        assert {*map(Path, files), Path("n.de")} <= {*stage.reads}
        assert not {Path("n.en"), corpus / "valid.de"} & {
            *stage.reads
        }  # of which it depends in no way; which a stage makes
    own = stages["pseudo-own"]
    assert not {*files, "--test"} & {*own.command}
    assert not {*map(Path, files)} & {*own.reads}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"more\.de"),
        ("", r"unlabelled: '.*more\.de' is empty; give text in the source language"),
        (" \n\n", r"unlabelled: '.*more\.de' is empty; give text in the source language"),
        (b"caf\xe9\n", r"more\.de.* UTF-8"),
        ("train.de", r"unlabelled: '.*more\.de' is the job's own '.*train\.de'; give other text, each file once"),
        ("twice", r"unlabelled: '.*more\.de' is given twice, as '.*more\.de' too"),
        (
            "train.en",
            r"unlabelled: 3 of the first 4 different lines of '.*more\.de' are lines of '.*train\.en'; give text",
        ),
    ],
)
def test_what_is_no_text_without_translations_is_told_at_once(tmp_path, text, message):
    corpus, more = tmp_path / "corpus", tmp_path / "more.de"
    corpus.mkdir()
    for split in ("train", "valid", "test"):
        for language in ("de", "en"):
            (corpus / f"{split}.{language}").write_text("".join(f"{split} {language} {n}\n" for n in range(3)))
    if text == "train.de":
        more.symlink_to(corpus / "train.de")
    elif isinstance(text, bytes):
        more.write_bytes(text)
    elif text is not None:
        own = (corpus / "train.en").read_text() + "another\n" if text == "train.en" else "another line\n"
        more.write_text(own if text in ("twice", "train.en") else text)
    given = {"corpus": str(corpus), "unlabelled": [str(more)] * (2 if text == "twice" else 1)}
    with pytest.raises(InputError, match=message):
        Graph(read_recipe(None, given, ["student={}"]), tmp_path / "out")
    more.unlink(missing_ok=True)
    more.write_text("another line\ntrain de 1\ntrain en 2\n")
    Graph(read_recipe(None, given | {"unlabelled": [str(more)]}, ["student={}"]), tmp_path / "out")


def test_the_command_line_gives_text_without_translations(tmp_path, tiny_corpus, monkeypatch):
    """Also to a recipe that is incomplete without it; and a recipe behind it is not taken for text."""
    recipe, more = tmp_path / "own.yaml", tmp_path / "more.de"
    recipe.write_text(
        "pseudo_labels: {more: {unlabelled: true}}\nruns: {a: {pseudo: more, overrides: [distillation=seq_level]}}"
    )
    more.write_text("another line\n")
    monkeypatch.chdir(tmp_path)
    command = ["run", str(recipe), "--corpus", str(tiny_corpus), "--unlabelled", str(more)]
    made = find_graph(build_parser().parse_args(command))
    assert (made.unlabelled, made.directory) == ([more], Path("runs", "own-nemo2" if compat.NEMO_2 else "own"))
    with pytest.raises(
        InputError, match=r"--unlabelled: '.*own\.yaml' is a recipe, by its name; give the recipe first"
    ):
        find_graph(build_parser().parse_args(["run", *command[2:], str(recipe)]))


def test_own_test_sets_take_the_place_of_the_corpuss(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_texts("n.de", "n.en", "m.en", "t.de", "t.en")
    made = graph(tmp_path, tests={"news": ["n.de", "n.en", "m.en"], "talks": ["t.de", "t.en"]}, student={})
    (evaluation,) = (stage for stage in made.stages() if stage.name == "evaluation")
    command = evaluation.command
    assert command[command.index("--test") + 1 :][:2] == ["news:n.de:n.en:m.en", "talks:t.de:t.en"]
    assert set(evaluation.reads) == {Path(each) for each in ("n.de", "n.en", "m.en", "t.de", "t.en")}


LATE = b"one line\n" * 5000 + b"caf\xe9\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train.en", b"one line\n", r"'.*train\.de' has 2 lines but '.*train\.en' has 1; line N of one must be the"),
        ("valid.de", b"\n \n", r"'.*valid\.de' is empty \(2 lines, no text\)"),
        ("test.en", b"one line\nanother\na third\n", r"'.*test\.de' has 2 lines but '.*test\.en' has 3"),
        ("n.de", LATE, r"'n\.de', line 5001: byte 0xe9 at position 3 of the line is not UTF-8"),
        ("n.en", None, r"'n\.en' does not exist"),
        ("m.en", b"one line\n", r"'n\.de' has 2 lines but 'm\.en' has 1"),
        ("more.de", LATE, r"'more\.de', line 5001: byte 0xe9"),
        (
            "more.de.gz",
            gzip.compress(random.Random(1).randbytes(1 << 19).hex("\n", 40).encode())[:-900],
            "is not a complete gzip file",
        ),
    ],
)
def test_what_is_wrong_with_a_text_is_told_before_anything_runs(tmp_path, monkeypatch, name, content, message):
    """To its end, which a stage may come to hours later."""
    monkeypatch.chdir(tmp_path)
    names = [f"{split}.{language}" for split in ("train", "valid", "test") for language in ("de", "en")]
    write_texts(*names, "n.de", "n.en", "m.en", "more.de")
    given = {"corpus": str(tmp_path), "unlabelled": ["more.de.gz" if name == "more.de.gz" else "more.de"]}
    given["tests"] = {"news": ["n.de", "n.en", "m.en"]}
    if name != "more.de.gz":
        Graph(read_recipe(None, given, ["student={}"]), tmp_path / "out")
    Path(name).unlink(missing_ok=True)
    if content is not None:
        Path(name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        Graph(read_recipe(None, given, ["student={}"]), tmp_path / "out")


@pytest.mark.parametrize(("named", "best"), [(None, "hybrid@seed2"), ("student", "student"), ("plain", "plain@seed2")])
def test_the_best_run_is_exported_or_the_named_one(tmp_path, named, best):
    """By the mean of its seeds and test sets; of its seeds the best."""
    made = graph(tmp_path, student={}, export_run=named, seeds=[1, 2])
    stages = made.stages()
    result = an_evaluation()
    scores = {"teacher": 30.0, "plain@seed1": 20.0, "plain@seed2": 22.0, "student@seed1": 25.0, "student@seed2": 18.0}
    scores |= {"hybrid@seed1": 21.0, "hybrid@seed2": 23.0}
    model, score = result.models[0], result.scores[0]
    result.models = [replace(model, label=name, archive=f"{name}.nemo") for name in scores]
    test = score.test_set
    result.scores = [
        replace(score, model=name, bleu=bleu, hypotheses=hypotheses_path(name, test)) for name, bleu in scores.items()
    ]
    result.comparisons = []
    (tmp_path / "out" / "evaluation").mkdir(parents=True)
    result.save(tmp_path / "out" / "evaluation")
    export = made.export_stage(stages)
    assert export.needs == (best,)
    assert export.command[-2:] == ["--quantization", "int8"]
    finish([*stages, export], made.directory)
    assert made.finished(stages) == {*(stage.name for stage in stages), "export"}
    other = graph(tmp_path, student={}, export_run=named, seeds=[1, 2], export="float16")
    assert other.finished(other.stages()) == {stage.name for stage in stages}


@pytest.mark.parametrize(
    ("runs", "order"),
    [
        ("{p: {plain: true}, a: {overrides: [distillation=hinton]}, b: {overrides: [distillation=hinton]}}", "apb"),
        ("{p: {plain: true}, a: {cache: gold, overrides: [distillation=hinton_cached]}}", "pa"),
        ("{p: {plain: true}}", "p"),
        (
            "{p: {plain: true}, a: {pseudo: beam, overrides: [distillation=seq_level]}, "
            "b: {overrides: [distillation=hinton]}}",
            "bpa",  # who reads labels alone opens no teacher
        ),
    ],
)
def test_a_student_looks_whether_its_teacher_fits_before_a_twin_is_trained(tmp_path, runs, order):
    """Where no cache has looked; the rows of the table stay in their order."""
    size = "model: tiny_1x1, steps: 9"
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"corpus: ui-strings\nsource: de\ntarget: en\nteacher: {{{size}}}\nstudent: {{{size}}}\nruns: {runs}\n"
        + "caches: {gold: {}}\n" * ("cache" in runs)
        + "pseudo_labels: {beam: {}}\n" * ("pseudo" in runs)
    )
    made = Graph(read_recipe(path), tmp_path / "out")
    stages = made.stages()
    trained = [stage.name for stage in stages if len(stage.name) == 1]
    assert "".join(trained) == order
    command = next(stage.command for stage in stages if stage.name == "evaluation")
    assert command[command.index("--names") + 1 :][: len(order) + 1] == ["teacher", *sorted(order, key="pab".index)]


def test_what_is_trained_stays_where_seeds_are_added(tmp_path):
    """Its command is the same, of which the record of the job tells that it has run."""
    one, more, other = (graph(tmp_path, student={}, seeds=seeds).stages() for seeds in ([1], [2, 1, 3], [3]))
    trained = [stage.name for stage in one][5:8]
    assert trained == ["plain", "student", "hybrid"]
    assert [stage.name for stage in more][5:11] == [
        *("plain@seed2", "plain", "plain@seed3"),
        *("student@seed2", "student", "student@seed3"),
    ]
    assert [stage.name for stage in other][5:8] == [f"{name}@seed3" for name in trained]
    commands = {stage.name: stage.command for stage in more}
    assert all(commands[stage.name] == stage.command for stage in one[5:8])
    assert all(commands[stage.name] == stage.command for stage in other[5:8])


def test_tables_name_the_seeds_where_a_run_has_several(tmp_path):
    for seeds, first in ([3], "plain"), ([2, 1], "plain@seed2"):
        stages = {stage.name: stage for stage in graph(tmp_path, student={}, seeds=seeds).stages()}
        command = stages["evaluation"].command
        archives = command[command.index("--model") + 1 : command.index("--names")]
        names = command[command.index("--names") + 1 : command.index("--compare")]
        labels = dict(zip(names, archives, strict=True))
        assert names[1] == first
        assert labels[first] == str(tmp_path / "out" / f"plain@seed{seeds[0]}" / f"plain@seed{seeds[0]}.nemo")
    assert labels["plain@seed1"] == str(tmp_path / "out" / "plain" / "plain.nemo")


def test_a_wheel_holds_what_a_job_needs(tmp_path):
    """An installed package has no examples/ and no configs/ beside it."""
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True)
    if files.returncode != 0:
        pytest.skip("not in a checkout")
    source = tmp_path / "source"
    for name in files.stdout.decode().split("\0"):
        if name.startswith(("nemo_distill", "configs/", "setup.py", "README.md", "LICENSE")):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_symlink():
                (source / name).symlink_to((ROOT / name).readlink())
            elif (ROOT / name).exists():
                (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--disable-pip-version-check", "-w", tmp_path, source], check=True, timeout=120)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        inside = {name for name in wheel.namelist() if name.startswith("nemo_distill/configs/")}
        assert "nemo_distill/jobs/slurm.sh" in wheel.namelist()
    assert inside == {f"nemo_distill/{path.relative_to(ROOT)}" for path in (ROOT / "configs").rglob("*.yaml")}
