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
"""What an evaluation measured: typed, written as JSON, read back the same."""

import hashlib
import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from nemo_distill.errors import InputError
from nemo_distill.support.files import write_json_atomic
from nemo_distill.support.incoming import RECORD_BYTES, parse_json, read_bytes
from nemo_distill.support.quoting import plain_text
from nemo_distill.support.records import read_record

RESULTS_NAME = "results.json"
FORMAT_VERSION = 1
HYPOTHESES_DIR = "hypotheses"
METRICS = ("BLEU", "chrF2")
MODEL_LABEL = re.compile(r"[\w.@+=-]{1,100}")
TEST_SET_NAME = re.compile(r"[\w@+=-]{1,100}")
MOST_WEIGHTS = 10**15
"""No model has more parameters, and no archive more bytes than a thousand times that."""
_MOST_MODELS = 1000
_MOST_SECONDS = 1e9
_MOST_STEPS = 1 << 53
_MOST_RISE = 1e300
_FIX = "give a directory that `nemo-distill evaluate` wrote, or its results.json"


def row_label(label: str) -> str:
    """Return the label of the row that a model belongs to: its own, without `@seed...`.

    Example:
        >>> row_label("student@seed2")
        'student'
    """
    return re.sub(r"@seed[\w=-]*$", "", label)


def check_seeds(archives: Mapping[str, str]) -> None:
    """Refuse one archive under two seeds of a row, whose mean would be of fewer than it says.

    Args:
        archives: the SHA-256 of each model's archive by its label.

    Raises:
        InputError: names both.
    """
    seen: dict[tuple[str, str], str] = {}
    for label, sha256 in archives.items():
        row = row_label(label)
        other = seen.setdefault((row, sha256), label)
        if other != label:
            raise InputError(f"'{other}' and '{label}' are one archive; give each seed of '{row}' its own")


@dataclass
class ModelResult:
    """One model of an evaluation."""

    label: str
    """Name in tables; `name@seed1` marks one of several seeds of `name`."""
    archive: str
    """Path of the `.nemo` file, as given."""
    archive_sha256: str
    archive_bytes: int
    parameters: int
    """Number of weights; a matrix that several modules share counts once."""
    compression: float
    """Parameters of the first model of the evaluation, divided by those of this one."""
    converged: bool | None = None
    """Whether the run that wrote it had stopped improving, as noted beside the archive; None: it is not known."""
    taught: bool | None = None
    """Whether that run learnt from a teacher; None: it is not known."""
    start: str | None = None
    """How that run started, see `FinishedRun`; None: it is not known."""
    dropout: str | None = None
    """That its training had, by its archive, see `inputs.dropout_of`; None: it is not known."""
    steps: int | None = None
    """Training steps of that run; None: it is not known."""
    stopped_after: int | None = None
    """Validations in a row without a better score or loss, after which its patience ended it; None: that did not."""
    loss_rise: float | None = None
    """How far its loss in validation had risen at its end, see `FinishedRun`; None: hardly, or it is not known."""
    least_loss_at: int | None = None
    """The step from which it rose."""

    def faults(self) -> Iterator[str]:
        """Yield what no evaluation measures, one line each."""
        if not MODEL_LABEL.fullmatch(self.label):
            yield f"the label {plain_text(self.label)!r} is none that a model can have"
        yield from value_range("archive_bytes", self.archive_bytes, 1, 1000 * MOST_WEIGHTS)
        yield from value_range("parameters", self.parameters, 1, MOST_WEIGHTS)
        yield from value_range("compression", self.compression, 1 / MOST_WEIGHTS, MOST_WEIGHTS)
        if self.loss_rise is not None:
            yield from value_range("loss_rise", self.loss_rise, 0, _MOST_RISE)
        for key in ("steps", "stopped_after", "least_loss_at"):
            if getattr(self, key) is not None:
                yield from value_range(key, getattr(self, key), 0, _MOST_STEPS)


