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
"""Results of an evaluation, and stages that have finished, as they could have been, made up."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nemo_distill.evaluation.results import Comparison, EvaluationResult, ModelResult, Score, TestSetResult
from nemo_distill.jobs.noted import Stage, open_job
from nemo_distill.jobs.progress import Progress, StageProgress
from nemo_distill.support.files import sha256


def finish(stages: Sequence[Stage], directory: Path) -> None:
    """Note that stages of a job have finished, each in twelve seconds; results that are not there are empty files."""
    with open_job(stages, directory) as job:
        for stage in stages:
            stage.result.parent.mkdir(parents=True, exist_ok=True)
            stage.result.touch()
            job.note(stage.name, replace(job.expected(stage.name), sha256=sha256(stage.result)))
    Progress({stage.name: StageProgress("done", 1.0, 12.0) for stage in stages}).write(directory)


def a_score(
    model: str,
    test_set: str,
    bleu: float,
    chrf: float,
    seconds: float = 10.0,
    signatures: tuple[str, str] = ("nrefs:1|tok:13a", "nrefs:1|nc:6"),
) -> Score:
    """A score of a hundred sentences."""
    return Score(
        model=model,
        test_set=test_set,
        bleu=bleu,
        bleu_signature=signatures[0],
        chrf=chrf,
        chrf_signature=signatures[1],
        seconds=seconds,
        sentences_per_second=100 / seconds,
        decoded=100,
        truncated=0,
        beam_size=4,
        length_penalty=0.6,
        engine="nemo",
        device="cpu",
        threads=2,
        hypotheses=f"hypotheses/{model}.{test_set}.txt",
        hypotheses_sha256="hash",
    )


def an_evaluation(labels=("teacher", "student"), test_sets=("wmt19", "wmt20")) -> EvaluationResult:
    """Every model on every test set, and the last against the first."""
    return EvaluationResult(
        models=[ModelResult(label, f"{label}.nemo", f"hash of {label}", 4000, 1000, 1.0) for label in labels],
        test_sets=[TestSetResult(name, "s", "t", f"source of {name}", f"target of {name}", 100) for name in test_sets],
        scores=[
            a_score(label, name, 30.0 + min(place, 9), 50.0 + min(place, 9))
            for place, label in enumerate(labels)
            for name in test_sets
        ],
        comparisons=[
            Comparison(
                test_set=test_sets[0],
                metric="BLEU",
                system=labels[-1],
                baseline=labels[0],
                system_score=30.0 + min(len(labels) - 1, 9),
                baseline_score=30.0,
                p_value=0.01,
                samples=1000,
                signature="nrefs:1|ar:1000|seed:12345|tok:13a",
            )
        ],
        versions={"sacrebleu": "2.6.0"},
    )
