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
"""Which labels and caches are worth the time that they take."""

import gzip
from pathlib import Path

import pytest
import yaml

from nemo_distill.config.section import WordKDConfig
from nemo_distill.errors import InputError
from nemo_distill.jobs.graph import Graph
from nemo_distill.jobs.paying import pairs_read, unread, with_what_pays
from nemo_distill.jobs.progress import Progress, table_of
from nemo_distill.jobs.recipe import Recipe, read_recipe
from nemo_distill.jobs.short_runs import ShortRuns

ROOT = Path(__file__).parents[3]
RECIPE = """
student: {{model: tiny_1x1, steps: {steps}{ending}}}
overrides: [data.tokens_in_batch=1000]
pseudo_labels: {{beam: {{options: [--num-hypotheses, 4, --keep, 3]}}}}
caches: {{one: {{if_it_pays: true, texts: {texts}}}, other: {{}}}}
runs:
  plain: {{plain: true}}
  student: {{cache: one, start: every_nth, seeds: {seeds}, overrides: [distillation={preset}]}}
  cached: {{cache: other, overrides: [distillation=hinton_cached]}}
"""
_PATIENT = ", patience: 3, validate_every: 10"


def recipe_of(tmp_path: Path, steps=600, ending="", texts="[gold]", seeds="[1]", preset="recommended") -> Recipe:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(steps=steps, ending=ending, texts=texts, seeds=seeds, preset=preset))
    return read_recipe(path)


def refusal_of(tmp_path: Path, text: str) -> str:
    """Return why a recipe is refused."""
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_recipe(path)
    return str(caught.value)


@pytest.fixture
def train(tmp_path) -> list[Path]:
    """Both files of a text of 1.6 MB, about 400,000 tokens."""
    files = [tmp_path / "train.de", tmp_path / "train.en"]
    for path in files:
        path.write_text("a line of words\n" * 50_000)
    return files


@pytest.mark.parametrize(
    ("changes", "pays"),
    [
        ({}, False),  # 600 steps of 1,000 tokens are 1.5 times the text
        ({"steps": 601}, True),
        ({"seeds": "[1, 2]", "steps": 600}, False),  # seeds that are added later change nothing
        ({"seeds": "[1, 2]", "steps": 601}, True),
        ({"ending": _PATIENT, "steps": 1200}, False),  # patience may end it half way
        ({"ending": _PATIENT, "steps": 1202}, True),
        ({"texts": "[gold, beam]", "steps": 2400}, False),  # three hypotheses are kept of each line
        ({"texts": "[gold, beam]", "steps": 2402}, True),
    ],
)
def test_it_pays_from_one_and_a_half_readings_on(train, tmp_path, changes, pays):
    found, notes = with_what_pays(recipe_of(tmp_path, **changes), train)
    assert ("one" in found.caches) == pays == (found.runs["student"].cache == "one") == (not notes)
    assert found.runs["cached"].cache == "other"
    assert not any(cache.if_it_pays for cache in found.caches.values())
    assert with_what_pays(found, train) == (found, [])


@pytest.mark.parametrize(("steps", "pays"), [(100, False), (102, True)])
def test_all_batches_of_a_step_are_read(train, tmp_path, steps, pays):
    recipe = recipe_of(tmp_path, steps=steps)
    recipe.overrides = [*recipe.overrides, "trainer.devices=[0,1]", "+trainer.accumulate_grad_batches=3"]
    assert ("one" in with_what_pays(recipe, train)[0].caches) == pays


@pytest.mark.parametrize(
    ("changes", "copies", "note"),
    [
        (
            {"steps": 9000, "ending": _PATIENT},
            20,
            "cache 'one' would score about 4,000,000 tokens once; its student reads about 4,500,000 tokens, no more "
            "than 1.5 times as many: the teacher runs beside it",
        ),
        (
            {"steps": 9000, "seeds": "[1, 2, 3]", "texts": "[gold, beam]"},
            100,
            "cache 'one' would score about 80 million tokens once; its student reads about 9,000,000 tokens, no more "
            "than 1.5 times as many: the teacher runs beside it",
        ),
    ],
)
def test_what_is_not_made_is_told_in_figures(train, tmp_path, changes, copies, note):
    assert with_what_pays(recipe_of(tmp_path, **changes), train[:1] * copies)[1] == [note]


