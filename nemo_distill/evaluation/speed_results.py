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
"""What a measurement of speed found, as a record that is checked when it is read, and as a table."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from nemo_distill.decoding.engine import QUANTIZATIONS, check_counts
from nemo_distill.errors import InputError
from nemo_distill.evaluation.results import MODEL_LABEL, MOST_WEIGHTS, TEST_SET_NAME, refuse_faults, value_range
from nemo_distill.evaluation.tables import markdown_table, weights
from nemo_distill.support.incoming import read_json
from nemo_distill.support.quoting import code, markdown, plain_text
from nemo_distill.support.records import read_record
from nemo_distill.support.threads import available_threads, given_threads

ENGINES = ("nemo", *QUANTIZATIONS)
JSON_NAME = "speed.json"
ONE_CORE, ALL_CORES = CORES = ("one", "all")
"""What a row is measured with: a process that has one core; or as a user's, with all cores and `OMP_NUM_THREADS`."""
MOST_SENTENCES = 1000
"""Translated where memory is measured: several batches, so that it is at its peak."""
_FIX = "measure again"
_LONG = 10_000  # characters of a list of reasons


def check_measurement(
    engines: Sequence[str],
    latency_sentences: int,
    beam_sizes: Sequence[int | None] = (None,),
    cores: Sequence[str] = (ALL_CORES,),
) -> None:
    """Refuse what does not exist, what is asked for twice, and no sentences.

    Raises:
        InputError: the message lists the known values.
    """
    for what, given, known in (("engine", engines, ENGINES), ("cores", cores, CORES)):
        unknown = [name for name in given if name not in known]
        if unknown or not given:
            raise InputError(f"{what} '{', '.join(unknown)}': give any of {', '.join(known)}")
    for what, given in (("engines", engines), ("beam sizes", beam_sizes), ("cores", cores)):
        if len(set(given)) < len(given):
            raise InputError(f"{what}: got {', '.join(map(str, given))}; give each once")
    if not beam_sizes:
        raise InputError("no beam size; give at least one, or leave it out for each model's own")
    for beam_size in beam_sizes:
        check_counts(beam_size, 1)
    if latency_sentences < 1:
        raise InputError(f"latency sentences is {latency_sentences}; give at least 1")


def check_cores(cores: Sequence[str], device: str) -> None:
    """Refuse a choice of cores that would measure something else than it says.

    Raises:
        InputError: of a GPU; or both kinds of rows, and there is one thread to compute with.
    """
    if ONE_CORE in cores and device != "cpu":
        raise InputError(f"cores: 'one' is of a CPU, and the device is {device}; leave it out, or give the device cpu")
    if len(cores) > 1 and available_threads() == 1:
        why = "OMP_NUM_THREADS is 1" if given_threads() == 1 else "this process has one core"
        raise InputError(f"cores: {why}, so that one and all are the same; leave one of them out, or give it more")


@dataclass
class SpeedRow:
    """One model with one engine."""

    model: str
    engine: str
    parameters: int
    disk_bytes: int
    """Of the archive for NeMo; of weights, vocabularies and configuration for CTranslate2."""
    beam_size: int
    bleu: float
    seconds: float
    """Wall time of the whole test set, raw text to raw text, after a warm-up sentence."""
    sentences_per_second: float
    latency_ms: float
    """Median (p50) wall time of one sentence alone, raw text to raw text."""
    latency_sentences: int
    """Over so many sentences, the first ones that are not empty."""
    latency_p95_ms: float | None = None
    """Wall time that 95 % of them do not exceed, between two of them by a straight line; like what follows it was not
    measured by earlier versions."""
    words_per_second: float | None = None
    """Words of the raw source, between white space, as the tables of WMT's efficiency task count them."""
    memory_bytes: int | None = None
    """Most main memory of a process that has an export of the model open and translates the test set, see
    `nemo_distill.evaluation.serving`; None: not of this engine, or of a model without one."""
    cores: str | None = None
    """`one` or `all`."""
    threads: int | None = None
    """CPU threads that computed at once."""

    def faults(self) -> Iterator[str]:
        """Yield what no measurement gives, one line each."""
        if not MODEL_LABEL.fullmatch(self.model):
            yield f"the label {plain_text(self.model)!r} is none that a model can have"
        for name in ("parameters", "beam_size", "latency_sentences"):
            yield from value_range(name, getattr(self, name), 1, MOST_WEIGHTS)
        yield from value_range("disk_bytes", self.disk_bytes, 1, 1000 * MOST_WEIGHTS)
        yield from value_range("bleu", self.bleu, 0, 100.001)
        for name in ("seconds", "sentences_per_second", "latency_ms", "latency_p95_ms", "words_per_second"):
            if (value := getattr(self, name)) is not None:
                yield from value_range(name, value, 0 if name == "words_per_second" else 1e-9, 1e12)
        for name in ("memory_bytes", "threads"):
            if (value := getattr(self, name)) is not None:
                yield from value_range(name, value, 1, MOST_WEIGHTS)
        if self.cores not in (None, *CORES):
            yield f"cores is {plain_text(self.cores, 40)!r}, none of {', '.join(CORES)}"


