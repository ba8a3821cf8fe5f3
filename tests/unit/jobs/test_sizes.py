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
"""Weights by arithmetic are those of the models that NeMo builds; targets choose among configs/model."""

import re

import pytest
import torch
from hydra import compose, initialize_config_dir
from nemo.collections.nlp.models import MTEncDecModel
from omegaconf import OmegaConf

from nemo_distill.archives.restore import restore_model
from nemo_distill.data.tokenizer import name_libraries
from nemo_distill.errors import InputError
from nemo_distill.evaluation.engines import count_parameters
from nemo_distill.jobs.architecture import built_student, model_section
from nemo_distill.jobs.graph import Graph
from nemo_distill.jobs.recipe import read_recipe
from nemo_distill.jobs.running import CONFIGS
from nemo_distill.jobs.sizes import chosen_student, most_weights, teacher_weights, vocabularies_of
from nemo_distill.jobs.teachers import GivenTeachers
from nemo_distill.jobs.widths import parameters_of, width_overrides


@pytest.mark.parametrize(
    "overrides",
    [
        ["model=tiny_1x1"],
        ["model=slim_3x3", "model.encoder.hidden_size=32", "model.encoder.inner_size=48"],
        ["model=tiny_1x1", "model.encoder.learn_positional_encodings=true", "model.encoder.num_token_types=2"],
        ["model=tiny_1x1", "model.encoder.pre_ln=false", "model.encoder.num_layers=3"],
        ["model=tiny_1x1", "model.encoder.pre_ln_final_layer_norm=false", "~model.decoder.num_token_types"],
        ["model=tiny_1x1", *(f"~model.{side}.pre_ln_final_layer_norm" for side in ("decoder", "encoder"))],
    ],
    ids=lambda overrides: "-".join(each.split("=")[0].split(".")[-1] for each in overrides),
)
def test_weights_are_those_of_the_model(tiny_corpus, train_tokenizer, overrides):
    tokenizer = train_tokenizer([tiny_corpus / "train.de", tiny_corpus / "train.en"], 117)  # no multiple of 8
    with initialize_config_dir(str(CONFIGS), version_base=None):
        config = compose("train_nmt", [*overrides, f"data.tokenizer={tokenizer}", "data.dir=none"])
    section = OmegaConf.to_container(config, resolve=True, throw_on_missing=False)["model"]
    section = {key: value for key, value in section.items() if not key.endswith("_ds") and key != "optim"}
    name_libraries(section)
    model = MTEncDecModel(OmegaConf.create(section))
    sizes = (model.encoder_tokenizer.vocab_size, model.decoder_tokenizer.vocab_size)
    assert parameters_of(config.model, sizes) == count_parameters(model)


@pytest.mark.parametrize(
    ("model", "sizes", "weights"),
    [
        ("deep_tiny_6x2", (6, 2, 256, 1536), 17_172_736),
        ("deep_medium_6x4", (6, 4, 384, 1536), 32_436_224),
        ("deep_base_6x2", (6, 2, 512, 2048), 43_742_464),
        ("deep_base_12x1", (12, 1, 512, 2048), 58_452_736),
    ],
)
def test_deep_encoders_and_shallow_decoders(tiny_tokenizer, model, sizes, weights):
    """Sizes and weights as their files say; NeMo builds as many."""
    section = model_section("train_nmt", model, [f"data.tokenizer={tiny_tokenizer}", "data.dir=none"])
    keys = ("encoder.num_layers", "decoder.num_layers", "encoder.hidden_size", "encoder.inner_size")
    assert tuple(OmegaConf.select(section, key) for key in keys) == sizes
    assert parameters_of(section, (32_000, 32_000)) == weights
    assert (
        f": {weights / 1e6:.1f} M parameters with a 32 k vocabulary" in (CONFIGS / f"model/{model}.yaml").read_text()
    )
    plain = OmegaConf.to_container(section, resolve=True) | {"train_ds": None, "validation_ds": None}
    name_libraries(plain)
    with torch.device("meta"):
        built = MTEncDecModel(OmegaConf.create(plain))
    vocabularies = (built.encoder_tokenizer.vocab_size, built.decoder_tokenizer.vocab_size)
    assert parameters_of(section, vocabularies) == count_parameters(built)