def test_a_cache_that_no_run_reads_does_not_pay(train, tmp_path):
    recipe = recipe_of(tmp_path)
    recipe.runs["student"].cache = "other"
    _, notes = with_what_pays(recipe, train)
    assert notes == ["cache 'one' would score about 400,000 tokens once, and no run reads it: it is not made"]


def test_a_compressed_text_counts_by_its_content(train, tmp_path):
    for path in train:
        Path(f"{path}.gz").write_bytes(gzip.compress(path.read_bytes()))
    compressed = [Path(f"{path}.gz") for path in train]
    for steps, pays in ((600, False), (602, True)):
        found, notes = with_what_pays(recipe_of(tmp_path, steps=steps), compressed)
        assert ("one" in found.caches) == pays
        assert pays or notes[0].startswith("cache 'one' would score at least 400,000 tokens once; its student reads")


def test_the_rows_of_a_grid_too(train, tmp_path):
    path = tmp_path / "grid.yaml"
    path.write_text(
        "caches: {one: {if_it_pays: true}}\noverrides: [data.tokens_in_batch=1000]\n"
        "runs: {plain: {plain: true}}\n"
        "grid: {temperatures: [1], starts: {random: []}, objectives: "
        "{a: {label: A, cache: one, overrides: [distillation=hinton_cached]}}}\n"
    )
    recipe = read_recipe(path, settings=["student.steps=1"])
    found, notes = with_what_pays(recipe, train)
    assert len(notes) == 1
    assert {run.cache for run in found.runs.values()} == {None}
    assert found.runs.keys() == recipe.runs.keys()
    assert found.runs["a_random_1"].overrides[0] == "distillation=hinton"


@pytest.mark.parametrize(
    ("preset", "message"),
    [
        ("hinton", r"recipe\.runs\.student: distillation=hinton reads no cache"),
        (
            "none_such",
            r"recipe\.runs\.student: distillation=none_such is not there; configs/distillation has the presets",
        ),
        (
            "recommended, model.distillation.teacher.on_miss=teacher",
            r"recipe\.runs\.student: model\.distillation\.teacher\.on_miss=teacher needs the cache",
        ),
    ],
)
def test_a_run_that_cannot_do_both_is_refused_whatever_pays(tmp_path, preset, message):
    for train in ([], [Path(__file__)] * 1000):
        with pytest.raises(InputError, match=message) as caught:
            with_what_pays(recipe_of(tmp_path, preset=preset, steps=1), train)
        assert str(caught.value).startswith("runs of a cache that is made only if it pays must do with it and without")


def test_presets_with_a_cache_and_without_are_alike_but_for_the_teacher():
    """Else a run would learn something else where its cache does not pay."""
    presets = ROOT / "nemo_distill" / "configs" / "distillation"
    pairs = [(path, presets / path.name.replace("_cached", "")) for path in presets.glob("*_cached.yaml")]
    assert len(pairs) == 2
    for pair in pairs:
        cached, live = (yaml.safe_load(path.read_text()) for path in pair)
        assert (cached.pop("teacher"), live.pop("teacher")) == ({"cache": "${cache}"}, {"model_path": "${teacher}"})
        assert live["objective"]["word_kd"].pop("scale_by_temperature", WordKDConfig().scale_by_temperature)
        assert cached == live


@pytest.mark.parametrize("name", ["recommended_disturbed", "recommended_unlabelled"])
def test_recommended_with_other_text_is_alike_but_for_the_mixture(name):
    presets = ROOT / "nemo_distill" / "configs" / "distillation"
    disturbed, other = (yaml.safe_load((presets / f"{name}.yaml").read_text()) for name in (name, "recommended"))
    mixture = disturbed["model"]["distillation"].pop("mixture")
    assert disturbed == other
    assert sum(mixture["probabilities"].values()) == 1


