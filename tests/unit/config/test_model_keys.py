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
"""Keys of a `model` section that nothing reads."""

import copy
import functools
import inspect
import re

import pytest
from nemo.collections.nlp.models.machine_translation.mt_enc_dec_bottleneck_model import MTBottleneckModel
from nemo.collections.nlp.models.machine_translation.mt_enc_dec_config import (
    AAYNBaseConfig,
    MTBottleneckModelConfig,
)
from nemo.collections.nlp.models.machine_translation.mt_enc_dec_model import MTEncDecModel
from nemo.core.classes import ModelPT
from omegaconf import OmegaConf

from nemo_distill import DistilledMTEncDecModel
from nemo_distill.config.model_keys import check_model_keys, check_run_keys, key_faults
from nemo_distill.errors import ConfigurationError

BERT = {"library": "huggingface", "_target_": "transformers.BertConfig", "num_hidden_layers": 2}


class Adapted(MTEncDecModel):
    extra_keys = ("gate", "encoder.adapter_size", "adapters")


class Further(Adapted):
    extra_keys = ("head.bias",)


@functools.cache
def defaults(base: type) -> dict:
    return OmegaConf.to_container(OmegaConf.structured(base))


def faults(update: dict, base: type = AAYNBaseConfig) -> list[str]:
    """Return the faults of NeMo's defaults with other values, by their dotted keys."""
    model = copy.deepcopy(defaults(base))
    for place, value in update.items():
        *sections, key = place.split(".")
        functools.reduce(dict.__getitem__, sections, model)[key] = value
    return list(key_faults(model, base is MTBottleneckModelConfig))


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("encoder.hiden_size", "hidden_size"),
        ("decoder.embeding_dropout", "embedding_dropout"),
        ("encoder_tokenizer.bpe_droput", "bpe_dropout"),
        ("decoder_tokenizer.libary", "library"),
        ("head.log_sofmax", "log_softmax"),
        ("train_ds.max_seq_lenght", "max_seq_length"),
        ("validation_ds.tokens_in_bach", "tokens_in_batch"),
        ("test_ds.bleu_tokeniser", "bleu_tokenizer"),
        ("optim.wheight_decay", "weight_decay"),
        ("optim.sched.warmup_stps", "warmup_steps"),
        ("label_smothing", "label_smoothing"),
        ("distilation", "distillation"),
    ],
)
def test_the_nearest_key_is_named(key, nearest):
    (fault,) = faults({key: 1})
    assert fault.startswith(f"model.{key}: unknown key (did you mean '{nearest}'?); known keys are ")


def test_a_store_is_of_training_text_alone():
    assert faults({"train_ds.token_store": "tokens"}) == []
    for section in ("validation_ds", "test_ds"):
        (fault,) = faults({f"{section}.token_store": "tokens"})
        assert fault.startswith(f"model.{section}.token_store: unknown key")


def test_what_only_another_kind_of_model_reads():
    assert not faults({"encoder.hidden_steps": 4, "model_type": "vae"}, MTBottleneckModelConfig)
    assert [fault.partition(":")[0] for fault in faults({"encoder.hidden_steps": 4, "model_type": "vae"})] == [
        "model.model_type",
        "model.encoder.hidden_steps",
    ]
    assert not faults({"encoder": BERT})
    (fault,) = faults({"encoder": {**BERT, "num_hiden_layers": 2}})
    assert "(did you mean 'num_hidden_layers'?)" in fault
    assert "no section" in faults({"head": 3})[0]


def test_schedules_and_optimizers_have_keys_of_their_own():
    assert not faults({"optim": {"name": "adamw", "lr": 1, "amsgrad": True, "sched": {"name": "WarmupHoldPolicy"}}})
    (fault,) = faults({"optim": {"name": "adam", "lr": 1, "momentum": 0.9}})
    assert fault.startswith("model.optim.momentum: unknown key")
    assert not faults({"optim": {"_target_": "torch.optim.Adam", "anything": 1}})
    args = {"name": "adam", "lr": 1, "args": {"name": "auto", "params": {"weight_decay": 0.1}}}
    assert not faults({"optim": args})
    (fault,) = faults({"optim": {**args, "weight_decay": 0.1}})  # beside `args`, NeMo reads it nowhere
    assert fault.startswith("model.optim.weight_decay: unknown key")


def test_a_class_names_its_own_keys():
    model = {**copy.deepcopy(defaults(AAYNBaseConfig)), "gate": 1, "adapters": {"a": {"b": 1}}}
    model["encoder"]["adapter_size"] = 8
    model["head"]["bias"] = True
    check_model_keys(model, Further)
    with pytest.raises(ConfigurationError, match=r"(?s)model.head.bias: unknown key.*Adapted.*extra_keys"):
        check_model_keys(model, type("Adapted", (Adapted,), {}))
    with pytest.raises(ConfigurationError, match=r"(?s)model.gate.*model.adapters.*model.encoder.adapter_size"):
        check_model_keys(model, MTEncDecModel)
    whole = type("Whole", (Adapted,), {"extra_keys": ("encoder", "head", "optim")})
    check_model_keys({**model, "encoder": {"kind": "mine"}, "optim": {"name": "mine"}}, whole)


