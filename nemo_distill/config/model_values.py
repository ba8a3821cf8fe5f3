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
"""Values of a `model` section of which NeMo makes no model, or, without a word, another one than they ask for."""

from collections.abc import Iterator, Mapping
from typing import Any

from nemo.collections.nlp.modules.common.transformer.transformer_bottleneck import TransformerBottleneckEncoderNM
from nemo.core.optim.lr_scheduler import AVAILABLE_SCHEDULERS
from nemo.core.optim.optimizers import AVAILABLE_OPTIMIZERS

from nemo_distill.config import hugging_face
from nemo_distill.config.model_widths import HUGGING_FACE, width_faults
from nemo_distill.config.reading import inner_section, nearest
from nemo_distill.errors import ConfigurationError
from nemo_distill.support.quoting import plain_text

_LIBRARIES = {"encoder": ["nemo", HUGGING_FACE], "decoder": ["nemo"]}
_SIZES = ("hidden_size", "inner_size", "num_layers", "num_attention_heads")
_HEAD = ("activation", "log_softmax", "dropout", "use_transformer_init")
_MISSING = (None, "???")
_UNREAD = {
    "head.num_layers": ((1,), "NeMo's translation models have one layer there"),
    "decoder.r2l": ((False,), "model.decoder_tokenizer.r2l is what NeMo reads"),
    "decoder.arch": (("", "seq2seq"), "NeMo has no other decoder"),
    "decoder.hidden_steps": ((-1,), "it is the encoder's"),
    "decoder.hidden_blocks": ((1,), "it is the encoder's"),
    "decoder.hidden_init_method": (("params",), "it is the encoder's"),
}
"""Keys that NeMo's dataclasses or YAML files have and nothing reads: what they say, and why nothing else serves."""
for _side in _LIBRARIES:
    _UNREAD[f"{_side}.checkpoint_file"] = (
        (),
        "NeMo loads none; distillation.init.from_nemo starts from another model's layers",
    )
for _data in ("train_ds", "validation_ds", "test_ds"):
    _UNREAD |= {
        f"{_data}.num_samples": ((-1,), "NeMo takes the whole file; for a part, `fraction` of a mixture's component"),
        f"{_data}.load_from_tarred_dataset": ((False,), "use_tarred_dataset is what NeMo reads"),
        f"{_data}.metadata_path": ((), "metadata_file is what NeMo reads"),
    }


def value_faults(model: Mapping[str, Any], extra: set[str]) -> Iterator[str]:
    """Yield a fault for each value that NeMo cannot use, or passes over though it asks for something.

    Args:
        model: the section as plain data; what is no section is passed over.
        extra: dotted keys that the model's class reads itself.
    """
    for place, (stock, reason) in _UNREAD.items():
        section, key = place.split(".")
        value = inner_section(model, section).get(key)
        if value is not None and value not in stock and not extra & {section, place}:
            yield f"model.{place}: got {plain_text(value, 100)}, which nothing reads: {reason}; leave it out"
    for side in _LIBRARIES:
        if side not in extra:
            yield from _side_faults(side, model)
    if not extra & {*_LIBRARIES, "optim"}:
        yield from width_faults(model)
    if "head" not in extra and model.get("head") is None:
        yield f"model.head is missing; give {', '.join(_HEAD)}"
    elif "head" not in extra and isinstance(model["head"], Mapping):
        missing = [key for key in _HEAD if key not in model["head"]]
        yield from (f"model.head.{key} is missing" for key in missing)
        if model["head"].get("log_softmax", True) in (False, None) and "head.log_softmax" not in extra:
            shown = plain_text(model["head"]["log_softmax"], 100)
            yield f"model.head.log_softmax: got {shown}, and the loss is of log-probabilities; give true"
    if "optim" not in extra:
        yield from _optimizer_faults(inner_section(model, "optim"))


def check_schedule(model: Mapping[str, Any], max_steps: int | None) -> None:
    """Refuse a run without an optimizer, or with a schedule over another number of steps than its trainer's.

    Args:
        model: the section as plain data.
        max_steps: of the trainer, which NeMo takes in place of the schedule's own, unless it is None or negative.

    Raises:
        ConfigurationError: as above.
    """
    if not inner_section(model, "optim"):
        raise ConfigurationError("model.optim is missing: nothing would be trained; give name, lr and a sched")
    asked = inner_section(model, "optim", "sched").get("max_steps")
    if asked not in (None, max_steps) and max_steps is not None and max_steps >= 0:
        raise ConfigurationError(
            f"model.optim.sched.max_steps: got {plain_text(asked, 100)}, but NeMo takes trainer.max_steps, "
            f"{max_steps}; leave it out"
        )


def _side_faults(side: str, model: Mapping[str, Any]) -> Iterator[str]:
    section = model.get(side)
    if section is None:
        yield f"model.{side} is missing; give {', '.join(_SIZES)}"
    if not isinstance(section, Mapping):
        return
    library, known = section.get("library", "nemo"), _LIBRARIES[side]
    if library not in known:
        shown = plain_text(library, 100)
        yield f"model.{side}.library: got '{shown}'; give {' or '.join(known)}{nearest(shown, known)}"
    elif library == HUGGING_FACE:
        yield from hugging_face.value_faults(model)
    elif section.get("_target_"):
        fix = f"add library: {HUGGING_FACE}" if side == "encoder" else "leave it out"
        yield f"model.{side}._target_: a Transformer of NeMo has none; {fix}"
    else:
        for key in ("model_name", "pretrained"):
            if section.get(key):
                yield f"model.{side}.{key}: NeMo has no trained Transformer of its own to fetch; leave it out"
        yield from (f"model.{side}.{key} is missing" for key in _SIZES if section.get(key) in _MISSING)
        arch, archs = section.get("arch"), TransformerBottleneckEncoderNM._SUPPORTED_ARCH
        if side == "encoder" and arch and arch not in archs:
            shown = plain_text(arch, 100)
            yield f"model.encoder.arch: got '{shown}'; give one of {', '.join(archs)}{nearest(shown, archs)}"


def _optimizer_faults(optim: Mapping[str, Any]) -> Iterator[str]:
    """Yield a fault where an optimizer or a schedule has no name, or one that is not NeMo's; NeMo would guess."""
    if "sched" in optim and optim["sched"] is None:
        yield "model.optim.sched is null; leave it out (~model.optim.sched), and the rate stays the same"
    for where, section, known in (
        ("optim", optim, AVAILABLE_OPTIMIZERS),
        ("optim.sched", inner_section(optim, "sched"), AVAILABLE_SCHEDULERS),
    ):
        if not section or {"_target_", "cls"} & {*section}:
            continue
        name = section.get("name")
        if name in _MISSING:
            yield f"model.{where}.name is missing; give one of {', '.join(known)}"
        elif name not in known:
            shown = plain_text(name, 100)
            yield f"model.{where}.name: got '{shown}'{nearest(shown, known)}; give one of {', '.join(known)}"