@pytest.mark.parametrize(
    ("steps", "ending", "dropout"),
    [(6400, "", 0.0), (6402, "", 0.1), (12_800, _PATIENT, 0.0), (12_804, _PATIENT, 0.1)],
)
def test_dropout_is_for_text_that_is_read_more_than_sixteen_times(train, tmp_path, steps, ending, dropout):
    """One for all runs, whatever their own steps; a teacher that is trained has its own."""
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"teacher: {{model: tiny_1x1, steps: 6401, dropout: auto, overrides: [data.tokens_in_batch=500]}}\n"
        f"student: {{steps: {steps}{ending}, dropout: auto, overrides: [data.tokens_in_batch=1000]}}\n"
        "runs: {plain: {plain: true}, longer: {plain: true, steps: 900000}, bare: {dropout: 0}}\n"
    )
    found, notes = with_what_pays(read_recipe(path), train)
    assert (found.teacher.dropout, found.student.dropout) == (None, dropout)
    assert notes[0].endswith("of about 400,000 tokens a teacher reads about 3,200,500 tokens")
    assert notes[1].startswith("student.dropout is 0.1: a student" if dropout else "student.dropout, 0.1 for text")
    assert found.student.of(found.runs["bare"]).dropout == 0
    assert with_what_pays(found, train) == (found, [])


@pytest.mark.parametrize(
    ("options", "pairs"),
    [
        ("[--disturb, 4]", {"more": 4, "best": 8}),
        ("[--disturb, 4, --keep, 3]", {"more": 12, "best": 8}),
        ("[--keep, 3]", {"more": 3, "best": 2}),
    ],
)
def test_copies_count_in_labels_that_are_chosen_anew_too(tmp_path, options, pairs):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"pseudo_labels: {{more: {{options: {options}}}, best: {{select_from: more, options: [--keep, 2]}}}}\n"
        "caches: {more: {texts: [gold, more]}, best: {texts: [best]}}\nruns: {plain: {plain: true}}\n"
    )
    recipe = read_recipe(path)
    assert pairs_read(recipe, "cache-more", 1) == 1 + pairs["more"]
    assert pairs_read(recipe, "cache-best", 1) == pairs["best"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("[--disturb, 0]", "more.options: --disturb needs a number of copies; give at least 1"),
        ("[--disturb, four]", "more.options: --disturb needs a number of copies; give at least 1"),
        ("[--disturb]", "more.options: --disturb needs a number of copies; give at least 1"),
        (
            "[--disturb, 4, --num-hypotheses, 4, --select, closest-bleu, --target, '{gold}']",
            "more.options: got --disturb and --target; disturbed lines have no gold translations",
        ),
        (
            "[--disturb, 2, --num-hypotheses, 4]",
            "best.options: got --target, and 'more' is of disturbed copies, which have no gold translations",
        ),
    ],
)
def test_what_a_stage_would_refuse_late_a_recipe_refuses(tmp_path, options, message):
    best = "best: {select_from: more, options: [--select, closest-bleu, --target, '{gold}']}"
    text = f"pseudo_labels: {{more: {{options: {options}}}, {best}}}\nruns: {{plain: {{plain: true}}}}\n"
    assert message in refusal_of(tmp_path, text)


@pytest.mark.parametrize(("steps", "pays"), [(300 * 4, False), (300 * 4 + 2, True)])
@pytest.mark.parametrize("is_compressed", [False, True])
def test_text_without_translations_is_scored_too(train, tmp_path, steps, pays, is_compressed):
    """Both sides of it: the translations are as long as what they are of; here 200,000 tokens, kept three times."""
    more = tmp_path / ("mono.de.gz" if is_compressed else "mono.de")
    text = b"a line of words\n" * 25_000
    more.write_bytes(gzip.compress(text) if is_compressed else text)
    path = tmp_path / "recipe.yaml"
    path.write_text(
        RECIPE.format(steps=steps, ending="", texts="[beam]", seeds="[1]", preset="hybrid_cached")
        .replace("{beam: {", "{beam: {unlabelled: true, ")
        .replace("keep, 3", "keep, 2")
        .replace("start: every_nth", "pseudo: beam")
    )
    recipe = read_recipe(path, {"unlabelled": [str(more)]})  # 2 * (400,000 + 200,000) tokens are scored
    assert pairs_read(recipe, "cache-one", 50_000, 25_000) == 150_000
    recipe.overrides = ["data.tokens_in_batch=1500"]
    assert ("one" in with_what_pays(recipe, train)[0].caches) == pays