@dataclass
class SpeedResult:
    """All rows and the circumstances they hold for."""

    rows: list[SpeedRow]
    skipped: dict[str, str]
    """Models that do not convert, and why."""
    test_set: str
    test_sha256: list[str]
    sentences: int
    bleu_signature: str
    device: str
    threads: int
    batch_tokens: int
    versions: dict[str, str]

    @classmethod
    def load(cls, path: str | os.PathLike) -> "SpeedResult":
        """Read a measurement from its file, or from the directory that holds it.

        Raises:
            InputError: no such file, not a measurement, or one with values that none has.
        """
        path = Path(path)
        if path.is_dir():
            path = path / JSON_NAME
        result = read_record(cls, read_json(path), str(path), _FIX)
        refuse_faults(result.faults(), path, _FIX)
        return result

    def faults(self) -> Iterator[str]:
        """Yield what no measurement gives, one line each."""
        for place, row in enumerate(self.rows):
            yield from (f"rows[{place}]: {fault}" for fault in row.faults())
        if not self.rows:
            yield "it has no rows"
        if not TEST_SET_NAME.fullmatch(self.test_set):
            yield f"the name {plain_text(self.test_set)!r} is none that a test set can have"
        for name in ("sentences", "threads", "batch_tokens"):
            yield from value_range(name, getattr(self, name), 1, MOST_WEIGHTS)

    def markdown(self) -> str:
        """Return the table and its notes as Markdown."""
        notes = self.notes(partial(markdown, inside=True), partial(code, cell=False))
        return "\n\n".join(["# Inference", markdown_table(*self.table()), *notes]) + "\n"

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return the table: names of columns, and rows; – is what was not measured."""
        header = ["Model", "Engine", "Beam", "Threads", "BLEU", "Sentences/s", "Words/s", "Latency p50, ms", "p95, ms"]
        header += ["Memory, MB", "Size, MB", "Params."]
        return header, [self._line(row) for row in self.rows]

    def _line(self, row: SpeedRow) -> list[str]:
        threads = row.threads or self.threads if self.device == "cpu" else "–"
        speeds = [f"{row.sentences_per_second:,.1f}", _shown(row.words_per_second, ",.0f"), f"{row.latency_ms:.2f}"]
        speeds += [_shown(row.latency_p95_ms, ".2f"), _shown(row.memory_bytes and row.memory_bytes / 1e6, ".0f")]
        cells = [row.model, row.engine, str(row.beam_size), str(threads), f"{row.bleu:.1f}", *speeds]
        return [*cells, f"{row.disk_bytes / 1e6:.1f}", weights(row.parameters)]

    def notes(self, say: Callable[..., str], sign: Callable[[str], str]) -> list[str]:
        """Return what must be known to read the table.

        Args:
            say: quotes text from elsewhere, up to so many characters.
            sign: quotes a signature.
        """
        notes = [
            f"{self.sentences} sentences of {say(self.test_set)}, on {say(self.device)}; raw text to raw text. "
            f"Sentences/s and words/s in batches of up to {self.batch_tokens} source tokens, as many side by side as "
            "there are threads; words are those of the source, between white space. Latency is of "
            f"{self.rows[0].latency_sentences} sentences one by one: half of them take at most p50, 95 % at most p95. "
            f"BLEU is sacreBLEU, signature {sign(self.bleu_signature)}."
        ]
        if any(row.cores == ONE_CORE for row in self.rows):
            notes.append("With one thread where the process had one core, else with those that its user would have.")
        if any(row.memory_bytes for row in self.rows):
            notes.append(
                "Memory is the most that a process takes which does nothing but translate these sentences"
                + f", the first {MOST_SENTENCES:,}," * (self.sentences > MOST_SENTENCES)
                + " with an export of the model, Python and libraries included."
            )
        notes += [
            f"{say(model)} was not decoded by CTranslate2: {say(reason, _LONG)}."
            for model, reason in self.skipped.items()
        ]
        return notes


def _shown(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
