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
"""Values of a `model` section of which NeMo makes no model, or another one; encoders of Hugging Face."""

import dataclasses
import inspect
import re

import pytest
from nemo.collections.nlp.data.machine_translation.machine_translation_dataset import TranslationDataConfig
from nemo.collections.nlp.data.machine_translation.preproc_mt_data import MTDataPreproc
from nemo.collections.nlp.models.machine_translation import mt_enc_dec_model
from nemo.collections.nlp.models.machine_translation.mt_enc_dec_model import MTEncDecModel
from nemo.collections.nlp.modules.common.huggingface.huggingface_utils import (
    get_huggingface_pretrained_lm_models_list,
)
from nemo.collections.nlp.modules.common.token_classifier import TokenClassifierConfig
from nemo.collections.nlp.modules.common.transformer.transformer_utils import get_nemo_transformer
from omegaconf import OmegaConf
from short_runs import config_in

from nemo_distill.config import model_keys, model_values
from nemo_distill.config.model_keys import check_model_keys, key_faults
from nemo_distill.config.model_values import check_schedule, value_faults
from nemo_distill.data.checks import check_model_files
from nemo_distill.errors import ConfigurationError, InputError
from nemo_distill.training.run import run_training

BERT = {
    "library": "huggingface",
    "_target_": "transformers.BertConfig",
    **{"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32},
}


@pytest.fixture
def section(tiny_model_config):
    """A function that gives a `model` section as plain data; arguments replace sections and dotted keys."""

    def build(update=None, **overrides):
        model = OmegaConf.to_container(tiny_model_config(hidden_size=16, num_layers=1, data=True, **overrides))
        return {**model, "shared_embeddings": False, **(update or {})}

    return build


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("num_layers", 6, r"it is NeMo's; transformers.BertConfig calls it 'num_hidden_layers'$"),
        ("inner_size", 64, "calls it 'intermediate_size'"),
        ("ffn_dropout", 0.5, "calls it 'hidden_dropout_prob'"),
        ("max_sequence_length", 9, "calls it 'max_position_embeddings'"),
        ("pre_ln", True, "transformers.BertConfig has nothing like it, leave it out"),
        ("vocab_size", 99, "the vocabulary of its tokenizer"),
        ("num_hiden_layers", 2, r"did you mean 'num_hidden_layers'\?\); transformers.BertConfig has att"),
        ("to_dict", 2, "BertConfig has attention"),  # a method is no key
    ],
)
def test_keys_that_an_encoder_of_hugging_face_does_not_read(section, key, value, message):
    with pytest.raises(ConfigurationError, match=rf"(?m)model.encoder.{key}: unknown key.*{message}"):
        check_model_keys(section({"encoder": {**BERT, key: value}}), MTEncDecModel)


def test_what_an_encoder_of_hugging_face_may_have(section):
    """Its `attribute_map`, what every such configuration takes, and null for what a file of NeMo's brought along."""
    of_any = {"num_labels": 2, "gradient_checkpointing": False, "output_attentions": False, "_convert_": "all"}
    for encoder in (
        {**BERT, **of_any, "num_layers": None, "pre_ln": None, "pretrained": False, "checkpoint_file": None},
        {"library": "huggingface", "_target_": "transformers.DistilBertConfig", "hidden_size": 16, "hidden_dim": 32},
        {"library": "huggingface", "model_name": get_huggingface_pretrained_lm_models_list()[0], "pretrained": True},
    ):
        check_model_keys(section({"encoder": encoder}), MTEncDecModel)
    (fault,) = key_faults({"encoder": {**BERT, "_target_": "transformers.DistilBertConfig"}}, False)
    assert "intermediate_size: unknown key" in fault
    encoder = {"library": "huggingface", "_target_": "transformers.DistilBertConfig", "inner_size": 3}
    assert "calls it 'hidden_dim'" in next(key_faults({"encoder": encoder}, False))


def test_beside_a_name_of_hugging_face_nothing_is_read(section):
    encoder = {"library": "huggingface", "model_name": "google-bert/bert-base-uncased", "hidden_size": 128}
    with pytest.raises(ConfigurationError, match="hidden_size: unknown key beside model_name: the encoder is google"):
        check_model_keys(section({"encoder": encoder}), MTEncDecModel)