@pytest.mark.parametrize(
    ("labels", "unlabelled", "message"),
    [
        (
            "more: {}",
            "[m.de]",
            "recipe.unlabelled: no labels are of it; give some of pseudo_labels `unlabelled: true`",
        ),
        (
            "more: {unlabelled: true}",
            "[]",
            "recipe.pseudo_labels.more.unlabelled: there is no such text; give --unlabelled",
        ),
        (
            "more: {unlabelled: true, options: [--num-hypotheses, 4, --select, closest-bleu, --target, '{gold}']}",
            "[m.de]",
            "recipe.pseudo_labels.more.options: got --target, and unlabelled lines have no gold translations",
        ),
        (
            "more: {unlabelled: true}, best: {select_from: more, options: [--select, mbr, --target, '{gold}']}",
            "[m.de]",
            "best.options: got --target, and 'more' is of unlabelled text, which has no gold translations",
        ),
        (
            "more: {unlabelled: true}, best: {select_from: more, unlabelled: true}",
            "[m.de]",
            "recipe.pseudo_labels.best.unlabelled: give it to 'more', whose lines these are",
        ),
        (
            "more: {unlabelled: true, options: [--disturb, 2]}",
            "[m.de]",
            "recipe.pseudo_labels.more.options: got --disturb and unlabelled text, of which is left out what",
        ),
        ("more: {unlabelled: true}", "['m:de']", "recipe.unlabelled: got 'm:de'; give a path that has no ':'"),
        ("more: {unlabelled: true}", "m.de", "recipe.unlabelled: "),
    ],
)
def test_labels_of_text_without_translations_are_checked(tmp_path, labels, unlabelled, message):
    run = "student: {pseudo: more, overrides: [distillation=seq_level]}"
    text = f"unlabelled: {unlabelled}\npseudo_labels: {{{labels}}}\nruns: {{{run}}}\n"
    assert message in refusal_of(tmp_path, text)


def test_by_default_there_is_dropout_where_text_is_little(train, tmp_path):
    """For twin and student; of text that a teacher has labelled, none."""
    for split in ("valid", "test"):
        for language in ("de", "en"):
            (tmp_path / f"{split}.{language}").write_text("a line\n" * 5)
    for copies, dropout in ((1, "0.1"), (9, "0")):
        for path in train:
            path.write_text("a line of words\n" * 50_000 * copies)
        (tmp_path / "more.de").write_text("more lines\n" * 5)
        changes = {"corpus": str(tmp_path), "unlabelled": [str(tmp_path / "more.de")]}
        changes["student"] = {"model": "small_3x3", "steps": 10_000, "dropout": "auto"}  # whose file has 0.1
        graph = Graph(read_recipe(None, changes), tmp_path / f"out{copies}")
        stages = {stage.name: stage for stage in graph.stages()}
        assert "distillation=recommended" in stages["student"].command
        for name in ("plain", "student"):
            assert f"model.encoder.ffn_dropout={dropout}" in stages[name].command
        assert "model.encoder.ffn_dropout=0" in stages["unlabelled"].command
        assert graph.notes[0].startswith(
            "student.dropout is 0.1: a student reads"
            if dropout != "0"
            else "student.dropout, 0.1 for text that is read"
        )


def test_text_that_is_still_to_be_fetched_is_little():
    found, notes = with_what_pays(read_recipe(None), [])
    assert found.student.dropout == 0.1
    assert notes == ["student.dropout is 0.1: how often the text is read is not known before it is fetched"]