def test_weights_of_a_given_teacher(tiny_teacher_path):
    given = GivenTeachers.open([str(tiny_teacher_path)])
    assert parameters_of(given.config, given.vocabulary_sizes()) == count_parameters(restore_model(tiny_teacher_path))


def test_weights_of_a_teacher_that_is_not_nemos_are_not_known():
    """A target of latency has no limit by them."""
    assert teacher_weights(read_recipe(None, {"teacher": "directory"}), None, (100, 100)) is None


SHALLOW = "model.encoder.num_layers=1, model.decoder.num_layers=1"


@pytest.mark.parametrize(
    ("student", "further", "found", "width"),
    [
        ("{compression: 17}", ["runs={plain: {plain: true}}"], "tiny_1x1", None),  # 6.6 M weights: README's 17.4
        ("{compression: 14}", ["runs={plain: {plain: true}}"], "tiny_1x1", [72, 288, 2]),
        ("{compression: 6.6}", ["runs={plain: {plain: true}}"], "small_1x1", None),
        # Narrower than all of configs/model, and no narrower than half of the narrowest.
        ("{compression: 12}", [], "tiny_1x1 3x3", [56, 224, 2]),
        ("{compression: 17}", [], "tiny_1x1 3x3", [40, 160, 1]),
        ("{compression: 17.6, overrides: [model.encoder.num_layers=3]}", [], "tiny_1x1", [48, 192, 2]),
        ("{compression: 20, overrides: [model.encoder.inner_size=256]}", [], "tiny_1x1 3x3", [32, 256, 1]),
        ("{compression: 50}", [], "no size", None),
        ("{compression: 17.6, overrides: [model.encoder.hidden_size=64]}", [], "no size", None),
        # The deepest, though it is lighter for the steps between widths.
        ("{compression: 14}", [], "tiny_1x1 3x3", [48, 192, 2]),
        ("{compression: 6.6}", [], "tiny_1x1 3x3", [80, 320, 2]),
        # Students that start from three layers have three, narrow ones, where that is about as large.
        ("{compression: 5}", [], "tiny_1x1 3x3", [96, 384, 3]),
        ("{compression: 5}", ["runs={plain: {plain: true}}"], "small_1x1", [152, 608, 2]),
        (
            f"{{compression: 5, overrides: [{SHALLOW}]}}",
            [],
            "small_1x1",
            [152, 608, 4],
        ),  # of the teacher's heads of 64
        ("{compression: 5, overrides: [model.encoder.num_attention_heads=4]}", [], "tiny_1x1 3x3", [96, 384, 4]),
        ("{compression: 5, overrides: [model.encoder.inner_size=256]}", [], "tiny_1x1 3x3", [112, 256, 4]),
        ("{compression: 5, overrides: [model.encoder.inner_size=200]}", [], "tiny_1x1 3x3", [120, 200, 3]),
        ("{compression: 5, overrides: [model.encoder.num_layers=3]}", [], "tiny_1x1", [120, 480, 3]),
        # Of the decoder only what follows the encoder gets its width.
        (
            "{compression: 8, overrides: [model.decoder.inner_size=256]}",
            ["runs={plain: {plain: true}}"],
            "tiny_1x1",
            [112, 448, 4],
        ),
        ("{compression: 1}", [], "small_3x3", None),
        ("{size_mb: 1}", ["export=int8"], "tiny_1x1 3x3", [80, 320, 2]),
        ("{size_mb: 0.5}", [], "no size", None),
        ("{size_mb: 1.6}", ["export=float16"], "tiny_1x1 3x3", [72, 288, 2]),
        ("{size_mb: 100, compression: 6.6}", [], "tiny_1x1 3x3", [80, 320, 2]),
        # The deep ones have more weights, and are taken by name alone. Of those about as heavy it is the deepest.
        ("{size_mb: 130}", ["runs={plain: {plain: true}}"], "slim_3x3", [544, 2176, 8]),
    ],
)
def test_the_largest_that_fits_is_chosen(student, further, found, width):
    settings = [f"student={student}", "export=null", "teacher={model: small_3x3}", *further]
    recipe = read_recipe(None, {}, settings)
    if found == "no size":
        with pytest.raises(
            InputError, match="leaves room for [0-9,]+ weights, and the smallest that a target chooses is tiny_1x1"
        ):
            chosen_student(recipe, None)
        return
    chosen, (model, *deepened) = chosen_student(recipe, None), found.split()
    assert (chosen.model, chosen.width(), chosen.is_deepened) == (model, width, bool(deepened))
    assert chosen.layers == (3, 3) or not deepened
    most = most_weights(recipe, None, vocabularies_of(recipe, None))
    section = model_section("distill", model, [*recipe.student.overrides, *chosen.overrides()])
    assert chosen.parameters == parameters_of(section, (4000, 4000)) <= most
    if width is not None:
        share = 1 + (8 if width[0] < 256 else 32) / width[0]  # one step further
        wider = [round(share * width[0]), round(share * width[1]), width[2]]
        section = model_section(
            "distill", model, [*recipe.student.overrides, *chosen.overrides(), *width_overrides(wider)]
        )
        assert parameters_of(section, (4000, 4000)) > most


