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
"""The `distillation` section: what is accepted, and one report of all that is not."""

import copy
import math

import pytest
from omegaconf import OmegaConf

from nemo_distill.config.section import DistillationConfig
from nemo_distill.errors import ConfigurationError, InputError

TEACHER = {"model_path": "teacher.nemo"}


def read(**section) -> DistillationConfig:
    return DistillationConfig.from_section({"teacher": TEACHER, **section})


def test_the_example_of_the_documentation():
    config = DistillationConfig.from_section(
        OmegaConf.create(
            """
            teacher: {model_path: teacher.nemo}
            objective:
              nll:     {weight: 1.0}
              word_kd: {weight: 1.0, temperature: 1.0, divergence: forward_kl}
              hidden:  {weight: 0.0, distance: cosine, encoder: uniform, decoder: uniform}
            init: null
            """
        )
    )
    assert config.teacher.model_path == "teacher.nemo"
    assert config.objective.nll.weight == 1
    assert config.objective.word_kd.divergence == "forward_kl"
    assert config == read()  # all of it is the default


def test_every_value_arrives():
    config = DistillationConfig.from_section(
        {
            "teacher": {"model_name": "nmt_de_en_transformer12x2"},
            "objective": {
                "nll": {"weight": 0},
                "word_kd": {
                    "weight": 40,
                    "temperature": 5,
                    "divergence": "jensen_shannon",
                    "scale_by_temperature": False,
                },
            },
            "capture": {"student_logits": "a.b", "teacher_logits": "c"},
        }
    )
    assert config.teacher.model_path is None
    assert config.teacher.model_name == "nmt_de_en_transformer12x2"
    word_kd = config.objective.word_kd
    assert (word_kd.weight, word_kd.temperature) == (40.0, 5.0)
    assert isinstance(word_kd.temperature, float)
    assert word_kd.divergence == "jensen_shannon"
    assert word_kd.scale_by_temperature is False
    assert (config.capture.student_logits, config.capture.teacher_logits) == ("a.b", "c")


@pytest.mark.parametrize(("alpha", "weights"), [(0.25, (0.75, 0.25)), (0, (1, 0)), (1, (0, 1))])
def test_alpha_is_short_for_two_weights(alpha, weights):
    objective = read(objective={"alpha": alpha, "word_kd": {"temperature": 2.0}}).objective
    assert (objective.nll.weight, objective.word_kd.weight) == weights
    assert objective.word_kd.temperature == 2.0


def test_terms_of_a_recipe():
    terms = read(objective={"terms": [{"_target_": "my.WordOrderKD", "window": 3}, {"_target_": "a.B", "name": "c"}]})
    first, second = terms.objective.terms
    assert (first.target, first.name, first.weight) == ("my.WordOrderKD", "word_order_kd", 1.0)
    assert first.settings == {"window": 3}
    assert second.name == "c"


def test_a_term_alone_is_enough():
    none = {"nll": {"weight": 0}, "word_kd": {"weight": 0}}
    for term in ({"hidden": {"weight": 1}}, {"attention": {"weight": 1}}, {"terms": [{"_target_": "a.B"}]}):
        read(objective={**none, **term})
    with pytest.raises(ConfigurationError, match="all weights are 0"):
        read(objective={**none, "terms": [{"_target_": "a.B", "weight": 0}]})


def test_interpolations_are_resolved():
    whole = OmegaConf.create({"tau": 3.0, "distillation": {"teacher": TEACHER}})
    OmegaConf.update(whole, "distillation.objective", {"word_kd": {"temperature": "${tau}"}}, force_add=True)
    assert DistillationConfig.from_section(whole.distillation).objective.word_kd.temperature == 3.0


def test_the_section_is_not_changed():
    plain = {"teacher": dict(TEACHER), "objective": {"alpha": 0.3, "word_kd": {"temperature": 2}}}
    for section in (copy.deepcopy(plain), OmegaConf.create(plain)):
        before = copy.deepcopy(section)
        DistillationConfig.from_section(section)
        assert section == before