@pytest.mark.parametrize(
    ("update", "message"),
    [
        ({"encoder": {**BERT, "_target_": None}}, "model.encoder._target_ is missing: .* transformers.BertConfig"),
        ({"encoder": {**BERT, "_target_": "transformers.BertConfg"}}, r"mean 'transformers.BertConfig'\?\)"),
        ({"encoder": {**BERT, "_target_": "transformers.BertModel"}}, "no configuration of Hugging Face"),
        ({"encoder": {**BERT, "library": "nemo"}}, "model.encoder._target_: .*; add library: huggingface"),
        ({"encoder": {**BERT, "pretrained": True}}, "model.encoder.pretrained: true needs model_name"),
        ({"encoder": BERT, "shared_embeddings": True}, "embeddings of its own; give false"),
        (
            {"encoder": {"library": "huggingface", "model_name": "bert-base-uncased"}},
            r"'bert-base-uncased' of Hugging Face \(did you mean 'google-bert/bert-base-uncased'\?\)",
        ),
        ({"decoder": BERT}, "model.decoder.library: got 'huggingface'; give nemo"),
        ({"decoder": None}, "model.decoder is missing"),
        ({"encoder": {"library": "nemo", "hidden_size": 8}}, "(?s)inner_size is missing.*model.encoder.num_layers is"),
        ({"head": {"dropout": 0.0, "log_softmax": True, "use_transformer_init": True}}, "head.activation is missing"),
        ({"head": None}, "model.head is missing; give activation"),
        ({"optim": {"lr": 1}}, "model.optim.name is missing; give one of .*adamw"),
        ({"optim": {"name": "addam", "lr": 1}}, r"model.optim.name: got 'addam' \(did you mean 'adam'\?\)"),
        ({"optim": {"name": "AdamW", "lr": 1}}, r"\(did you mean 'adamw'\?\)"),
        ({"optim": {"name": "adam", "sched": {"warmup_steps": 2}}}, "model.optim.sched.name is missing; give one of"),
        ({"optim": {"name": "adam", "sched": None}}, r"sched is null; leave it out \(~model.optim.sched\)"),
        (
            {"optim": {"name": "adam", "sched": {"name": "InverseSquareRotAnnealing"}}},
            r"model.optim.sched.name: got 'InverseSquareRotAnnealing' \(did you mean 'InverseSquareRootAnnealing'\?\)",
        ),
    ],
)
def test_what_nemo_needs(section, update, message):
    with pytest.raises(ConfigurationError, match=message):
        check_model_keys(section(update), MTEncDecModel)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("encoder.library", "megatron", "got 'megatron'; give nemo or huggingface"),
        ("encoder.library", "nemmo", r"did you mean 'nemo'\?"),
        ("encoder.library", None, "got 'None'; give nemo"),
        ("encoder.pretrained", True, "no trained Transformer of its own"),
        ("decoder.model_name", "transformer_big", "no trained Transformer of its own"),
        ("encoder.arch", "seq3seq", r"give one of seq2seq, .*did you mean 'seq2seq'\?"),
        ("encoder.checkpoint_file", "weights.pt", "got weights.pt, which nothing reads: .*init.from_nemo"),
        ("decoder.r2l", True, "model.decoder_tokenizer.r2l is what NeMo reads"),
        ("head.log_softmax", False, "got False, and the loss is of log-probabilities; give true"),
        ("head.log_softmax", None, "got None, and the loss is of log-probabilities; give true"),
        ("head.num_layers", 2, "got 2, which nothing reads: NeMo's translation models have one layer there"),
        ("train_ds.num_samples", 1000, "got 1000, which nothing reads: NeMo takes the whole file"),
        ("validation_ds.metadata_path", "x.json", "metadata_file is what NeMo reads"),
    ],
)
def test_values_that_nothing_reads_or_that_train_another_loss(section, place, value, message):
    with pytest.raises(ConfigurationError, match=message):
        check_model_keys(section(**{place: value}), MTEncDecModel)


