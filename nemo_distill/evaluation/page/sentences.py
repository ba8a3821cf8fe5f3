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
"""The sentences on which a student loses most against its teacher, and gains most, with what differs marked."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np

from nemo_distill.data.words import split_words
from nemo_distill.evaluation.page.inputs import TestText

MOST = 20
MOST_CHARACTERS = 2000
"""Of a text that is shown; the rest is cut, with a note."""

Pieces = list[tuple[str, bool]]
"""A text in pieces; whether the other one differs there."""


@dataclass
class Shown:
    """One text of a sentence."""

    label: str
    pieces: Pieces
    cut: int
    """So many characters are left out at its end."""
    score: float | None = None
    """chrF2."""


@dataclass
class Sentence:
    """A sentence side by side."""

    number: int
    """Its line in the test set, from 1."""
    change: float
    """chrF2 of the student less that of its teacher, in points."""
    given: list[Shown]
    """The source and the references."""
    made: list[Shown]
    """The teacher's, the twin's and the student's translation."""

    @property
    def is_loss(self) -> bool:
        """Whether the student is worse."""
        return self.change < 0


def sentence_scores(text: TestText, model: str) -> np.ndarray:
    """Return the chrF2 of each hypothesis of a model, in points: [N]."""
    stats = text.chrf._extract_corpus_statistics(text.hypotheses[model], text.references)
    return np.array([text.chrf._compute_score_from_stats(list(each)).score for each in stats])


def extremes(changes: np.ndarray, most: int = MOST) -> list[int]:
    """Return the places of the largest losses, worst first, then of the largest gains, best first.

    Example:
        >>> extremes(np.array([0.0, -3.0, 2.0, -5.0]), 1)
        [3, 2]
    """
    order = np.argsort(changes, kind="stable")
    losses = [int(place) for place in order[:most] if changes[place] < 0]
    best = np.argsort(-changes, kind="stable")
    return losses + [int(place) for place in best[:most] if changes[place] > 0]


def choose_sentences(
    text: TestText, models: Sequence[str], scores: Sequence[np.ndarray], most: int = MOST
) -> list[Sentence]:
    """Return the sentences with the largest losses and gains of a student.

    Args:
        text: the test set.
        models: the teacher, the twin where there is one, the student.
        scores: of `sentence_scores`, of the same models.
        most: sentences of either kind.
    """
    changes = scores[-1] - scores[0]
    found = []
    for place in extremes(changes, most):
        teacher, *others = (text.hypotheses[model][place] for model in models)
        student = others[-1]
        marked = {0: _marked(teacher, student), len(others): _marked(student, teacher)}
        for number, other in enumerate(others[:-1], start=1):
            marked[number] = _marked(other, teacher)
        made = [
            Shown(model, marked[number][0], marked[number][1], float(scores[number][place]))
            for number, model in enumerate(models)
        ]
        references = text.references_of(place)
        titles = ["Reference"] if len(references) == 1 else [f"Reference {n + 1}" for n in range(len(references))]
        given = [
            Shown(title, [(shown, False)], max(len(shown_whole) - MOST_CHARACTERS, 0))
            for title, shown_whole in zip(["Source", *titles], [text.sources[place], *references], strict=True)
            for shown in [shown_whole[:MOST_CHARACTERS]]
        ]
        found.append(Sentence(place + 1, float(changes[place]), given, made))
    return found


def _marked(text: str, other: str) -> tuple[Pieces, int]:
    """Return what is shown of a text, in pieces, and how many characters are cut."""
    shown = text[:MOST_CHARACTERS]
    return differences(shown, other[:MOST_CHARACTERS]), len(text) - len(shown)


def differences(text: str, other: str) -> Pieces:
    """Return a text in pieces, and of each whether the other text has it not.

    Example:
        >>> differences("a red dog", "a blue dog")
        [('a ', False), ('red ', True), ('dog', False)]
    """
    own, theirs = _tokens(text), _tokens(other)
    matcher = SequenceMatcher(
        a=[token.strip() for token in own], b=[token.strip() for token in theirs], autojunk=False
    )
    return [
        ("".join(own[start:end]), kind != "equal") for kind, start, end, _, _ in matcher.get_opcodes() if end > start
    ]


def _tokens(text: str) -> list[str]:
    """Return the words of a text, each with the space behind it, so that joined they are the text."""
    tokens, place = [], 0
    for word in split_words(text):
        start = text.index(word, place)
        if tokens:
            tokens[-1] += text[place:start]
        else:
            word = text[place:start] + word
        tokens.append(word)
        place = start + len(word) if tokens[:-1] else len(word)
    if tokens:
        tokens[-1] += text[place:]
    return tokens