OF_TEACHER, FOLLOWS = (
    "teacher.overrides=[model.decoder.num_attention_heads={}]",
    "${model.encoder.num_attention_heads}",
)


@pytest.mark.parametrize(
    ("student", "further", "layers", "width"),
    [
        ("compression: 5", [OF_TEACHER.format(1)], 3, [96, 384, 3, 1]),
        ("compression: 5", [OF_TEACHER.format(16)], 3, [96, 384, 3, 6]),
        (
            "compression: 5, overrides: [model.encoder.num_attention_heads=2]",
            [OF_TEACHER.format(16)],
            3,
            [96, 384, 2, 6],
        ),
        ("compression: 3, overrides: [model.decoder.num_attention_heads=2]", [], 3, [128, 512, 2]),
        (
            "compression: 5, overrides: [model.decoder.num_attention_heads=16]",
            ["runs={plain: {plain: true}}"],
            1,
            [144, 576, 2, 16],
        ),
        (f"compression: 5, overrides: ['model.decoder.num_attention_heads={FOLLOWS}']", [], 3, [96, 384, 3]),
    ],
)
def test_a_decoder_with_other_heads_than_its_encoder(student, further, layers, width):
    """Its teacher's heads fit each side by itself, and the user's share each width evenly."""
    recipe = read_recipe(None, {}, ["teacher={model: small_3x3}", f"student={{{student}}}", *further])
    chosen = chosen_student(recipe, None)
    assert (chosen.layers, chosen.width()) == ((layers, layers), width)
    built = built_student(recipe, None, chosen.model, chosen.overrides())
    section = model_section("distill", chosen.model, built.overrides)
    assert [side.num_attention_heads for side in (section.encoder, section.decoder)] == [width[2], width[-1]]
    assert chosen.parameters == parameters_of(section, (4000, 4000))


