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

import copy

import pytest

from nemo_distill.config.section import DistillationConfig
from nemo_distill.errors import ConfigurationError

TEACHER = {"model_path": "teacher.nemo"}
HYBRID = {"alpha_seq_nll": 0.5, "alpha_seq_kd": 1.5, "alpha_word_kd": 0.25}
GOLD = {"source": "train.de", "target": "train.en"}
PSEUDO = {"directory": "labels"}
COMPONENTS = {"gold": GOLD, "pseudo": PSEUDO}
SHARES = {"gold": 0.34, "pseudo": 0.66}


def read(mixture=None, objective=None, teacher=TEACHER) -> DistillationConfig:
    section = {"teacher": teacher, "objective": objective or {}}
    return DistillationConfig.from_section(section | ({"mixture": mixture} if mixture is not None else {}))


def test_every_value_arrives():
    noise = {"word_dropout": 0.1, "word_swap": 3, "word_mask": 0.2, "apply_to": ["gold", "pseudo"]}
    gold = {"source": ["a.de", "b.de"], "target": ["a.en", "b.en"], "fraction": 0.05}
    section = {
        "components": {
            "gold": gold,
            "pseudo": PSEUDO,
            "shards": {"metadata_file": "m.json", "tar_files": "s_{0..3}.tar"},
        },
        "probabilities": {"gold": 0.2, "pseudo": 0.5, "shards": 0.3},
        "seed": 4,
        "epoch_size": 100,
        "noise": noise,
    }
    before = copy.deepcopy(section)
    mixture = read(section).mixture
    assert section == before
    assert mixture.components["gold"].text_files == [("a.de", "a.en"), ("b.de", "b.en")]
    assert mixture.components["gold"].fraction == 0.05
    assert mixture.components["pseudo"].text_files == [("labels/source.txt", "labels/hypotheses.txt")]
    assert mixture.components["shards"].tar_files == "s_{0..3}.tar"
    assert mixture.probabilities == section["probabilities"]
    assert (mixture.seed, mixture.epoch_size) == (4, 100)
    assert vars(mixture.noise) == noise
    assert mixture.noise.is_on


def test_without_a_mixture_nothing_changes():
    assert read().mixture is None
    assert read({"components": {"gold": GOLD}}).mixture.noise.is_on is False


def test_one_component_needs_no_probability():
    assert read({"components": {"pseudo": PSEUDO}}).mixture.probabilities == {"pseudo": 1.0}


def test_hybrid_gives_weights_and_shares():
    config = read({"components": COMPONENTS}, {"hybrid": HYBRID, "word_kd": {"temperature": 2.0}})
    assert config.objective.nll.weight == 2.0
    assert config.objective.word_kd.weight == 0.25
    assert config.objective.word_kd.temperature == 2.0
    assert config.mixture.probabilities == {"gold": 0.25, "pseudo": 0.75}
    assert str(config.objective.hybrid) == (
        "hybrid: 0.5 * NLL(gold) + 1.5 * NLL(pseudo) + 0.25 * WordKD gives nll.weight 2, word_kd.weight 0.25, "
        "shares 0.25 of gold and 0.75 of pseudo batches"
    )


def test_a_teacher_is_asked_for_only_where_it_is_read():
    mixture = {"components": COMPONENTS}
    assert not read(mixture, {"hybrid": {**HYBRID, "alpha_word_kd": 0}}, teacher={}).teacher.is_given
    assert not read(None, {"word_kd": {"weight": 0}}, teacher={}).teacher.is_given
    with pytest.raises(
        ConfigurationError, match="^1 fault .*\n.*teacher: got none of model_path, model_name and cache"
    ):
        read(mixture, {"hybrid": HYBRID}, teacher={})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"components": {}}, "mixture.components: is empty; give at least one"),
        ({"components": [GOLD]}, r"mixture.components: got \[.*give a mapping from names of your choice to sections"),
        ({"components": {"gold": "train.de"}}, "components.gold: got 'train.de'; give a mapping with any of the keys"),
        ({"component": {}}, r"mixture.component: unknown key \(did you mean 'components'\?\)"),
        ({"probabilities": {"gold": 0.3, "pseudo": 0.6}}, "mixture.probabilities: sum to 0.9; shares must sum to 1"),
        ({"probabilities": {"gold": -0.1, "pseudo": 1.1}}, "probabilities.gold: got -0.1; give a number from 0 to 1"),
        (
            {"probabilities": {"gold": "half", "pseudo": 0.5}},
            "probabilities.gold: got 'half' of type str; give a float",
        ),
        (
            {"probabilities": {"gold": 1.0}},
            "mixture.probabilities: got none for pseudo; give each component its share",
        ),
        (
            {"probabilities": {"gold": 0.5, "pseud": 0.5}},
            r"got 'pseud', which is no component \(did you mean 'pseudo'",
        ),
        (
            {"probabilities": None},
            "probabilities: is missing; give for example {gold: 0.5, pseudo: 0.5}, or objective.",
        ),
        ({"probabilities": [0.5, 0.5]}, r"mixture.probabilities: got \[0.5, 0.5\] of type list; give a dict or null"),
        ({"seed": -1}, "mixture.seed: got -1; give a whole number of at least 0"),
        ({"epoch_size": 0}, "mixture.epoch_size: got 0; give a number of batches, at least 1, or null"),
        ({"noise": {"word_dropout": 1}}, "noise.word_dropout: got 1.0; give a number from 0 to below 1"),
        ({"noise": {"word_mask": 1.5}}, "noise.word_mask: got 1.5; give a number from 0 to 1"),
        ({"noise": {"word_swap": -2}}, "noise.word_swap: got -2; give a whole number of at least 0"),
        (
            {"noise": {"word_swap": 3, "apply_to": ["gol"]}},
            r"apply_to: got 'gol', which is no component \(did you mean",
        ),
        ({"noise": {"word_swap": 3, "apply_to": []}}, r"apply_to: got \[\], of which no batch is"),
        (
            {"noise": {"word_swap": 3, "apply_to": ["gold"]}, "probabilities": {"gold": 0, "pseudo": 1}},
            r"apply_to: got \['gold'\], of which no batch is; give components with a share, or no noise",
        ),
    ],
)
def test_bad_mixtures(change, message):
    with pytest.raises(ConfigurationError, match=message):
        read({"components": COMPONENTS, "probabilities": SHARES} | change)


