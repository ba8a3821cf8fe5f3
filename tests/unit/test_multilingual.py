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
"""Models of several languages from raw text to raw text: engines, evaluation, labels, export."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import sentencepiece
import torch
from nemo.collections.nlp.models import MTEncDecModel

from nemo_distill import cli
from nemo_distill.archives.restore import restore_model
from nemo_distill.config.languages import Languages
from nemo_distill.config.mixture import ComponentConfig, MixtureConfig
from nemo_distill.data.checks import check_model_files
from nemo_distill.data.languages import directions, find_direction
from nemo_distill.data.text import TextPipeline
from nemo_distill.decoding.ctranslate2_engine import CTranslate2Engine
from nemo_distill.decoding.engine import SearchSettings
from nemo_distill.decoding.exporting import export, open_export
from nemo_distill.decoding.nemo_engine import NeMoEngine
from nemo_distill.decoding.opening import open_engine
from nemo_distill.decoding.translation import translate
from nemo_distill.errors import ArchiveError, InputError
from nemo_distill.evaluation.scoring import evaluate
from nemo_distill.evaluation.test_sets import TestSet
from nemo_distill.support.compat import NEMO_2

KINDS = {"one_to_many": [("en", "de"), ("en", "fr")], "many_to_one": [("de", "en"), ("fr", "en")]}
GREEDY = SearchSettings(beam_size=1, length_penalty=0.6, max_length_delta=20)


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


@pytest.fixture
def stock(kind, multilingual_teacher_paths):
    """The model as NeMo opens it."""
    return MTEncDecModel.restore_from(str(multilingual_teacher_paths[kind])).eval()


@pytest.fixture
def sentences_of(multilingual_corpus):
    """A function that returns raw test sentences of a language, punctuation joined."""

    def read(language: str) -> list[str]:
        return (multilingual_corpus / f"test.{language}").read_text("utf-8").splitlines()

    return read


def test_text_is_as_in_nemo(stock, kind, sentences_of):
    assert len(directions(stock)) == 3
    for source, target in KINDS[kind]:
        text = TextPipeline.of_model(stock, Languages(source, target))
        sentences = [*sentences_of(source), "«L'eau» — isn't it?"]
        found = text.encode(sentences)
        prepended = [stock.multilingual_lang_to_id[target]] if kind == "one_to_many" else []
        for place, sentence in enumerate(sentences):
            processors = {"source_processor": text.source_processor, "target_processor": text.target_processor}
            ids, _ = MTEncDecModel.prepare_inference_batch(
                [sentence], prepended, encoder_tokenizer=stock.encoder_tokenizer, device="cpu", **processors
            )
            assert found.ids[place] == ids[0].tolist()
        text.longest_source = 6
        cut = text.encode(sentences[:1]).ids[0]
        assert len(cut) == 6
        assert cut[:-1] == found.ids[0][:5]
        assert cut[-1] == text.source_tokenizer.eos_id


@pytest.mark.parametrize("engine", [NeMoEngine, CTranslate2Engine.from_model], ids=["nemo", "ctranslate2"])
def test_translations_are_those_of_nemo(stock, kind, sentences_of, engine):
    stock.beam_search.beam_size = 1
    different = set()
    for source, target in KINDS[kind]:
        sentences = sentences_of(source)
        expected = [stock.translate([each], source_lang=source, target_lang=target)[0] for each in sentences]
        opened = engine(stock, languages=Languages(source, target))
        assert translate(opened, sentences, GREEDY, progress=False).hypotheses == expected
        different.add(tuple(expected))
    assert len(different) == 2


def test_language_must_be_one_of_the_model(kind, multilingual_teacher_paths):
    path, side = multilingual_teacher_paths[kind], "target" if kind == "one_to_many" else "source"
    with pytest.raises(InputError, match=f"has several {side} languages, de, es, fr: say which .* --{side}-lang de"):
        open_engine(path)
    with pytest.raises(InputError, match=f"the {side} language it is none of the model's, which are de, es, fr"):
        open_engine(path, languages=Languages("it", "it"))
    with pytest.raises(InputError, match="say which one is meant"):
        find_direction(restore_model(path))


@pytest.fixture(scope="module")
def bilingual(multilingual_config, tmp_path_factory) -> Path:
    """An untrained English-German model."""
    path = tmp_path_factory.mktemp("bilingual") / "pair.nemo"
    torch.manual_seed(3)
    MTEncDecModel(multilingual_config("en-de")).save_to(str(path))
    return path


def test_sets_of_several_languages_in_one_table(
    bilingual, multilingual_teacher_paths, multilingual_corpus, sentences_of, tmp_path
):
    path = multilingual_teacher_paths["one_to_many"]
    files = {name: f"{multilingual_corpus}/test.en:{multilingual_corpus}/test.{name}" for name in ("de", "fr")}
    sets = [f"{name}:en-{name}:{files[name]}" for name in files]
    result = evaluate([path], sets, tmp_path / "several", beam_size=1, progress=False)
    for name in files:
        engine = open_engine(path, languages=Languages("en", name))
        search = replace(engine.default_settings, beam_size=1)
        expected = translate(engine, sentences_of("en"), search, progress=False).hypotheses
        written = (tmp_path / f"several/hypotheses/one_to_many.{name}.txt").read_text("utf-8").splitlines()
        assert written == expected
    both = evaluate([path, bilingual], sets[:1], tmp_path / "both", beam_size=1, progress=False)
    assert both.score("one_to_many", "de").bleu == result.score("one_to_many", "de").bleu
    assert [each.label for each in both.models] == ["one_to_many", "pair"]
    with pytest.raises(InputError, match="model pair has the target language de, and the set has fr; leave one"):
        evaluate([path, bilingual], sets, tmp_path / "refused")
    with pytest.raises(InputError, match="test set de: model one_to_many has several target languages, de, es, fr"):
        evaluate([path], [f"de:{files['de']}"], tmp_path / "refused")
    assert not (tmp_path / "refused/results.json").exists()


def test_form_of_a_test_set():
    assert TestSet.parse("t:en-ja:a:b") == TestSet("t", "a", "b", (), Languages("en", "ja"))
    assert TestSet.parse("t:a:b:c") == TestSet("t", "a", "b", ("c",))
    assert TestSet.parse("t:en-ja:a") == TestSet("t", "en-ja", "a")  # two files, no languages
    for text in ("t:a", "t:a:b:", "t:en-ja::b"):
        with pytest.raises(InputError, match="test set '"):
            TestSet.parse(text)


def test_labels_of_a_language(
    kind, multilingual_teacher_paths, multilingual_corpus, multilingual_config, sentences_of, tmp_path
):
    (source, target), archive = KINDS[kind][1], multilingual_teacher_paths[kind]
    command = ["pseudo-label", "--teacher", str(archive), "--input", f"{multilingual_corpus}/test.{source}"]
    command += ["--output-dir", str(tmp_path / "out"), "--num-hypotheses", "2", "--beam-size", "2"]
    assert cli.main([*command, "--source-lang", source, "--target-lang", target]) in (0, None)
    model = restore_model(archive)
    text = TextPipeline.of_model(model, Languages(source, target))
    found = [json.loads(line) for line in (tmp_path / "out/nbest.jsonl").read_text("utf-8").splitlines()]
    sources = text.encode(sentences_of(source))
    for row, entry in enumerate(found):
        one = entry["hypotheses"][0]
        ids = text.target_ids(one.get("processed") or one["text"])
        rows = [[text.target_tokenizer.bos_id, *ids, text.target_tokenizer.eos_id]]
        target_ids, source_ids = torch.tensor(rows), torch.tensor([sources.ids[row]])
        with torch.no_grad():
            masks = torch.ones_like(source_ids), torch.ones_like(target_ids[:, :-1])
            log_p = model(source_ids, masks[0], target_ids[:, :-1], masks[1])
        score = log_p[0].gather(1, target_ids[0, 1:, None]).sum().item()
        assert one["score"] == pytest.approx(score, abs=1e-3 * len(ids))
    right, wrong = (
        MixtureConfig({"pseudo": ComponentConfig(directory=str(tmp_path / "out"), language=name)})
        for name in ("fr", "de")
    )
    check_model_files(multilingual_config(kind), right)
    with pytest.raises(InputError, match="pseudo.language: got 'de', and the labels in .* were made in fr"):
        check_model_files(multilingual_config(kind), wrong)


def test_export_of_all_pairs(kind, stock, sentences_of, multilingual_teacher_paths, tmp_path):
    record = export(multilingual_teacher_paths[kind], tmp_path / "all")
    assert [(pair["source"], pair["target"]) for pair in record["pairs"]][::2] == KINDS[kind]
    side = "target" if kind == "one_to_many" else "source"
    assert f"--{side}-lang de" in (tmp_path / "all/README.md").read_text("utf-8")
    for source, target in KINDS[kind]:
        sentences = [*sentences_of(source), "<de> und <b> " + sentences_of(source)[0]]
        engine = NeMoEngine(stock, Languages(source, target))
        expected = translate(engine, sentences, engine.default_settings, progress=False).hypotheses
        opened = open_export(tmp_path / "all", languages=Languages(source, target))
        assert translate(opened, sentences, opened.default_settings, progress=False).hypotheses == expected
        code = source if side == "source" else target
        program = [sys.executable, str(tmp_path / "all/translate.py"), f"--{side}-lang", code]
        ran = subprocess.run(program, input="\n".join(sentences), text=True, capture_output=True, check=True)
        assert ran.stdout.splitlines() == expected
    ran = subprocess.run(program[:2], input="a", text=True, capture_output=True, check=False)
    assert ran.returncode == 1
    assert "the model translates" in ran.stderr
    assert "say which: --source-lang, --target-lang" in ran.stderr
    with pytest.raises(InputError, match="translates .*; say which"):
        open_export(tmp_path / "all")
    assert open_engine(tmp_path / "all", languages=Languages(source, target)).text.target_language == target


def test_export_of_one_pair(multilingual_teacher_paths, tmp_path):
    record = export(multilingual_teacher_paths["one_to_many"], tmp_path / "one", languages=Languages(target="fr"))
    assert [(pair["target"], pair["front"], pair["end"]) for pair in record["pairs"]] == [
        ("fr", ["<fr>", "<s>"], ["</s>"])
    ]
    assert open_export(tmp_path / "one").text.target_language == "fr"
    with pytest.raises(InputError, match="another export"):
        export(multilingual_teacher_paths["one_to_many"], tmp_path / "one", languages=Languages(target="de"))


def test_tokens_that_another_nemo_numbers_otherwise(multilingual_config, multilingual_corpus, tmp_path):
    """A tokenizer without padding gets one, by NeMo 1 in front of the languages, by NeMo 2 behind them."""
    text, prefix = f"{multilingual_corpus}/train.de", tmp_path / "tokenizer"
    sizes = {"vocab_size": 40, "hard_vocab_limit": False, "model_type": "bpe", "minloglevel": 2}
    sentencepiece.SentencePieceTrainer.train(input=text, model_prefix=str(prefix), **sizes)
    tokenizers = {f"{side}_tokenizer.tokenizer_model": f"{prefix}.model" for side in ("encoder", "decoder")}
    model = MTEncDecModel(multilingual_config("one_to_many", **tokenizers))
    assert model.encoder_tokenizer.pad_id >= model.encoder_tokenizer.original_vocab_size
    model.save_to(str(tmp_path / "own.nemo"))
    assert restore_model(tmp_path / "own.nemo").multilingual_ids == model.multilingual_ids
    model.cfg.nemo_version = "1.23.0" if NEMO_2 else "2.4.1"
    model.save_to(str(tmp_path / "other.nemo"))
    with pytest.raises(ArchiveError, match="its tokens of de, es, fr have other ids in this NeMo than in .*; open it"):
        restore_model(tmp_path / "other.nemo")
