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
"""Converted models say what NeMo says, for every architecture that converts; the others say why not."""

import json
from itertools import chain
from operator import itemgetter

import ctranslate2
import law
import numpy as np
import pytest
import torch
from nemo.collections.nlp.models import MTEncDecModel
from omegaconf import OmegaConf
from torch import nn

from nemo_distill.data import tokenizer as tokenizer_module
from nemo_distill.data.text import pieces
from nemo_distill.decoding import exported_program
from nemo_distill.decoding.conversion import SHORTEST_TABLE, conversion_faults, convert
from nemo_distill.decoding.convertible import config_faults
from nemo_distill.decoding.ctranslate2_engine import CTranslate2Engine
from nemo_distill.decoding.engine import SearchSettings
from nemo_distill.decoding.exporting import export
from nemo_distill.decoding.nemo_engine import NeMoEngine
from nemo_distill.errors import ConversionError, InputError
from nemo_distill.support import compat

BOTH = ("encoder", "decoder")
VARIANTS = {
    "pre-LN": {},
    "post-LN": {f"{side}.pre_ln": False for side in BOTH},
    "mixed": {"encoder.pre_ln": True, "decoder.pre_ln": False},
    "no final norm": {f"{side}.pre_ln_final_layer_norm": False for side in BOTH},
    "learned positions": {f"{side}.learn_positional_encodings": True for side in BOTH},
    "separate embeddings": {"shared_embeddings": False},
    "GELU": {f"{side}.hidden_act": "gelu" for side in BOTH},
    "token types": {f"{side}.num_token_types": 2 for side in BOTH},
    "unequal": {"encoder.num_layers": 3, "decoder.num_attention_heads": 4, "decoder.inner_size": 48},
    "spare rows": {f"{side}_tokenizer.tokenizer_model": "{spare}" for side in BOTH},
    "two tokenizers": {
        "shared_embeddings": False,
        "shared_tokenizer": False,
        "decoder_tokenizer.library": "sentencepiece",
        "decoder_tokenizer.tokenizer_model": "{sentencepiece}",
    },
}


@pytest.fixture(scope="module")
def tokenizers(tiny_corpus, tmp_path_factory) -> dict[str, str]:
    """A model of NeMo's default library whose 117 pieces leave 3 rows over, and a SentencePiece model."""
    directory = tmp_path_factory.mktemp("tokenizers")
    texts = [str(tiny_corpus / f"train.{language}") for language in ("de", "en")]
    tokenizer_module.train(texts, 117, directory / "spare")
    tokenizer_module.train(texts, 90, directory / "sentencepiece", library="sentencepiece")
    return {name: str(directory / name / tokenizer_module.MODEL) for name in ("spare", "sentencepiece")}


class PaddedModel(MTEncDecModel):
    """A model whose embeddings have more rows than its tokenizers have pieces."""

    encoder_vocab_size = decoder_vocab_size = 120


