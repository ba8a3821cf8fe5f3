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
"""Parallel text: cleaning, a split by group in which no near-copy crosses, and the directory it is written to.

Every corpus is a directory with `train`, `valid` and `test` in two languages (`train.de`, `train.en` ...) and a
`manifest.json` with counts and hashes.
"""

import collections
import hashlib
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from nemo_distill.data.words import compatible, count_words, fold_case, split_words, word_stretches
from nemo_distill.errors import InputError
from nemo_distill.support import manifest, text_files
from nemo_distill.support.lock import locked
from nemo_distill.support.quoting import plain_text
from nemo_distill.support.records import read_record

SPLITS = ("train", "valid", "test")

_PLACEHOLDER = re.compile(r"\{[^{}]*\}|\[%[^%]*%\]")
_MIN_WORDS_FOR_ONE_CHANGED = 4
_LONGEST_CODE = 35  # RFC 5646


class Pair(NamedTuple):
    """A sentence pair and the group (document, component) it comes from."""

    group: str
    source: str
    target: str


def squeeze(text: str) -> str:
    """Return the text on one line: composed characters (NFC), each run of white space or line breaks one space."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def fold(text: str) -> str:
    """Return what two near-copies have in common: lower-case letters, one space between the pieces of `split_words`.

    Placeholders, digits and punctuation are left out; spaces in scripts written without them do not matter.

    Example:
        >>> fold("Lost {count} packets.") == fold("lost 3 packets")
        True
    """
    text = fold_case(compatible(_PLACEHOLDER.sub(" ", text)))
    letters = (character if unicodedata.category(character)[0] in "LM" else " " for character in text)
    return " ".join(split_words("".join(letters)))


def near_keys(text: str) -> set[str | bytes]:
    """Return keys such that two texts share one if they fold alike, or differ in one word and have four or more.

    Where no space stands between words, a word is what `word_stretches` takes for one.

    Example:
        >>> bool(near_keys("Connect the Hue bridge now") & near_keys("Connect the Deako bridge now."))
        True
    """
    folded = fold(text)
    keys, pieces = {folded}, folded.split()
    if count_words(folded) >= _MIN_WORDS_FOR_ONE_CHANGED:
        before, behind = _running_hashes(pieces), _running_hashes(pieces[::-1])[::-1]
        keys.update(before[start] + behind[end] for start, end in word_stretches(pieces))
    return keys


def _running_hashes(words: Sequence[str]) -> list[bytes]:
    """Return a hash of the first 0, 1, 2 ... words: keys of whole texts would take memory by the square of the words.

    Each is of the one before it and of the next word.
    """
    hashes = [bytes(16)]
    for word in words:
        hashes.append(hashlib.blake2b(hashes[-1] + word.encode(), digest_size=16).digest())
    return hashes


def clean(
    pairs: Iterable[Pair], min_words: int = 1, keep_copies: bool = False, one_translation: bool = True
) -> tuple[list[Pair], collections.Counter]:
    """Drop pairs that teach nothing and return the rest with the number dropped for each reason.

    Args:
        pairs: raw pairs.
        min_words: words that at least one side must have. One side suffices because languages differ in how they
            write compounds ("Sendeintervall der Daten", "data update interval").
        keep_copies: keep pairs whose source and target are the same.
        one_translation: of a source with several translations keep the most frequent, of equals the first.

    Returns:
        The pairs left, on one line each, in their order; and a counter of the reasons `empty`, `copy`, `short` and,
        where one translation is kept, `other_translation`.
    """
    kept, dropped = [], collections.Counter(dict.fromkeys(("empty", "copy", "short"), 0))
    votes: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    for group, raw_source, raw_target in pairs:
        source, target = squeeze(raw_source), squeeze(raw_target)
        if not source or not target:
            dropped["empty"] += 1
        elif source == target and not keep_copies:
            dropped["copy"] += 1
        elif max(count_words(source), count_words(target)) < min_words:
            dropped["short"] += 1
        else:
            votes[source][target] += 1
            kept.append(Pair(group, source, target))
    if not one_translation:
        return kept, dropped
    chosen = {source: targets.most_common(1)[0][0] for source, targets in votes.items()}
    first_choice = [pair for pair in kept if pair.target == chosen[pair.source]]
    dropped["other_translation"] = len(kept) - len(first_choice)
    return first_choice, dropped


def assign_groups(
    texts: Mapping[str, Iterable[str]], valid_size: int, test_size: int, seed: int = 0
) -> dict[str, str]:
    """Choose the groups whose text is held out; return the split of each group.

    Groups are taken in the order of a hash of their name, for the test set until it has `test_size` different texts,
    then for the validation set. A group with more than a tenth of the texts asked for stays in training, so that no
    held-out set is about one subject. The choice depends on `texts`, the sizes and the seed alone: give the texts of
    one language, and every language pair shares the split.

    Args:
        texts: group name to its texts.
        valid_size: texts wanted for validation.
        test_size: texts wanted for the test.
        seed: another seed gives another split.
    """
    order = sorted(texts, key=lambda group: hashlib.sha256(f"{seed}:{group}".encode()).hexdigest())
    splits = dict.fromkeys(sorted(texts), "train")
    seen: set[str] = set()
    waiting = iter(order)
    for split, size in (("test", test_size), ("valid", valid_size)):
        count = 0
        while count < size:
            group = next(waiting, None)
            if group is None:
                raise InputError(
                    f"{test_size} test and {valid_size} validation texts are more than this corpus can spare; "
                    "give smaller sizes"
                )
            new = {fold(text) for text in texts[group]} - seen
            if len(new) > max(size // 10, 10):
                continue
            splits[group] = split
            seen |= new
            count += len(new)
    return splits


def split_pairs(
    pairs: Iterable[Pair], group_splits: Mapping[str, str]
) -> tuple[dict[str, list[Pair]], collections.Counter]:
    """Divide pairs by group, drop duplicates, and keep near-copies of held-out text out of the other sets.

    Pairs of a group that `group_splits` does not name go to the training set.

    After this no source and no target of the test set has a near-copy (see `near_keys`) on its side of the validation
    or training set, and none of the validation set has one in the training set. Within the test and the validation
    set no two sources fold alike, so that "Zone 1", "Zone 2" ... do not count as so many sentences.

    Returns:
        The pairs of each split in their order, and the numbers dropped: `duplicate` (the pair again in its split),
        `alike_in_held_out_set`, `near_copy_of_test`, `near_copy_of_valid`.
    """
    reasons = ("duplicate", "alike_in_held_out_set", "near_copy_of_test", "near_copy_of_valid")
    dropped = collections.Counter(dict.fromkeys(reasons, 0))
    unique: dict[str, dict[tuple[str, str], Pair]] = {split: {} for split in SPLITS}
    for pair in pairs:
        members = unique[group_splits.get(pair.group, "train")]
        if (pair.source, pair.target) in members:
            dropped["duplicate"] += 1
        else:
            members[pair.source, pair.target] = pair
    result: dict[str, list[Pair]] = {split: [] for split in SPLITS}
    held_out: dict[str, tuple[set[str | bytes], set[str | bytes]]] = {"test": (set(), set()), "valid": (set(), set())}
    for split, earlier in (("test", ()), ("valid", ("test",)), ("train", ("test", "valid"))):
        folded_sources: set[str] = set()
        for pair in unique[split].values():
            folded, sources, targets = fold(pair.source), near_keys(pair.source), near_keys(pair.target)
            near = next((name for name in earlier if sources & held_out[name][0] or targets & held_out[name][1]), None)
            if near is not None:
                dropped[f"near_copy_of_{near}"] += 1
            elif split in held_out and folded in folded_sources:
                dropped["alike_in_held_out_set"] += 1
            else:
                result[split].append(pair)
                folded_sources.add(folded)
                if split in held_out:
                    held_out[split][0].update(sources)
                    held_out[split][1].update(targets)
    return result, dropped


def corpus_files(splits: Mapping[str, Sequence[Pair]], source: str, target: str) -> dict[str, bytes]:
    """Return file name (`train.de` ...) to content, one sentence a line."""
    contents = {}
    for split in SPLITS:
        for language, side in ((source, "source"), (target, "target")):
            lines = [getattr(pair, side) + "\n" for pair in splits[split]]
            contents[f"{split}.{language}"] = "".join(lines).encode("utf-8")
    return contents


@dataclass(frozen=True)
class SplitCounts:
    """What a manifest says of a split."""

    pairs: int
    components: int | None = None


@dataclass(frozen=True)
class CorpusDetails:
    """What a manifest says of a corpus beside its request and its files."""

    licence: str
    splits: dict[str, SplitCounts]
    read_pairs: int | None = None
    keys_in_one_language_only: int | None = None
    dropped: dict[str, int] | None = None


def file_names(source: str, target: str) -> list[str]:
    """Return the names of a corpus's files."""
    return [f"{split}.{language}" for split in SPLITS for language in (source, target)]


