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
"""A student that starts from its teacher is built like it, or told early why it cannot be."""

from dataclasses import replace

import pytest
from omegaconf import OmegaConf

from nemo_distill.errors import InputError
from nemo_distill.jobs.allowed import keys_of
from nemo_distill.jobs.architecture import built_student, model_section, start_overrides
from nemo_distill.jobs.graph import Graph
from nemo_distill.jobs.recipe import read_recipe
from nemo_distill.jobs.sizes import chosen_student
from nemo_distill.jobs.teachers import GivenTeachers

RUNS = {"plain": {"plain": True}, "started": {"start": "every_nth"}}
SLIM = ["model.encoder.hidden_size=16", "model.encoder.inner_size=32"]


def both(key: str, value) -> dict:
    return {f"{side}.{key}": value for side in ("encoder", "decoder")}


def started(differences=None, overrides=(), run=(), **changes):
    """Return a recipe whose student starts from its teacher, and that: tiny_1x1 but for what is said.

    The teacher is 32 wide and has two layers, the student 16 and one.
    """
    section = OmegaConf.to_container(model_section("train_nmt", "tiny_1x1", []), resolve=False)
    config = OmegaConf.create({"model": {key: section[key] for key in ("encoder", "decoder", "shared_embeddings")}})
    OmegaConf.resolve(config)
    sizes = {**both("hidden_size", 32), **both("inner_size", 64), **both("num_layers", 2)}
    for key, value in {**sizes, **(differences or {})}.items():
        OmegaConf.update(config.model, key, value, merge=False)
    given = {"runs": {**RUNS, "started": {"start": "every_nth", "overrides": list(run)}}}
    given |= {"student": {"model": "tiny_1x1", "overrides": [*SLIM, *overrides]}, "teacher": "teacher.nemo"}
    return read_recipe(None, {**given, **changes}), GivenTeachers(["teacher.nemo"], config.model)


@pytest.mark.parametrize(
    ("differences", "found"),
    [
        ({}, []),
        ({"shared_embeddings": False}, ["model.shared_embeddings=false"]),
        (both("pre_ln", False), ["model.encoder.pre_ln=false"]),
        (both("pre_ln_final_layer_norm", False), ["model.encoder.pre_ln_final_layer_norm=false"]),
        (both("hidden_act", "gelu"), ["model.encoder.hidden_act=gelu"]),
        (both("learn_positional_encodings", True), ["model.encoder.learn_positional_encodings=true"]),
        (both("max_sequence_length", 64), ["model.encoder.max_sequence_length=64"]),
        (both("max_sequence_length", 1024), ["model.encoder.max_sequence_length=1024"]),
        ({"encoder.mask_future": True}, ["model.encoder.mask_future=true"]),
        (both("num_attention_heads", 8), ["model.encoder.num_attention_heads=4"]),
        ({"decoder.num_attention_heads": 1}, ["model.decoder.num_attention_heads=1"]),
        ({"decoder.pre_ln": False}, ["model.decoder.pre_ln=false"]),
        ({"encoder.hidden_act": "gelu"}, ["model.encoder.hidden_act=gelu", "model.decoder.hidden_act=relu"]),
        (both("num_token_types", 2), []),  # which no translation model looks up
        (both("num_layers", 4), []),
    ],
    ids=str,
)
def test_a_student_is_built_like_its_teacher(differences, found):
    recipe, given = started(differences)
    assert start_overrides(recipe, given, "tiny_1x1") == found
    assert built_student(recipe, given, "tiny_1x1").overrides == [*SLIM, *found]
    recipe.runs["started"].start = None
    given.has_two_tokenizers = False  # what its archive would tell
    assert start_overrides(recipe, given, "tiny_1x1") == []


def test_a_teacher_without_a_key_is_as_nemo_builds_it():
    recipe, given = started(both("num_token_types", 0))
    for side in ("encoder", "decoder"):
        for key in ("pre_ln", "pre_ln_final_layer_norm", "hidden_act", "max_sequence_length", "num_token_types"):
            del given.config[side][key]
    assert start_overrides(recipe, given, "tiny_1x1") == ["model.encoder.pre_ln=false"]


def test_a_student_may_have_fewer_positions_and_separate_tables():
    own = ["model.encoder.max_sequence_length=32", "model.shared_embeddings=false"]
    assert built_student(*started({}, own), "tiny_1x1").overrides == [*SLIM, *own]


CONTRADICTED = {**both("pre_ln", False), **both("num_token_types", 2), **both("num_attention_heads", 8)}


