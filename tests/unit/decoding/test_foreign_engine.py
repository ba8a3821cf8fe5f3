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
"""Models of `transformers` and CTranslate2 decode as `transformers` does, in the languages that are asked for."""

import json
import os
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from ctranslate2.converters import TransformersConverter
from nemo.collections.nlp.modules.common.transformer.transformer_modules import FixedPositionalEncoding
from safetensors.torch import load_file, save_file
from slow_cases import quick

from nemo_distill.archives.reader import archive_sha256, trusted_archives
from nemo_distill.archives.restore import restore_model
from nemo_distill.config.languages import Languages
from nemo_distill.decoding.conversion import SHORTEST_TABLE, convert
from nemo_distill.decoding.engine import SearchSettings
from nemo_distill.decoding.exporting import export
from nemo_distill.decoding.foreign_conversion import count_weights
from nemo_distill.decoding.foreign_engine import open_foreign
from nemo_distill.decoding.opening import open_engine
from nemo_distill.errors import ArchiveError, ConversionError, InputError
from nemo_distill.evaluation.engines import count_parameters

LANGUAGES = {
    "marian": Languages(),
    "marian_to_many": Languages("de", "fra"),
    "m2m_100": Languages("de", "en"),
    "nllb": Languages("deu_Latn", "eng"),
    "mbart": Languages("de_DE", "en_XX"),
    "mbart50": Languages("de", "en"),
    "t5": Languages("de", "en"),
}
TOKENIZER = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "source.spm")
TOKENIZER += ("target.spm", "spiece.model", "sentencepiece.bpe.model")
ROUNDING = 60 * 64 * 2.0**-23 * 8
"""Of a sum of at most 60 log-probabilities below 8, each from sums over some 64 products in float32."""


@pytest.fixture(scope="module")
def sentences(tiny_corpus) -> list[str]:
    return (tiny_corpus / "test.de").read_text("utf-8").splitlines()[:6]


def decoded(engine, sentences, monkeypatch, **settings) -> list:
    """Return the hypotheses of each sentence in order, each with its token ids."""
    ids, decode = [], engine.text.decode
    with monkeypatch.context() as patch:
        patch.setattr(engine.text, "decode", lambda row: ids.append(row) or decode(row))
        batches = list(engine.translate(sentences, SearchSettings(length_penalty=0.0, **settings)))
    order = iter(ids)
    found = {place: [(one, next(order)) for one in hypotheses] for batch in batches for place, hypotheses in batch}
    return [found[place] for place in range(len(sentences))]


def start_of(model, engine) -> list[int]:
    """Return the ids in front of a hypothesis: the start token, and the language that is forced."""
    forced = engine.text.tokenizer.convert_tokens_to_ids(engine.text.target_prefix)
    is_start = type(engine.text.tokenizer).__name__ == "MBartTokenizer"  # the language takes the start token's place
    return forced if is_start else [model.config.decoder_start_token_id, *forced]


PLAINLY = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}


@pytest.mark.parametrize("family", ["marian", "m2m_100", "nllb", "mbart", "t5"])
def test_a_space_in_front_of_a_mark_stays(family, tmp_path):
    """As French has it; the tokenizers of transformers would take it out."""
    line = "Comment allez-vous ? Bonjour , monsieur !"
    build = runpy.run_path(str(Path(__file__).with_name("foreign_models.py")))["build"]
    build(family, tmp_path / family, [line, "Oui ! Non ?", "Bonjour"] * 40)
    text = open_foreign(tmp_path / family, LANGUAGES[family]).text
    assert text.decode(text.tokenizer(line, add_special_tokens=False)["input_ids"]) == line