def test_no_section():
    with pytest.raises(ConfigurationError, match=r"no `distillation` section; add one(.|\n)*teacher: {model_path"):
        DistillationConfig.from_section(None)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            {"teacher": TEACHER, "objective": {"hybrid": {}, "nll": 5}},
            "objective.nll: got 5; give a mapping with any of",
        ),
        (
            {"teacher": TEACHER, "objective": {"terms": [{1: 2}]}},
            r"terms\[0\]: got {1: 2}; give a mapping with `_target_",
        ),
        ({"teacher": {}}, "distillation.teacher: got none of model_path, model_name and cache; give one"),
        ({}, "distillation.teacher: got none of model_path, model_name and cache"),
        (
            {"teacher": {"cache": "c", "compile": "eager"}},
            "teacher.compile: got eager, and teacher.cache is read in the",
        ),
        (
            {"teacher": {"cache": "c"}, "capture": {"teacher_logits": "h"}},
            "capture.teacher_logits: got h, and teacher",
        ),
        ({"teacher": {"model_path": "a.nemo", "model_name": "b"}}, "distillation.teacher: got both of model_path"),
        ({"teacher": {"model_path": " "}}, "distillation.teacher.model_path: is empty; give the path of a .nemo file"),
        (
            {"teacher": {"model_path": "a.nemo", "precision": "bf-16"}},
            r"teacher.precision: got 'bf-16'; give one of fp32, bf16, fp16 \(did you mean 'bf16'",
        ),
        (
            {"teacher": {"model_path": "a.nemo", "compile": "inductr"}},
            r"teacher.compile: got 'inductr'; give one of .*inductor.* \(did you mean 'inductor'",
        ),
        (
            {"teacher": TEACHER, "objective": {"computation": "fast"}},
            "objective.computation: got 'fast'; give one of auto, lean, plain",
        ),
        (
            {"teacher": {"model_path": 5}},
            "distillation.teacher.model_path: got 5 of type int; give a str or list or null",
        ),
        ({"teacher": {"model_pth": "a"}}, r"distillation.teacher.model_pth: unknown key \(did you mean 'model_path'"),
        ({"teacher": "teacher.nemo"}, "distillation.teacher: got 'teacher.nemo'; give a mapping"),
        ({"teacher": None}, "distillation.teacher: got None; give a mapping"),
        ({"teacher": TEACHER, "objectiv": {}}, r"distillation.objectiv: unknown key \(did you mean 'objective'\?\)"),
        ({"teacher": TEACHER, "zzz": 1}, "distillation.zzz: unknown key; known keys are teacher, objective, capture"),
        ({"teacher": TEACHER, "init": "every_nth"}, "distillation.init: got 'every_nth'; give a mapping with any of"),
    ],
)
def test_bad_sections(section, message):
    with pytest.raises(ConfigurationError, match=message):
        DistillationConfig.from_section(section)


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ({"word_kd": {"temprature": 2.0}}, r"objective.word_kd.temprature: unknown key \(did you mean 'temperature'"),
        ({"word_kd": {"temperature": 0}}, "objective.word_kd.temperature: got 0.0; give a finite number above 0"),
        ({"word_kd": {"temperature": -1.5}}, "objective.word_kd.temperature: got -1.5; give a finite number above 0"),
        ({"word_kd": {"temperature": math.nan}}, "objective.word_kd.temperature: got nan; give a finite number"),
        ({"word_kd": {"temperature": math.inf}}, "objective.word_kd.temperature: got inf; give a finite number"),
        ({"word_kd": {"temperature": "high"}}, "word_kd.temperature: got 'high' of type str; give a float"),
        ({"word_kd": {"temperature": True}}, "word_kd.temperature: got True of type bool; give a float"),
        ({"word_kd": {"temperature": None}}, "word_kd.temperature: got None of type NoneType; give a float"),
        ({"word_kd": {"scale_by_temperature": 1}}, "scale_by_temperature: got 1 of type int; give a bool"),
        (
            {"word_kd": {"divergence": "reverse-kl"}},
            r"divergence: got 'reverse-kl'; give one of forward_kl, .*did you mean 'reverse_kl'",
        ),
        ({"word_kd": None}, "objective.word_kd: got None; give a mapping with any of the keys weight, temperature"),
        ({"nll": {"weight": -0.5}}, "objective.nll.weight: got -0.5; give a finite number of at least 0"),
        ({"word_kd": {"weight": math.nan}}, "objective.word_kd.weight: got nan; give a finite number of at least 0"),
        ({"nll": {"weight": 0}, "word_kd": {"weight": 0.0}}, "objective: all weights are 0, so there is nothing to"),
        ({"hidden": {"weight": -1.0}}, "objective.hidden.weight: got -1.0; give a finite number of at least 0"),
        ({"hidden": {"distance": "l2"}}, "objective.hidden.distance: got 'l2'; give one of cosine, mse"),
        ({"hidden": {"encoder": "unifrom"}}, r"hidden.encoder: got 'unifrom'; .*did you mean 'uniform'\?"),
        (
            {"hidden": {"decoder": [[0, 1, 2]]}},
            r"hidden.decoder: got \[\[0, 1, 2\]\]; give one of uniform, ",
        ),
        ({"hidden": {"decoder": []}}, r"hidden.decoder: got \[\]; give one of uniform"),
        ({"hidden": {"decoder": [0, [1, 2]]}}, r"hidden.decoder: got \[0, \[1, 2\]\]; give one of uniform"),
        ({"hidden": {"decoder": [True]}}, r"hidden.decoder: got \[True\]; give one of uniform"),
        ({"hidden": {"decoder": 3}}, "hidden.decoder: got 3 of type int; give a str or list or null"),
        (
            {"hidden": {"weight": 1, "encoder": None, "decoder": None}},
            "encoder and decoder are null, so the term is",
        ),
        ({"attention": {"distance": "cosine"}}, "objective.attention.distance: got 'cosine'; give one of kl, mse"),
        ({"attention": {"cross": "top"}}, "objective.attention.cross: got 'top'; give one of uniform"),
        ({"terms": {"_target_": "a.B"}}, "objective.terms: got .* of type dict; give a list"),
        ({"terms": ["a.B"]}, r"objective.terms\[0\]: got 'a.B'; give a mapping with `_target_: my.module.MyTerm`"),
        ({"terms": [{"target": "a.B"}]}, r"terms\[0\]: got .*give a mapping with .*did you mean 'target'"),
        ({"terms": [{"_target_": "B"}]}, r"terms\[0\]._target_: got 'B'; give the class with its module"),
        ({"terms": [{"_target_": "a.B", "weight": "1"}]}, r"terms\[0\].weight: got '1'; give a finite number"),
        ({"terms": [{"_target_": "a.B", "weight": -1}]}, r"terms\[0\].weight: got -1.0; give a finite number"),
        ({"terms": [{"_target_": "a.B", "name": "b-c"}]}, r"terms\[0\].name: got 'b-c'; give letters, digits"),
        ({"terms": [{"_target_": "a.B"}, {"_target_": "c.B"}]}, r"terms\[1\].name: 'b' is taken by another term"),
        ({"terms": [{"_target_": "a.Hidden"}]}, r"terms\[0\].name: 'hidden' is taken by another term"),
        ({"alpha": 1.5}, "objective.alpha: got 1.5; give a number from 0 to 1"),
        ({"alpha": -0.1}, "objective.alpha: got -0.1; give a number from 0 to 1"),
        ({"alpha": math.nan}, "objective.alpha: got nan; give a number from 0 to 1"),
        ({"alpha": 0.5, "nll": {"weight": 1.0}}, "got alpha and nll.weight; give either alpha or the two weights"),
        (
            {"alpha": 0.5, "nll": {"weight": 1.0}, "word_kd": {"weight": 1.0}},
            "got alpha and nll.weight and word_kd.weight",
        ),
        ([1, 2], r"distillation.objective: got \[1, 2\]; give a mapping"),
    ],
)
def test_bad_objectives(objective, message):
    with pytest.raises(ConfigurationError, match=message):
        read(objective=objective)


