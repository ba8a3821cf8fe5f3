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

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from nemo_distill.errors import InputError
from nemo_distill.support.files import write_json_atomic
from nemo_distill.support.incoming import read_json

RESULTS_NAME = "results.json"
FORMAT_VERSION = 1


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
    seconds: float
    """Wall time from raw text to raw text, after a warm-up sentence."""
    sentences_per_second: float
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


@dataclass
class Comparison:
    """Paired bootstrap resampling of two models on one test set."""

    test_set: str
    metric: str
    """`BLEU` or `chrF2`."""
    system: str
    baseline: str
    system_score: float
    baseline_score: float
    p_value: float
    """Two-sided: how likely a difference this large is when there is none."""
    samples: int
    signature: str

    @property
    def difference(self) -> float:
        """System minus baseline, in points."""
        return self.system_score - self.baseline_score


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

    @classmethod
    def load(cls, path: str | os.PathLike) -> "EvaluationResult":
        """Read a result from its file, or from the directory that holds it.

        Raises:
            InputError: no such file, or not an evaluation result.
        """
        path = Path(path)
        if path.is_dir():
            path = path / RESULTS_NAME
        content = read_json(path)
        try:
            version = content.pop("format_version")
            if version != FORMAT_VERSION:
                raise InputError(
                    f"'{path}' has format version {version}, this release reads {FORMAT_VERSION}; evaluate again"
                )
            return cls(
                models=[ModelResult(**item) for item in content.pop("models")],
                test_sets=[TestSetResult(**item) for item in content.pop("test_sets")],
                scores=[Score(**item) for item in content.pop("scores")],
                comparisons=[Comparison(**item) for item in content.pop("comparisons")],
                **content,
            )
        except (TypeError, KeyError, AttributeError) as error:
            raise InputError(
                f"'{path}' is not the result of an evaluation ({error}); give a directory that "
                "`nemo-distill evaluate` wrote, or its results.json"
            ) from error