@pytest.mark.parametrize("family", quick(LANGUAGES, "marian", "m2m_100", "nllb", "t5"))
def test_text_and_scores_are_those_of_transformers(family, foreign_model, sentences, monkeypatch):
    directory = foreign_model(family)
    engine = open_foreign(directory, LANGUAGES[family])
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(directory).eval()
    start, tokenizer = start_of(model, engine), engine.text.tokenizer
    barred = [model.config.vocab_size - 1] if family.startswith("marian") else []  # its padding is never written
    sources = engine.text.encode(sentences).ids
    greedy = decoded(engine, sentences, monkeypatch, search="greedy", max_length_delta=3)
    beams = decoded(engine, sentences, monkeypatch, num_hypotheses=4, max_length_delta=3)
    ends = 0
    for place, ids in sources.items():
        source = torch.tensor([ids])
        asked = {"max_new_tokens": len(ids) + 3, "bad_words_ids": [barred] if barred else None, "num_beams": 1}
        asked |= {"decoder_input_ids": torch.tensor([start]), "do_sample": False, "forced_bos_token_id": None}
        asked |= {"decoder_start_token_id": start[0], "forced_eos_token_id": None}
        [written] = model.generate(source, **asked).tolist()
        assert greedy[place][0][0].text == tokenizer.decode(written, **PLAINLY).strip()
        for hypothesis, own in greedy[place] + beams[place]:
            targets = [*own, tokenizer.eos_token_id][: hypothesis.length]
            ends += len(targets) > len(own)
            row = torch.tensor([[*start, *targets][:-1]])
            with torch.no_grad():
                logits = model(input_ids=source, decoder_input_ids=row).logits[0, len(start) - 1 :].double()
            logits[:, barred] = -torch.inf
            score = logits.log_softmax(-1).gather(1, torch.tensor(targets)[:, None]).sum().item()
            assert hypothesis.score == pytest.approx(score, abs=ROUNDING)
            assert len(targets) <= len(ids) + 3
        scores = [hypothesis.score for hypothesis, _ in beams[place]]
        assert scores == sorted(scores, reverse=True)
    assert ends or family != "marian"
    fixed = {"marian": ("embed_positions",)}.get(family.partition("_")[0], ())
    weights = sum(each.numel() for name, each in model.named_parameters() if not any(key in name for key in fixed))
    weights += len(engine.text.target_pieces()) * family.startswith("marian")  # the bias of its logits, a buffer
    weights -= 2 * 2 * 16 * family.startswith("mbart")  # two rows in front of the positions that nothing reads
    weights -= 16 * family.startswith("marian")  # the padding's
    assert count_weights(engine.directory / "model.bin") == weights


@pytest.mark.parametrize("family", quick(LANGUAGES, "marian", "m2m_100", "t5"))
def test_a_sentence_without_tokens_is_empty(family, foreign_model):
    """Its special tokens alone had translations of 50 words."""
    engine = open_foreign(foreign_model(family), LANGUAGES[family])
    lines = ["\u2581", "", " \t", "\u200b", "Die Lampe."]
    own = [engine.text.tokenizer(line, add_special_tokens=False)["input_ids"] for line in lines]
    empty = [place for place, ids in enumerate(own) if not ids]
    assert {0, 1, 2} <= {*empty}
    assert engine.text.encode(lines).empty == empty
    found = {place: rows for batch in engine.translate(lines, SearchSettings()) for place, rows in batch}
    assert [found[place][0].text for place in empty] == [""] * len(empty)


def converted(directory: Path, output: Path, quantization: str) -> Path:
    """Convert as `ct2-transformers-converter --copy_files` does."""
    copied = [name for name in TOKENIZER if (directory / name).exists()]

    class Converter(TransformersConverter):
        def load_model(self, model_class, path, dtype=None, **kwargs):  # `dtype` is new in transformers
            return model_class.from_pretrained(path, **kwargs)

    Converter(str(directory), copy_files=copied).convert(str(output), quantization=quantization)
    return output


def test_a_model_that_ctranslate2_converted(foreign_model, sentences, tmp_path, monkeypatch):
    directory = foreign_model("marian_to_many")
    languages = Languages("de", "fra")
    other = converted(directory, tmp_path / "float32", "float32")
    own, theirs = (open_engine(path, languages=languages) for path in (directory, other))
    assert decoded(own, sentences, monkeypatch) == decoded(theirs, sentences, monkeypatch)
    assert (own.name, theirs.name, theirs.text.longest_source) == ("ctranslate2 float32", "ctranslate2 float32", 64)
    assert [count_weights(each.directory / "model.bin") for each in (own, theirs)] == [7387, 7387]
    small = converted(directory, tmp_path / "int8", "int8")
    assert open_foreign(small, languages).name == "ctranslate2 int8"
    assert count_weights(small / "model.bin") == 7387
    with pytest.raises(InputError, match="quantization is 'float32', but .* was converted to int8"):
        open_foreign(small, languages, "float32")
    assert open_foreign(directory, languages, "int8").name == "ctranslate2 int8"


