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
"""The keys of a `model` section that somebody reads. NeMo passes over all others, a misspelt one among them.

They come from NeMo's own dataclasses and signatures; what its code reads beside these is listed here.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from nemo.collections.nlp.data.machine_translation.machine_translation_dataset import TranslationDataConfig
from nemo.collections.nlp.models.machine_translation.mt_enc_dec_bottleneck_model import MTBottleneckModel
from nemo.collections.nlp.models.machine_translation.mt_enc_dec_config import (
    MTBottleneckModelConfig,
    MTEncDecModelConfig,
)
from nemo.collections.nlp.modules.common.token_classifier import TokenClassifierConfig
from nemo.collections.nlp.modules.common.tokenizer_utils import TokenizerConfig
from nemo.collections.nlp.modules.common.transformer.transformer import (
    NeMoTransformerDecoderConfig,
    NeMoTransformerEncoderConfig,
)
from nemo.collections.nlp.modules.common.transformer.transformer_bottleneck import (
    NeMoTransformerBottleneckDecoderConfig,
    NeMoTransformerBottleneckEncoderConfig,
)
from nemo.core.optim.lr_scheduler import AVAILABLE_SCHEDULERS
from nemo.core.optim.optimizers import AVAILABLE_OPTIMIZERS

from nemo_distill.config import hugging_face
from nemo_distill.config.hugging_face import parameters
from nemo_distill.config.model_values import value_faults
from nemo_distill.config.model_widths import HUGGING_FACE
from nemo_distill.config.reading import fault_list, inner_section, nearest
from nemo_distill.errors import ConfigurationError
from nemo_distill.support.quoting import plain_text

SIDES = {
    "encoder": (NeMoTransformerEncoderConfig, NeMoTransformerBottleneckEncoderConfig),
    "decoder": (NeMoTransformerDecoderConfig, NeMoTransformerBottleneckDecoderConfig),
}
"""The dataclasses of a plain and of a bottleneck model's parts."""
_DATASETS = ("train_ds", "validation_ds", "test_ds")
_DATASET = {"max_seq_length_diff", "max_seq_length_ratio", "dataset_type"}
_DATASET |= {"bleu_tokenizer", "languages", "processed"}  # of ours
_OF_ANY_MODEL = {"optim_param_groups", "freeze_updates", "nsys_profile", "memory_profile", "chakra_profile"}
_OF_ANY_MODEL |= {
    "dump_debug_info",
    "dump_debug_info_to_file",
    "target",
    "nemo_version",
    "tokenizer",
    "language_model",
    "distillation",  # of ours
    "_target_",
}
_RUN = {"name", "output_dir", "overwrite", "seed", "keep", "on_non_finite", "model", "trainer", "exp_manager", "data"}
_RUN |= {"patience", "ema", "average"}
_DATA = {"source", "target", "processing", "processed", "bleu_tokenizer"}
_REFERENCE = r"\$\{{(?:oc\.[a-z_.]+:\s*)?{}(?=[\s}}.\[,])"
"""An interpolation of a key or of something inside of it, or a resolver of OmegaConf that reads it, as `oc.select`."""
_NEAR = 0.8
"""How alike a key that nothing reads and one that is read must be: a run's configuration may hold notes."""
_OPTIMIZER = {"name", "cls", "args", "lr", "sched"}
_INSIDE = {"init": "model.distillation.init", "optim": "model.optim", "objective": "model.distillation.objective"}
_INSIDE |= {name: f"model.{name}" for name in (*_DATASETS, *SIDES, "distillation")}
"""Where a section belongs that does nothing at the top."""
_SCHEDULER = {"name", "args", "monitor", "reduce_on_plateau"}


def check_model_keys(model: Mapping[str, Any], model_class: type) -> None:
    """Refuse a `model` section with keys that nothing reads, or with values of which NeMo makes no or another model.

    Args:
        model: the section as plain data.
        model_class: what is built of it. A class that reads keys of its own lists them, dotted, in its attribute
            `extra_keys`: `("adapter_size", "encoder.adapter_size")`; one that names a section stands for all of it.

    Raises:
        ConfigurationError: lists every such key, with the nearest one that is read, or else every such value.
    """
    extra = {str(key) for base in model_class.__mro__ for key in vars(base).get("extra_keys", ())}
    is_bottleneck = issubclass(model_class, MTBottleneckModel)
    if faults := list(key_faults(model, is_bottleneck, extra)):
        raise ConfigurationError(
            f"keys of `model` that nothing reads:\n{fault_list(faults)}\n"
            f"  (a key that {model_class.__name__} itself reads: name it in the class's `extra_keys`)"
        )
    if faults := [*_flag_faults(model, is_bottleneck, extra), *value_faults(model, extra)]:
        raise ConfigurationError(f"`model` cannot be built as it says:\n{fault_list(faults)}")