@pytest.mark.parametrize(
    ("init", "message"),
    [
        ({}, "distillation.init: got neither of from_teacher and from_nemo; give exactly one of them, or init: null"),
        ({"from_teacher": "last", "from_nemo": "a.nemo"}, "distillation.init: got both of from_teacher and from_nemo"),
        ({"from_teacher": "every_nt"}, r"init.from_teacher: got 'every_nt'; give one of .*did you mean 'every_nth'"),
        ({"from_teacher": True}, "init.from_teacher: got True of type bool; give a str or list or null"),
        ({"from_teacher": "first", "encoder": "lats"}, r"init.encoder: got 'lats'; .*did you mean 'last'"),
        ({"from_teacher": "first", "decoder": [[1]]}, r"init.decoder: got \[\[1\]\]; give one of"),
        ({"from_teacher": "first", "width": "prune"}, "init.width: got 'prune'; give project or null"),
        ({"from_teacher": "first", "embeddings": None}, "init.embeddings: got None of type NoneType; give a bool"),
        ({"from_nemo": " "}, "init.from_nemo: is empty; give the path of a .nemo file"),
        ({"from_nem": "a"}, r"init.from_nem: unknown key \(did you mean 'from_nemo'\?\)"),
    ],
)
def test_bad_initialisations(init, message):
    with pytest.raises(ConfigurationError, match=message):
        read(init=init)