def find_finished(
    directory: str | os.PathLike, request: Mapping[str, Any], overwrite: bool = False
) -> dict[str, Any] | None:
    """Return the manifest of the corpus that answers `request`, as `manifest.find_finished`, every value checked.

    Raises:
        InputError: as there; or the manifest says what is not so.
    """
    names = file_names(request["source"], request["target"])
    finished = manifest.find_finished(directory, request, overwrite, names)
    if finished is None:
        return None
    path, fix = Path(directory, manifest.MANIFEST), "--overwrite writes the directory anew"
    details = {key: value for key, value in finished.items() if key not in ("request", "files")}
    record = read_record(CorpusDetails, details, str(path), fix)
    for name in names:
        split, lines = name.partition(".")[0], sum(1 for _ in text_files.iterate_lines(Path(directory, name)))
        if split not in record.splits or record.splits[split].pairs != lines:
            raise InputError(f"'{path}' is damaged: {name} has {lines} lines; {fix}")
    return finished


def refuse_inputs_as_outputs(
    inputs: Iterable[str | os.PathLike], output_dir: str | os.PathLike, source: str, target: str
) -> None:
    """Refuse inputs that a corpus in `output_dir` would replace, or that are of an older one there, which it removes.

    Raises:
        InputError: names the input.
    """
    outputs = (manifest.MANIFEST, *file_names(source, target), *(manifest.listed_files(output_dir) or ()))
    manifest.refuse_inputs_as_outputs(inputs, [Path(output_dir, name) for name in outputs])


