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
"""An encoder of Hugging Face (`library: huggingface`): the keys that its configuration reads, and what NeMo needs.

NeMo gives such a section, as it is, to the class of `_target_`, which keeps what it does not know and reads it
nowhere; beside `model_name` it reads none of it.
"""

import functools
import inspect
import pydoc
from collections.abc import Iterator, Mapping
from typing import Any

import transformers
from nemo.collections.nlp.modules.common.huggingface.huggingface_utils import (
    get_huggingface_pretrained_lm_models_list,
)

from nemo_distill.config.model_widths import HUGGING_FACE
from nemo_distill.config.reading import nearest
from nemo_distill.support.quoting import plain_text

OF_NEMO = {"library", "model_name", "pretrained", "checkpoint_file"}
"""What NeMo takes out of a section before its library reads the rest."""
_OF_HYDRA = {"_target_", "_convert_", "_recursive_"}
_OF_ANY = {"num_labels", "attn_implementation", "gradient_checkpointing"}
"""What every configuration takes beside its own fields."""
_CALLED = {
    "num_layers": ("num_hidden_layers",),
    "inner_size": ("intermediate_size", "hidden_dim"),
    "max_sequence_length": ("max_position_embeddings",),
    "num_token_types": ("type_vocab_size",),
    "attn_score_dropout": ("attention_probs_dropout_prob", "attention_dropout"),
    **dict.fromkeys(("embedding_dropout", "ffn_dropout", "attn_layer_dropout"), ("hidden_dropout_prob", "dropout")),
}
"""How Hugging Face calls what NeMo's own Transformers read."""
_EXAMPLE = "transformers.BertConfig"


def parameters(kind: type) -> set[str]:
    """Return what a class takes by name: what it passes on as `**kwargs`, its base takes."""
    names: set[str] = set()
    for base in kind.__mro__:
        if "__init__" not in vars(base):
            continue
        found = inspect.signature(base.__init__).parameters.values()
        names |= {each.name for each in found if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)}
        if not any(each.kind == each.VAR_KEYWORD for each in found):
            break
    return names - {"self"}


def key_faults(section: Mapping[str, Any], of_nemo: set[str], extra: set[str]) -> Iterator[str]:
    """Yield a fault for each key that nothing reads; none where it cannot be told, see `value_faults`.

    Args:
        section: `model.encoder`.
        of_nemo: keys of NeMo's own Transformers, which may be null: so a YAML file takes back those of another one.
        extra: keys that the model's class reads itself.
    """
    name, kind = section.get("model_name"), _configuration(str(section.get("_target_")))
    if not name and kind is None:
        return
    known = _OF_HYDRA | _fields(kind) if kind and not name else set()
    for key in section:
        if key in known | OF_NEMO | extra or (key in of_nemo and section[key] is None):
            continue
        shown = f"model.encoder.{plain_text(key, 200)}"
        if name:
            yield (
                f"{shown}: unknown key beside model_name: the encoder is {plain_text(name, 100)} as it is; for one of "
                f"other sizes give library, _target_ (such as {_EXAMPLE}) and its keys"
            )
        elif key == "vocab_size":
            yield f"{shown}: unknown key: NeMo gives the encoder the vocabulary of its tokenizer; leave it out"
        elif key in of_nemo:
            called = next((each for each in _CALLED.get(key, ()) if each in known), None)
            fix = f"calls it '{called}'" if called else "has nothing like it, leave it out"
            yield f"{shown}: unknown key with library: {HUGGING_FACE}: it is NeMo's; {section['_target_']} {fix}"
        else:
            listed = ", ".join(sorted(parameters(kind) - {"vocab_size", "kwargs"}))
            yield f"{shown}: unknown key{nearest(key, known)}; {section['_target_']} has {listed}"


def value_faults(model: Mapping[str, Any]) -> Iterator[str]:
    """Yield a fault for each value with which NeMo builds no encoder.

    Args:
        model: a `model` section whose encoder is of Hugging Face.
    """
    section = model["encoder"]
    target, name = section.get("_target_"), section.get("model_name")
    if name:
        known = get_huggingface_pretrained_lm_models_list()
        if name not in known:
            shown = plain_text(name, 100)
            near = nearest(shown, [each for each in known if each.endswith(f"/{name}")] or known)
            yield f"model.encoder.model_name: NeMo knows no '{shown}' of Hugging Face{near}"
    elif section.get("pretrained"):
        yield "model.encoder.pretrained: true needs model_name, the model of Hugging Face whose weights are taken"
    elif target is None:
        yield (
            f"model.encoder._target_ is missing: with library: {HUGGING_FACE} give the class of a configuration, such "
            f"as {_EXAMPLE}, and its keys; or model_name"
        )
    elif _configuration(str(target)) is None:
        known = [f"transformers.{each}" for each in dir(transformers) if each.endswith("Config")]
        yield (
            f"model.encoder._target_: '{plain_text(target, 100)}' is no configuration of Hugging Face"
            f"{nearest(target, known)}; give one such as {_EXAMPLE}"
        )
    if model.get("shared_embeddings"):
        yield (
            f"model.shared_embeddings: true, but an encoder with library: {HUGGING_FACE} has embeddings of its own; "
            "give false"
        )


@functools.cache
def _configuration(target: str) -> type[transformers.PretrainedConfig] | None:
    try:
        kind = pydoc.locate(target)
    except pydoc.ErrorDuringImport:
        return None
    return kind if inspect.isclass(kind) and issubclass(kind, transformers.PretrainedConfig) else None


def _fields(kind: type[transformers.PretrainedConfig]) -> set[str]:
    fields = {*kind().to_dict(), *kind.attribute_map, *parameters(kind), *_OF_ANY}
    return fields - {"vocab_size", "kwargs"}