@pytest.mark.parametrize(
    ("layers", "found", "width"),
    [
        ((4, 4), (4, 4), [104, 416, 2]),  # which three does not divide
        ((6, 2), (3, 2), [120, 480, 3]),
        ((24, 6), (3, 3), [224, 896, 4]),
        ((12, 1), (3, 1), [168, 672, 3]),
        ((5, 7), (3, 3), [144, 576, 3]),  # which neither two, three nor four divide
        ((8, 10), (4, 2), [184, 736, 4]),
    ],
)
def test_a_student_of_about_three_layers(layers, found, width):
    """Of teachers whose layers three does not divide they had one."""
    sides = "model.encoder.num_layers={}, model.decoder.num_layers={}".format(*layers)
    settings = [f"teacher={{model: small_3x3, overrides: [{sides}]}}", "student={compression: 5}", "export=null"]
    recipe = read_recipe(None, {}, settings)
    chosen = chosen_student(recipe, None)
    assert (chosen.layers, chosen.width()) == (found, width)
    built = built_student(recipe, None, chosen.model, chosen.overrides())  # which can start
    section = model_section("distill", chosen.model, built.overrides)
    assert (section.encoder.num_layers, section.decoder.num_layers) == found
    assert parameters_of(section, (4000, 4000)) == chosen.parameters


@pytest.mark.parametrize(
    ("target", "export"),
    [
        ("compression: 50", "null"),
        ("size_mb: 0.1", "int8"),
        ("size_mb: 0.5", "null"),
        ("compression: 50, size_mb: 0.1", "int8"),
    ],
)
def test_what_the_smallest_takes_is_said_and_is_enough(target, export):
    further = [f"export={export}", "teacher={model: small_3x3}"]
    with pytest.raises(InputError, match="tiny_1x1 with 32/128, 1 head, 162.0 K weights; give student") as error:
        chosen_student(read_recipe(None, {}, [f"student={{{target}}}", *further]), None)
    advised = re.findall(r"student.(compression|size_mb)=([0-9.]+) or ", str(error.value))
    assert [key for key, _ in advised] == re.findall(r"(\w+):", target)
    settings = ", ".join(f"{key}: {value}" for key, value in advised)
    chosen = chosen_student(read_recipe(None, {}, [f"student={{{settings}}}", *further]), None)
    assert chosen.words() == "tiny_1x1 with 32/128, 1 head, 162.0 K weights"


@pytest.mark.parametrize("model", ["tiny_1x1", "deep_tiny_6x2"])
def test_a_model_that_is_given_is_not_chosen(model):
    assert chosen_student(read_recipe(None, {}, [f"student={{model: {model}}}", "export=null"]), None) is None


def test_a_job_trains_the_width_that_was_found(tiny_corpus, tmp_path):
    settings = ["student={compression: 5, steps: 3}", "teacher={model: small_3x3}"]
    graph = Graph(read_recipe(None, {"corpus": str(tiny_corpus)}, settings), tmp_path)
    assert graph.size.words() == "tiny_1x1 with 3x3 layers, 96/384, 3 heads, 1.2 M weights"
    for stage in graph.stages():
        if stage.name in ("plain", "student"):
            layers = ["model.encoder.num_layers=3", "model.decoder.num_layers=3"]
            assert {"model=tiny_1x1", *layers, *width_overrides([96, 384, 3])} < set(stage.command)


@pytest.mark.parametrize(
    ("student", "message"),
    [
        ("{compression: 0}", "student.compression: got 0.0; give a number above 0"),
        ("{compression: 0.2}", "student.compression: got 0.2; it is the weights of the teacher divided by those of"),
        ("{size_mb: .nan}", "student.size_mb: got nan"),
        ("{compression: 5, model: tiny_1x1}", "got both a model and a target; give one of"),
        ("{latency_ms: -1}", "student.latency_ms: got -1.0; give a number above 0"),
        ("{latency_ms: 2, model: tiny_1x1}", "give one of model and compression, size_mb, latency_ms"),
        ("{compresion: 5}", r"unknown key \(did you mean 'compression'\?\)"),
    ],
)
def test_faulty_targets(student, message):
    with pytest.raises(InputError, match=message):
        read_recipe(None, {}, [f"student={student}"])
