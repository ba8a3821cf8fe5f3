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
"""Which caches are worth the time that they take."""

import gzip
from pathlib import Path

import pytest

from nemo_distill.errors import InputError
from nemo_distill.jobs.graph import Graph
from nemo_distill.jobs.paying import with_caches_that_pay
from nemo_distill.jobs.recipe import Recipe, read_recipe

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
        ({"seeds": "[1, 2]", "steps": 301}, True),
        ({"seeds": "[1, 2]", "steps": 300}, False),
        ({"ending": _PATIENT, "steps": 1200}, False),  # patience may end it half way
        ({"ending": _PATIENT, "steps": 1202}, True),
        ({"texts": "[gold, beam]", "steps": 2400}, False),  # three hypotheses are kept of each line
        ({"texts": "[gold, beam]", "steps": 2402}, True),
    ],
)
def test_it_pays_from_one_and_a_half_readings_on(train, tmp_path, changes, pays):
    found, notes = with_caches_that_pay(recipe_of(tmp_path, **changes), train)
    assert ("one" in found.caches) == pays == (found.runs["student"].cache == "one") == (not notes)
    assert found.runs["cached"].cache == "other"
    assert not any(cache.if_it_pays for cache in found.caches.values())
    assert with_caches_that_pay(found, train) == (found, [])


def test_what_is_not_made_is_told_in_figures(train, tmp_path):
    _, notes = with_caches_that_pay(
        recipe_of(tmp_path, steps=9000, ending=", patience: 1, validate_every: 9"), train[:1] * 20
    )
    assert notes == [
        "cache 'one' does not pay: student would read about 4 million tokens of it, and it would score more than "
        "3 million; the teacher runs beside them"
    ]


def test_a_compressed_text_counts_by_its_content(train, tmp_path):
    for path in train:
        Path(f"{path}.gz").write_bytes(gzip.compress(path.read_bytes()))
    compressed = [Path(f"{path}.gz") for path in train]
    for steps, pays in ((600, False), (602, True)):
        assert ("one" in with_caches_that_pay(recipe_of(tmp_path, steps=steps), compressed)[0].caches) == pays


def test_the_rows_of_a_grid_too(train, tmp_path):
    path = tmp_path / "grid.yaml"
    path.write_text(
        "caches: {one: {if_it_pays: true}}\noverrides: [data.tokens_in_batch=1000]\n"
        "runs: {plain: {plain: true}}\n"
        "grid: {temperatures: [1], starts: {random: []}, objectives: "
        "{a: {label: A, cache: one, overrides: [distillation=recommended]}}}\n"
    )
    recipe = read_recipe(path, settings=["student.steps=1"])
    found, notes = with_caches_that_pay(recipe, train)
    assert len(notes) == 1
    assert {run.cache for run in found.runs.values()} == {None}
    assert found.runs.keys() == recipe.runs.keys()


def test_an_objective_that_needs_its_cache_is_refused(train, tmp_path):
    with pytest.raises(
        InputError, match=r"^recipe.runs.student: its cache is made only if it pays, and distillation=h"
    ):
        with_caches_that_pay(recipe_of(tmp_path, preset="hinton_cached"), train)


@pytest.mark.parametrize("steps", [10, 10_000])
def test_the_commands_have_the_cache_or_the_teacher(train, tmp_path, steps):
    for split in ("valid", "test"):
        for language in ("de", "en"):
            (tmp_path / f"{split}.{language}").write_text("a line\n" * 5)
    recipe = recipe_of(tmp_path, steps=steps)
    recipe.corpus = str(tmp_path)
    graph = Graph(recipe, tmp_path / "out")
    stages = {stage.name: stage for stage in graph.stages()}
    student = stages["student"]
    pays = steps == 10_000
    assert ("cache-one" in stages) == pays == ("cache-one" in student.needs) == (not graph.notes)
    assert f"cache={tmp_path / 'out' / 'caches' / 'one'}" in student.command or not pays
    assert f"teacher={tmp_path / 'out' / 'teacher' / 'teacher.nemo'}" in student.command
    assert "cache-other" in stages


def test_a_corpus_that_the_job_fetches_has_its_caches(tmp_path):
    """Whether one pays must not change once the text is there."""
    recipe = recipe_of(tmp_path, steps=1)
    recipe.corpus = "ui-strings"
    assert "one" in Graph(recipe, tmp_path / "out").recipe.caches
