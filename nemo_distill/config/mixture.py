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
"""The parts of the `distillation` section that say what a student trains on: gold and pseudo data, shares, noise."""

import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemo_distill.config.reading import nearest, weight_faults
from nemo_distill.errors import InputError
from nemo_distill.support.compressed import SUFFIXES
from nemo_distill.support.manifest import listed_files
from nemo_distill.support.numbered import numbered, numbers_in, unnumbered
from nemo_distill.support.text_files import is_empty

PSEUDO_SOURCE, PSEUDO_TARGET = "source.txt", "hypotheses.txt"
"""Pseudo-labels as people read them."""
PROCESSED_SOURCE, PROCESSED_TARGET = "source.tok.txt", "hypotheses.tok.txt"
"""Pseudo-labels as training reads them, where the teacher processes text; otherwise it reads the raw ones."""
_SUM_TOLERANCE = 1e-4


@dataclass
class HybridConfig:
    """`alpha_seq_nll * NLL(gold) + alpha_seq_kd * NLL(pseudo) + alpha_word_kd * WordKD`, all three needed.

    They give `nll.weight = alpha_seq_nll + alpha_seq_kd`, `word_kd.weight = alpha_word_kd`, and the probabilities of
    the components `gold` and `pseudo` of `distillation.mixture`, as `alpha_seq_nll` to `alpha_seq_kd`.
    """

    alpha_seq_nll: float | None = None
    """Weight of the likelihood of the gold text."""
    alpha_seq_kd: float | None = None
    """Weight of the likelihood of what the teacher wrote."""
    alpha_word_kd: float | None = None
    """Weight of the word-level term, on whichever target a batch carries; 0 leaves it out."""

    def faults(self, where: str, given: Mapping[str, Any]) -> list[str]:
        """Return one line for each fault."""
        alphas = {name: getattr(self, name) for name in ("alpha_seq_nll", "alpha_seq_kd", "alpha_word_kd")}
        missing = [name for name, value in alphas.items() if value is None]
        if missing:
            return [f"{where}: got no {' and no '.join(missing)}; give all three weights"]
        faults = [fault for name, value in alphas.items() for fault in weight_faults(value, f"{where}.{name}")]
        if not faults and self.alpha_seq_nll + self.alpha_seq_kd == 0:
            faults.append(f"{where}: alpha_seq_nll and alpha_seq_kd are both 0; give one of them a weight above 0")
        return faults

    @property
    def is_whole(self) -> bool:
        """Whether all three weights are given, and a share follows from them."""
        return None not in (self.alpha_seq_nll, self.alpha_seq_kd, self.alpha_word_kd) and self.term_weights[0] > 0

    @property
    def term_weights(self) -> tuple[float, float]:
        """The weights of NLL and word-level term."""
        return self.alpha_seq_nll + self.alpha_seq_kd, self.alpha_word_kd

    @property
    def probabilities(self) -> dict[str, float]:
        """Shares of gold and pseudo batches."""
        gold = self.alpha_seq_nll / self.term_weights[0]
        return {"gold": gold, "pseudo": 1 - gold}

    def __str__(self) -> str:
        shares, (nll, word_kd) = self.probabilities, self.term_weights
        return (
            f"hybrid: {self.alpha_seq_nll:g} * NLL(gold) + {self.alpha_seq_kd:g} * NLL(pseudo) + "
            f"{self.alpha_word_kd:g} * WordKD gives nll.weight {nll:.4g}, word_kd.weight {word_kd:.4g}, "
            f"shares {shares['gold']:.4g} of gold and {shares['pseudo']:.4g} of pseudo batches"
        )