def check_run_keys(config: Mapping[str, Any]) -> None:
    """Refuse a run's configuration with a key of its own, or under `data`, that looks like a misspelt one.

    Args:
        config: plain data, not resolved: what a value refers to, as `${data.dir}`, is read.

    Raises:
        ConfigurationError: names them, and what they look like.
    """
    read, faults = str(config), []
    data = inner_section(config, "data")
    referred = {str(key) for key in data if re.search(_REFERENCE.format(re.escape(f"data.{key}")), read)}
    for prefix, section, known in (("", config, _RUN), ("data.", data, _DATA | referred)):
        for key, value in section.items():
            place = plain_text(f"{prefix}{key}", 80)
            if key in known or re.search(_REFERENCE.format(re.escape(f"{prefix}{key}")), read):
                continue
            if not prefix and key in _INSIDE:
                faults.append(f"{key}: nothing reads this key here; it is called {_INSIDE[key]}")
            elif not prefix and isinstance(value, list):
                continue  # a note, as `seeds` of a sweep's own: no key there takes a list
            elif near := get_close_matches(str(key), known, n=1, cutoff=_NEAR):
                faults.append(
                    f"{place}: nothing reads this key; did you mean '{near[0]}'? A key of your own is read where a "
                    f"value refers to it, as ${{{place}}}"
                )
    if faults:
        raise ConfigurationError("\n  ".join(sorted(faults)))


def key_faults(model: Mapping[str, Any], bottleneck: bool, extra: Iterable[str] = ()) -> Iterator[str]:
    """Yield a fault for each key of a `model` section that neither NeMo nor this library reads.

    Args:
        model: the section as plain data.
        bottleneck: whether the model is NeMo's `MTBottleneckModel`.
        extra: further keys, dotted.
    """
    extra = set(map(str, extra))
    for where, section, known in _sections(model, bottleneck):
        if where in extra:
            continue
        if not isinstance(section, Mapping):
            yield f"model.{where} is {plain_text(section)!r}, no section"
            continue
        prefix = f"{where}." if where else ""
        own = {key.removeprefix(prefix).partition(".")[0] for key in extra if key.startswith(prefix)}
        if where == "encoder" and section.get("library") == HUGGING_FACE:
            yield from hugging_face.key_faults(section, known, own)
            continue
        for key in section:
            if key not in known | own:
                shown = plain_text(f"model.{prefix}{key}", 200)
                yield f"{shown}: unknown key{nearest(key, known)}; known keys are {', '.join(sorted(known | own))}"


def _sections(model: Mapping[str, Any], bottleneck: bool) -> Iterator[tuple[str, Any, set[str]]]:
    """Yield the place of each section that is there, the section, and its known keys; not where these are unknown."""
    yield "", model, _fields(MTBottleneckModelConfig if bottleneck else MTEncDecModelConfig) | _OF_ANY_MODEL
    known = {f"{side}_tokenizer": _fields(TokenizerConfig) for side in SIDES}
    known |= dict.fromkeys(_DATASETS, _fields(TranslationDataConfig) | _DATASET)
    known["train_ds"] = known["train_ds"] | {"token_store"}
    known |= {"head": _fields(TokenClassifierConfig)}
    known |= {side: _side_keys(side, inner_section(model, side)) for side in SIDES}
    known["optim"] = _arguments(AVAILABLE_OPTIMIZERS, inner_section(model, "optim"), _OPTIMIZER)
    for key, keys in known.items():
        if keys is not None and model.get(key) is not None:
            yield key, model[key], keys
    sched = inner_section(model, "optim").get("sched")
    keys = _arguments(AVAILABLE_SCHEDULERS, inner_section(model, "optim", "sched"), _SCHEDULER)
    if keys is not None and sched is not None:
        yield "optim.sched", sched, keys


def _flag_faults(model: Mapping[str, Any], bottleneck: bool, extra: set[str]) -> Iterator[str]:
    """Yield a fault for each switch that is neither on nor off: to NeMo `no`, as any text, is on.

    YAML reads `no` as false; the command line, and text in quotes, is what it is.
    """
    kinds = {"": MTBottleneckModelConfig if bottleneck else MTEncDecModelConfig, "head": TokenClassifierConfig}
    kinds |= {f"{side}_tokenizer": TokenizerConfig for side in SIDES} | dict.fromkeys(_DATASETS, TranslationDataConfig)
    kinds |= {side: kind["arch" in inner_section(model, side)] for side, kind in SIDES.items()}
    for where, kind in kinds.items():
        section = inner_section(model, where) if where else model
        for each in fields(kind):
            value, place = section.get(each.name), f"{where}.{each.name}".lstrip(".")
            if each.type in (bool, bool | None) and value not in (None, True, False) and not extra & {where, place}:
                yield f"model.{place}: got {plain_text(value, 100)!r}; give true or false"


def _side_keys(side: str, section: Mapping[str, Any]) -> set[str] | None:
    """Return the keys of NeMo's own Transformers, which may stand in others as null; None where nobody builds one."""
    foreign = side == "encoder" and section.get("library") == HUGGING_FACE
    if not foreign and (section.get("library", "nemo") != "nemo" or section.get("_target_")):
        return None  # see `value_faults`
    return _fields(SIDES[side]["arch" in section]) | {"checkpoint_file", "arch"}


def _arguments(registered: Mapping[str, type], section: Mapping[str, Any], further: set[str]) -> set[str] | None:
    """Return what an optimizer or a schedule takes; None where it is none of NeMo's, or NeMo makes its arguments."""
    kind = registered.get(str(section.get("name")))
    if kind is None or {"_target_", "cls"} & {*section}:
        return None
    if "args" in section:  # NeMo passes over what stands beside it
        return further
    return (parameters(kind) | further) - {"params", "optimizer"}


def _fields(kind: type) -> set[str]:
    return {each.name for each in fields(kind)}
