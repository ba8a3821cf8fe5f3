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
"""The widest student that is fast enough: by made-up timings, which the noted choice outlives."""

import json
from dataclasses import replace

import pytest

from nemo_distill import cli
from nemo_distill.cli.jobs import _graph
from nemo_distill.errors import InputError
from nemo_distill.jobs.graph import Graph
from nemo_distill.jobs.latency import CHOICE_NAME, choose, widest
from nemo_distill.jobs.recipe import read_recipe
from nemo_distill.jobs.sizes import Timing
from nemo_distill.jobs.widths import Candidate
from nemo_distill.support.files import write_text_atomic


def timing(section) -> Timing:
    """Return 1.28 ms for tiny_1x1, 2.56 for small_1x1, 5.12 for slim_1x1, 15.36 for small_3x3."""
    layers = section["encoder"]["num_layers"] + section["decoder"]["num_layers"]
    return Timing(section["encoder"]["hidden_size"] * layers / 100, 12, 11, 1)


def never(section) -> Timing:
    raise AssertionError("nothing is to be measured")


@pytest.fixture
def recipe_of(tiny_corpus):
    """A function from the student's section to a recipe whose teacher is small_3x3, with 6.6 M weights."""

    def build(student: str, *further: str):
        given = {"corpus": str(tiny_corpus)}
        return read_recipe(None, given, [f"student={student}", "teacher={model: small_3x3}", *further], starts=False)

    return build


@pytest.fixture
def chosen(recipe_of, tiny_corpus, tmp_path):
    """A function from the student's section to what is chosen, and the timings that it took."""

    def find(student: str, *further: str):
        measured = []
        text = tuple(tiny_corpus / f"train.{language}" for language in ("de", "en"))
        choice = choose(
            recipe_of(student, *further),
            None,
            text,
            tmp_path / CHOICE_NAME,
            lambda section: measured.append(section) or timing(section),
        )
        return choice, measured

    return find


@pytest.mark.parametrize(
    ("student", "model", "width", "latency", "count"),
    [
        ("{latency_ms: 1.28}", "tiny_1x1", None, 1.28, 4),
        ("{latency_ms: 2}", "tiny_1x1", [96, 384, 3], 1.92, 4),
        ("{latency_ms: 2.56}", "small_1x1", None, 2.56, 6),
        ("{latency_ms: 3}", "small_1x1", [144, 576, 2], 2.88, 6),
        ("{latency_ms: 3, compression: 17}", "tiny_1x1", None, 1.28, 1),
        ("{latency_ms: 3, compression: 12}", "tiny_1x1", [80, 320, 2], 1.6, 2),
        ("{latency_ms: 3, size_mb: 0.7}", "tiny_1x1", [96, 384, 3], 1.92, 2),
        ("{latency_ms: 3, overrides: [model.encoder.hidden_size=96]}", "wide_1x1", None, 1.92, None),
    ],
)
def test_the_widest_that_is_fast_enough(chosen, student, model, width, latency, count):
    choice, measured = chosen(student)
    assert (choice.model, choice.width, choice.latency_ms) == (model, width, latency)
    assert len(measured) == (count or len(measured))
    assert choice.parameters > 0
    names = [f"model.encoder.{name}" for name in ("hidden_size", "inner_size", "num_attention_heads")]
    assert choice.overrides() == [f"{name}={each}" for name, each in zip(names, width or (), strict=False)]


def test_words(chosen):
    choice, _ = chosen("{latency_ms: 2}")
    assert choice.words() == (
        "student: tiny_1x1 with 96/384 and 3 heads, 649.9 K weights; untrained it takes 1.92 ms for 12 tokens in and "
        "11 out (p50, beam 4, int8, 1 thread), of at most 2 ms"
    )
    assert "with 96/384 and 3/4 heads, " in replace(choice, width=[96, 384, 3, 4]).words()
    assert "with 96/384 and 3 heads, " in replace(choice, width=[96, 384, 3, 3]).words()


def test_even_the_smallest_is_too_slow(chosen):
    with pytest.raises(
        InputError, match=r"latency_ms: got 1, and tiny_1x1, 37\d\.\d K weights, takes 1.28 ms on this"
    ):
        chosen("{latency_ms: 1}")
    with pytest.raises(
        InputError, match="leaves room for [0-9,]+ weights, and the smallest that a target chooses is tiny_1x1"
    ):
        chosen("{latency_ms: 1, compression: 50}")


def test_a_deeper_model_has_more_weights_where_it_is_fast_enough():
    """Of each depth the widest is found, and what is deeper and wider than one that is too slow is not measured."""

    def size(name: str, layers: int, hidden: int) -> Candidate:
        return Candidate(name, (layers, layers), hidden, 4 * hidden, 2, 100 * hidden * layers, True)

    def between(low: Candidate, high: Candidate) -> list[Candidate]:
        return [
            Candidate("between", low.layers, hidden, 4 * hidden, 2, 100 * hidden * low.layers[0], False)
            for hidden in range(low.hidden_size + 16, high.hidden_size, 16)
        ]

    sizes = [size("a", 1, 64), size("b", 1, 1024), size("c", 3, 64), size("d", 3, 256), size("e", 6, 1024)]
    timed = {}

    def latency_of(candidate: Candidate) -> float:
        assert candidate not in timed
        timed[candidate] = 1 + candidate.hidden_size / 1000 + candidate.layers[0] / 10
        return timed[candidate]

    found = widest(sizes, between, latency_of, 1.5)
    assert (found.layers, found.hidden_size) == ((3, 3), 192)
    assert "e" not in {each.model for each in timed}
    assert len(timed) < 12


