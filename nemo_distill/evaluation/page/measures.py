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
"""What each hypothesis did wrong, as two counts of each sentence: of what, out of how many.

A sentence that has several references is compared with the one that is kindest to the hypothesis.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from nemo_distill.evaluation.page.inputs import TestText
from nemo_distill.evaluation.page.words import BANDS, TrainingCounts, band_of, words_of

_LONGEST_REPEATED = 4  # words
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_NAME = re.compile(r"(?<!\w)[^\W\d_a-z][\w'-]+")
_PLACEHOLDER = re.compile(
    r"https?://\S{1,500}|(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,64}(?:\.[\w-]{1,64}){1,8}"  # addresses
    r"|</?[A-Za-z][^<>]{0,200}>|&(?:\w{2,10}|#\d{1,6});"  # tags, entities
    r"|%\(\w{1,100}\)[sdif]|%(?:\d{1,3}\$)?[-+0#]{0,5}\d{0,3}(?:\.\d{1,3})?[sdifuxc](?!\w)"  # of printf
    r"|%\d{1,3}"  # of Qt
    r"|\$?\{\{?[\w.:!-]{0,100}\}?\}"  # of Python, of shells and templates
)
_UNKNOWN = ("\u2047", "<unk>", "\ufffd")


def repetitions(text: str) -> int:
    """Return how often one to four words are followed by the same again.

    Example:
        >>> repetitions("a man a man in in in a hat"), repetitions("a man and a man")
        (3, 0)
    """
    words, found, start = words_of(text), 0, 0
    while start < len(words):
        for size in range(1, _LONGEST_REPEATED + 1):
            if words[start : start + size] == words[start + size : start + 2 * size]:
                found += 1
                start += size
                break
        else:
            start += 1
    return found


def numbers(text: str) -> Counter:
    """Return the numbers of a text by their digits, whatever points and commas they are written with.

    Example:
        >>> numbers("1,000 of 3.5")
        Counter({'1000': 1, '35': 1})
    """
    return Counter(re.sub(r"\D", "", found) for found in _NUMBER.findall(text))


def names(text: str) -> Counter:
    """Return the words of a text that begin with a capital letter, at least two letters long.

    Example:
        >>> names("In Rom the NATO met I")
        Counter({'In': 1, 'Rom': 1, 'NATO': 1})
    """
    return Counter(found for found in _NAME.findall(text) if found[0].isupper())


def placeholders(text: str) -> Counter:
    """Return what programs fill in or read: `%s`, `{name}`, `<b>`, `&amp;`, addresses of the web and of mail.

    Example:
        >>> placeholders("%d files in {0}, 5 % of <b>")
        Counter({'%d': 1, '{0}': 1, '<b>': 1})
    """
    return Counter(_PLACEHOLDER.findall(text))


def lost(find: Callable[[str], Counter], source: str, references: Sequence[str], hypothesis: str) -> tuple[int, int]:
    """Return how many things a hypothesis has lost, of those that source and a reference both have.

    Args:
        find: returns the things of a text.
        source: of the sentence.
        references: of the sentence.
        hypothesis: for it.
    """
    of_source, of_hypothesis = find(source), find(hypothesis)
    if not of_source:
        return 0, 0
    kept: Counter = Counter()
    for reference in references:
        kept |= of_source & find(reference)
    return (kept - of_hypothesis).total(), kept.total()


def unknown_pieces(text: str) -> int:
    """Return how many pieces of a text stand for what the vocabulary does not have.

    Example:
        >>> unknown_pieces("a \u2047 b <unk>")
        2
    """
    return sum(text.count(piece) for piece in _UNKNOWN)


def recall_counts(
    references: Sequence[str], hypothesis: str, counts: Counter, bands: Sequence[tuple[int, int | None]] = BANDS
) -> np.ndarray:
    """Return how many words of the reference a hypothesis has, and how many there are, by band: [bands, 2].

    Args:
        references: of a sentence; the one counts of which the hypothesis has the most.
        hypothesis: for it.
        counts: how often the training text has each word, which decides its band.
        bands: least and most occurrences of each.
    """
    words, best = Counter(words_of(hypothesis)), np.zeros((len(bands), 2))
    shares = []
    for reference in references:
        found = np.zeros((len(bands), 2))
        for word, count in Counter(words_of(reference)).items():
            found[band_of(counts[word], bands)] += (min(count, words[word]), count)
        shares.append((found[:, 0].sum() / max(found[:, 1].sum(), 1), len(shares), found))
    return max(shares, key=lambda share: (share[0], -share[1]))[2] if shares else best


def made_up(source: str, references: Sequence[str], hypothesis: str, training: TrainingCounts) -> tuple[int, int]:
    """Return how many words of a hypothesis exist nowhere, and how many it has.

    Nowhere: not in the training text, on either side, nor in the source or a reference of this sentence.
    """
    known = {word for text in (source, *references) for word in words_of(text)}
    words = words_of(hypothesis)
    found = [word for word in words if not (word in known or training.source[word] or training.target[word])]
    return len(found), len(words)


def error_counts(text: TestText, model: str, training: TrainingCounts | None) -> dict[str, np.ndarray]:
    """Return for each kind of error how much of it each sentence has, and out of how much: [sentences, 2].

    Args:
        text: the test set.
        model: label of the model.
        training: None: what needs the training text is left out.
    """
    columns: dict[str, list[tuple[int, int]]] = {
        name: [] for name in ("repetitions", "numbers", "names", "placeholders", "unknown")
    }
    if training is not None:
        columns["made_up"] = []
    for number, (source, hypothesis) in enumerate(zip(text.sources, text.hypotheses[model], strict=True)):
        references = text.references_of(number)
        allowed = max(map(repetitions, references), default=0)
        columns["repetitions"].append((int(repetitions(hypothesis) > allowed), 1))
        for name, find in (("numbers", numbers), ("names", names), ("placeholders", placeholders)):
            columns[name].append(lost(find, source, references, hypothesis))
        columns["unknown"].append((int(unknown_pieces(hypothesis) > 0), 1))
        if training is not None:
            columns["made_up"].append(made_up(source, references, hypothesis, training))
    return {name: np.array(rows, dtype=np.float64) for name, rows in columns.items()}
