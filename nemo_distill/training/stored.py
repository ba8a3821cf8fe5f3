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
"""What a checkpoint must be before it is believed: a ZIP as torch writes it, and values of the right types.

A checkpoint that is damaged, another program's, or somebody's attempt is passed over by `newest_checkpoint`.
"""

import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from nemo_distill.errors import InputError
from nemo_distill.support.incoming import open_regular
from nemo_distill.support.quoting import plain_text
from nemo_distill.support.torch_zip import check_torch_zip

_PICKLE_BYTES = 256 << 20
_MOST_STEPS = 1 << 53
_NO_TENSORS = "is no mapping of tensors"
_PLACE = {"seed": int, "processes": int, "epoch": int, "batches": int, "validated_batches": int}
_PLACE |= {"epoch_done": bool, "validation_due": bool}
_VERSION = r"\d{1,5}(\.\d{1,5}){1,3}((a|b|rc|\.post|\.dev)\d{1,9})?(\+[a-z0-9.]{1,40})?"
NO_SCORE = "none"
"""In the name of a checkpoint: what the run has not computed yet."""
FIELD = re.compile(r"\{(?P<name>[^{}:]*)(?::[^{}]*)?\}")
"""Of a template of such names, as `{val_loss:.4f}`."""
_NUMBER = rf"(?:[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?|nan|-?inf|{NO_SCORE})"


def check_container(path: Path) -> None:
    """Make sure that a file is a ZIP as torch writes it: nothing compressed, nothing larger than the file.

    Raises:
        InputError: there is none, or it is no regular file.
        ValueError, zipfile.BadZipFile: it is something else.
    """
    with open_regular(path) as stream:
        if check_torch_zip(stream).file_size > _PICKLE_BYTES:
            raise ValueError("its pickle is too large")


def damaged_entry(path: Path) -> str | None:
    """Return the first entry whose checksum is wrong."""
    with open_regular(path) as stream, zipfile.ZipFile(stream) as packed:
        return packed.testzip()


def check_tensors(value: Any) -> None:
    """Make sure that each tensor is a plain one, no larger than the bytes behind it.

    Raises:
        ValueError: one is not.
    """
    for tensor in _tensors(value):
        plain = tensor.layout == torch.strided and not tensor.is_quantized
        if not plain or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ValueError("it holds a tensor that is larger than its bytes")


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping) and type(value).__module__ != "omegaconf.dictconfig":
        for item in value.values():
            yield from _tensors(item)
    elif type(value) in (list, tuple):
        for item in value:
            yield from _tensors(item)


def steps_of(content: Any) -> int:
    """Return the steps of a checkpoint.

    Raises:
        InputError: it has none.
    """
    steps = content.get("global_step") if isinstance(content, Mapping) else None
    if not _is_count(steps):
        raise InputError(f"its global_step is {_shown(steps)}, no number of steps")
    return steps


def content_fault(content: Mapping[str, Any], loops: Mapping[str, Any] | None = None) -> str | None:
    """Return what is wrong with the values that a run is resumed from; None if nothing is.

    Args:
        content: of a checkpoint.
        loops: `trainer.fit_loop.state_dict()` of a new trainer, with which the stored one is compared.
    """
    return next(_content_faults(content, loops), None)


def origin_fault(content: Mapping[str, Any], model: Mapping[str, Any], seed: int) -> str | None:
    """Return why a checkpoint is not of the run with this `model` section and seed; None if nothing says so.

    What the checkpoint does not hold, as those of earlier versions, is not compared.
    """
    stored = content.get("hyper_parameters")
    stored = stored.get("cfg") if isinstance(stored, Mapping) else None
    if OmegaConf.is_config(stored):
        stored = OmegaConf.to_container(stored, resolve=False)
    unlike = next(_differing_keys(model, stored), None) if isinstance(stored, Mapping) else None
    if unlike is not None:
        return f"it is of another run: its model.{plain_text(unlike, 80)} is another"
    place = content.get("restart")
    stored_seed = place.get("seed", seed) if isinstance(place, Mapping) else seed
    return None if stored_seed == seed else f"it is of another run: its seed is {_shown(stored_seed)}"


def _differing_keys(section: Mapping[str, Any], stored: Mapping[str, Any]) -> Iterator[str]:
    """Yield the dotted keys whose values differ, of those that both have."""
    for key, value in section.items():
        other = stored.get(key)
        if isinstance(value, Mapping) and isinstance(other, Mapping):
            yield from (f"{key}.{each}" for each in _differing_keys(value, other))
        elif other is not None and other != value:
            yield str(key)


def _content_faults(content: Mapping[str, Any], loops: Mapping[str, Any] | None) -> Iterator[str]:
    if fault := _weights_fault(content.get("state_dict")):
        yield f"its state_dict {fault}" if fault == _NO_TENSORS else fault
    version = content.get("pytorch-lightning_version", "2.0.0")
    if not isinstance(version, str) or not re.fullmatch(_VERSION, version):
        yield f"its version of Lightning is {_shown(version)}"
    if not _is_count(content.get("epoch", 0)):
        yield f"its epoch is {_shown(content['epoch'])}"
    for key in ("optimizer_states", "lr_schedulers"):
        states = content.get(key, [])
        if not isinstance(states, list) or not all(isinstance(each, dict) for each in states):
            yield f"its {key} are no list of sections"
        elif key == "optimizer_states":
            yield from (fault for state in states if (fault := _optimizer_fault(state)))
    yield from _callback_faults(content.get("callbacks", {}))
    place = content.get("restart", {})
    if not isinstance(place, dict) or (place and not place.keys() >= _PLACE.keys()):
        yield "its restart is no place in a run"
    else:
        for key, value in place.items():
            wrong = type(value) is not _PLACE.get(key, type(value))
            if wrong or (type(value) is int and not -1 <= value < 1 << 64) or (key == "batches" and value < 0):
                yield f"its restart.{key} is {_shown(value)}"
    if loops is not None:
        stored = content.get("loops")
        yield from _unlike(loops, stored.get("fit_loop") if isinstance(stored, Mapping) else stored, "loops.fit_loop")


