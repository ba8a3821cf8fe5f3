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
"""What values a model's configuration may have: one table of types and ranges for all that is used of it.

What has a default in NeMo may be missing; null may stand where NeMo takes it. Keys that are not in the table are not
used, neither by NeMo when it builds a model and runs it nor by this library, and `used` leaves them out.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nemo_distill.config.languages import is_language

LONGEST, DEEPEST, WIDEST = 1 << 20, 1024, 1 << 18
"""Most positions, layers and hidden units: far beyond any model, and small enough to count with."""
LENGTH_PENALTIES = (-10.0, 10.0)
"""The exponent of the length penalty; NeMo's recipes have 0 to 1."""


@dataclass(frozen=True)
class Allowed:
    """What one key may have."""

    holds: Callable[[Any], bool]
    what: str
    """For the message: `... is needed`."""
    null: bool = False
    required: bool = False


def _is_whole(value: Any, lowest: int, highest: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and lowest <= value <= highest


def is_number(value: Any, lowest: float, highest: float) -> bool:
    """Return whether a value is a finite number, no bool, in a range."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return lowest <= value <= highest and math.isfinite(value)


def _whole(lowest: int, highest: int, **more: bool) -> Allowed:
    return Allowed(
        lambda value: _is_whole(value, lowest, highest), f"a whole number from {lowest} to {highest}", **more
    )


def _number(lowest: float, highest: float, **more: bool) -> Allowed:
    return Allowed(lambda value: is_number(value, lowest, highest), f"a number from {lowest:g} to {highest:g}", **more)


def _flag(**more: bool) -> Allowed:
    return Allowed(lambda value: isinstance(value, bool), "true or false", null=True, **more)


def _one_of(*names: str, **more: bool) -> Allowed:
    shown = ", ".join(name for name in names if name)
    return Allowed(lambda value: isinstance(value, str) and value in names, f"one of {shown}", **more)


_TEXT = Allowed(lambda value: isinstance(value, str) and len(value) <= 4096, "text", null=True)
_SECTION = Allowed(lambda value: isinstance(value, Mapping), "a section", required=True)
_DROPOUT = _number(0, 1)
_LANGUAGES = Allowed(
    lambda value: (
        is_language(value) or (isinstance(value, list) and 0 < len(value) < 1000 and all(map(is_language, value)))
    ),
    "a language (1 to 16 letters, digits, _ or -), a list of them for a multilingual model, or null",
    null=True,
)
_SIDE = {
    "library": _TEXT,
    "model_name": _TEXT,
    "pretrained": _flag(),
    "checkpoint_file": _TEXT,
    "hidden_size": _whole(1, WIDEST, required=True),
    "inner_size": _whole(1, WIDEST, required=True),
    "num_layers": _whole(1, DEEPEST, required=True),
    "num_attention_heads": _whole(1, WIDEST, required=True),
    "max_sequence_length": _whole(1, LONGEST),
    "num_token_types": _whole(0, LONGEST),
    "embedding_dropout": _DROPOUT,
    "learn_positional_encodings": _flag(),
    "ffn_dropout": _DROPOUT,
    "attn_score_dropout": _DROPOUT,
    "attn_layer_dropout": _DROPOUT,
    "hidden_act": _one_of("relu", "gelu"),
    "mask_future": _flag(),
    "pre_ln": _flag(),
    "pre_ln_final_layer_norm": _flag(),
    "r2l": _flag(),
    "arch": _one_of("", "seq2seq", "bridge", "perceiver", "max_pool", "avg_pool", null=True),
    "hidden_steps": _whole(-1, LONGEST),
    "hidden_blocks": _whole(0, DEEPEST),
    "hidden_init_method": _one_of("default", "params", "bridge", "enc", "enc_shared", "identity", null=True),
    "return_mask": _flag(),
}
_TOKENIZER = {
    "library": _TEXT,
    "tokenizer_model": _TEXT,
    "vocab_file": _TEXT,
    "bpe_dropout": _number(0, 1, null=True),
    "r2l": _flag(),
    "sentencepiece_legacy": _flag(),
}
_HEAD = {
    "num_layers": _whole(1, DEEPEST, null=True),
    "activation": Allowed(
        lambda value: isinstance(value, str) and re.fullmatch("[a-z_0-9]{1,32}", value) is not None,
        "the name of a function, such as relu",
        null=True,
        required=True,
    ),
    "log_softmax": _flag(required=True),
    "dropout": _number(0, 1, required=True),
    "use_transformer_init": _flag(required=True),
}
_MODEL = {
    "src_language": _LANGUAGES,
    "tgt_language": _LANGUAGES,
    "multilingual": _flag(),
    "shared_tokenizer": _flag(),
    "shared_embeddings": _flag(),
    "validate_input_ids": _flag(),
    "beam_size": _whole(1, 10_000, required=True),
    "len_pen": _number(*LENGTH_PENALTIES, required=True),
    "max_generation_delta": _whole(-LONGEST, LONGEST, required=True),
    "label_smoothing": _number(0, 1, null=True, required=True),
    "target": _TEXT,
    "nemo_version": _TEXT,
    # of bottleneck models
    "model_type": _one_of("nll", "mim", "vae"),
    "min_logv": _number(-1e6, 1e6),
    "latent_size": _whole(-1, WIDEST),
    "non_recon_warmup_batches": _number(0, 1e15),
    "recon_per_token": _flag(),
    "log_timing": _flag(),
}
SIDES = ("encoder", "decoder")
_SECTIONS = {
    **dict.fromkeys(SIDES, _SIDE),
    **dict.fromkeys(("encoder_tokenizer", "decoder_tokenizer"), _TOKENIZER),
    "head": _HEAD,
}
_NAME_ANOTHER = ("language_model", "tokenizer")
"""Sections that NeMo reads, and that no translation model has."""


def used(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is used of a model's configuration: the keys of the table.

    A transformer of another library has keys of its own, and stays as it is.
    """
    found = {}
    for key, value in plain.items():
        table = _SECTIONS.get(key)
        if table is not None and isinstance(value, Mapping) and not _is_foreign(value, table):
            found[key] = {name: item for name, item in value.items() if name in table}
        elif table is not None or key in _MODEL or key in _NAME_ANOTHER:
            found[key] = value
    return found


def _is_foreign(section: Mapping[str, Any], table: Mapping[str, Allowed]) -> bool:
    """Return whether a section is of a transformer that another library reads."""
    return table is _SIDE and section.get("library", "nemo") not in (None, "nemo")


def value_faults(plain: Mapping[str, Any], stock: bool = True) -> Iterator[str]:
    """Yield a fault for each value that is not what the table allows, with its key, the value and what is needed.

    Args:
        plain: the model's configuration.
        stock: of a class of NeMo's: what its constructor reads must be there.
    """
    yield from _faults(plain, _MODEL, "", stock)
    for name, table in _SECTIONS.items():
        section = plain.get(name)
        if section is None and not stock:
            continue
        if not isinstance(section, Mapping):
            yield _fault(name, section, _SECTION, name in plain)
            continue
        own = not _is_foreign(section, table)
        yield from _faults(section, table if own else {}, f"{name}.", stock)
        if table is _SIDE and own:
            yield from _fitting_heads(section, name)
    yield from _arch_faults(plain, stock)
    for key in ("src_language", "tgt_language"):
        if isinstance(plain.get(key), list) and not plain.get("multilingual"):
            yield f"{key} is a list; one language is needed, or multilingual: true"
    if stock and plain.get("multilingual") is True:
        lists = [value for key in ("src_language", "tgt_language") if isinstance(value := plain.get(key), list)]
        if len(lists) != 1:
            yield "multilingual is true; a list of languages in one of src_language and tgt_language is needed"
        elif not lists[0] or len({*map(str, lists[0])}) < len(lists[0]):
            yield "multilingual is true; a list with each language once is needed"


def _faults(section: Mapping[str, Any], table: Mapping[str, Allowed], where: str, stock: bool) -> Iterator[str]:
    for key, allowed in table.items():
        if key not in section:
            if allowed.required and stock:
                yield _fault(f"{where}{key}", None, allowed, there=False)
        elif not (allowed.holds(section[key]) or (section[key] is None and allowed.null)):
            yield _fault(f"{where}{key}", section[key], allowed)


def _arch_faults(plain: Mapping[str, Any], stock: bool) -> Iterator[str]:
    """Yield a fault where class and encoder do not belong together: NeMo builds such models and cannot run them."""
    encoder, target = plain.get("encoder"), str(plain.get("target"))
    if not (stock and isinstance(encoder, Mapping)):
        return
    arch = encoder.get("arch") if encoder.get("library", "nemo") == "nemo" else None
    if target.endswith(".MTBottleneckModel") and not arch:
        yield "encoder.arch is missing; one of seq2seq, bridge, perceiver, max_pool, avg_pool is needed by its class"


def _fitting_heads(section: Mapping[str, Any], name: str) -> Iterator[str]:
    hidden, heads = section.get("hidden_size"), section.get("num_attention_heads")
    sizes = _is_whole(hidden, 1, WIDEST) and _is_whole(heads, 1, WIDEST)
    if sizes and hidden % heads:
        yield f"{name}.num_attention_heads is {heads}; one that divides hidden_size, {hidden}, is needed"


def _fault(key: str, value: Any, allowed: Allowed, there: bool = True) -> str:
    return f"{key} is {_shown(value) if there else 'missing'}; {allowed.what} is needed"


def _shown(value: Any) -> str:
    if isinstance(value, Mapping | list):
        return "a section" if isinstance(value, Mapping) else "a list"
    if isinstance(value, int) and value.bit_length() > 200:  # Python does not write out the largest
        return f"a number of {value.bit_length()} bits"
    shown = "null" if value is None else ascii(value)
    return shown if len(shown) <= 60 else f"{shown[:60]}..."


_NO = Allowed(lambda value: value is None or value is False, "false or null")
_HUGGING_FACE = {
    "vocab_size": _whole(1, LONGEST),
    "hidden_size": _whole(1, WIDEST),
    "embedding_size": _whole(1, WIDEST),
    "intermediate_size": _whole(1, WIDEST),
    "num_hidden_layers": _whole(1, DEEPEST),
    "num_attention_heads": _whole(1, WIDEST),
    "num_hidden_groups": _whole(1, DEEPEST),
    "inner_group_num": _whole(1, DEEPEST),
    "dim": _whole(1, WIDEST),
    "hidden_dim": _whole(1, WIDEST),
    "n_layers": _whole(1, DEEPEST),
    "n_heads": _whole(1, WIDEST),
    "hidden_act": _HEAD["activation"],
    "activation": _HEAD["activation"],
    "hidden_dropout_prob": _DROPOUT,
    "attention_probs_dropout_prob": _DROPOUT,
    "dropout": _DROPOUT,
    "attention_dropout": _DROPOUT,
    "max_position_embeddings": _whole(1, LONGEST),
    "type_vocab_size": _whole(1, LONGEST),
    "initializer_range": _number(0, 100),
    "layer_norm_eps": _number(0, 1),
    "pad_token_id": _whole(0, LONGEST),
    "bos_token_id": _whole(0, LONGEST),
    "eos_token_id": _whole(0, LONGEST),
    "attn_implementation": _one_of("eager", "sdpa"),
    "use_cache": _flag(),
    **dict.fromkeys(("is_decoder", "add_cross_attention", "pretrained", "checkpoint_file"), _NO),
    **{key: _SIDE[key] for key in ("library", "inner_size", "num_layers", "max_sequence_length", "num_token_types")},
    **{key: _SIDE[key] for key in _SIDE if key.endswith(("_dropout", "_encodings", "_future")) or "pre_ln" in key},
}
"""What a configuration of Hugging Face may have, beside what NeMo's own defaults put there, which it passes over."""
_HUGGING_FACE_CLASSES = "Albert|Bert|Camembert|DistilBert|Electra|Roberta|XLMRoberta"
"""Encoders that transformers builds of a configuration alone, with code of its own."""


def hugging_face_faults(section: Mapping[str, Any]) -> Iterator[str]:
    """Yield a fault for each value of an `encoder` of Hugging Face that is more than a known model's sizes.

    Args:
        section: of the model's configuration.
    """
    target = section.get("_target_")
    module = r"transformers\.(models\.[a-z_]{1,20}\.(configuration_[a-z_]{1,20}\.)?)?"
    if section.get("model_name"):
        yield f"encoder.model_name is {_shown(section['model_name'])}, whose configuration would be fetched"
    elif not (isinstance(target, str) and re.fullmatch(f"{module}({_HUGGING_FACE_CLASSES})Config", target)):
        known = f"transformers.XConfig, X one of {_HUGGING_FACE_CLASSES.replace('|', ', ')}"
        yield f"encoder._target_ is {_shown(target)}; {known} is known"
    for key in section:
        if key not in (*_HUGGING_FACE, "_target_", "model_name"):
            yield f"encoder.{str(key)[:80]} is not known of an encoder of Hugging Face"
    yield from _faults(section, _HUGGING_FACE, "encoder.", stock=False)
