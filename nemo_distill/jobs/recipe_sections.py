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
"""The sections of a recipe; see `nemo_distill.jobs.recipe`."""

import functools
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import yaml

from nemo_distill.config.layer_map import MAP_NAMES
from nemo_distill.config.model_widths import DROPOUTS
from nemo_distill.config.reading import inner_section, name_faults
from nemo_distill.jobs import allowed, rates
from nemo_distill.jobs.running import CONFIGS
from nemo_distill.training.identity import schedule_to_the_end

GOLD_TEXT = "gold"
PRESET = "distillation="
"""Of an override that names a file of configs/distillation."""
OF_RUN = {"seed": "is set by the job; give seeds"}
for _place in ("data", "model.train_ds", "model.validation_ds", "model.test_ds"):
    OF_RUN[f"{_place}.bleu_tokenizer"] = "is of the whole job, its table too; give bleu_tokenizer at the recipe's top"
"""What overrides of one run may not give, and why."""
OF_RUNS = {**OF_RUN, "distillation": "is for runs that have a teacher; give it in their overrides"}
"""What overrides of several runs may not give, and why."""
AUTO = "auto"
"""In place of a dropout: it depends on how often the text is read, see `nemo_distill.jobs.paying`."""
_OF_LABELS = "nll"
_TARGETS = ("compression", "size_mb", "latency_ms")
_INIT = tuple(f"model.distillation.init{key}" for key in ("", ".from_teacher", ".from_nemo", ".width"))
"""Which `start` sets; which sides and embeddings are taken may be said beside it."""
_SHAPE = re.compile(r"model\.(encoder|decoder)\.(num_layers|hidden_size|inner_size|num_attention_heads)")
_OPTIMIZER = "model.optim"
_SCHEDULE = f"{_OPTIMIZER}.sched.name"
_SHORT = "small_3x3"
"""Whose schedule and rate serve where a model's file is for far more steps than a job has."""
_WARM_UP = 0.1
"""Of the steps, at most."""
_DECAY = 0.999


@functools.lru_cache
def shipped(group: str, name: str) -> Mapping[str, Any]:
    """Return what a file of configs says by itself, before it is composed with others; nothing where there is none.
    Nobody changes it.
    """
    paths = {path.stem: path for path in (CONFIGS / group).glob("*.yaml")}
    return (yaml.safe_load(paths[name].read_text("utf-8")) or {}) if name in paths else {}


def dropout_faults(dropout: float | str | None, where: str, other: str | None = None) -> list[str]:
    """Return a fault for what is no share of what is left out, nor the other value that may stand there."""
    if dropout == AUTO and other is None:
        return [f"{where}: got {AUTO}, which is for student and teacher as a whole; give a number, such as 0.1"]
    if dropout in (None, other) or (not isinstance(dropout, str) and 0 <= dropout < 1):
        return []
    if isinstance(dropout, str) and dropout.replace(".", "").replace("e-", "").isdecimal():
        return [f"{where}: got the text '{dropout}'; give a number, such as 0.1, without quotes"]
    return [f"{where}: got {dropout}; give a number from 0 to below 1, such as 0.1{f', or {other}' if other else ''}"]


def preset_keys(name: str) -> Mapping[str, Any]:
    """Return what a preset sets in the `distillation` section, whether or not it sets other keys of the model too."""
    content = shipped("distillation", name)
    return inner_section(content, "model", "distillation") or content