@dataclass
class TestSetResult:
    """One test set of an evaluation."""

    __test__ = False  # not a test case, whatever pytest makes of the name

    name: str
    source: str
    target: str
    source_sha256: str
    target_sha256: str
    sentences: int
    further_targets: list[str] = field(default_factory=list)
    """References besides those of `target`."""
    further_target_sha256: list[str] = field(default_factory=list)

    @property
    def files(self) -> list[str]:
        """The source and all references."""
        return [self.source, self.target, *self.further_targets]

    @property
    def hashes(self) -> list[str]:
        """The SHA-256 of `files`."""
        return [self.source_sha256, self.target_sha256, *self.further_target_sha256]

    def faults(self) -> Iterator[str]:
        """Yield what no evaluation has, one line each."""
        if not TEST_SET_NAME.fullmatch(self.name):
            yield f"the name {plain_text(self.name)!r} is none that a test set can have"
        yield from value_range("sentences", self.sentences, 1, MOST_WEIGHTS)
        if len(self.further_targets) != len(self.further_target_sha256):
            yield f"{len(self.further_targets)} further_targets have {len(self.further_target_sha256)} hashes"


@dataclass
class Score:
    """What one model reached on one test set."""

    model: str
    test_set: str
    bleu: float
    """sacreBLEU of the corpus, 0 to 100."""
    bleu_signature: str
    chrf: float
    """chrF2 of the corpus, 0 to 100."""
    chrf_signature: str
    seconds: float | None
    """Wall time from raw text to raw text, after a warm-up sentence; None where several processes decoded, or one went
    on with what they had: it would be the speed of no model on no device."""
    sentences_per_second: float | None
    """Decoded sentences divided by `seconds`."""
    decoded: int
    """Sentences that were decoded: all but the empty ones."""
    truncated: int
    """Sources that were longer than the model takes, and were cut."""
    beam_size: int
    length_penalty: float
    engine: str
    """What decoded: `ctranslate2` and the type of its weights, or `nemo`, NeMo's modules under our own search."""
    device: str
    threads: int
    """CPU threads of the engine."""
    hypotheses: str
    """File of the hypotheses, relative to the directory of the results."""
    hypotheses_sha256: str
    length_ratio: float | None = None
    """Tokens of the hypotheses divided by those of the references, as BLEU counts them; None in older results."""

    def of(self, metric: str) -> tuple[float, str]:
        """Return the score by the name of a metric, and its signature."""
        return (self.bleu, self.bleu_signature) if metric == "BLEU" else (self.chrf, self.chrf_signature)

    def faults(self) -> Iterator[str]:
        """Yield what no evaluation measures, one line each."""
        if not (MODEL_LABEL.fullmatch(self.model) and TEST_SET_NAME.fullmatch(self.test_set)):
            yield f"{plain_text(self.model)!r} on {plain_text(self.test_set)!r} are no names of model and test set"
        elif self.hypotheses != hypotheses_path(self.model, self.test_set):
            yield f"hypotheses is {plain_text(self.hypotheses)!r}, not {hypotheses_path(self.model, self.test_set)!r}"
        yield from value_range("bleu", self.bleu, 0, 100.001)
        yield from value_range("chrf", self.chrf, 0, 100.001)
        yield from value_range("seconds", 1.0 if self.seconds is None else self.seconds, 1e-9, _MOST_SECONDS)
        yield from value_range("decoded", self.decoded, 1, MOST_WEIGHTS)
        yield from value_range("truncated", self.truncated, 0, self.decoded)
        yield from value_range("length_ratio", self.length_ratio or 0, 0, MOST_WEIGHTS)
        yield from value_range("beam_size", self.beam_size, 1, MOST_WEIGHTS)
        yield from value_range("threads", self.threads, 1, MOST_WEIGHTS)
        wanted = self.decoded / self.seconds if self.seconds else self.seconds
        if wanted is None or self.sentences_per_second is None:
            follows = wanted is self.sentences_per_second
        else:
            follows = self.seconds <= 0 or math.isclose(self.sentences_per_second, wanted, rel_tol=1e-6)
        if not follows:
            yield f"sentences_per_second is {self.sentences_per_second}, not decoded / seconds"