@pytest.mark.parametrize(
    ("component", "message"),
    [
        ({}, "components.gold: got no files; give source and target, or directory, or metadata_file"),
        ({"source": "a"}, "components.gold: got source; give source and target, or directory, or metadata_file"),
        ({"target": "a"}, "components.gold: got target; give source and target, or directory"),
        (
            {**GOLD, "directory": "d"},
            "components.gold: got source and target and directory; give source and target, or",
        ),
        ({"directory": "d", "target": "a"}, "components.gold.target: has no source beside it; source must be given"),
        (
            {"directory": "d", "tar_files": "a"},
            "gold.tar_files: has no metadata_file beside it; metadata_file must be",
        ),
        (
            {"source": ["a", "b"], "target": "c"},
            "gold: got 2 source and 1 target files; give one target file for each",
        ),
        ({"source": "a", "target": " "}, "components.gold.target: is empty; give a path"),
        ({"source": "a", "target": [5]}, "components.gold.target: got 5 of type int; give a path"),
        ({**GOLD, "fraction": 0}, "components.gold.fraction: got 0.0; give a number above 0 and at most 1"),
        ({**GOLD, "fraction": 5}, "components.gold.fraction: got 5.0; give a number above 0 and at most 1"),
        ({**GOLD, "fraction": -0.5}, "components.gold.fraction: got -0.5; give a number above 0 and at most 1"),
        ({"metadata_file": "m", "tar_files": "pipe:cat x"}, "tar_files: got 'pipe:cat x'; commands and URLs are not"),
        ({"metadata_file": "m", "tar_files": ["a", " PIPE:x"]}, "tar_files: got ' PIPE:x'; commands and URLs are not"),
        ({"metadata_file": "s3://bucket/m"}, "metadata_file: got 's3://bucket/m'; commands and URLs are not run or"),
        ({**GOLD, "fractoin": 1}, r"components.gold.fractoin: unknown key \(did you mean 'fraction'\?\)"),
    ],
)
def test_bad_components(component, message):
    with pytest.raises(ConfigurationError, match=message):
        read({"components": {"gold": component}})


@pytest.mark.parametrize(
    ("objective", "mixture", "message"),
    [
        ({"hybrid": HYBRID}, None, "objective.hybrid: needs distillation.mixture with the components gold and pseudo"),
        ({"hybrid": HYBRID}, {"components": {"gold": GOLD}}, "components: got gold; objective.hybrid needs gold and"),
        (
            {"hybrid": HYBRID},
            {"components": COMPONENTS, "probabilities": SHARES},
            "got objective.hybrid and mixture.probabilities; give either the three weights of hybrid or",
        ),
        (
            {"hybrid": HYBRID, "nll": {"weight": 1}, "word_kd": {"weight": 1}},
            {"components": COMPONENTS},
            "objective: got hybrid and nll.weight and word_kd.weight; give either hybrid or the weights",
        ),
        ({"hybrid": HYBRID, "alpha": 0.5}, {"components": COMPONENTS}, "got hybrid and alpha; give either hybrid or"),
        (
            {"hybrid": {"alpha_seq_kd": 1}},
            {"components": COMPONENTS},
            "got no alpha_seq_nll and no alpha_word_kd; give",
        ),
        (
            {"hybrid": {**HYBRID, "alpha_seq_kd": -1}},
            {"components": COMPONENTS},
            "hybrid.alpha_seq_kd: got -1.0; give a",
        ),
        (
            {"hybrid": {**HYBRID, "alpha_seq_kd": 0, "alpha_seq_nll": 0}},
            {"components": COMPONENTS},
            "alpha_seq_nll and alpha_seq_kd are both 0; give one of them a weight above 0",
        ),
    ],
)
def test_bad_hybrids(objective, mixture, message):
    with pytest.raises(ConfigurationError, match=f"^1 fault in the `distillation` section:\n.*{message}"):
        read(mixture, objective)


def test_all_faults_are_in_one_report():
    with pytest.raises(ConfigurationError) as report:
        read(
            {
                "components": {"gold": {**GOLD, "fraction": 2}, "pseudo": {"source": "pipe:x", "target": "y"}},
                "probabilities": {"gold": 0.5, "pseudo": 0.6},
                "noise": {"word_mask": -1},
            },
            {"word_kd": {"temperature": 0}},
        )
    lines = str(report.value).splitlines()
    assert lines[0] == "5 faults in the `distillation` section:"
    for place in ("temperature", "gold.fraction", "pseudo.source", "noise.word_mask", "probabilities: sum"):
        assert sum(place in line for line in lines) == 1, place