@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16"])
def test_waves_are_no_weights_whichever_of_them_are_there(kind, tiny_teacher_path, tmp_path):
    """Slim students of earlier versions have columns of their teacher's positions, whose rows are not equally long."""
    model = restore_model(tiny_teacher_path)
    tables = [part.embedding.position_embedding.pos_enc for part in (model.encoder, model.decoder)]
    length, width = tables[0].shape
    wide = FixedPositionalEncoding(3 * width, length).pos_enc
    chosen = torch.randperm(3 * width, generator=torch.manual_seed(1))[:width]
    for table in tables:
        table.copy_(wide[:, chosen])
    for directory in ("chosen", "learned"):
        (tmp_path / directory).mkdir()
    convert(model, tmp_path / "chosen", kind)
    assert count_weights(tmp_path / "chosen" / "model.bin") == count_parameters(model)
    for table in tables:  # learned ones are
        table[:, 0] += 0.1 * torch.randn(length, generator=torch.manual_seed(2))
    convert(model, tmp_path / "learned", kind)
    again = [SHORTEST_TABLE * width, 2 * SHORTEST_TABLE * width]  # one table for both sides, or two
    assert count_weights(tmp_path / "learned" / "model.bin") - count_parameters(model) in again


def test_an_export_decodes_too(tiny_teacher_path, sentences, tmp_path):
    export(tiny_teacher_path, tmp_path / "out", "int8")
    engine = open_engine(tmp_path / "out")
    assert engine.name == "ctranslate2 int8"
    assert len(dict(pair for batch in engine.translate(sentences) for pair in batch)) == len(sentences)
    assert count_weights(engine.directory / "model.bin") == count_parameters(restore_model(tiny_teacher_path))
    with pytest.raises(InputError, match="translates de to en; leave --source-lang and --target-lang out"):
        open_engine(tmp_path / "out", languages=Languages("fr"))
    with pytest.raises(InputError, match="engine is 'nemo', but .* is no .nemo archive"):
        open_engine(tmp_path / "out", "nemo")
    with pytest.raises(InputError, match="averaged over .nemo archives alone"):
        open_engine([tiny_teacher_path, tmp_path / "out"])
    with pytest.raises(ArchiveError, match="teaches by labels alone .*pseudo-label --teacher"):
        archive_sha256(tmp_path / "out")


def test_hypotheses_depend_on_nothing_but_the_sentence(foreign_model, sentences, monkeypatch):
    engine = open_foreign(foreign_model("m2m_100"), LANGUAGES["m2m_100"])
    long = " ".join(sentences)
    texts = [*sentences, "", "  ", long]
    found = dict(pair for batch in engine.translate(texts, batch_tokens=4096) for pair in batch)
    alone = [next(iter(engine.translate([text])))[0][1] for text in texts]
    assert [found[place][0].text for place in range(len(texts))] == [one[0].text for one in alone]
    for place, [one] in enumerate(alone):
        assert found[place][0].score == pytest.approx(one.score, abs=ROUNDING)
    assert (found[6][0].text, found[6][0].score, found[6][0].length) == ("", 0.0, 0)
    assert engine.truncated == [0]  # of the last call
    cut = engine.text.encode([long]).ids[0]
    assert len(cut) == 64
    assert cut[-1] == engine.text.tokenizer.eos_token_id
    settings = SearchSettings("top_k", num_hypotheses=2, seed=3)
    samples = [dict(pair for batch in engine.translate(sentences, settings) for pair in batch) for _ in range(2)]
    assert samples[0] == samples[1]
    longest = SearchSettings("greedy", max_length_delta=1000)
    assert max(one.length for batch in engine.translate(sentences, longest) for _, [one] in batch) == 63