def train(model: MTEncDecModel, steps: int = 60) -> MTEncDecModel:
    """Train a little, enough that outputs differ from sentence to sentence; the data stay as they are."""
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    batches = list(model._train_dl)
    model.train()
    for step in range(steps):
        source, source_mask, target, target_mask, labels = (t.squeeze(0) for t in batches[step % len(batches)])
        loss = model.loss_fn(log_probs=model(source, source_mask, target, target_mask), labels=labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module", params=VARIANTS)
def model(request, tiny_model_config, tokenizers) -> MTEncDecModel:
    overrides = {
        key: value.format(**tokenizers) if isinstance(value, str) else value
        for key, value in VARIANTS[request.param].items()
    }
    torch.manual_seed(0)
    kind = PaddedModel if request.param == "spare rows" else MTEncDecModel
    return train(kind(tiny_model_config(num_layers=1, data=True, **overrides)))


def start_piece(model: MTEncDecModel) -> str:
    """Return what the tokenizer calls the start of a sentence: `<BOS>` or `<s>`."""
    return model.decoder_tokenizer.ids_to_tokens([model.decoder_tokenizer.bos_id])[0]


def score(model: MTEncDecModel, source: list[int], target: list[int]) -> list[float]:
    """Return the log-probability of each target token and of the end token, by NeMo's training forward."""
    source, target = torch.tensor([source]), torch.tensor([[model.decoder_tokenizer.bos_id, *target]])
    labels = [*target[0, 1:].tolist(), model.decoder_tokenizer.eos_id]
    with torch.no_grad():
        scores = model(source, torch.ones_like(source), target, torch.ones_like(target))[0]
    scores[:, model.decoder_tokenizer.vocab_size :] = -torch.inf  # rows that stand for no token
    return scores.log_softmax(dim=1)[range(len(labels)), labels].tolist()


def test_log_probabilities_and_greedy_output_are_those_of_nemo(model, tiny_corpus, tmp_path):
    sentences = [*(tiny_corpus / "test.de").read_text("utf-8").splitlines(), "Ein völlig anderes Zeichen: Ω"]
    references = [*(tiny_corpus / "test.en").read_text("utf-8").splitlines(), "Ω"]
    convert(model, tmp_path)
    translator = ctranslate2.Translator(str(tmp_path), intra_threads=1)
    nemo = NeMoEngine(model)
    sources = nemo.text.encode(sentences).ids
    source_pieces, target_pieces = pieces(model.encoder_tokenizer), pieces(model.decoder_tokenizer)
    targets = [model.decoder_tokenizer.text_to_ids(reference) for reference in references]
    results = translator.score_batch(
        [[source_pieces[id_] for id_ in sources[place][1:-1]] for place in range(len(sentences))],
        [[target_pieces[id_] for id_ in target] for target in targets],
    )
    for place, (target, result) in enumerate(zip(targets, results, strict=True)):
        assert result.log_probs == pytest.approx(score(model, sources[place], target), abs=1e-4)

    greedy = SearchSettings(search="greedy")
    engine = CTranslate2Engine.from_model(model, threads=1)
    found, expected = (
        sorted(pair for batch in one.translate(sentences, greedy) for pair in batch) for one in (engine, nemo)
    )
    assert [(place, one.text, one.length) for place, [one] in found] == [
        (place, one.text, one.length) for place, [one] in expected
    ]
    assert len({one.text for _, [one] in found}) > 3, "the model says the same whatever it reads"


@pytest.mark.parametrize("quantization", ["float16", "bfloat16", "int8", "int8_float32"])
def test_quantized_models_say_nearly_the_same(tiny_model, tiny_sources, tiny_corpus, quantization, tmp_path):
    weights = [parameter.clone() for parameter in tiny_model.parameters()]
    convert(tiny_model, tmp_path, quantization)
    assert all(map(torch.equal, weights, tiny_model.parameters())), "the model was quantized in place"
    (tmp_path / "full").mkdir()
    convert(tiny_model, tmp_path / "full")
    assert (tmp_path / "model.bin").stat().st_size < 0.9 * (tmp_path / "full/model.bin").stat().st_size
    references = (tiny_corpus / "test.en").read_text("utf-8").splitlines()
    source, target = pieces(tiny_model.encoder_tokenizer), pieces(tiny_model.decoder_tokenizer)
    batch = [
        [[source[id_] for id_ in tiny_model.encoder_tokenizer.text_to_ids(text)] for text in tiny_sources],
        [[target[id_] for id_ in tiny_model.decoder_tokenizer.text_to_ids(text)] for text in references],
    ]
    full, small = (
        np.concatenate([item.log_probs for item in ctranslate2.Translator(str(path)).score_batch(*batch)])
        for path in (tmp_path / "full", tmp_path)
    )
    difference = np.abs(full - small).mean()
    assert 0 < difference < 0.2


def test_config_and_tables(tiny_model, tmp_path):
    convert(tiny_model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text("utf-8"))
    assert config["decoder_start_token"] == config["bos_token"] == start_piece(tiny_model)
    assert config["add_source_bos"]
    assert config["add_source_eos"]
    vocabulary = json.loads((tmp_path / "shared_vocabulary.json").read_text("utf-8"))
    assert len(vocabulary) == tiny_model.decoder.vocab_size == 120
    long = [vocabulary[10]] * (SHORTEST_TABLE - 2)  # the model was trained with 64 positions
    assert ctranslate2.Translator(str(tmp_path)).translate_batch([long], max_input_length=0, max_decoding_length=5)


def test_rows_that_stand_for_no_token_are_never_said(tiny_model_config, tokenizers, tiny_sources):
    torch.manual_seed(0)
    keys = {f"{side}_tokenizer.tokenizer_model": tokenizers["spare"] for side in BOTH}
    model = PaddedModel(tiny_model_config(**keys)).eval()
    assert (model.decoder_tokenizer.vocab_size, model.decoder.vocab_size) == (117, 120)
    with torch.no_grad():
        model.log_softmax.mlp.layer0.bias[117:] += 50  # NeMo's own search says nothing else now
    for engine in (CTranslate2Engine.from_model(model, threads=1), NeMoEngine(model)):
        texts = [h.text for batch in engine.translate(tiny_sources[:3]) for _, found in batch for h in found]
        assert all(texts)


class OtherEncoder(nn.Module):
    """Not NeMo's."""


FAULTS = {
    "encoder.mask_future: true": {"encoder.mask_future": True},
    "encoder.library: huggingface; only NeMo's own": {"encoder.library": "huggingface"},
    "decoder.library: megatron": {"decoder.library": "megatron"},
    "encoder.arch: perceiver; bottleneck": {"encoder.arch": "perceiver"},
    "decoder.hidden_act: swish; known are relu, gelu": {"decoder.hidden_act": "swish"},
    "encoder_tokenizer.library: byte-level; known are yttm, sentencepiece": {
        "encoder_tokenizer.library": "byte-level"
    },
    "head.log_softmax: false": {"head.log_softmax": False},
    "head.num_layers: 2": {"head.num_layers": 2},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_config_says_what_does_not_convert(fault, tiny_model_config):
    found = config_faults(tiny_model_config(**FAULTS[fault]))
    assert len(found) == 1
    assert fault in found[0]
    assert config_faults(tiny_model_config()) == []


def test_missing_mask_future_means_true(tiny_model_config):
    config = tiny_model_config()
    del config.encoder["mask_future"]
    assert "mask_future: true (NeMo's default)" in config_faults(config)[0]


def test_every_reason_is_listed_at_once(tiny_model, tmp_path):
    tiny_model.encoder = OtherEncoder()
    tiny_model.log_softmax.mlp.layers = 3
    OmegaConf.update(tiny_model._cfg, "decoder.hidden_act", "swish")
    assert len(conversion_faults(tiny_model)) == 3
    with pytest.raises(ConversionError) as error:
        convert(tiny_model, tmp_path)
    for reason in (
        "decoder.hidden_act: swish",
        "encoder: a OtherEncoder, not NeMo's TransformerEncoderNM",
        "head: 2 layers",
        "Decode it with the engine 'nemo'",
    ):
        assert reason in str(error.value)
    assert not list(tmp_path.iterdir())


class ScaledHead(nn.Linear):
    """Computes something else than its weights say."""

    def forward(self, states):
        """Scale what the weights give."""
        return 2 * super().forward(states)


def test_modules_of_other_classes_are_refused(tiny_model, tmp_path):
    """Their weights would convert, and what they do would not."""
    for layer in tiny_model.decoder.decoder.layers:
        layer.third_sub_layer.dense_in.__class__ = ScaledHead
    tiny_model.log_softmax.mlp.layer0.__class__ = ScaledHead
    faults = conversion_faults(tiny_model)
    assert [fault.partition(",")[0] for fault in faults] == [
        "decoder._decoder.layers.0.third_sub_layer.dense_in: a ScaledHead",
        "log_softmax.mlp.layer0: a ScaledHead",
    ]
    with pytest.raises(ConversionError, match=r"a ScaledHead, neither NeMo's nor one that .* made of"):
        convert(tiny_model, tmp_path)


def _other_activation(model) -> None:
    model.decoder.decoder.layers[0].third_sub_layer.act_fn = nn.functional.silu


def _activation_module(model) -> None:
    model.decoder.decoder.layers[0].third_sub_layer.act_fn = nn.SiLU()


def _other_eps(model) -> None:
    model.encoder.encoder.layers[0].layer_norm_1.eps = 0.5


def _no_norm(model) -> None:
    model.encoder.encoder.layers[0].layer_norm_1 = nn.Identity()


def _no_bias(model) -> None:
    model.encoder.encoder.layers[0].second_sub_layer.dense_in.bias = None


def _forward_of_its_own(model) -> None:
    model.encoder.encoder.layers[0].forward = lambda states, *_: states


def _encoder_with_a_forward(model) -> None:
    model.encoder.forward = lambda *_: None


def _hook_in_the_encoder(model) -> None:
    model.encoder.encoder.layers[0].register_forward_hook(lambda module, inputs, output: -output)


def _hook_before_the_head(model) -> None:
    model.log_softmax.register_forward_pre_hook(lambda module, inputs: None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_encoder_with_a_forward, "encoder: a TransformerEncoderNM with a `forward` of its own"),
        (_hook_in_the_encoder, "encoder._encoder.layers.0: a TransformerEncoderBlock with forward hooks, which would"),
        (_hook_before_the_head, "log_softmax: a TokenClassifier with forward hooks"),
        (_other_activation, "decoder._decoder.layers.0.third_sub_layer.act_fn: another than the relu"),
        (_activation_module, "decoder._decoder.layers.0.third_sub_layer.act_fn: a SiLU, neither"),
        (_other_eps, r"encoder._encoder.layers.0.layer_norm_1.eps: 0.5; all norms have one, 1e-0"),
        (_no_norm, "encoder._encoder.layers.0.layer_norm_1: a Identity, neither"),
        (_no_bias, "encoder._encoder.layers.0.second_sub_layer.dense_in: a Linear without weight or bias"),
        (_forward_of_its_own, "encoder._encoder.layers.0: a TransformerEncoderBlock with a `forward` of its own"),
    ],
)
def test_what_computes_otherwise_than_the_configuration_says_is_refused(tiny_model, tmp_path, change, message):
    """Their weights would convert, or be missed with a traceback, and what they compute would not."""
    assert not conversion_faults(tiny_model)
    change(tiny_model)
    with pytest.raises(ConversionError, match=message):
        convert(tiny_model, tmp_path)