def test_what_was_chosen_stays(chosen, recipe_of, tiny_corpus, tmp_path):
    """A timing is never twice the same; the same job goes on with the same model."""
    first, _ = chosen("{latency_ms: 2}")
    write_text_atomic(tmp_path / CHOICE_NAME, first.text())
    again, measured = chosen("{latency_ms: 2, steps: 7}", "overrides=[model.optim.lr=0.1]")
    assert (again, measured) == (first, [])
    choose(recipe_of("{latency_ms: 2}"), None, (tmp_path / "gone", tmp_path), tmp_path / CHOICE_NAME, never)
    for other in ("{latency_ms: 2.1}", "{latency_ms: 2, compression: 5}"):
        assert chosen(other)[1]


STARTED = "runs={plain: {plain: true}, started: {start: first}}"


@pytest.mark.parametrize(
    ("teacher", "model", "width"),
    [
        ("encoder={hidden_size: 160, inner_size: 640, num_attention_heads: 10}", "small_1x1", [160, 640, 10]),
        ("decoder={num_layers: 1, pre_ln: false}", "slim_1x1", None),
        ("decoder={num_attention_heads: 16}", "small_1x1", [160, 640, 4, 10]),
    ],
)
def test_where_students_start_from_their_teacher_none_is_larger_than_it(chosen, tmp_path, teacher, model, width):
    further = [STARTED, f"teacher={{model: small_3x3, overrides: ['model.{teacher}']}}"]
    student = f"{{latency_ms: {100 if width is None else 3.2}}}"
    choice, measured = chosen(student, *further)
    assert (choice.model, choice.width) == (model, width)
    assert {each["decoder"]["pre_ln"] for each in measured} == {"pre_ln" not in teacher}
    write_text_atomic(tmp_path / CHOICE_NAME, choice.text())
    assert chosen(student, *further) == (choice, [])


def test_a_student_is_chosen_anew_for_a_teacher_that_is_built_otherwise(chosen, tmp_path):
    write_text_atomic(tmp_path / CHOICE_NAME, chosen("{latency_ms: 1.28}", STARTED)[0].text())
    assert not chosen("{latency_ms: 1.28}", STARTED)[1]
    other = "teacher={model: small_3x3, overrides: [model.encoder.hidden_act=gelu]}"
    assert {each["encoder"]["hidden_act"] for each in chosen("{latency_ms: 1.28}", STARTED, other)[1]} == {"gelu"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "../x"}, "names no student of this version; remove it, and a student is chosen anew"),
        ({"model": "tiny_9x9"}, "names no student"),
        ({"width": [96]}, "names no student"),
        ({"latency_ms": "fast"}, "latency_ms is 'fast', no finite number; remove it"),
    ],
)
def test_a_damaged_note(chosen, tmp_path, change, message):
    content = json.loads(chosen("{latency_ms: 2}")[0].text())
    (tmp_path / CHOICE_NAME).write_text(json.dumps({**content, **change}))
    with pytest.raises(InputError, match=message):
        chosen("{latency_ms: 2}")


def test_a_job_notes_its_student_and_trains_it(recipe_of, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("nemo_distill.jobs.untrained.Untrained", lambda *given: timing)
    recipe = recipe_of("{latency_ms: 2, steps: 5}")
    graph = Graph(recipe, tmp_path)
    assert not list(tmp_path.iterdir())
    assert "tiny_1x1 with 96/384, 3 heads, 649.9 K weights: 1.92 ms" in capsys.readouterr().err
    plain = next(stage for stage in graph.stages() if stage.name == "plain")
    assert plain.command[-4:-1] == graph.choice.overrides()
    assert "model=tiny_1x1" in plain.command
    assert not graph.student.has_target
    [(path, text)] = graph.inputs().items()
    write_text_atomic(path, text)
    monkeypatch.setattr("nemo_distill.jobs.untrained.Untrained", lambda *given: never)
    assert Graph(recipe, tmp_path).stages() == graph.stages()


def test_the_command_says_which_it_is(tiny_teacher_path, tiny_corpus, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("nemo_distill.jobs.untrained.Untrained", lambda *given: timing)
    student = "student={latency_ms: 1, overrides: [model.encoder.hidden_size=16, model.encoder.inner_size=32]}"
    words = ["run", "--corpus", str(tiny_corpus), "--teacher", str(tiny_teacher_path), "--set", student]
    graph = _graph(cli.build_parser().parse_args([*words, "--output-dir", str(tmp_path)]))
    assert f"{graph.choice.words()}\n" in capsys.readouterr().out
    assert graph.choice.latency_ms <= 1


def test_the_text_must_be_there(recipe_of, tmp_path):
    with pytest.raises(InputError, match=r"train.de' is not there yet, and how long its sentences are must be known"):
        Graph(recipe_of("{latency_ms: 2}", "corpus=ui-strings"), tmp_path)
