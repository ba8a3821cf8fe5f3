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
"""The widest student that is fast enough: sizes are searched, and untrained models of them measured on this machine.

A timing is never twice the same, so what was chosen is noted in the job's directory: the same job goes on with it.
"""

import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from nemo_distill.errors import InputError
from nemo_distill.evaluation.tables import weights
from nemo_distill.jobs.architecture import start_request, started_sides
from nemo_distill.jobs.recipe import Recipe
from nemo_distill.jobs.running import CONFIGS
from nemo_distill.jobs.sizes import (
    Timing,
    allowed_sizes,
    is_allowed,
    most_weights,
    student_sections,
    teacher_weights,
    vocabularies_of,
    wanted_heads,
)
from nemo_distill.jobs.teachers import GivenTeachers
from nemo_distill.jobs.widths import COARSE, Candidate, heads_words, width_overrides, widths_between
from nemo_distill.support.incoming import read_json
from nemo_distill.support.records import read_record

CHOICE_NAME = "student.json"
_FIX = "remove it, and a student is chosen anew"
_SHAPING = re.compile(r"\+*model\.(encoder|decoder|head|shared_embeddings|beam_size)\b.*")
"""Overrides on which hangs how long a sentence takes."""
_KEYS = ("encoder", "decoder", "head", "shared_embeddings", "label_smoothing", "beam_size", "len_pen")
_KEYS += ("max_generation_delta", "src_language", "tgt_language", "shared_tokenizer")
"""Of a `model` section, those that make the model."""


@dataclass
class Choice:
    """The student that was chosen, as the job's directory has it."""

    request: dict[str, Any]
    """On what the choice hangs, but for the machine and the text."""
    model: str
    """Name in configs/model."""
    width: list[int] | None
    """Hidden size, inner size, heads of attention, where they are not those of configs/model; behind them the
    decoder's heads, where these are others."""
    parameters: int
    latency_ms: float
    source_tokens: int
    target_tokens: int
    threads: int

    def overrides(self) -> list[str]:
        """Return what makes the model of `model` as wide."""
        return width_overrides(self.width)

    def text(self) -> str:
        """Return it as it is written."""
        return json.dumps(asdict(self), indent=1) + "\n"

    def words(self) -> str:
        """Return what it is, and why, on one line."""
        hidden, inner, *heads = self.width or (0, 0)
        size = f" with {hidden}/{inner} and {heads_words(heads)}" if heads else ""
        plural = "s" * (self.threads > 1)
        return (
            f"student: {self.model}{size}, {weights(self.parameters)} weights; untrained it takes "
            f"{self.latency_ms:.2f} ms for {self.source_tokens} tokens in and {self.target_tokens} out "
            f"(p50, beam {self.request['beam_size']}, {self.request['quantization']}, {self.threads} thread{plural}), "
            f"of at most {self.request['latency_ms']:g} ms"
        )


def choose(
    recipe: Recipe,
    given: GivenTeachers | None,
    text: tuple[Path, Path],
    noted: Path,
    measure: Callable[[dict[str, Any]], Timing] | None = None,
) -> Choice:
    """Return the largest student that all targets of a recipe allow, the one that is noted if there is one.

    It is never larger than its teacher.

    Args:
        recipe: its student has a `latency_ms`.
        given: its teachers, where they are given.
        text: the training text, source and target.
        noted: where an earlier call has noted what it chose; nothing is written here.
        measure: returns the timing of a `model` section without tokenizers; None: of an untrained model.

    Raises:
        InputError: none is small or fast enough; the text is not there yet; what is noted is damaged.
    """
    student, vocabularies = recipe.student, vocabularies_of(recipe, given)
    limits = most_weights(recipe, given, vocabularies), teacher_weights(recipe, given, vocabularies)
    most = min((each for each in limits if each is not None), default=None)
    sections = student_sections(recipe, given)
    beams = {section["beam_size"] for section in sections.values()}
    request = {
        "latency_ms": student.latency_ms,
        "weights": None if most is None else int(most),
        "quantization": recipe.export or "int8",
        "beam_size": min(beams),
        "overrides": [str(each) for each in (*recipe.overrides, *student.overrides) if _SHAPING.fullmatch(str(each))],
        "vocabularies": list(vocabularies),
        **start_request(recipe, given),
    }
    if (earlier := _noted(noted)) is not None and earlier.request == request:
        return earlier
    if not all(map(os.path.isfile, text)):
        raise InputError(
            f"student.latency_ms: '{text[0]}' is not there yet, and how long its sentences are must be known; fetch "
            "the text first (`nemo-distill corpus`), and give its directory with --corpus"
        )
    candidates = [Candidate.of_section(name, section, vocabularies) for name, section in sections.items()]
    allowed_sizes(recipe, given, candidates, sections, most)
    if measure is None:
        from nemo_distill.jobs.untrained import Untrained  # which imports NeMo

        print("choosing a student: untrained models are measured, some seconds each", file=sys.stderr, flush=True)
        measure = Untrained(recipe, given, text, request["quantization"], noted.parent)
    timings: dict[Candidate, Timing] = {}

    def latency_of(candidate: Candidate) -> float:
        section = candidate.section(sections[candidate.model])
        timing = measure({key: _plain(section[key]) for key in _KEYS if key in section})
        timings[candidate] = timing
        print(f"  {candidate.words()}: {timing.latency_ms:.2f} ms", file=sys.stderr, flush=True)
        return timing.latency_ms

    def may_be(candidate: Candidate) -> bool:
        return is_allowed(recipe, given, candidate, sections[candidate.model], most)

    def between(low: Candidate, high: Candidate) -> list[Candidate]:
        sides, heads = started_sides(recipe, given), wanted_heads(recipe)
        return list(widths_between(low, high, sections[low.model], vocabularies, sides, COARSE, heads))

    best = widest(candidates, between, latency_of, student.latency_ms, may_be)
    return Choice(request, best.model, best.width(), best.parameters, **asdict(timings[best]))