@dataclass
class ComponentConfig:
    """One corpus of a mixture: `source` and `target`, or `directory`, or `metadata_file`."""

    source: str | list | None = None
    """Text file, one sentence a line, or a list of such files."""
    target: str | list | None = None
    """Text file whose line n translates line n of `source`, or as many files as `source` has."""
    directory: str | None = None
    """Output directory of `nemo-distill pseudo-label`; read are `source.tok.txt` and `hypotheses.tok.txt` where the
    teacher processes text (Moses ...), `source.txt` and `hypotheses.txt` otherwise; or, where there are several, all
    files `source-00001.txt` and so on."""
    metadata_file: str | None = None
    """Metadata of a NeMo tarred data set, whose batches are taken as they are."""
    tar_files: str | list | None = None
    """The shards, where they are not those that the metadata names: paths, or one path with braces to expand."""
    processed: bool = False
    """The text of `source` and `target` is normalized and tokenized already (Moses ...); see [corpora.md](corpora.md).
    Pseudo-labels and tarred sets are as training reads them."""
    labels: str | None = None
    """The `directory` whose text `source` and `target` are, where a run has processed raw labels; runs set it."""
    fraction: float = 1.0
    """Share of the sentence pairs (of a tarred set: of the batches) to use, above 0, at most 1. The seed of the
    mixture chooses; the same source line is chosen in every component."""
    language: str | None = None
    """Where the student has several languages: which of them these pairs are of, one of its list `model.src_language`
    or `model.tgt_language`. A one-to-many student's batches begin with its token, as in NeMo."""

    def faults(self, where: str, given: Mapping[str, Any]) -> list[str]:
        """Return one line for each fault."""
        faults = []
        forms = [name for name in ("source", "directory", "metadata_file") if getattr(self, name)]
        if len(forms) != 1 or (self.source and not self.target):
            keys = [name for name in ("source", "target", "directory", "metadata_file") if getattr(self, name)]
            faults.append(
                f"{where}: got {' and '.join(keys) or 'no files'}; give source and target, or directory, or "
                "metadata_file"
            )
        elif (self.target and not self.source) or (self.tar_files and not self.metadata_file):
            name, needed = ("target", "source") if self.target else ("tar_files", "metadata_file")
            faults.append(f"{where}.{name}: has no {needed} beside it; {needed} must be given too")
        elif self.source and len(as_list(self.source)) != len(as_list(self.target)):
            faults.append(
                f"{where}: got {len(as_list(self.source))} source and {len(as_list(self.target))} target files; give "
                "one target file for each source file"
            )
        faults += [
            f"{where}.{key}: is said of source and target alone; leave it out"
            for key in ("processed", "labels")
            if getattr(self, key) and not self.source
        ]
        for name in ("source", "target", "directory", "labels", "metadata_file", "tar_files"):
            faults += [
                fault for path in as_list(getattr(self, name)) for fault in path_faults(path, f"{where}.{name}")
            ]
        if not 0 < self.fraction <= 1:
            faults.append(f"{where}.fraction: got {self.fraction}; give a number above 0 and at most 1")
        return faults

    @property
    def made_by(self) -> str | None:
        """The directory of `nemo-distill pseudo-label` that the text is of; None: it is no pseudo-labels."""
        return self.directory or self.labels

    @property
    def text_files(self) -> list[tuple[str, str]]:
        """Pairs of text files, source and target; none for a tarred set.

        Raises:
            InputError: as `label_names`.
        """
        if self.directory:
            return [tuple(str(Path(self.directory, name)) for name in pair) for pair in label_names(self.directory)]
        return list(zip(as_list(self.source), as_list(self.target), strict=True))


@dataclass
class NoiseConfig:
    """Noisy student: whole words of the source are disturbed in training, anew in every pass; targets never are.

    In scripts without spaces between words a piece of the tokenizer is a word. The teacher of a word-level
    term reads the same disturbed source as the student.
    """

    word_dropout: float = 0.0
    """Probability that a word is left out, from 0 to below 1; one word always stays."""
    word_swap: int = 0
    """How many places a word may move: 3 in He et al. 2020, 0 for none."""
    word_mask: float = 0.0
    """Probability that a word becomes the unknown token, from 0 to 1."""
    apply_to: list = field(default_factory=lambda: ["pseudo"])
    """Names of the components whose source is disturbed."""

    def faults(self, where: str, given: Mapping[str, Any]) -> list[str]:
        """Return one line for each fault."""
        faults = []
        if not 0 <= self.word_dropout < 1:
            faults.append(f"{where}.word_dropout: got {self.word_dropout}; give a number from 0 to below 1")
        if not 0 <= self.word_mask <= 1:
            faults.append(f"{where}.word_mask: got {self.word_mask}; give a number from 0 to 1")
        if self.word_swap < 0:
            faults.append(f"{where}.word_swap: got {self.word_swap}; give a whole number of at least 0")
        return faults

    @property
    def is_on(self) -> bool:
        """Whether anything is disturbed."""
        return self.word_dropout > 0 or self.word_swap > 0 or self.word_mask > 0