def test_maps_of_an_initialisation():
    init = read(init={"from_teacher": "last", "decoder": None}).init
    assert (init.map_of("encoder"), init.map_of("decoder")) == ("last", None)
    init = read(init={"from_nemo": "a.nemo", "decoder": [0, 8]}).init
    assert (init.map_of("encoder"), init.map_of("decoder")) == ("every_nth", [0, 8])
    assert read(init=None).init is None


def test_all_faults_are_in_one_report():
    with pytest.raises(ConfigurationError) as report:
        DistillationConfig.from_section(
            {
                "teacher": {},
                "objective": {
                    "alpha": 3.0,
                    "nll": {"wieght": 1.0},
                    "word_kd": {"temperature": -1, "divergence": "kl"},
                },
                "init": "x",
                "captures": {},
            }
        )
    lines = str(report.value).splitlines()
    assert lines[0] == "7 faults in the `distillation` section:"
    assert len(lines) == 8
    for place in (
        "teacher: got none",
        "objective.nll.wieght: unknown key (did you mean 'weight'?)",
        "word_kd.temperature: got -1.0",
        "word_kd.divergence: got 'kl'",
        "objective.alpha: got 3.0",
        "init: got 'x'; give a mapping",
        "captures: unknown key (did you mean 'capture'?)",
    ):
        assert sum(f"distillation.{place}" in line or place in line for line in lines) == 1, place


def test_one_fault_is_reported_once():
    """A part that cannot be read does not bring faults that follow from it."""
    with pytest.raises(ConfigurationError, match="^1 fault in the `distillation` section:\n.*model_pth.*$"):
        DistillationConfig.from_section({"teacher": {"model_pth": "teacher.nemo"}})


def test_a_value_that_hydra_misses_is_named():
    section = OmegaConf.create({"path": "???", "distillation": {"teacher": {"model_path": "${path}"}}}).distillation
    with pytest.raises(ConfigurationError, match="no value for a key: .*path"):
        DistillationConfig.from_section(section)


def test_it_is_an_input_error():
    assert issubclass(ConfigurationError, InputError)
    assert issubclass(ConfigurationError, ValueError)


def test_a_home_directory_in_every_path(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    components = {"gold": {"source": ["~/a.de"], "target": ["~/a.en"]}, "pseudo": {"directory": "~/labels"}}
    section = {
        "teacher": {"model_path": ["~/a.nemo", "/b/~/b.nemo"], "cache": None},
        "init": {"from_nemo": "~/s.nemo"},
        "mixture": {"components": components, "probabilities": {"gold": 0.5, "pseudo": 0.5}},
    }
    config = DistillationConfig.from_section(section)
    assert config.teacher.model_paths == ["/home/me/a.nemo", "/b/~/b.nemo"]
    assert config.init.from_nemo == "/home/me/s.nemo"
    assert config.mixture.components["gold"].text_files == [("/home/me/a.de", "/home/me/a.en")]
    assert config.mixture.components["pseudo"].directory == "/home/me/labels"
    assert DistillationConfig.from_section({"teacher": {"cache": "~/cache"}}).teacher.cache == "/home/me/cache"
