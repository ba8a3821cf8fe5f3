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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nemo_distill.decoding.engine import QUANTIZATIONS
from nemo_distill.errors import InputError
from nemo_distill.evaluation.results import MODEL_LABEL, MOST_WEIGHTS, TEST_SET_NAME, refuse_faults, value_range
from nemo_distill.evaluation.tables import markdown_table, weights
from nemo_distill.support.incoming import read_json
from nemo_distill.support.quoting import code, markdown, plain_text
from nemo_distill.support.records import read_record

ENGINES = ("nemo", *QUANTIZATIONS)
JSON_NAME = "speed.json"
_FIX = "measure again"
_LONG = 10_000  # characters of a list of reasons


def check_measurement(engines: Sequence[str], latency_sentences: int) -> None:
    """Refuse engines that do not exist, and no sentences.

    Raises:
        InputError: the message lists the known engines.
    """
    unknown = [name for name in engines if name not in ENGINES]
    if unknown or not engines:
        raise InputError(f"engine '{', '.join(unknown)}': give any of {', '.join(ENGINES)}")
    if latency_sentences < 1:
        raise InputError(f"latency sentences is {latency_sentences}; give at least 1")


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
    """Median wall time of one sentence alone, raw text to raw text."""
    latency_sentences: int
    """Over so many sentences, the first ones that are not empty."""

    def faults(self) -> Iterator[str]:
        """Yield what no measurement gives, one line each."""
        if not MODEL_LABEL.fullmatch(self.model):
            yield f"the label {plain_text(self.model)!r} is none that a model can have"
        for name in ("parameters", "beam_size", "latency_sentences"):
            yield from value_range(name, getattr(self, name), 1, MOST_WEIGHTS)
        yield from value_range("disk_bytes", self.disk_bytes, 1, 1000 * MOST_WEIGHTS)
        yield from value_range("bleu", self.bleu, 0, 100.001)
        for name in ("seconds", "sentences_per_second", "latency_ms"):
            yield from value_range(name, getattr(self, name), 1e-9, 1e12)


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
        header = ["Model", "Engine", "BLEU", "Sentences/s", "Latency, ms", "Size, MB", "Params."]
        lines = [
            [
                row.model,
                row.engine,
                f"{row.bleu:.1f}",
                f"{row.sentences_per_second:.1f}",
                f"{row.latency_ms:.1f}",
                f"{row.disk_bytes / 1e6:.1f}",
                weights(row.parameters),
            ]
            for row in self.rows
        ]
        beams = ", ".join(sorted({str(row.beam_size) for row in self.rows}))
        place = f"cpu, {self.threads} thread{'s' * (self.threads > 1)}" if self.device == "cpu" else self.device
        notes = [
            f"{self.sentences} sentences of {markdown(self.test_set, inside=True)}, beam {beams}, on "
            f"{markdown(place, inside=True)}; raw text to raw text. "
            f"Sentences/s in batches of up to {self.batch_tokens} source tokens; latency is the median of "
            f"{self.rows[0].latency_sentences} sentences one by one. BLEU is sacreBLEU, signature "
            f"{code(self.bleu_signature, cell=False)}."
        ]
        notes += [
            f"{markdown(model)} was not decoded by CTranslate2: {markdown(reason, _LONG, inside=True)}."
            for model, reason in self.skipped.items()
        ]
        return "\n\n".join(["# Inference", markdown_table(header, lines), *notes]) + "\n"