@dataclass
class MixtureConfig:
    """Training data drawn from several corpora with given probabilities, in place of the files of `model.train_ds`.

    The other keys of `model.train_ds` (`tokens_in_batch`, `clean`, `max_seq_length`, `num_workers` ...) stay in force.
    """

    components: dict[str, ComponentConfig] = field(default_factory=dict)
    """The corpora, by names of your choice; `objective.hybrid` asks for `gold` and `pseudo`."""
    probabilities: dict | None = None
    """Name of each component to its share of the batches; they sum to 1. Left out where `objective.hybrid` gives
    them, and where there is one component."""
    seed: int = 0
    """Of the order, of the choice of a `fraction`, and of the noise."""
    epoch_size: int | None = None
    """Batches in an epoch, over all processes; by default as many as the components hold together, at least 50 for
    each process."""
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    """Noise on the source."""

    @property
    def drawn(self) -> list[str]:
        """The components that have a share, of a checked section."""
        return [name for name in self.components if self.probabilities[name] > 0]

    def faults(self, where: str, given: Mapping[str, Any]) -> list[str]:
        """Return one line for each fault."""
        faults = []
        if not self.components:
            faults.append(
                f"{where}.components: is empty; give at least one, for example gold: {{source: ..., target: ...}}"
            )
        if self.seed < 0:
            faults.append(f"{where}.seed: got {self.seed}; give a whole number of at least 0")
        if self.epoch_size is not None and self.epoch_size < 1:
            faults.append(f"{where}.epoch_size: got {self.epoch_size}; give a number of batches, at least 1, or null")
        if self.noise.is_on:
            faults += _unknown_names(self.noise.apply_to, self.components, f"{where}.noise.apply_to")
            shares = dict.fromkeys(self.components, 1) if self.probabilities is None else self.probabilities
            if not faults and not any(shares.get(name) for name in self.noise.apply_to):
                faults.append(
                    f"{where}.noise.apply_to: got {self.noise.apply_to}, of which no batch is; give components with a "
                    "share, or no noise"
                )
        if self.probabilities is not None:
            faults += self._probability_faults(f"{where}.probabilities")
        return faults

    def _probability_faults(self, where: str) -> list[str]:
        faults = _unknown_names(self.probabilities, self.components, where)
        missing = [name for name in self.components if name not in self.probabilities]
        if missing:
            faults.append(f"{where}: got none for {', '.join(missing)}; give each component its share, or 0")
        for name, value in self.probabilities.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                faults.append(f"{where}.{name}: got {value!r} of type {type(value).__name__}; give a float")
            elif not (math.isfinite(value) and 0 <= value <= 1):
                faults.append(f"{where}.{name}: got {value}; give a number from 0 to 1")
        if not faults and abs(sum(self.probabilities.values()) - 1) > _SUM_TOLERANCE:
            faults.append(f"{where}: sum to {sum(self.probabilities.values()):.6g}; shares must sum to 1")
        return faults