@pytest.mark.parametrize("key", ["bpe_dropout", "r2l", "sentencepiece_legacy", "tokenizer_model"])
def test_what_the_library_of_a_tokenizer_does_not_read(section, key):
    model = section()
    value = model["encoder_tokenizer"]["tokenizer_model"] if key == "tokenizer_model" else 0.1
    model["encoder_tokenizer"] = {"library": "huggingface", key: value}
    with pytest.raises(InputError, match=f"model.encoder_tokenizer.{key}: got .*, and this one's library is huggingf"):
        check_model_files(model)


def test_what_the_library_of_a_tokenizers_file_does_not_read(section):
    model = section()
    del model["encoder_tokenizer"]["library"]
    model["encoder_tokenizer"] |= {"bpe_dropout": 0.1, "sentencepiece_legacy": True}
    with pytest.raises(InputError, match=r"encoder_tokenizer\.(bpe|sent)\w+: got .* leave it out$"):
        check_model_files(model)


def test_a_run_that_would_train_nothing_or_by_another_schedule(section, tmp_path):
    with pytest.raises(ConfigurationError, match="model.optim is missing: nothing would be trained"):
        run_training(config_in(tmp_path / "none", section({"optim": None})), MTEncDecModel)
    sched = {"name": "WarmupAnnealing", "warmup_steps": 1, "max_steps": 500}
    model = section({"optim": {"name": "adam", "lr": 1e-3, "sched": sched}})
    with pytest.raises(ConfigurationError, match="got 500, but NeMo takes trainer.max_steps, 1; leave it out"):
        run_training(config_in(tmp_path / "steps", model), MTEncDecModel)
    for steps in (500, -1, None):
        check_schedule(model, steps)
    model["optim"] = {"_target_": "torch.optim.Adamm", "lr": 1e-3}
    with pytest.raises(InputError, match=r"training cannot begin: Error locating target 'torch.optim.Adamm'"):
        run_training(config_in(tmp_path / "target", model), MTEncDecModel)


class Recorder(dict):
    """A section that notes which of its keys are read."""

    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        self.keys_read = set()

    def get(self, key, default=None):
        self.keys_read.add(key)
        return super().get(key, default)


@pytest.mark.parametrize("side", ["encoder", "decoder"])
@pytest.mark.parametrize("arch", [False, True])
def test_a_key_that_nemos_dataclasses_have_and_nothing_reads_is_listed(side, arch):
    """A new release of NeMo may read less, or have more."""
    sizes = {"hidden_size": 4, "num_layers": 1, "inner_size": 4, "num_attention_heads": 1, "vocab_size": 4}
    given = Recorder(sizes | ({"arch": "bridge", "hidden_steps": 1} if arch else {}))
    get_nemo_transformer(config_dict=given, encoder=side == "encoder")
    model = inspect.getsource(mt_enc_dec_model)
    read = given.keys_read | {*re.findall(rf"{side}_cfg_dict\.(?:pop|get)\('(\w+)'", model)}
    unread = {key for key in model_keys._side_keys(side, {"arch": 1} if arch else {}) if key not in read}
    unread |= {"checkpoint_file"}  # which is taken out, and given to nobody that reads it
    listed = {place.partition(".")[2] for place in model_values._UNREAD if place.startswith(f"{side}.")}
    assert unread - {"arch"} <= listed
    assert listed <= unread | {"hidden_steps", "hidden_blocks", "hidden_init_method"}


def test_a_key_of_data_or_head_that_nothing_reads_is_listed():
    sources = inspect.getsource(mt_enc_dec_model) + inspect.getsource(MTDataPreproc)
    for section, kind in (("train_ds", TranslationDataConfig), ("head", TokenClassifierConfig)):
        owner = r"\w*cfg(?:\.\w+)?" if section == "train_ds" else r"cfg\.head"
        read = {*re.findall(rf"\b{owner}\.(\w+)\b", sources)}
        read |= {*re.findall(rf"\b{owner}(?:\.get\(|\[)['\"](\w+)['\"]", sources)}
        unread = {each.name for each in dataclasses.fields(kind)} - read
        assert unread == {key.partition(".")[2] for key in model_values._UNREAD if key.startswith(f"{section}.")}


def test_what_stock_files_of_nemo_say_is_let_pass(section):
    stock = {"head.num_layers": 1, "train_ds.num_samples": -1, "decoder.arch": "seq2seq", "decoder.r2l": False}
    assert not list(value_faults(section(**stock), set()))