def _weights_fault(weights: Any) -> str | None:
    if not isinstance(weights, Mapping) or not all(isinstance(each, torch.Tensor) for each in weights.values()):
        return _NO_TENSORS
    bad = [name for name, each in weights.items() if each.is_floating_point() and not each.isfinite().all()]
    return f"{_shown(bad[0])} is NaN or infinite" if bad else None


def _callback_faults(callbacks: Any) -> Iterator[str]:
    if not isinstance(callbacks, dict) or not all(isinstance(each, dict) for each in callbacks.values()):
        yield "its callbacks are no sections"
        return
    for name, state in callbacks.items():
        if str(name).startswith("RunCheckpoint"):
            best = state.get("best_k_models")
            if (
                not isinstance(best, dict)
                or not all(map(_is_file_name, best))
                or not all(map(_is_score, best.values()))
            ):
                yield f"its {_shown(name)}.best_k_models is no mapping of files to scores"
            if not {"best_model_path", "best_model_score"} <= state.keys():
                yield f"its {_shown(name)} names no best checkpoint"
            scores = state.get("scores", {})
            if not isinstance(scores, dict) or not all(
                isinstance(key, str) and type(value) is float for key, value in scores.items()
            ):
                yield f"its {_shown(name)}.scores is no mapping of names to numbers"
            for key, value in state.items():
                if str(key).endswith("_path") and not (value == "" or _is_file_name(value)):
                    yield f"its {_shown(name)}.{_shown(key)} is {_shown(value)}"
                is_score = key in ("best_model_score", "current_score", "kth_value")
                if is_score and value is not None and not _is_score(value):
                    yield f"its {_shown(name)}.{key} is {_shown(value)}"
        if name == "MovingAverage" and (fault := _weights_fault(state.get("average"))):
            yield f"its {name}.average {fault}" if fault == _NO_TENSORS else f"of its {name}.average {fault}"
        if name == "NonFiniteGuard":
            for key in ("skipped", *({"in_a_row"} & state.keys())):
                if not _is_count(state.get(key)):
                    yield f"its {name}.{key} is {_shown(state.get(key))}"


def _optimizer_fault(state: dict[str, Any]) -> str | None:
    moments, groups = state.get("state"), state.get("param_groups")
    if not isinstance(moments, dict) or not all(isinstance(each, dict) for each in moments.values()):
        return "its optimizer_states have no state"
    if not isinstance(groups, list) or not all(isinstance(each, dict) for each in groups):
        return "its optimizer_states have no param_groups"
    if not all(isinstance(group.get("params"), list) for group in groups):
        return "its optimizer_states have no parameters"
    for moment in moments.values():
        for value in moment.values():
            tensor = isinstance(value, torch.Tensor)
            if not tensor and not isinstance(value, int | float | list | tuple | type(None)):
                return f"its optimizer_states hold {_shown(value)}"
    return None


def _unlike(known: Any, stored: Any, where: str) -> Iterator[str]:
    """Yield where a stored state is not of the shape of a known one: sections, counts, flags."""
    if isinstance(known, Mapping):
        if not isinstance(stored, Mapping):
            yield f"its {where} is {_shown(stored)}, no section"
            return
        for key, value in known.items():
            if key in stored:
                yield from _unlike(value, stored[key], f"{where}.{key}")
            else:
                yield f"its {where}.{key} is missing"
    elif isinstance(known, bool):
        if not isinstance(stored, bool):
            yield f"its {where} is {_shown(stored)}, not true or false"
    elif isinstance(known, int) and not (stored == -1 and type(stored) is int) and not _is_count(stored):
        yield f"its {where} is {_shown(stored)}, no number"


def name_pattern(filename: str) -> re.Pattern:
    """Return what the names of checkpoints match that Lightning makes of `filename`, such as `{val_loss:.4f}-{step}`.

    Example:
        >>> bool(name_pattern("{epoch}-{step}").fullmatch("epoch=0-step=3-last.ckpt"))
        True
    """
    parts = FIELD.split(filename)
    pattern = "".join(
        f"(?:{re.escape(part)}=)?{_NUMBER}" if place % 2 else re.escape(part) for place, part in enumerate(parts)
    )
    return re.compile(rf"{pattern}(?:-last)?(?:-v\d+)?\.ckpt")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST_STEPS


def _is_score(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return value.numel() == 1
    return isinstance(value, float) or _is_count(value)


def _is_file_name(path: Any) -> bool:
    return isinstance(path, str) and Path(path).name.endswith(".ckpt") and "\0" not in path


def _shown(value: Any) -> str:
    shown = ascii(value) if isinstance(value, str | bool | float | type(None)) else f"a {type(value).__name__}"
    if isinstance(value, int) and not isinstance(value, bool):
        shown = str(value) if abs(value) < 1 << 64 else "a number of many digits"
    return shown if len(shown) <= 80 else f"{shown[:80]}..."