def check_counts(**counts: int) -> None:
    """Refuse an option that is not a number of at least 1.

    Raises:
        InputError: names the option.
    """
    for name, value in counts.items():
        if value < 1:
            raise InputError(f"--{name.replace('_', '-')} is {value}; give a number of at least 1")


def check_splits(splits: Mapping[str, Sequence[Pair]], usable: str, fix: str) -> None:
    """Refuse splits of which one is empty.

    Args:
        splits: the pairs of each.
        usable: which pairs there were to divide, for the message.
        fix: how there would be more.

    Raises:
        InputError: names the split.
    """
    for split, members in splits.items():
        if not members:
            raise InputError(
                f"{usable} leave none for {split}; {fix}, a smaller --min-words, or other --valid-size and --test-size"
            )


def write(
    output_dir: str | os.PathLike,
    request: Mapping[str, Any],
    select: Callable[[], tuple[Mapping[str, Sequence[Pair]], Mapping[str, Any]]],
    overwrite: bool = False,
) -> tuple[dict[str, Any], bool]:
    """Write a corpus with its manifest, where it is not there already.

    Args:
        output_dir: directory to write.
        request: what is asked for, `source` and `target` among it; see `manifest.find_finished`.
        select: called once the directory is taken; returns the pairs of each split and what the manifest tells of
            them.
        overwrite: replace another run in `output_dir`.

    Returns:
        The manifest, and whether the directory was already finished and nothing had to be done.
    """
    source, target = request["source"], request["target"]
    with locked(output_dir) as directory:
        if finished := find_finished(directory, request, overwrite):
            return finished, True
        manifest.claim(directory, file_names(source, target), overwrite)
        splits, details = select()
        contents = corpus_files(splits, source, target)
        return manifest.write_run(directory, request, contents, details, overwrite), False


def check_languages(source: str, target: str) -> None:
    """Refuse a language code that cannot be the end of a file name, or the same code twice.

    Raises:
        InputError: names the code.
    """
    for option, code in (("--source", source), ("--target", target)):
        if len(code) > _LONGEST_CODE or not re.fullmatch(r"[A-Za-z0-9]+([-_][A-Za-z0-9]+)*", code):
            shown = plain_text(code, _LONGEST_CODE)
            raise InputError(f"{option} '{shown}' is not a language code such as 'de' or 'pt-BR'")
    if source == target:
        raise InputError(f"--source and --target are both {source!r}; give two languages")