@dataclass
class Size:
    """A model and how long it is trained."""

    model: str | None = "tiny_1x1"
    """Name in configs/model; null: as if none were given, for a target in place of a recipe's model."""
    steps: int = 1000
    """Training steps; with `patience` as many at most."""
    overrides: list = field(default_factory=list)
    """Overrides of its training, such as model.encoder.num_layers=4."""
    patience: int | None = None
    """Training ends after so many validations in a row without a better score or loss. The learning rate of a model
    that would fall to 0 at the last step then stays at its peak, of at most 0.2 / width, and a moving average of the
    weights does what that fall did."""
    validate_every: int | None = None
    """Steps between validations, which `patience` needs; null: `steps` divided by the recipe's `validations`."""
    ema: float | None = None
    """Decay of a moving average of the weights, validated and saved in their place; null: 0.999 with `patience`."""
    dropout: float | str | None = None
    """Of embeddings, feed-forward layers, attention scores and layers alike, in place of what the model's file and a
    preset say; null: that; auto: 0.1 where the training text is read more than 16 times, by its own `steps`, whatever
    those of single runs are, else none, of a teacher that of its file; of text that is fetched 0.1. Overrides of
    single ones win. Worth most where training ends by `patience`."""
    _fixed: ClassVar[Mapping[str, str]] = {}

    def __post_init__(self) -> None:
        if self.model is None:
            self.model = Size.model

    def faults(self, where: str, given: Any) -> list[str]:
        """Return one line for each fault."""
        counts = {key: getattr(self, key) for key in ("steps", "patience", "validate_every")}
        faults = [
            f"{where}.{key}: got {value}; give at least 1"
            for key, value in counts.items()
            if value is not None and value < 1
        ]
        if self.patience is not None and self.validate_every is None:
            faults.append(
                f"{where}.validate_every: is missing, and patience counts validations; give steps, such as 250"
            )
        if self.ema is not None and not 0 < self.ema < 1:
            faults.append(f"{where}.ema: got {self.ema}; give a number above 0 and below 1, such as {_DECAY}")
        faults += dropout_faults(self.dropout, f"{where}.dropout", AUTO)
        faults += allowed.config_faults(self.model, f"{where}.model")
        return faults + allowed.override_faults(self.overrides, f"{where}.overrides", self._fixed)

    @property
    def decay(self) -> float | None:
        """Of the moving average of the weights; None: there is none."""
        return _DECAY if self.ema is None and self.patience is not None else self.ema

    def interval(self, validations: int) -> int:
        """Return the steps between validations.

        Args:
            validations: of the recipe.
        """
        return min(self.validate_every or max(self.steps // validations, 1), self.steps)

    def ending(self, overrides: Sequence[Any]) -> list[str]:
        """Return what says when training ends, what is averaged, and another schedule than the file's, as overrides.

        Args:
            overrides: all others of its training, which come behind.
        """
        ending = [f"patience={self.patience}"] if self.patience is not None else []
        schedule = self._other_schedule(overrides)
        if self._stays(overrides):
            schedule["name"] = "WarmupPolicy"
        ending += [f"{_OPTIMIZER}.sched.{key}={value}" for key, value in schedule.items()]
        return ending + ([f"ema={self.decay}"] if self.decay is not None else [])

    def dropouts(self) -> list[str]:
        """Return what sets `dropout` as overrides; the decoder of those in configs/model has the encoder's."""
        return [] if self.dropout is None else [f"model.encoder.{key}={self.dropout:g}" for key in DROPOUTS]

    def rate(self, overrides: Sequence[Any]) -> list[str]:
        """Return the learning rate that fits a training of other width or schedule than the model's file is for.

        Args:
            overrides: all others of its training.

        Returns:
            It as an override; nothing where the file's fits, or one is among the overrides.
        """
        given, content = allowed.values_of(overrides), shipped("model", self.model)
        width = given.get(rates.WIDTH, inner_section(content, "encoder").get("hidden_size"))
        other = shipped("model", _SHORT) if self._other_schedule(overrides) else content
        rate = rates.fitting_rate(other, width, self._stays(overrides) and _SCHEDULE not in given)
        if rate is None and other is not content:
            rate = inner_section(other, "optim")["lr"]
        return [] if rate is None or rates.RATE in given else [f"{rates.RATE}={rate:g}"]

    def _other_schedule(self, overrides: Sequence[Any]) -> dict[str, Any]:
        """Return the schedule that serves in place of the file's, empty where that does.

        Files without a name of a schedule have that of `base`, whose warm-up is for hundreds of thousands of steps: in
        a job of fewer a model would hardly be trained when it ends. Where the user says anything of the optimizer,
        the file's stays.
        """
        base, own = (inner_section(shipped("model", each), "optim", "sched") for each in ("base", self.model))
        is_fit = "name" in own or own.get("warmup_steps", base["warmup_steps"]) <= _WARM_UP * self.steps
        if is_fit or any(key.startswith(_OPTIMIZER) for key in allowed.values_of(overrides)):
            return {}
        schedule = inner_section(shipped("model", _SHORT), "optim", "sched")
        return {key: schedule[key] for key in ("name", "warmup_steps")}

    def _stays(self, overrides: Sequence[Any]) -> bool:
        """Whether the rate that would fall to 0 at the last step stays at its peak."""
        own = inner_section(shipped("model", self.model), "optim", "sched")  # without a name it is that of `base`
        schedule = self._other_schedule(overrides) or (own if "name" in own else {})
        return self.patience is not None and schedule_to_the_end({"model": {"optim": {"sched": schedule}}}) is not None


@dataclass
class Student(Size):
    """The model of all runs: one of configs/model by name, or the largest that the targets leave room for, of their
    widths or between two of them, or of three layers; of several that are about as large, the deepest.

    Targets choose none of the `deep_` ones: a deep encoder with a shallow decoder is given by name.
    """

    compression: float | None = None
    """Weights of the teacher divided by those of the student, at least; in place of `model`."""
    size_mb: float | None = None
    """Megabytes (10^6 bytes) of the exported weights, at most: one byte each in an export of 8 bits, else 2 or 4."""
    latency_ms: float | None = None
    """Milliseconds that the export takes on this machine for a sentence of the corpus' typical length, at most:
    untrained models of the sizes in configs/model, and of widths between them, are measured."""
    _fixed: ClassVar[Mapping[str, str]] = OF_RUNS

    @property
    def has_target(self) -> bool:
        """Whether the model is to be found."""
        return any(getattr(self, key) is not None for key in _TARGETS)

    def found(self, model: str, overrides: Sequence[str] = ()) -> "Student":
        """Return the student that was found for the targets."""
        return replace(self, model=model, overrides=[*self.overrides, *overrides], **dict.fromkeys(_TARGETS))

    def of(self, run: "Run") -> "Student":
        """Return it as a run trains it, with the steps, the patience and the dropout that are the run's own."""
        own = {key: getattr(run, key) for key in ("steps", "patience", "dropout")}
        return replace(self, **{key: value for key, value in own.items() if value is not None})

    def faults(self, where: str, given: Any) -> list[str]:
        """Return one line for each fault."""
        faults = super().faults(where, given)
        for key in _TARGETS:
            value = getattr(self, key)
            if value is not None and not (math.isfinite(value) and value > 0):
                faults.append(f"{where}.{key}: got {value}; give a number above 0")
        if self.compression is not None and 0 < self.compression < 1:
            faults.append(
                f"{where}.compression: got {self.compression}; it is the weights of the teacher divided by those "
                "of the student: give 1 or more"
            )
        if self.has_target and isinstance(given, Mapping) and given.get("model") is not None:
            faults.append(
                f"{where}: got both a model and a target; give one of model and {', '.join(_TARGETS)}, and null for "
                "what a recipe has (--set student.model=null, --set student.compression=null)"
            )
        return faults


@dataclass
class Labels:
    """Pseudo-labels of the training text, and of text that has no translations."""

    options: list = field(default_factory=list)
    """Options of `nemo-distill pseudo-label`, such as [--search, greedy], or of `select`, of those in
    `allowed.LABELS`; `{gold}` stands for the translations of the training text."""
    unlabelled: bool = False
    """They are of the recipe's `unlabelled` text too, behind the training text, less the lines that validation or test
    sets hold."""
    select_from: str | None = None
    """Choose anew among the hypotheses of these pseudo-labels, with `nemo-distill select`, rather than decode."""

    def faults(self, where: str, given: Any) -> list[str]:
        """Return one line for each fault."""
        known = allowed.LABELS if self.select_from is None else allowed.SELECTION
        faults = allowed.option_faults(self.options, known, f"{where}.options")
        if self.has("--disturb") and self._count("--disturb") < 1:
            faults.append(f"{where}.options: --disturb needs a number of copies; give at least 1")
        elif self.has("--disturb") and self.has("--target"):
            faults.append(f"{where}.options: got --disturb and --target; disturbed lines have no gold translations")
        if self.unlabelled and self.has("--disturb"):
            faults.append(
                f"{where}.options: got --disturb and unlabelled text, of which is left out what validation and test "
                "sets hold; in disturbed lines that is not found"
            )
        if self.unlabelled and self.select_from is not None:
            faults.append(f"{where}.unlabelled: give it to '{self.select_from}', whose lines these are")
        elif self.unlabelled and self.has("--target"):
            faults.append(f"{where}.options: got --target, and unlabelled lines have no gold translations")
        return faults

    def has(self, option: str) -> bool:
        """Return whether an option is given."""
        return option in map(str, self.options)

    @property
    def kept(self) -> int:
        """How many hypotheses of a line are kept, as the options say."""
        return max(self._count("--keep"), 1)

    @property
    def copies(self) -> int:
        """How many lines there are for one of the text, as the options say."""
        return max(self._count("--disturb"), 1)

    def _count(self, option: str) -> int:
        """Return the number behind an option, the last time that it is given; 0: there is none."""
        found = [value for name, value in itertools.pairwise(map(str, self.options)) if name == option]
        return int(found[-1]) if found and found[-1].isdecimal() else 0


@dataclass
class Cache:
    """What `nemo-distill cache` writes of the teacher's outputs for the training text."""

    options: list = field(default_factory=list)
    """Options of `nemo-distill cache`, such as [--top-k, 32], of those in `allowed.CACHES`."""
    texts: list = field(default_factory=lambda: [GOLD_TEXT])
    """What it is of: `gold`, the training text, and pseudo-labels by their names."""
    if_it_pays: bool = False
    """Make it only where its runs read more than 1.5 times the tokens that it scores; else the teacher runs beside
    them. They take a preset that can do both: the recommended ones, hinton_cached, hybrid_cached."""

    def faults(self, where: str, given: Any) -> list[str]:
        """Return one line for each fault."""
        faults = allowed.option_faults(self.options, allowed.CACHES, f"{where}.options")
        if not self.texts or len({*map(str, self.texts)}) < len(self.texts):
            faults.append(f"{where}.texts: got {str(self.texts)[:80]}; give gold, names of pseudo-labels, or both")
        return faults

    @property
    def labels(self) -> list[str]:
        """The names of the pseudo-labels among its texts."""
        return [each for each in self.texts if each != GOLD_TEXT]


@dataclass
class Run:
    """One row of the table."""

    overrides: list = field(default_factory=list)
    """Overrides of its training (configs/distill.yaml), such as distillation=hinton."""
    plain: bool = False
    """Train without a teacher, as stock NeMo (configs/train_nmt.yaml)."""
    pseudo: str | None = None
    """Name of the pseudo-labels to train on."""
    cache: str | None = None
    """Name of the cache to train from, with no teacher in memory."""
    start: str | None = None
    """Start from the teacher's weights: which of its layers, such as every_nth; a slimmer student takes a
    projection of them. All students are then built as the teacher is. With `plain` the control of all rows of this
    start: what the start and the labels do alone."""
    seeds: list | None = None
    """One training run for each; null: those of the recipe."""
    steps: int | None = None
    """Training steps of this run alone, with `patience` as many at most; null: those of `student`. With `plain` a
    control: what the twin learns where it is trained for as long as the others and their teacher's work took."""
    patience: int | None = None
    """Validations without a better score or loss that end this run alone, where `student` has a patience; null: as
    many as there. More than there are validations train all the steps."""
    dropout: float | str | None = None
    """That of this run alone, a number; null: that of `student`."""

    @property
    def preset(self) -> str:
        """The name in configs/distillation of what it learns by, where it has a teacher."""
        named = [each.removeprefix(PRESET) for each in map(str, self.overrides) if each.startswith(PRESET)]
        return named[-1].strip("'\"") if named else "hinton"

    @property
    def hears_teacher(self) -> bool:
        """Whether its objective reads a teacher, beside it or from a cache."""
        named = any("distillation.teacher." in str(each) for each in self.overrides)
        return not self.plain and (named or "teacher" in preset_keys(self.preset))

    @property
    def reads_teacher(self) -> bool:
        """Whether it hears a teacher, or starts from one."""
        return self.start is not None or self.hears_teacher

    @property
    def shape(self) -> dict[str, Any]:
        """The layers, widths and heads that it has of its own, by their keys."""
        return {key: value for key, value in allowed.values_of(self.overrides).items() if _SHAPE.fullmatch(key)}

    def faults(self, where: str, given: Any) -> list[str]:
        """Return one line for each fault."""
        faults = allowed.override_faults(self.overrides, f"{where}.overrides", fixed=OF_RUN)
        preset = allowed.values_of(self.overrides).get("distillation") if not faults else None
        if self.plain and preset not in (None, *([_OF_LABELS] if self.start is not None else [])):
            faults.append(f"{where}.overrides: {PRESET}{preset} is given, and a plain run learns from labels alone")
        if self.start is not None and not faults:
            faults += [
                f"{where}.overrides: {key} is set, and start says what the student starts from; leave one of them out"
                for key in allowed.values_of(self.overrides)
                if key in _INIT
            ]
        faults += [
            f"{where}.{key}: got {value}; give at least 1"
            for key in ("steps", "patience")
            if (value := getattr(self, key)) is not None and value < 1
        ]
        faults += dropout_faults(self.dropout, f"{where}.dropout")
        if self.start is not None:
            faults += name_faults(self.start, MAP_NAMES, f"{where}.start")
        return faults