@dataclass
class Comparison:
    """Two models on one test set, and whether they differ by more than chance."""

    test_set: str
    metric: str
    """`BLEU` or `chrF2`."""
    system: str
    baseline: str
    system_score: float
    baseline_score: float
    p_value: float
    """Two-sided: how likely a difference this large is when there is none; of the bootstrap, too small."""
    samples: int
    """Trials of approximate randomization; in results of older releases samples of the paired bootstrap."""
    signature: str

    @property
    def is_bootstrap(self) -> bool:
        """Whether an older release computed it, by the paired bootstrap."""
        return f"bs:{self.samples}" in self.signature.split("|")

    @property
    def difference(self) -> float:
        """System minus baseline, in points."""
        return self.system_score - self.baseline_score

    def faults(self) -> Iterator[str]:
        """Yield what no evaluation computes, one line each."""
        if self.metric not in METRICS:
            yield f"metric is {plain_text(self.metric)!r}, none of {', '.join(METRICS)}"
        if self.system == self.baseline:
            yield "system and baseline are one model"
        yield from value_range("system_score", self.system_score, 0, 100.001)
        yield from value_range("baseline_score", self.baseline_score, 0, 100.001)
        yield from value_range("p_value", self.p_value, 0, 1)
        yield from value_range("samples", self.samples, 1, MOST_WEIGHTS)


@dataclass
class EvaluationResult:
    """A whole evaluation: every model on every test set.

    Example:
        >>> result = EvaluationResult.load("runs/evaluation")  # doctest: +SKIP
        >>> result.score("student", "wmt20").bleu  # doctest: +SKIP
        34.6
    """

    models: list[ModelResult]
    test_sets: list[TestSetResult]
    scores: list[Score]
    comparisons: list[Comparison]
    versions: dict[str, str] = field(default_factory=dict)
    """Releases of the libraries that took part."""

    def score(self, model: str, test_set: str) -> Score:
        """Return the score of one model on one test set.

        Raises:
            KeyError: there is none.
        """
        for score in self.scores:
            if (score.model, score.test_set) == (model, test_set):
                return score
        raise KeyError(f"no score of model '{model}' on test set '{test_set}'")

    def save(self, directory: str | os.PathLike) -> Path:
        """Write `results.json` in a directory and return its path."""
        path = Path(directory) / RESULTS_NAME
        write_json_atomic(path, {"format_version": FORMAT_VERSION, **asdict(self)})
        return path

    def faults(self) -> Iterator[str]:
        """Yield what no evaluation has, one line each: values out of range, names that are not there or come twice."""
        parts = {name: getattr(self, name) for name in ("models", "test_sets", "scores", "comparisons")}
        for name, items in parts.items():
            for place, item in enumerate(items):
                yield from (f"{name}[{place}]: {fault}" for fault in item.faults())
        labels, sets = [model.label for model in self.models], [test.name for test in self.test_sets]
        if max(len(labels), len(sets)) > _MOST_MODELS:
            yield f"more than {_MOST_MODELS} models or test sets"
        pairs = [(score.model, score.test_set) for score in self.scores]
        compared = [(item.test_set, item.system, item.baseline, item.metric) for item in self.comparisons]
        for name, keys in zip(parts, (labels, sets, pairs, compared), strict=True):
            yield from (f"{name}: {key} comes twice" for key, count in Counter(keys).items() if count > 1)
        known, sentences = set(labels), {test.name: test.sentences for test in self.test_sets}
        for score in self.scores:
            if score.model not in known or score.decoded > sentences.get(score.test_set, 0):
                yield f"scores: {plain_text((score.model, score.test_set))} is no pair of the models and test sets"
        for item in self.comparisons:
            if not {item.system, item.baseline} <= known or item.test_set not in sentences:
                yield f"comparisons: {plain_text((item.system, item.baseline, item.test_set))} are not in the results"

    def contradictions(self) -> Iterator[str]:
        """Yield what does not follow from other values as it should, one line each; of a result without faults."""
        for place, model in enumerate(self.models):
            ratio = self.models[0].parameters / model.parameters
            if not math.isclose(model.compression, ratio, rel_tol=1e-6):
                yield f"models[{place}]: compression is {model.compression}, not parameters of the first / its own"
        scores = {(score.model, score.test_set): score for score in self.scores}
        for place, item in enumerate(self.comparisons):
            for role, label in (("system", item.system), ("baseline", item.baseline)):
                score = scores.get((label, item.test_set))
                value, signature = score.of(item.metric) if score else (math.inf, "")
                if not math.isclose(getattr(item, f"{role}_score"), value, abs_tol=1e-6):
                    yield f"comparisons[{place}]: {role}_score is not the {item.metric} of {label} among the scores"
                elif metric_settings(item.signature) != metric_settings(signature):
                    yield f"comparisons[{place}]: the signature is not that of the {item.metric} of {label}"
            if not item.is_bootstrap and f"ar:{item.samples}" not in item.signature.split("|"):
                yield f"comparisons[{place}]: samples is {item.samples}, not as the signature says"

    @classmethod
    def load(cls, path: str | os.PathLike) -> "EvaluationResult":
        """Read a result from its file, or from the directory that holds it.

        Raises:
            InputError: no such file, not an evaluation result, or one with values that no evaluation has.
        """
        return read_result(path)[0]


