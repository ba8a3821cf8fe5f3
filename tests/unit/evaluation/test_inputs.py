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
"""Languages and types of weights of what is evaluated: archives, exports and other people's models side by side."""

import pytest

from nemo_distill.config.languages import Languages
from nemo_distill.decoding.exporting import export
from nemo_distill.decoding.foreign_conversion import stored_quantization
from nemo_distill.decoding.foreign_files import read_foreign
from nemo_distill.errors import InputError
from nemo_distill.evaluation.engines import choose_engines, open_input
from nemo_distill.evaluation.inputs import model_of_test, read_models, read_named_sets
from nemo_distill.evaluation.scoring import evaluate
from nemo_distill.evaluation.test_sets import NamedSet, TestInput

GERMAN, NLLB = Languages("de", "en"), Languages("deu_Latn", "eng_Latn")


@pytest.fixture
def named(tiny_corpus, monkeypatch):
    """A function that returns the test set that a name of sacreBLEU becomes, for these models."""
    files = [str(tiny_corpus / f"test.{side}") for side in ("de", "en")]
    monkeypatch.setattr("nemo_distill.evaluation.inputs.named_set_files", lambda name, pair: (files[0], files[1:]))
    return lambda models, pair=None: read_named_sets([NamedSet("wmt14", pair)], models)[0]


def test_an_archive_and_its_export_are_told_the_same(unnamed_teacher_path, tmp_path):
    export(unnamed_teacher_path, tmp_path / "export", languages=GERMAN)
    for models in ([unnamed_teacher_path], [unnamed_teacher_path, tmp_path / "export"]):
        found = read_models(models, None, GERMAN)
        assert [(each.config.src_language, each.config.tgt_language) for each in found] == [("de", "en")] * len(found)
        assert {each.languages for each in found} == {GERMAN}


def test_other_peoples_codes_are_theirs_alone(foreign_model, exported, tiny_teacher_path):
    found = read_models([foreign_model("nllb"), exported, tiny_teacher_path], None, NLLB)
    assert [each.languages for each in found] == [NLLB, Languages(), Languages()]
    assert [(each.config.src_language, each.config.tgt_language) for each in found] == [("de", "en")] * 3


def test_an_export_of_other_languages_is_refused_before_anything_is_opened(exported):
    with pytest.raises(InputError, match="translates de to en; leave --source-lang and --target-lang out"):
        read_models([exported], None, Languages("fr", "en"))


def test_a_set_of_sacrebleu_s_is_that_of_an_export_s_languages(named, exported, foreign_model):
    assert named(read_models([exported], None)).languages == GERMAN
    assert named(read_models([foreign_model("nllb")], None, NLLB)).languages == GERMAN
    with pytest.raises(InputError, match="no model's archive names its languages"):
        named(read_models([foreign_model("marian")], None))


def test_a_set_s_languages_are_compared_with_a_model_s_in_any_code(named, exported, foreign_model):
    models = read_models([foreign_model("nllb"), exported], None, NLLB)
    test = named(models, "de-en")
    assert [model_of_test(each, test).languages for each in models] == [NLLB, Languages()]
    other = TestInput(test.result, test.sources, test.references, languages=Languages("de", "fr"))
    for each in models:
        with pytest.raises(InputError, match="has the target language en, and the set has fr; leave one of them out"):
            model_of_test(each, other)
    other.languages = Languages("cs", "en")
    with pytest.raises(InputError, match="model student has the source language de, and the set has cs"):
        model_of_test(models[1], other)


def test_an_export_of_several_languages_reads_each_set_in_its_own(
    multilingual_teacher_paths, multilingual_corpus, tmp_path
):
    archive = multilingual_teacher_paths["one_to_many"]
    export(archive, tmp_path / "export")
    sets = [
        f"{name}:en-{name}:{multilingual_corpus}/test.en:{multilingual_corpus}/test.{name}" for name in ("de", "fr")
    ]
    result = evaluate([archive, tmp_path / "export"], sets, tmp_path / "out", progress=False)
    for name in ("de", "fr"):
        scores = [result.score(each.label, name) for each in result.models]
        assert scores[0].bleu == scores[1].bleu
    one, other = (tmp_path / f"out/hypotheses/export.{name}.txt" for name in ("de", "fr"))
    assert one.read_text() != other.read_text()


@pytest.mark.parametrize("quantization", ["int8", "int8_float32"])
def test_an_export_is_of_the_type_that_was_asked_for(quantization, tiny_teacher_path, tiny_corpus, tmp_path):
    """Of which the weights alone do not tell: those of int8_float32 are stored as int8 is."""
    export(tiny_teacher_path, tmp_path / "export", quantization)
    assert stored_quantization(read_foreign(tmp_path / "export")) == quantization
    models = read_models([tmp_path / "export"], None)
    engine = choose_engines(models, "auto", None, "cpu")["export"]
    assert engine == f"ctranslate2 {quantization}"
    assert open_input(models[0], engine, "cpu")[0].name == engine