@pytest.mark.parametrize(
    ("family", "languages", "message"),
    [
        ("marian", Languages("fr", "en"), "its source language is de, not fr"),
        ("marian_to_many", Languages("de"), "has several languages; give --target-lang, one of deu, fra"),
        ("marian_to_many", Languages("de", "fr"), "has no language 'fr'; did you mean fra"),
        ("m2m_100", Languages("de"), "has several languages; give --target-lang, one of af, am"),
        ("nllb", Languages("de", "eng_Latn"), "--source-lang: .* has no language 'de'; did you mean deu_Latn"),
        ("nllb", Languages("zho", "eng_Latn"), "did you mean zho_Hans, zho_Hant"),
        ("mbart50", Languages("de", "xx"), "--target-lang: .* has no language 'xx'"),
        ("m2m_100", Languages("DE", "en"), "has no language 'DE'; did you mean de"),
        ("t5", Languages(), "translates de to en; got None to None"),
        ("t5", Languages("en", "de"), "translates de to en; got en to de"),
    ],
)
def test_languages_that_a_model_has_not(family, languages, message, foreign_model):
    with pytest.raises(InputError, match=message):
        open_foreign(foreign_model(family), languages)


def rewrite(path: Path, **changes) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changes}))


def _pickled(path: Path) -> None:
    torch.save(load_file(path / "model.safetensors"), path / "pytorch_model.bin")
    (path / "model.safetensors").unlink()


def _pickled_shard(path: Path) -> None:
    _pickled(path)
    (path / "pytorch_model.bin").rename(path / "pytorch_model-00001-of-00001.bin")
    index = {"weight_map": {"model.shared.weight": "pytorch_model-00001-of-00001.bin"}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))


def _not_finite(path: Path) -> None:
    weights = load_file(path / "model.safetensors")
    weights["model.shared.weight"][3, 3] = np.nan
    save_file(weights, path / "model.safetensors")


def _fewer(path: Path) -> None:
    weights = load_file(path / "model.safetensors")
    del weights["model.decoder.layers.0.fc1.weight"]
    save_file(weights, path / "model.safetensors")


def _without(*names: str):
    return lambda path: [(path / name).unlink() for name in names]


def _fifo(path: Path) -> None:
    (path / "vocab.json").unlink()
    os.mkfifo(path / "vocab.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without("config.json"), "a directory without config.json, so no model"),
        (lambda path: (path / "adapter_config.json").write_text("{}"), "an adapter .* merge it into its base model"),
        (
            lambda path: [_without("config.json")(path), (path / "snapshots").mkdir()],
            "the directory of one of its snap",
        ),
        (
            lambda path: [
                _without("source.spm", "target.spm")(path),
                rewrite(path / "config.json", model_type="gpt2"),
            ],
            "model_type is 'gpt2'",
        ),
        (_without("source.spm", "target.spm"), "has no tokenizer .*ct2-transformers-converter --copy_files"),
        (_without("model.safetensors"), "has no weights"),
        (_pickled, "weights in a pickle .* or --trust-archive"),
        (_pickled_shard, "weights in a pickle .* or --trust-archive"),
        (_not_finite, "model.shared.weight has values that are not finite"),
        (_fewer, "the weights lack what the configuration asks for .*fc1.weight"),
        (_fifo, "vocab.json' is not a regular file"),
        (lambda path: rewrite(path / "config.json", model_type="bert"), "model_type is 'bert'"),
        (lambda path: rewrite(path / "config.json", auto_map={"AutoConfig": "x.Y"}), "names code of its own"),
        (lambda path: rewrite(path / "tokenizer_config.json", auto_map={"A": "x.Y"}), "names code of its own"),
        (lambda path: rewrite(path / "config.json", encoder_layers=10**6), "encoder_layers is 1000000"),
        (lambda path: rewrite(path / "config.json", encoder_layers=900), "has 900 layers, the weights are of fewer"),
        (lambda path: rewrite(path / "config.json", d_model=4096), "d_model is 4096, the weights have"),
        (lambda path: rewrite(path / "config.json", encoder_ffn_dim=4096), r"has the shape .* asks for"),
        (lambda path: rewrite(path / "config.json", encoder_layers="two"), "does not convert"),
        (
            lambda path: rewrite(path / "tokenizer_config.json", eos_token=None),
            "another one|no end|cannot be made",
        ),
        (lambda path: rewrite(path / "config.json", quantization_config={"bits": 4}), "quantized weights"),
        (lambda path: rewrite(path / "tokenizer_config.json", tokenizer_class="RagTokenizer"), "a 'RagTokenizer'"),
        (lambda path: (path / "vocab.json").write_text('{"a": 1, "a": 2}'), "vocab.json' is damaged .*twice"),
        (lambda path: (path / "source.spm").write_bytes(b"\1" * 99), "source.spm' is damaged"),
        (lambda path: (path / "model.safetensors").write_bytes(b"\1" * 99), "safetensors' is damaged"),
        (lambda path: rewrite(path / "config.json", share_encoder_decoder_embeddings=False), "vocabulary for each"),
    ],
)
def test_directories_that_are_refused(change, message, foreign_model, tmp_path):
    directory = shutil.copytree(foreign_model("marian"), tmp_path / "model")
    change(directory)
    with pytest.raises(InputError, match=message):
        open_foreign(directory)


