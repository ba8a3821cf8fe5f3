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
"""The `distillation` section of a model's YAML: dataclasses, and a check that reports every fault at once."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nemo_distill.config.languages import Languages
from nemo_distill.config.layers import AttentionConfig, HiddenConfig, InitConfig, read_recipe_terms
from nemo_distill.config.mixture import HybridConfig, MixtureConfig, as_list, settle_probabilities
from nemo_distill.config.reading import (
    fault_list,
    inner_section,
    name_faults,
    nearest,
    plain_faults,
    read_dataclass,
    weight_faults,
    with_home,
)
from nemo_distill.errors import ConfigurationError
from nemo_distill.support.quoting import plain_text

COMPUTATIONS = ("auto", "lean", "plain")
PRECISIONS = ("fp32", "bf16", "fp16")
ON_MISS = ("error", "teacher")
ON_DISAGREEMENT = ("stop", "warn")
LOGITS_PATH = "log_softmax.mlp.layer0"
"""Where `MTEncDecModel` has its logits."""
CACHED_DIVERGENCES = ("forward_kl", "cross_entropy")
DIVERGENCE_NAMES = ("forward_kl", "cross_entropy", "reverse_kl", "jensen_shannon")


@dataclass
class TeacherConfig:
    """Where the teacher comes from, `model_path`, `model_name` or `cache`, and how it computes.

    None is needed where nothing reads the teacher, as in sequence-level distillation.
    """

    model_path: str | list | None = None
    """Path of the teacher's `.nemo` archive, or a list of them: an ensemble, whose probabilities are averaged. In the
    place of a path may stand a name as in `model_name`."""
    model_name: str | None = None
    """Name of a pre-trained translation model on NGC, for example `nmt_de_en_transformer24x6`, which is fetched once;
    see [getting-started.md](getting-started.md#a-teacher-by-its-name-on-ngc)."""
    cache: str | None = None
    """Directory that `nemo-distill cache` wrote: the word-level term reads the teacher's outputs from there, and the
    teacher is not opened; see [cache.md](cache.md). A `model_path` beside it is compared with the cache's teacher."""
    on_miss: str = "error"
    """What to do with a sentence pair that the cache does not hold: `error`, or `teacher` to run the teacher of
    `model_path` or `model_name` on it."""
    on_disagreement: str = "stop"
    """What to do with training text that the teacher knows nothing of, because source and target are the wrong way
    round, or misaligned, or of another language: `stop` before the first step, or `warn`; see
    [teachers.md](teachers.md#does-the-teacher-know-the-text)."""
    trust_archive: bool = False
    """The archives of `model_path` are your own: they may name a model class of yours, and whatever else runs code.
    Otherwise they may hold nothing but a stock translation model; see [reliability.md](reliability.md)."""
    sha256: str | list | None = None
    """The SHA-256 that the archive of `model_path` must have, or a list of them, one for each archive."""
    source_language: str | None = None
    """Language of the source, where the teacher's archive names none or several; null: as the archive says."""
    target_language: str | None = None
    """Language of the target, where the teacher's archive names none or several; null: as the archive says, or of
    several the student's `model.tgt_language`."""
    precision: str = "fp32"
    """What the teacher computes in: `fp32`, `bf16` or `fp16`. Half precision makes its forward pass faster, where the
    processor has instructions for it, and its weights half as large. The student's precision is the trainer's,
    and where that is mixed, the teacher's matrix products are taken in half as well."""
    compile: str | None = None
    """Backend of `torch.compile` that the teacher's layers are compiled with, such as `inductor`; null for none. The
    first steps take longer by it. Attention maps cannot be read from compiled layers."""

    def faults(self, where: str, given: Mapping[str, Any]) -> list[str]:
        """Return one line for each fault."""
        faults = []
        if None not in (self.model_path, self.model_name):
            faults.append(f"{where}: got both of model_path and model_name; give exactly one of them")
        if any(not isinstance(path, str) or not path.strip() for path in as_list(self.model_path)):
            faults.append(f"{where}.model_path: is empty; give the path of a .nemo file")
        if self.model_path == []:
            faults.append(f"{where}.model_path: is empty; give the path of a .nemo file, or of several")
        if self.cache is not None and not self.cache.strip():
            faults.append(f"{where}.cache: is empty; give a directory that `nemo-distill cache` wrote")
        faults += self._hash_faults(where)
        faults += self.languages.faults(f"{where}.%s_language")
        faults += name_faults(self.precision, PRECISIONS, f"{where}.precision")
        if self.compile is not None:
            from torch.compiler import list_backends  # takes seconds, and few name a backend

            faults += name_faults(self.compile, list_backends(()), f"{where}.compile")
        faults += name_faults(self.on_miss, ON_MISS, f"{where}.on_miss")
        faults += name_faults(self.on_disagreement, ON_DISAGREEMENT, f"{where}.on_disagreement")
        if self.on_miss == "teacher" and not (self.cache and self.has_model):
            faults.append(f"{where}.on_miss: teacher needs cache, and model_path or model_name, beside it")
        return faults

    def _hash_faults(self, where: str) -> list[str]:
        hashes = as_list(self.sha256)
        bad = [item for item in hashes if not (isinstance(item, str) and re.fullmatch(r"[0-9a-fA-F]{64}", item))]
        if bad:
            return [f"{where}.sha256: got {bad[0]!r}; give 64 hexadecimal digits, as sha256sum prints them"]
        if hashes and len(hashes) != len(self.model_paths):
            return [
                f"{where}.sha256: got {len(hashes)} for {len(self.model_paths)} archives in model_path; give as many"
            ]
        return []

    @property
    def languages(self) -> Languages:
        """What is said of the languages of its text."""
        return Languages(self.source_language, self.target_language)

    @property
    def model_paths(self) -> list[str]:
        """The archives, none where `model_name` or `cache` alone is given."""
        return as_list(self.model_path)

    @property
    def has_model(self) -> bool:
        """Whether a model is named."""
        return self.model_path is not None or self.model_name is not None

    @property
    def is_given(self) -> bool:
        """Whether a model or a cache is named."""
        return self.has_model or self.cache is not None


@dataclass
class NLLConfig:
    """The negative log-likelihood of the labels."""

    weight: float = 1.0
    """Weight of the term in the loss; 0 reports it without training on it."""

    def faults(self, where: str, given: Mapping[str, Any]) -> list[str]:
        """Return one line for each fault."""
        return weight_faults(self.weight, f"{where}.weight")


@dataclass
class WordKDConfig:
    """Word-level distillation: the student's distribution over the next token follows the teacher's."""

    weight: float = 1.0
    """Weight of the term in the loss; 0 leaves it out, and the teacher is not run."""
    temperature: float = 1.0
    """Both models' logits are divided by it before the softmax; above 0."""
    divergence: str = "forward_kl"
    """`forward_kl`, `cross_entropy`, `reverse_kl` or `jensen_shannon`."""
    scale_by_temperature: bool = True
    """Multiply the term by temperature squared, so that its weight means the same at every temperature."""

    def faults(self, where: str, given: Mapping[str, Any]) -> list[str]:
        """Return one line for each fault."""
        faults = weight_faults(self.weight, f"{where}.weight")
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            faults.append(
                f"{where}.temperature: got {self.temperature}; give a finite number above 0, for example 1.0"
            )
        if self.divergence not in DIVERGENCE_NAMES:
            near = nearest(self.divergence, DIVERGENCE_NAMES)
            faults.append(
                f"{where}.divergence: got '{self.divergence}'; give one of {', '.join(DIVERGENCE_NAMES)}{near}"
            )
        return faults


@dataclass
class ObjectiveConfig:
    """The weighted terms of the loss. Either give each term its weight, or give `alpha` or `hybrid` alone."""

    alpha: float | None = None
    """Shorthand of Hinton et al. 2015: `nll.weight = 1 - alpha` and `word_kd.weight = alpha`, from 0 to 1."""
    hybrid: HybridConfig | None = None
    """Three weights that give those of both terms and the shares of gold and pseudo data."""
    nll: NLLConfig = field(default_factory=NLLConfig)
    """The negative log-likelihood of the labels."""
    word_kd: WordKDConfig = field(default_factory=WordKDConfig)
    """Word-level distillation."""
    hidden: HiddenConfig = field(default_factory=HiddenConfig)
    """Hidden-state transfer."""
    attention: AttentionConfig = field(default_factory=AttentionConfig)
    """Attention-map transfer."""
    terms: list = field(default_factory=list)
    """Terms of your own: mappings with `_target_` (a subclass of `nemo_distill.losses.ObjectiveTerm`), `weight` (1),
    `name` (logged as train_NAME) and the class's own settings; see [recipe.md](recipe.md)."""
    computation: str = "auto"
    """`lean` computes NLL and word-level term from the last decoder states and the output heads, a few tokens at a
    time: the same values and gradients in less time and memory, for the heads of a stock `MTEncDecModel`. `plain`
    takes both models' whole logits, from any head. `auto` is `lean` where both models allow it and none of your own
    `terms` reads logits."""

    def faults(self, where: str, given: Mapping[str, Any]) -> list[str]:
        """Turn `alpha` or `hybrid` into the two weights; return one line for each fault."""
        if self.hybrid is not None:
            faults = self._hybrid_faults(where, given)
            if faults:
                return faults
        elif self.alpha is not None:
            both = [f"{name}.weight" for name in ("nll", "word_kd") if "weight" in inner_section(given, name)]
            if both:
                return [f"{where}: got alpha and {' and '.join(both)}; give either alpha or the two weights"]
            if not 0 <= self.alpha <= 1:
                return [f"{where}.alpha: got {self.alpha}; give a number from 0 to 1, or free weights instead"]
            self.nll.weight, self.word_kd.weight = 1 - self.alpha, self.alpha
        faults: list[str] = []
        if self.computation not in COMPUTATIONS:
            near = nearest(self.computation, COMPUTATIONS)
            faults.append(
                f"{where}.computation: got '{self.computation}'; give one of {', '.join(COMPUTATIONS)}{near}"
            )
        self.terms = read_recipe_terms(self.terms, f"{where}.terms", faults)
        if not any(term.weight for term in (self.nll, self.word_kd, self.hidden, self.attention, *self.terms)):
            return [f"{where}: all weights are 0, so there is nothing to learn; give a term a weight above 0", *faults]
        return faults

    @property
    def names_teacher(self) -> bool:
        """Whether a term with a weight reads the teacher, as far as is known without the terms of a recipe."""
        return any(term.weight > 0 for term in (self.word_kd, self.hidden, self.attention))

    def _hybrid_faults(self, where: str, given: Mapping[str, Any]) -> list[str]:
        both = [name for name in ("nll", "word_kd") if "weight" in inner_section(given, name)]
        clash = [f"{name}.weight" for name in both] + (["alpha"] if self.alpha is not None else [])
        if clash:
            return [f"{where}: got hybrid and {' and '.join(clash)}; give either hybrid or the weights of the terms"]
        if self.hybrid.is_whole:
            self.nll.weight, self.word_kd.weight = self.hybrid.term_weights
        return []


@dataclass
class CaptureConfig:
    """Where both models are read: module paths as in `model.named_modules()`.

    The defaults fit `MTEncDecModel` and its subclasses; name other paths for a model whose modules are called
    otherwise. The layers are needed by `objective.hidden`, `objective.attention` and `init` only.
    """

    student_logits: str = LOGITS_PATH
    """Path of the student's module whose output is its logits, [B, T, V], before the softmax."""
    teacher_logits: str = LOGITS_PATH
    """Path of the teacher's module whose output is its logits, [B, T, V], before the softmax."""
    student_encoder_layers: str = "encoder._encoder.layers"
    """Path of the student's list of encoder layers, each of which gives hidden states, [B, S, H]. With `[0]` behind
    it: the first item of the tuple that each gives; `encoder._encoder.encoder.layer[0]` for BERT of Hugging Face."""
    student_decoder_layers: str = "decoder._decoder.layers"
    """Path of the student's list of decoder layers, each of which gives hidden states, [B, T, H]."""
    student_self_attention: str = "first_sub_layer.attn_dropout"
    """Path inside a student's layer of the module whose input is its self-attention, [B, heads, queries, keys]."""
    student_encoder_attention: str | None = None
    """The same for encoder layers, where it differs; `attention.self.dropout` for BERT of Hugging Face."""
    student_cross_attention: str = "second_sub_layer.attn_dropout"
    """Path inside a student's decoder layer of the module whose input is its attention to the source."""
    teacher_encoder_layers: str = "encoder._encoder.layers"
    """The same five for the teacher: its list of encoder layers."""
    teacher_decoder_layers: str = "decoder._decoder.layers"
    """Path of the teacher's list of decoder layers."""
    teacher_self_attention: str = "first_sub_layer.attn_dropout"
    """Path inside a teacher's layer of its self-attention."""
    teacher_encoder_attention: str | None = None
    """Path inside a teacher's encoder layer of its self-attention, where it differs."""
    teacher_cross_attention: str = "second_sub_layer.attn_dropout"
    """Path inside a teacher's decoder layer of its attention to the source."""

    def faults(self, where: str, given: Mapping[str, Any]) -> list[str]:
        """Paths are checked against the models, once those exist."""
        return []


@dataclass
class DistillationConfig:
    """The `distillation` section of a model's configuration."""

    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    """The trained model to learn from."""
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    """The weighted terms of the loss."""
    capture: CaptureConfig = field(default_factory=CaptureConfig)
    """Where both models are read."""
    mixture: MixtureConfig | None = None
    """What to train on, where that is more than the files of `model.train_ds`: gold and pseudo data by share."""
    init: InitConfig | None = None
    """How the student starts; null: at random."""

    def faults(self, where: str, given: Mapping[str, Any]) -> list[str]:
        """Return one line for each fault."""
        return []

    @property
    def names_teacher(self) -> bool:
        """Whether the teacher is needed, as far as is known without the terms of a recipe."""
        return self.objective.names_teacher or (self.init is not None and self.init.from_teacher is not None)

    def _shared_faults(self, where: str, found: list[str]) -> list[str]:
        """What one part asks of another, `hybrid` its mixture and a term its teacher, beside the faults in `found`."""
        faults = settle_probabilities(self.mixture, self.objective.hybrid, where)
        if any(each.startswith(f"{where}.teacher") for each in found):
            return faults
        if self.names_teacher and not self.teacher.is_given:
            faults.append(f"{where}.teacher: got none of model_path, model_name and cache; give one of them")
        elif self.teacher.cache is not None:
            faults += self._cache_faults(where)
        if self.init is not None and self.init.from_teacher is not None and len(self.teacher.model_paths) > 1:
            faults.append(f"{where}.init: from_teacher copies one model, and teacher.model_path names several")
        return faults

    def _live_faults(self, where: str) -> list[str]:
        """What is said of how a teacher computes, where none does."""
        places = [("teacher", key) for key in ("precision", "compile")] + [("capture", "teacher_logits")]
        given = [(place, key, getattr(getattr(self, place), key)) for place, key in places]
        usual = {"teacher": TeacherConfig(), "capture": CaptureConfig()}
        return [
            f"{where}.{place}.{key}: got {plain_text(value, 80)}, and teacher.cache is read in the teacher's place; "
            "leave it out (`nemo-distill cache` has --precision of its own), or give teacher.model_path without cache"
            for place, key, value in given
            if value != getattr(usual[place], key)
        ]

    def _cache_faults(self, where: str) -> list[str]:
        """What a cache cannot serve."""
        faults = []
        live = "give teacher.model_path without cache"
        word_kd = self.objective.word_kd
        if word_kd.weight > 0 and word_kd.divergence in set(DIVERGENCE_NAMES) - set(CACHED_DIVERGENCES):
            faults.append(
                f"{where}.objective.word_kd.divergence: got '{word_kd.divergence}', which needs the teacher's whole "
                f"distribution; with teacher.cache give {' or '.join(CACHED_DIVERGENCES)}, or {live}"
            )
        for name in ("hidden", "attention"):
            if getattr(self.objective, name).weight > 0:
                faults.append(
                    f"{where}.objective.{name}: reads inner layers of the teacher, which teacher.cache does not hold; "
                    f"set {name}.weight to 0, or {live}"
                )
        if self.mixture is not None and self.mixture.noise.is_on and word_kd.weight > 0:
            faults.append(
                f"{where}.mixture.noise: changes the sources from pass to pass, teacher.cache holds one form only; "
                f"switch it off, or {live}"
            )
        if self.teacher.on_miss == "error":
            faults += self._live_faults(where)
        if self.init is not None and self.init.from_teacher is not None and not self.teacher.has_model:
            faults.append(f"{where}.init.from_teacher: needs the teacher itself; give teacher.model_path beside cache")
        return faults

    @classmethod
    def from_section(cls, section: Mapping[str, Any] | DictConfig | None) -> "DistillationConfig":
        """Read and check a `distillation` section.

        Args:
            section: the section as plain data or OmegaConf; it is not changed.

        Raises:
            ConfigurationError: the section is missing or has faults; the message lists all of them.
        """
        where = "distillation"
        if section is None:
            raise ConfigurationError(
                "the model's configuration has no `distillation` section; add one, at least\n"
                "  distillation:\n    teacher: {model_path: teacher.nemo}\n"
                "or train plainly with nemo's MTEncDecModel (examples/train_nmt.py)"
            )
        if OmegaConf.is_config(section):
            try:
                section = OmegaConf.to_container(section, resolve=True, throw_on_missing=True)
            except (OmegaConfBaseException, RecursionError) as error:
                reason = plain_text(error, 600)
                raise ConfigurationError(f"the `distillation` section has no value for a key: {reason}") from error
        faults = plain_faults(section, where)
        if not faults:
            config = read_dataclass(cls, with_home(section), where, faults)
            faults += config._shared_faults(where, faults)
        if faults:
            count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
            raise ConfigurationError(f"{count} in the `distillation` section:\n{fault_list(faults)}")
        return config