def test_batches_without_a_number_of_tokens_are_refused(train, tmp_path):
    recipe = recipe_of(tmp_path)
    recipe.overrides = ["data.tokens_in_batch=null"]
    with pytest.raises(InputError, match=r"recipe\.runs\.student: data\.tokens_in_batch is no number of tokens"):
        with_what_pays(recipe, train)


@pytest.mark.parametrize("preset", ["recommended", "hinton_cached", "hybrid_cached"])
@pytest.mark.parametrize("steps", [10, 10_000])
def test_the_commands_have_the_cache_or_the_teacher(train, tmp_path, steps, preset):
    for split in ("valid", "test"):
        for language in ("de", "en"):
            (tmp_path / f"{split}.{language}").write_text("a line\n" * 5)
    recipe = recipe_of(tmp_path, steps=steps, preset=preset)
    recipe.corpus = str(tmp_path)
    recipe.runs["student"].start = None
    graph = Graph(recipe, tmp_path / "out")
    stages = {stage.name: stage for stage in graph.stages()}
    student, pays = stages["student"], steps == 10_000
    assert ("cache-one" in stages) == pays == ("cache-one" in student.needs)
    assert any(each.startswith("cache 'one'") for each in graph.notes) != pays
    assert (f"cache={tmp_path / 'out' / 'caches' / 'one'}" in student.command) == pays
    assert f"teacher={tmp_path / 'out' / 'teacher' / 'teacher.nemo'}" in student.command
    live = preset.removesuffix("_cached")
    assert f"distillation={preset if pays else live}" in student.command
    assert "cache-other" in stages
    planned = ShortRuns(graph, tmp_path / "plan", 1, 100.0)
    assert [stage.name for stage in planned.stages] == list(stages)
    assert planned.recipe.runs["student"].cache == ("one" if pays else None)


def test_status_says_what_is_not_made_until_a_call_that_makes_it(train, tmp_path):
    for split in ("valid", "test"):
        for language in ("de", "en"):
            (tmp_path / f"{split}.{language}").write_text("a line\n" * 5)
    out = tmp_path / "out"
    out.mkdir()
    Progress({}).write(out)
    for steps, said in ((10, True), (10_000, False)):
        recipe = recipe_of(tmp_path, steps=steps)
        recipe.corpus = str(tmp_path)
        for path, text in Graph(recipe, out).inputs().items():
            path.write_text(text)
        assert ("cache 'one' would score about 400,000 tokens once; its student reads" in table_of(out)) == said
    (out / "notes.json").write_text('{"a": 1}')
    with pytest.raises(InputError, match=r"notes\.json' is damaged; start the job again"):
        table_of(out)


def test_a_corpus_that_the_job_fetches_has_its_caches(tmp_path):
    """Whether one pays must not change once the text is there."""
    recipe = recipe_of(tmp_path, steps=1)
    recipe.corpus = "ui-strings"
    assert "one" in Graph(recipe, tmp_path / "out").recipe.caches


def test_what_is_made_for_no_run_is_told():
    """As where `--set runs.few_labels=null` leaves a run out; a choice needs the hypotheses it chooses from."""
    changes = {
        "pseudo_labels": {"beam": {}, "best": {"select_from": "beam", "options": ["--select", "mbr"]}, "other": {}},
        "caches": {"gold": {}, "both": {"texts": ["gold", "best"]}},
        "runs": {
            "plain": {"plain": True},
            "one": {"cache": "both", "start": "every_nth", "overrides": ["distillation=recommended"]},
        },
    }
    told = ["caches.gold is made, and no run reads it: caches.gold=null leaves it out"]
    told.append(told[0].replace("caches.gold", "pseudo_labels.other"))
    assert unread(read_recipe(None, changes)) == told
    less = [f"{each.split()[0]}=null" for each in told]
    assert unread(read_recipe(None, changes, less)) == []
    assert unread(read_recipe(None, changes, [*less, "runs.one=null"])) == [
        f"{each} is made, and no run reads it: {each}=null leaves it out"
        for each in ("caches.both", "pseudo_labels.beam", "pseudo_labels.best")
    ]