def test_languages_the_wrong_way_round(foreign_model, tmp_path):
    """Codes of three letters may be a family's, but not those of the other side."""
    directory = shutil.copytree(foreign_model("marian"), tmp_path / "model")
    rewrite(directory / "tokenizer_config.json", source_lang="deu", target_lang="eng")
    with pytest.raises(InputError, match="its source language is deu, not eng"):
        open_foreign(directory, Languages("eng", "deu"))


def test_a_pickle_of_ones_own_and_files_that_settings_name(foreign_model, sentences, tmp_path):
    """A trusted model may have its weights in a pickle; settings that name other files are not followed."""
    directory = shutil.copytree(foreign_model("marian"), tmp_path / "model")
    _pickled(directory)
    rewrite(directory / "tokenizer_config.json", vocab="/etc/passwd", target_spm="/dev/zero", name_or_path="elsewhere")
    with trusted_archives():
        engine = open_foreign(directory)
    safe = open_foreign(foreign_model("marian"))
    assert next(iter(engine.translate(sentences))) == next(iter(safe.translate(sentences)))
    shutil.copy(directory / "source.spm", directory / "new.spm")
    (directory / "new.spm").replace(directory / "source.spm")
    with pytest.raises(InputError, match="has changed while it was in use"):
        list(engine.translate(sentences, SearchSettings("top_k")))


def test_a_tokenizer_of_another_model(foreign_model, tmp_path):
    other = converted(foreign_model("marian"), tmp_path / "model", "float32")
    shutil.copy(foreign_model("marian_to_many") / "vocab.json", other)
    with pytest.raises(InputError, match="token 2 of the source is another one for the tokenizer than for the model"):
        open_foreign(other, Languages("de", "fra"))
    (other / "model.bin").write_bytes((other / "model.bin").read_bytes()[:999])
    with pytest.raises(InputError, match="is no whole model of CTranslate2"):
        open_foreign(other, Languages("de", "fra"))


def test_a_padding_that_is_not_last(foreign_model, tmp_path):
    directory = shutil.copytree(foreign_model("marian"), tmp_path / "model")
    rewrite(directory / "config.json", pad_token_id=5)
    with pytest.raises(ConversionError, match="last token is not the padding"):
        open_foreign(directory)


@pytest.mark.parametrize("family", ["marian", "nllb"])
def test_names_of_special_tokens_in_a_sentence_are_text(family, foreign_model):
    """Else an end token in the middle of a sentence, or another language, would steer the model."""
    languages = Languages("deu_Latn", "eng_Latn") if family == "nllb" else Languages()
    text = open_engine(foreign_model(family), languages=languages).text
    special = {text.tokenizer.convert_tokens_to_ids(each) for each in ("</s>", "<pad>", "eng_Latn")}
    special -= {text.tokenizer.unk_token_id}
    usual = [id_ for id_ in text.encode(["Die Lampe ist offen."]).ids[0] if id_ in special]
    for sentence in ("Die Lampe </s> ist offen.", "Die Lampe <pad> ist", "Die eng_Latn Lampe"):
        ids = text.encode([sentence]).ids[0]
        assert [id_ for id_ in ids if id_ in special] == usual, sentence