def widest(
    sizes: Sequence[Candidate],
    between: Callable[[Candidate, Candidate], Sequence[Candidate]],
    latency_of: Callable[[Candidate], float],
    latency_ms: float,
    may_be: Callable[[Candidate], bool] = lambda candidate: True,
) -> Candidate:
    """Return the size with the most weights that is measured to be fast enough.

    Sizes are measured from the smallest on; what is at least as deep and wide as one that was too slow is not. Between
    the widest that is fast enough and the next wider one of as many layers, widths are halved.

    Args:
        sizes: to begin with.
        between: returns the widths between two sizes of as many layers, the narrowest first.
        latency_of: measures one, in milliseconds; is called once for each.
        latency_ms: most that it may take.
        may_be: says of a size whether it may be chosen; others only say how wide sizes get between two.

    Raises:
        InputError: even the smallest is too slow.
    """
    fast: list[Candidate] = []
    slow: dict[Candidate, float] = {}

    def is_fast(candidate: Candidate) -> bool:
        latency = latency_of(candidate)
        if latency > latency_ms:
            slow[candidate] = latency
            return False
        fast.append(candidate)
        return True

    for size in sorted(sizes, key=lambda each: (each.parameters, each.model)):
        if may_be(size) and not any(map(size.covers, slow)):
            is_fast(size)
    if not fast:
        smallest, latency = min(slow.items(), key=lambda item: item[1])
        raise InputError(
            f"student.latency_ms: got {latency_ms:g}, and {smallest.words()}, takes {latency:.2f} ms on this machine; "
            "ask for more, or give student.model and overrides, such as [model.encoder.hidden_size=32]"
        )
    for layers in dict.fromkeys(each.layers for each in sorted(fast, key=lambda each: -each.parameters)):
        low = max((each for each in fast if each.layers == layers), key=lambda each: (each.hidden_size, each.model))
        wider = [each for each in sizes if each.layers == layers and each.hidden_size > low.hidden_size]
        if not wider:
            continue
        options = list(filter(may_be, between(low, min(wider, key=lambda each: each.hidden_size))))
        best = max(each.parameters for each in fast)
        begin, end = 0, len(options)  # those before are fast enough, those from there on are not
        while begin < end and options[end - 1].parameters > best:
            middle = (begin + end) // 2
            begin, end = (middle + 1, end) if is_fast(options[middle]) else (begin, middle)
    return max(fast, key=lambda each: (each.parameters, each.model))


def _noted(path: Path) -> Choice | None:
    if not os.path.lexists(path):
        return None
    choice = read_record(Choice, read_json(path), str(path), _FIX)
    is_known = re.fullmatch(r"\w+", choice.model) and (CONFIGS / "model" / f"{choice.model}.yaml").is_file()
    if not is_known or (choice.width is not None and len(choice.width) not in (3, 4)):
        raise InputError(f"'{path}' names no student of this version; {_FIX}")
    return choice


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
