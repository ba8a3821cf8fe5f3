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
"""The table of values: what stock NeMo writes is allowed, and what NeMo itself could not run is not."""

import pytest
from nemo.collections.nlp.models import MTEncDecModel
from nemo.collections.nlp.models.machine_translation.mt_enc_dec_config import (
    AAYNBaseConfig,
    MTBottleneckModelConfig,
    MTEncDecModelConfig,
)
from nemo.collections.nlp.modules.common.transformer.transformer import (
    NeMoTransformerConfig,
    NeMoTransformerEncoderConfig,
)
from nemo.collections.nlp.modules.common.transformer.transformer_bottleneck import (
    NeMoTransformerBottleneckDecoderConfig,
    NeMoTransformerBottleneckEncoderConfig,
)
from omegaconf import OmegaConf

from nemo_distill.archives.values import is_language, value_faults


def plain(config: object) -> dict:
    """Return a dataclass of NeMo's as plain data."""
    return OmegaConf.to_container(OmegaConf.structured(config))


def test_the_defaults_of_nemo_are_allowed():
    sizes = {"hidden_size": 512, "inner_size": 2048, "num_layers": 6, "num_attention_heads": 8}
    tokenizers = {f"{side}_tokenizer": plain(AAYNBaseConfig().encoder_tokenizer) for side in ("encoder", "decoder")}
    for model, encoder, decoder in (
        (MTEncDecModelConfig(), NeMoTransformerEncoderConfig(), NeMoTransformerConfig()),
        (AAYNBaseConfig(), NeMoTransformerEncoderConfig(), NeMoTransformerConfig()),
        (
            MTBottleneckModelConfig(),
            NeMoTransformerBottleneckEncoderConfig(),
            NeMoTransformerBottleneckDecoderConfig(),
        ),
    ):
        sides = {"encoder": {**plain(encoder), **sizes}, "decoder": {**plain(decoder), **sizes}}
        assert not list(value_faults({**plain(model), **tokenizers, **sides}))


def test_what_archives_of_ngc_have_is_allowed(tiny_model_config):
    section = OmegaConf.to_container(tiny_model_config())
    section.update(
        len_pen=0, max_generation_delta=-1, label_smoothing=None, src_language=None, tgt_language="ja-mecab"
    )
    section["encoder"].update(num_token_types=0, model_name=None, mask_future=False, hidden_act="gelu", pre_ln=None)
    section["decoder"].update(num_token_types=2, attn_score_dropout=0)
    section["encoder_tokenizer"].update(bpe_dropout=None, r2l=None, vocab_file=None)
    assert not list(value_faults(section))
    section.update(src_language="", tgt_language="")
    assert not list(value_faults(section))
    section.update(multilingual=True, src_language=["en", "de", "zh"], tgt_language="en")
    assert not list(value_faults(section))


WRONG = {
    "src_language": [1, True, "a b", "a" * 17, 'de"', "d\ne", [], ["de"], {"a": 1}],
    "beam_size": [0, -1, 4.0, "4", True, None, 10**30],
    "len_pen": ["0.6", None, True, 11, float("nan"), float("inf"), [0.6]],
    "max_generation_delta": [1.5, "20", None, 10**9],
    "label_smoothing": [-0.1, 1.5, "0.1", False],
    "multilingual": [1, "true"],
    "shared_embeddings": [0, "x", []],
    "encoder": [None, [], 5],
    "encoder.hidden_size": [0, 32.0, None, "32", 10**9],
    "encoder.num_attention_heads": [0, 3, None, 2.0],
    "encoder.num_layers": [0, 10**6],
    "encoder.max_sequence_length": [0, None, "512", 2**30],
    "decoder.num_token_types": [-1, None, True],
    "decoder.ffn_dropout": [-0.1, 1.1, None, "0.1", True],
    "decoder.hidden_act": ["tanh", None, 1, ["relu"]],
    "decoder.pre_ln": ["false", 1],
    "encoder.learn_positional_encodings": ["no", 0],
    "encoder.mask_future": ["true", 2],
    "head.activation": [5, "a b", "a.b"],
    "head.dropout": [None, 2],
    "head.log_softmax": ["true"],
    "encoder_tokenizer.bpe_dropout": [2, "0.1", True],
    "decoder_tokenizer.r2l": ["yes", 1],
    "decoder_tokenizer.tokenizer_model": [1, ["a"]],
}


@pytest.mark.parametrize("key", WRONG)
@pytest.mark.parametrize("stock", [True, False])
def test_wrong_values_are_named(key, stock, tiny_model_config):
    for value in WRONG[key]:
        section = OmegaConf.to_container(tiny_model_config())
        *path, last = key.split(".")
        inner = section
        for part in path:
            inner = inner[part]
        inner[last] = value
        faults = list(value_faults(section, stock))
        if value is None and key == "encoder" and not stock:
            continue
        assert any(fault.startswith(f"{key} is ") for fault in faults), (value, faults)
        assert all("\n" not in fault and len(fault) < 250 for fault in faults)


@pytest.mark.parametrize("key", ["beam_size", "len_pen", "encoder.inner_size", "head.dropout", "head", "decoder"])
def test_what_is_missing_is_named_for_stock_models(key, tiny_model_config):
    section = OmegaConf.to_container(tiny_model_config())
    *path, last = key.split(".")
    inner = section[path[0]] if path else section
    del inner[last]
    assert any(fault.startswith(f"{key} is missing") for fault in value_faults(section))
    assert not list(value_faults(section, stock=False))


def test_another_library_reads_its_own_section(tiny_model_config):
    section = OmegaConf.to_container(tiny_model_config())
    section["encoder"] = {"library": "huggingface", "model_name": "bert-base-cased", "hidden_size": None}
    assert not list(value_faults(section))


def test_the_table_is_no_stricter_than_nemo(tiny_model_config):
    """A model that NeMo builds with unusual values."""
    config = tiny_model_config(
        len_pen=0, label_smoothing=0, **{"encoder.pre_ln": None, "head.use_transformer_init": None}
    )
    model = MTEncDecModel(config)
    assert not list(value_faults(OmegaConf.to_container(model.cfg)))


def test_languages():
    assert all(map(is_language, ("de", "ja-mecab", "ignore", "zh_TW", "")))
    assert not any(map(is_language, ("a/b", "de\n", None, 1, "x" * 17)))