def label_names(directory: str | os.PathLike) -> list[tuple[str, str]]:
    """Return the names of the sources and targets that training reads in a directory of pseudo-labels.

    Of several pairs of files those are left out in which there is nothing.

    Raises:
        InputError: its manifest is that of another tool; one of several files is missing; there are one and several.
    """
    listed = listed_files(directory)
    raw = PSEUDO_SOURCE, PSEUDO_TARGET
    for pair in ((PROCESSED_SOURCE, PROCESSED_TARGET), raw):
        for suffix in ("", *SUFFIXES):
            names = (f"{pair[0]}{suffix}", f"{pair[1]}{suffix}")
            known = _files_called(directory, names) if listed is None else {*listed}
            several = {name for name in known.difference(names) if unnumbered(name) in names}
            if several and not known.isdisjoint(names):
                raise InputError(
                    f"'{directory}' has {min(known.intersection(names))} and {min(several)}, of which one is left of "
                    "another run; remove what you do not mean"
                )
            if several or not known.isdisjoint(names):
                return _numbered_pairs(directory, names, several) if several else [names]
    return [raw]


def _files_called(directory: str | os.PathLike, names: Iterable[str]) -> set[str]:
    """Return the files of a directory that have one of some names, or one of them with a number."""
    found = {name for name in names if os.path.lexists(Path(directory, name))}
    for name in names:
        found |= {path.name for path in Path(directory).glob(numbered(name, 0).replace("00000", "[0-9]" * 5))}
    return found


def _numbered_pairs(directory: str | os.PathLike, names: tuple[str, str], found: set[str]) -> list[tuple[str, str]]:
    pairs = [tuple(numbered(name, number) for name in names) for number in numbers_in(found)]
    missing = sorted(
        name for pair in pairs for name in pair if name not in found or not os.path.lexists(Path(directory, name))
    )
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(
            f"'{Path(directory, missing[0])}'{more} is missing (labels in {len(pairs)} pairs of files); put it back, "
            "or make the labels anew"
        )
    has_text = [pair for pair in pairs if not all(is_empty(Path(directory, name)) for name in pair)]
    return has_text or pairs[:1]


def settle_probabilities(mixture: MixtureConfig | None, hybrid: HybridConfig | None, where: str) -> list[str]:
    """Fill in the probabilities that `hybrid`, or a single component, stands for; return one line for each fault."""
    if hybrid is not None and mixture is None:
        return [f"{where}.objective.hybrid: needs {where}.mixture with the components gold and pseudo"]
    if mixture is None or not mixture.components:
        return []
    names = sorted(mixture.components)
    if hybrid is not None:
        if mixture.probabilities is not None:
            return [
                f"{where}: got objective.hybrid and mixture.probabilities; give either the three weights of hybrid or "
                "probabilities and the weights of nll and word_kd"
            ]
        if names != ["gold", "pseudo"]:
            return [f"{where}.mixture.components: got {', '.join(names)}; objective.hybrid needs gold and pseudo"]
        if hybrid.is_whole:
            mixture.probabilities = hybrid.probabilities
    elif mixture.probabilities is None:
        if len(names) > 1:
            shares = ", ".join(f"{name}: {1 / len(names):.3g}" for name in mixture.components)
            return [f"{where}.mixture.probabilities: is missing; give for example {{{shares}}}, or objective.hybrid"]
        mixture.probabilities = {names[0]: 1.0}
    return []


def as_list(value: str | list | None) -> list:
    """Return the values of a key that takes one or several."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def path_faults(path: Any, where: str) -> list[str]:
    """Return why a value can be no path, whatever is there."""
    if not isinstance(path, str):
        return [f"{where}: got {path!r} of type {type(path).__name__}; give a path"]
    if not path.strip():
        return [f"{where}: is empty; give a path"]
    if "\0" in path:
        return [f"{where}: has the character NUL; give a path"]
    if re.match(r"\s*(pipe:|[a-z0-9+.-]+://)", path, re.IGNORECASE):
        return [f"{where}: got '{path}'; commands and URLs are not run or opened here, give the path of a local file"]
    return []


def _unknown_names(names: Any, known: Mapping[str, Any], where: str) -> list[str]:
    return [
        f"{where}: got '{name}', which is no component{nearest(name, known)}; components are {', '.join(known)}"
        for name in names
        if not isinstance(name, str) or name not in known
    ]
