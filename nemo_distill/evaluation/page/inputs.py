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
"""The texts that a page is about: sources, references and hypotheses, compared with the hashes of the results."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sacrebleu.metrics import BLEU, CHRF

from nemo_distill.data.bleu_tokenizer import DEFAULT, build_bleu
from nemo_distill.errors import InputError
from nemo_distill.evaluation.results import EvaluationResult, TestSetResult
from nemo_distill.evaluation.test_sets import read_set
from nemo_distill.support.text_files import read_lines


@dataclass
class TestText:
    """A test set with what the models made of it."""

    __test__ = False  # not a test case, whatever pytest makes of the name

    name: str
    sources: list[str]
    references: list[list[str | None]]
    """Of each file of references its lines; None where it has no text and another one has."""
    hypotheses: dict[str, list[str]]
    """By the label of a model."""
    bleu: BLEU
    """With the tokenizer of the results."""
    chrf: CHRF = field(default_factory=CHRF)

    def references_of(self, number: int) -> list[str]:
        """Return the references that a sentence has."""
        return [texts[number] for texts in self.references if texts[number]]


def read_texts(results: Sequence[EvaluationResult], places: Sequence[Path]) -> tuple[list[TestText], list[str]]:
    """Return all test sets whose text is still there, and what is left out and why, one line each.

    Args:
        results: of evaluations.
        places: their directories, where the hypotheses are.
    """
    missing: dict[str, None] = {}
    texts: dict[str, TestText] = {}
    for result, place in zip(results, places, strict=True):
        for test in result.test_sets:
            scores = [score for score in result.scores if score.test_set == test.name]
            if not scores:
                continue
            if test.name not in texts:
                try:
                    texts[test.name] = _read_test(test, scores[0].bleu_signature)
                except InputError as error:
                    missing[f"{test.name}: {error}"] = None
                    continue
            text = texts[test.name]
            for score in scores:
                if score.model in text.hypotheses:
                    continue
                try:
                    lines = read_lines(place / score.hypotheses, score.hypotheses_sha256)
                    if len(lines) != len(text.sources):
                        raise InputError(
                            f"'{place / score.hypotheses}' has {len(lines)} lines for {len(text.sources)} sentences"
                        )
                    text.hypotheses[score.model] = lines
                except InputError as error:
                    missing[f"{score.model} on {test.name}: {error}"] = None
    return [text for text in texts.values() if text.hypotheses], list(missing)


def _read_test(test: TestSetResult, signature: str) -> TestText:
    """Return a test set without hypotheses.

    Raises:
        InputError: a file is gone or has changed, or its BLEU tokenizer is not there.
    """
    found = read_set(test.name, test.source, [test.target, *test.further_targets])
    if found.result.hashes != test.hashes:
        raise InputError(f"'{test.source}' or a file of its references has changed since it was evaluated")
    parts = dict(part.split(":", 1) for part in signature.split("|") if ":" in part)
    return TestText(test.name, found.sources, found.references, {}, build_bleu(parts.get("tok", DEFAULT), "report"))
