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
"""What says *what* a run is, of its configuration; the rest says how it runs, and may change when it goes on.

The files that a run reads are told by their content, see `inputs`, wherever they lie.
"""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from nemo_distill.config.reading import inner_section

_HOW = (
    *(
        f"trainer.{key}"
        for key in (
            *("accelerator", "devices", "num_nodes", "strategy", "default_root_dir", "plugins"),
            *("logger", "log_every_n_steps", "profiler", "detect_anomaly", "benchmark", "barebones"),
            *("enable_progress_bar", "enable_model_summary", "enable_checkpointing", "num_sanity_val_steps"),
        )
    ),
    "exp_manager.*",  # loggers, time limits, names
    "exp_manager.checkpoint_callback_params.last_every_*",
    "exp_manager.checkpoint_callback_params.verbose",
    "model.*_ds.num_workers",
    "model.*_ds.pin_memory",
    "model.train_ds.token_store",
    "model.distillation.teacher.on_disagreement",
)
"""Keys of how to run, as patterns of dotted keys."""
_WHAT = (
    *(f"exp_manager.{key}" for key in ("create_checkpoint_callback", "checkpoint_callback_params", "ema")),
    *("exp_manager.*early_stopping*", "exp_manager.resume_from_checkpoint"),
)
"""Keys that count, though a pattern of `_HOW` has them: they say which weights come out."""
_UNSAID = (("model.distillation.init", None), ("patience", None), ("ema", None), ("average", 5))
"""What the configurations under `configs/` say, and earlier ones left unsaid."""
_SHORTHANDS = ("data", "teacher", "pseudo", "cache")
"""Keys that act only through those that refer to them, as `${data.dir}`, and through the languages under `text`."""
ENDLESS = (
    *("WarmupPolicy", "WarmupHoldPolicy", "NoamAnnealing", "NoamHoldAnnealing", "InverseSquareRootAnnealing"),
    *("T5InverseSquareRootAnnealing", "StepLR", "ExponentialLR", "ReduceLROnPlateau", "CyclicLR"),
)
"""Schedules whose learning rate at a step does not depend on how many there will be."""
_FILES = (
    "model.*_tokenizer.tokenizer_model",
    *(f"model.*_ds.{key}" for key in ("src_file_name", "tgt_file_name", "metadata_file")),
    *(
        f"model.distillation.mixture.components.*.{key}"
        for key in ("source", "target", "directory", "labels", "metadata_file")
    ),
    *(f"model.distillation.{key}" for key in ("teacher.model_path", "teacher.cache", "init.from_nemo")),
)
"""Keys of files that `inputs.json` tells by their content."""


def identity(configuration: Mapping[str, Any], are_files_noted: bool = True) -> dict[str, Any]:
    """Return the part of a run's configuration that says what is run.

    Args:
        configuration: plain data with the sections `model`, `trainer` and `exp_manager`, as far as they are there.
        are_files_noted: the content of the files has been noted, so that their paths do not count.

    Example:
        >>> identity({"seed": 1, "trainer": {"max_steps": 10, "devices": 2}})
        {'seed': 1, 'trainer': {'max_steps': 10}}
    """
    return _without(configuration, (*_HOW, *_SHORTHANDS, *(_FILES if are_files_noted else ())))


def _without(section: Mapping[str, Any], patterns: Iterable[str], where: str = "") -> dict[str, Any]:
    found = {}
    for key, value in section.items():
        name = f"{where}{key}"
        if (name, value) in _UNSAID:
            continue
        if not _matches(name, patterns) or _matches(name, _WHAT):
            found[key] = _without(value, patterns, f"{name}.") if isinstance(value, Mapping) else value
    return found


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) and name.count(".") == pattern.count(".") for pattern in patterns)


def may_grow(earlier: Mapping[str, Any], configuration: dict[str, Any]) -> dict[str, Any]:
    """Return the earlier configuration with the new `trainer.max_steps` and `patience` where these are larger, or the
    latter is none: a run may go on longer.

    Not so where the learning rate follows from the number of steps, as with CosineAnnealing: a run of more steps would
    have had other ones from the beginning.

    Example:
        >>> may_grow({"trainer": {"max_steps": 10}}, {"trainer": {"max_steps": 20}})
        {'trainer': {'max_steps': 20}}
    """
    patience = configuration.get("patience")
    if isinstance(before := earlier.get("patience"), int) and (patience is None or patience >= before):
        earlier = {key: value for key, value in earlier.items() if key != "patience"}
        earlier |= {} if patience is None else {"patience": patience}
    before, now = (_max_steps(each) for each in (earlier, configuration))
    if before is None or now is None or now < before or schedule_to_the_end(configuration) is not None:
        return dict(earlier)
    return {**earlier, "trainer": {**earlier["trainer"], "max_steps": configuration["trainer"]["max_steps"]}}


def why_not_longer(earlier: Mapping[str, Any], configuration: Mapping[str, Any]) -> str:
    """Return why a run may not go on for the other number of steps that is asked for; empty: it may."""
    name = schedule_to_the_end(configuration)
    if name is None or _max_steps(earlier) == _max_steps(configuration):
        return ""
    return f"model.optim.sched ({name}) lays the learning rate out over all steps, so a run cannot go on for others"


def schedule_to_the_end(configuration: Mapping[str, Any]) -> str | None:
    """Return the name of a run's schedule where that is laid out over `trainer.max_steps`; None if it is not.

    NeMo puts `trainer.max_steps` in the place of a `max_steps` of the schedule's own.
    """
    schedule = inner_section(configuration, "model", "optim", "sched")
    if not schedule:
        return None
    has_share = any(schedule.get(f"{phase}_ratio") is not None for phase in ("warmup", "hold", "constant"))
    return str(schedule.get("name")) if has_share or schedule.get("name") not in ENDLESS else None


def _max_steps(configuration: Mapping[str, Any]) -> float | None:
    steps = inner_section(configuration, "trainer").get("max_steps")
    if isinstance(steps, bool) or not isinstance(steps, int):
        return None
    return float("inf") if steps < 0 else steps