@pytest.mark.parametrize(
    ("differences", "overrides", "run", "faults"),
    [
        (
            {**CONTRADICTED, "shared_embeddings": False},
            [
                "model.shared_embeddings=true",
                "model.encoder={pre_ln: true, max_sequence_length: 1024}",
                "model.encoder.num_token_types=3",
                "model.encoder.num_attention_heads=2",
            ],
            [],
            [
                "model.shared_embeddings=true of recipe.student.overrides: of this teacher it needs "
                "model.shared_embeddings=false",
                "model.encoder.pre_ln=true of recipe.student.overrides: of this teacher it needs "
                "model.encoder.pre_ln=false",
                "model.encoder.max_sequence_length=1024 of recipe.student.overrides: of this teacher it needs "
                "model.encoder.max_sequence_length=512",
                "needs model.encoder.num_token_types=2",
                "needs model.encoder.num_attention_heads=4",
            ],
        ),
        (
            both("num_layers", 3),
            [],
            ["model.decoder={hidden_act: gelu, inner_size: 128, num_layers: 5}", "model.encoder.num_layers=4"],
            [
                "model.decoder.hidden_act=gelu of recipe.runs.started.overrides: of this teacher it needs",
                "model.decoder.inner_size is 128, and the teacher's 64",
                "layers of the encoder: every_nth needs a student of no more layers",
                "layers of the decoder: every_nth needs a student of no more layers than the teacher, but 5",
            ],
        ),
        ({}, ["model.encoder.hidden_size=64"], [], ["model.encoder.hidden_size is 64, and the teacher's 32"]),
        (
            both("num_attention_heads", 4),
            ["model.encoder.hidden_size=30"],
            [],
            ["is 30, which makes no heads", "4 of 8"],
        ),
    ],
    ids=["structure", "of a run", "wider", "heads"],
)
def test_what_contradicts_the_teacher_is_told_before_any_work(differences, overrides, run, faults):
    with pytest.raises(InputError, match="or leave start out$") as told:
        built_student(*started(differences, overrides, run), "tiny_1x1")
    assert "recipe.runs.started.start: got every_nth, and a student of tiny_1x1 cannot start" in str(told.value)
    assert [fault for fault in faults if fault not in str(told.value)] == []


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "model.encoder.num_attention_heads=0",
            "num_attention_heads=0' is not a whole number, at least 1",
        ),
        ("model.encoder.inner_size=1e12", "model.encoder.inner_size is .*, no whole number from 1 to"),
        ("~model.encoder.pre_ln", "^recipe: the overrides make no model: .*'model.encoder.pre_ln' not found"),
    ],
)
def test_overrides_that_make_no_model(override, message):
    with pytest.raises(InputError, match=message):
        built_student(*started({}, [override]), "tiny_1x1")


@pytest.mark.parametrize(
    ("differences", "changes", "message"),
    [
        ({}, {"teacher": ["a.nemo", "b.nemo"]}, "there are 2 teachers, .*: give one, or leave start out"),
        ({"encoder.library": "huggingface"}, {}, "encoder is of huggingface, without NeMo's layers, .*: leave start"),
        ({"encoder.arch": "perceiver"}, {}, r"encoder \(perceiver\) has no list of layers, .*: leave start out"),
        ({"decoder.hidden_size": 16}, {}, "encoder is 32 wide and its decoder 16, .*: leave start out"),
    ],
)
def test_teachers_that_nothing_starts_from(differences, changes, message):
    with pytest.raises(InputError, match=f"^recipe.runs.started.start: got every_nth, and .*{message}"):
        built_student(*started(differences, **changes), "tiny_1x1")


def test_a_side_whose_layers_are_left_alone_may_be_any():
    """The run's own overrides come before its start, which leaves what they say of a side."""
    run = ["++model.distillation.init.encoder=null"]
    start = "++model.distillation.init={from_teacher: every_nth, width: project}"
    assert model_section("distill", "tiny_1x1", [*run, start]).distillation.init.encoder is None
    built_student(*started({"encoder": OmegaConf.create({"library": "huggingface"})}, [], run), "tiny_1x1")


@pytest.mark.parametrize(
    ("teacher", "student", "found"),
    [
        # small_1x1 has too many with a second table of embeddings
        ("model: slim_3x3", "compression: 6", ("tiny_1x1", [80, 320, 2])),
        (
            "model: slim_3x3, overrides: [model.decoder.num_layers=2]",
            "size_mb: 10000",
            ("slim_1x1", [256, 1024, 4]),
        ),  # 3x2
    ],
)
def test_the_largest_that_can_start_is_chosen(teacher, student, found):
    recipe = read_recipe(None, {"runs": RUNS}, [f"teacher={{{teacher}}}", f"student={{{student}}}"])
    chosen = chosen_student(recipe, None)
    assert (chosen.model, chosen.width()) == found


def test_not_even_the_smallest_can_start():
    teacher = "teacher={model: tiny_1x1, overrides: [model.encoder.hidden_size=24]}"
    recipe = read_recipe(None, {"runs": RUNS}, [teacher, "student={size_mb: 100}"])
    message = (
        r"^recipe.student: none of .* not even tiny_1x1, 377.2 K weights:\n .*hidden_size is 64, and the teacher's 24"
    )
    with pytest.raises(InputError, match=message):
        chosen_student(recipe, None)


def test_all_runs_of_a_job_are_built_alike(tmp_path):
    """The plain twin and the short runs of `plan` too, whose recipe has the student that was found."""
    settings = ["teacher={model: slim_3x3, overrides: [model.encoder.pre_ln=false]}", "student={compression: 6}"]
    recipe = read_recipe(None, {"runs": RUNS, "corpus": "ui-strings"}, settings)
    graph = Graph(recipe, tmp_path)
    stages = {stage.name: stage.command for stage in graph.stages()}
    overrides = ["model.shared_embeddings=false", "model.encoder.pre_ln=false"]
    for name in ("plain", "started"):
        assert {"model=tiny_1x1", *overrides} <= set(stages[name])
    again = Graph(replace(recipe, student=graph.student), tmp_path)
    assert {stage.name: stage.command for stage in again.stages()} == stages


def test_keys_of_overrides():
    given = ["model.encoder={pre_ln: true, hidden_act: gelu}", "++seed=1", "~model.decoder.pre_ln", "distillation=nll"]
    named = {"model.encoder.pre_ln", "model.encoder.hidden_act", "seed", "model.decoder.pre_ln", "distillation"}
    assert keys_of(given) == named