def test_masked_encoder_is_refused(tiny_model_config, tmp_path):
    with pytest.raises(ConversionError, match="encoder.mask_future: true"):
        convert(MTEncDecModel(tiny_model_config(**{"encoder.mask_future": True})), tmp_path)


def test_unknown_quantization(tiny_model, tmp_path):
    with pytest.raises(InputError, match="quantization is 'int4'; give one of float32, float16, .*int8"):
        convert(tiny_model, tmp_path, "int4")


def test_a_token_twice(tiny_model, tmp_path, monkeypatch):
    """The start and end tokens of the source get the target's names, which must be no other tokens there."""
    original, start = tiny_model.encoder_tokenizer.ids_to_tokens, start_piece(tiny_model)
    monkeypatch.setattr(
        tiny_model.encoder_tokenizer,
        "ids_to_tokens",
        lambda ids: [*("other" if piece == start else piece for piece in original(ids)[:-1]), start],
    )
    monkeypatch.setattr(tiny_model.decoder_tokenizer, "ids_to_tokens", original)
    with pytest.raises(ConversionError, match=f"the source vocabulary has the token '{start}' twice"):
        convert(tiny_model, tmp_path)


@pytest.mark.parametrize("library", ["given", "sentencepiece"])
def test_padding_is_never_written(library, tiny_model, tiny_model_config, tokenizers, tiny_sources, tmp_path):
    """NeMo's search bars it; CTranslate2 wrote it, and a SentencePiece model its name, where it was likely. Scores are
    the model's own."""
    model = tiny_model
    if library == "sentencepiece":
        keys = {"library": library, "tokenizer_model": tokenizers[library]}
        torch.manual_seed(0)
        config = tiny_model_config(**{f"{side}_tokenizer.{key}": keys[key] for side in BOTH for key in keys})
        model = MTEncDecModel(config).eval()
    pad, eos = model.decoder_tokenizer.pad_id, model.decoder_tokenizer.eos_id
    with torch.no_grad():
        model.log_softmax.mlp.layer0.bias[pad] += 9.0 if library == "given" else 1.0
    model.save_to(str(tmp_path / "model.nemo"))
    export(tmp_path / "model.nemo", tmp_path / "export")
    engine, settings = CTranslate2Engine.from_model(model, threads=1), SearchSettings(num_hypotheses=4)
    sampled = SearchSettings("top_k", top_k=20, num_hypotheses=4)
    for one in (settings, sampled):
        found = [each for _, each in sorted(chain(*engine.translate(tiny_sources, one)), key=itemgetter(0))]
        assert not [each for hypotheses in found for each in hypotheses if pad in each.ids]
        assert {len(hypotheses) for hypotheses in found} == {4}
        sources = engine.text.encode(tiny_sources).ids
        pairs = [(sources[place], each) for place, row in enumerate(found) for each in row]
        bos = model.decoder_tokenizer.bos_id
        targets = [[bos, *each.ids, *[eos] * (each.length - len(each.ids))] for _, each in pairs]
        assert [each.score for _, each in pairs] == pytest.approx(
            law.forced_scores([model], [ids for ids, _ in pairs], targets), abs=1e-3
        )
        if one is settings:
            written = exported_program.Model(tmp_path / "export").hypotheses(tiny_sources, n_best=4)
            assert written == [[(each.text, pytest.approx(each.score, abs=1e-3)) for each in row] for row in found]