def read_result(path: str | os.PathLike) -> tuple[EvaluationResult, str]:
    """Return a result, as `EvaluationResult.load`, and the SHA-256 of the file that it was read from.

    Raises:
        InputError: as `EvaluationResult.load`.
    """
    path = Path(path)
    if path.is_dir():
        path = path / RESULTS_NAME
    text = read_bytes(path, RECORD_BYTES)
    try:
        content = parse_json(text)
    except ValueError as error:
        raise InputError(f"'{path}' is not valid JSON ({plain_text(error)}); {_FIX}") from error
    version = content.pop("format_version", None) if isinstance(content, dict) else None
    if type(version) is int and version != FORMAT_VERSION:
        raise InputError(f"'{path}' has format version {version}, this release reads {FORMAT_VERSION}; evaluate again")
    if type(version) is not int:
        raise InputError(f"'{path}' is not the result of an evaluation (no format version); {_FIX}")
    result = read_record(EvaluationResult, content, str(path), _FIX)
    refuse_faults(result.faults(), path, _FIX)
    refuse_faults(result.contradictions(), path, _FIX)
    return result, hashlib.sha256(text).hexdigest()


def hypotheses_path(model: str, test_set: str) -> str:
    """Return the file of a pair's hypotheses, relative to the directory of the results."""
    return f"{HYPOTHESES_DIR}/{model}.{test_set}.txt"


def metric_settings(signature: str, *left_out: str) -> list[str]:
    """Return the parts of a signature of sacreBLEU without those of the test of significance, and others."""
    return [part for part in signature.split("|") if part.partition(":")[0] not in ("ar", "bs", "seed", *left_out)]


def refuse_faults(faults: Iterator[str], path: str | os.PathLike, fix: str) -> None:
    """Refuse a record that has faults.

    Raises:
        InputError: it has; the message lists the first five.
    """
    found = [plain_text(fault) for _, fault in zip(range(5), faults, strict=False)]
    if found:
        raise InputError(f"'{path}' is damaged: {'; '.join(found)}; {fix}")


def value_range(name: str, value: float, least: float, most: float) -> Sequence[str]:
    """Return a fault where a value is not from `least` to `most`."""
    return [] if least <= value <= most else [f"{name} is {plain_text(value, 40)}, not from {least:g} to {most:g}"]