@pytest.mark.parametrize(
    "place", ["shared_embeddings", "encoder.pre_ln", "train_ds.clean", "head.use_transformer_init"]
)
def test_a_switch_is_on_or_off(place):
    """To NeMo any text is on: `shuffle=no` on the command line shuffled."""
    model, extra = copy.deepcopy(defaults(AAYNBaseConfig)), {"extra_keys": (place,)}
    section, _, key = place.rpartition(".")
    for value in (True, False, 0, None):
        (model[section] if section else model)[key] = value
        check_model_keys(model, MTEncDecModel)
    (model[section] if section else model)[key] = "no"
    with pytest.raises(ConfigurationError, match=rf"model\.{re.escape(place)}: got 'no'; give true or false"):
        check_model_keys(model, MTEncDecModel)
    check_model_keys(model, type("Own", (Adapted,), extra))


def test_keys_of_a_run_that_look_misspelt():
    config = {
        "name": "x",
        "data": {"dir": "d", "source": "de", "batch": 3},
        "model": {"path": "${data.dir}"},
        "note": 1,
    }
    check_run_keys(config)
    with pytest.raises(ConfigurationError, match="^init: nothing reads .* here; it is called model.distillation.init"):
        check_run_keys({**config, "init": {"from_teacher": "every_nth"}})
    with pytest.raises(ConfigurationError, match="(?s)^data.proccessing: .* 'processing'.*\n  keeep: .* mean 'keep'"):
        check_run_keys({**config, "keeep": "last", "data": {"proccessing": "none"}})


@pytest.mark.parametrize("reference", ["${seeds}", "${seeds.0}", "a_${seeds[1]}", "${oc.select:seeds,1}"])
def test_a_key_that_a_value_refers_to_is_read(reference):
    check_run_keys({"seeds": {"first": 1}, "note": reference})
    check_run_keys({"data": {"sources": 1}, "model": {"path": reference.replace("seeds", "data.sources")}})


def test_a_key_that_looks_like_one_that_is_referred_to():
    """Beside it: what `data.tokens_in_batch` is called is known from who reads it."""
    model = {"train_ds": {"tokens_in_batch": "${data.tokens_in_batch}"}}
    with pytest.raises(ConfigurationError, match="data.token_in_batch: .* did you mean 'tokens_in_batch'"):
        check_run_keys({"data": {"tokens_in_batch": 4096, "token_in_batch": 77}, "model": model})


def test_a_list_of_a_script_of_ones_own_is_no_misspelt_key():
    check_run_keys({"seeds": [1, 2, 3], "models": ["tiny", "small"], "names": []})
    with pytest.raises(ConfigurationError, match=r"(?s)models: .*'model'.*\$\{models\}.*seeds: .* mean 'seed'\?"):
        check_run_keys({"seeds": 3, "models": {"tiny": {}}})
    with pytest.raises(ConfigurationError, match="mode: nothing reads this key; did you mean 'model'"):
        check_run_keys({"mode": 1, "note": "${model.encoder.hidden_size}"})  # which is no reference to `mode`


def test_a_student_refuses_them_before_anything_is_opened(tiny_model_config):
    config = tiny_model_config()
    config.distillation = {"teacher": {"model_path": "missing.nemo"}}
    config.encoder.hiden_size = 128
    with pytest.raises(ConfigurationError, match="model.encoder.hiden_size: unknown key .did you mean 'hidden_size'"):
        DistilledMTEncDecModel(config)


@pytest.mark.parametrize("base", [MTEncDecModel, MTBottleneckModel])
def test_all_that_nemo_reads_is_known(base):
    """Its classes are searched for what they ask a configuration for: a new release may ask for more."""
    data = {"train_ds", "validation_ds"}
    for kind in (each for each in base.__mro__ if issubclass(each, MTEncDecModel) or each is ModelPT):
        source = inspect.getsource(kind)
        read = re.findall(r"\b(?:self\.)?_?cfg\.((?:encoder|decoder|head|\w+_tokenizer)\.)?(\w+)\b(?!\s*\()", source)
        read += re.findall(r"\bcfg\.((?:\w+_tokenizer|encoder|decoder)\.)?get\(\s*['\"](\w+)['\"]", source)
        if kind is ModelPT:  # whose other configurations are those of a script
            read = [("", key) for key in re.findall(r"\bself\._?cfg\.get\(\s*['\"](\w+)['\"]", source)]
            assert ("", "nsys_profile") in read
        for section, key in {*read}:
            places = [f"{section}{key}"] if section or kind is ModelPT else [key, *(f"{each}.{key}" for each in data)]
            unknown = [faults({place: {} if place == key else 1}, MTBottleneckModelConfig) for place in places]
            assert not all(found and "unknown key" in found[0] for found in unknown), places