@pytest.mark.skipif("yttm" not in compat.TOKENIZER_LIBRARIES, reason="NeMo 2 has no YouTokenToMe")
def test_a_model_of_text_with_the_word_unk_converts(tiny_model_config, tmp_path):
    """YouTokenToMe has `<UNK>` twice then: as the unknown token, and as a piece. Ids tell them apart."""
    import youtokentome

    (tmp_path / "text").write_text("a<UNK> b<UNK> c<UNK>\n" * 50)
    path = str(tmp_path / "model")
    youtokentome.BPE.train(
        data=str(tmp_path / "text"), model=path, vocab_size=18, n_threads=1, pad_id=0, unk_id=1, bos_id=2, eos_id=3
    )
    sections = {f"{side}_tokenizer.tokenizer_model": path for side in BOTH}
    model = MTEncDecModel(tiny_model_config(**sections)).eval()
    strings = model.decoder_tokenizer.ids_to_tokens(list(range(18)))
    twin = next(id_ for id_, string in enumerate(strings) if string == "<UNK>" and id_ > 3)
    assert pieces(model.encoder_tokenizer)[1] == "<UNK>"
    assert pieces(model.encoder_tokenizer)[twin] == f"<UNK> {twin}"
    with torch.no_grad():
        model.log_softmax.mlp.layer0.bias[twin] += 8.0
    model.save_to(str(tmp_path / "model.nemo"))
    lines = ["a<UNK> b", "b c<UNK>", "<UNK>", "zz a"]
    settings = SearchSettings(beam_size=2, max_length_delta=4)
    fast, slow = CTranslate2Engine.from_model(model), NeMoEngine([model])
    found, expected = (
        [best for _, (best, *_) in sorted(chain(*engine.translate(lines, settings)), key=itemgetter(0))]
        for engine in (fast, slow)
    )
    assert [each.ids for each in found] == [each.ids for each in expected]
    assert [each.text for each in found] == [each.text for each in expected]
    assert any(twin in each.ids for each in found)
    assert "<UNK>" in found[0].text
    for one, other in zip(found, expected, strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-3)
    export(tmp_path / "model.nemo", tmp_path / "export")
    program = exported_program.Model(tmp_path / "export")
    for line in lines:
        ids = model.encoder_tokenizer.text_to_ids(line)
        assert program._encode(line) == [pieces(model.encoder_tokenizer)[id_] for id_ in ids]
    assert twin in model.encoder_tokenizer.text_to_ids(lines[0])
    assert program._decode([f"<UNK> {twin}"]) == model.decoder_tokenizer.ids_to_text([twin])
