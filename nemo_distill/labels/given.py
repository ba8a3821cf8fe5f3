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
"""Labels from hypotheses that somebody else wrote: another system, a service, people. Nothing is decoded."""

import collections
import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from nemo_distill.decoding.engine import Hypothesis
from nemo_distill.errors import InputError
from nemo_distill.labels import checks
from nemo_distill.labels.checks import DROPPED, NBEST
from nemo_distill.labels.choosing import write_selection
from nemo_distill.labels.labelling import count_lines
from nemo_distill.labels.nbest import NBest, nbest_line, read_hypothesis
from nemo_distill.labels.settings import NO_SCORES, SelectionSettings
from nemo_distill.support import files, manifest, shard_directory, text_files
from nemo_distill.support.compressed import plain_name
from nemo_distill.support.incoming import LINE_BYTES, parse_json
from nemo_distill.support.lock import locked
from nemo_distill.support.numbered import cut_blocks, numbered, numbers_for, open_numbered
from nemo_distill.support.quoting import one_line, plain_text, shown_names
from nemo_distill.support.share import Share
from nemo_distill.support.texts import GivenText, Texts
from nemo_distill.support.threads import available_cores
from nemo_distill.support.workers import run_in_order

ENGINE = "given"
"""What the manifest says in the place of an engine."""
T = TypeVar("T")
Hashes = tuple[str | list[str], str | list[str]]
_BLOCK_BYTES = 1 << 19
_KEYS = ("text", "score", "length", "cut", "unknown", "mark")
_JSON_LINES = ".jsonl"
_OF_LINE = ("cut", "unknown", "processed")
"""Keys of a line with a list of hypotheses; `processed` is not read: the text of somebody else is raw."""


def label_given(
    hypotheses: GivenText,
    input_path: GivenText,
    output_dir: str | os.PathLike,
    selection: SelectionSettings | None = None,
    *,
    share: Share | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> tuple[dict[str, Any] | None, bool]:
    """Choose among the hypotheses of somebody else, filter them, and write what `label` writes.

    Args:
        hypotheses: line n translates line n of the input, all files of either taken together; text, or JSON where the
            name ends in `.jsonl`, see `docs/pseudo-labels.md`; compressed or not.
        input_path: source text, one sentence a line, in a file or several.
        output_dir: directory to write.
        selection: what to choose and what to refuse; `best` is the highest score, or the first where there is none.
        share: which of several processes this one is; the first one does it all.
        overwrite: replace another run in `output_dir`.
        progress: show a progress bar.

    Returns:
        As `label`.

    Raises:
        InputError: the files differ in their number of lines, a line is not of the form, a score is no finite number,
            `min_score` without scores, or as `label`.

    Example:
        >>> label_given("service.en", "train.de", "labels")  # doctest: +SKIP
    """
    selection, share, directory = selection or SelectionSettings(), share or Share(), Path(output_dir)
    if share.rank > 0:
        return None, False
    given, text = Texts(hypotheses), Texts(input_path)
    with locked(directory, share):
        hashes = text.sha256(), given.sha256()
        lines = count_lines(text, hashes[0])
        numbers = numbers_for(lines, selection.lines_per_file)
        names = checks.file_names(False, NBEST, DROPPED, suffix=selection.suffix, numbers=numbers)
        manifest.refuse_inputs_as_outputs(
            [*text.paths, *given.paths, *selection.inputs], [directory / name for name in names]
        )
        most, scores = _look_through(given, text, hashes, lines)
        if selection.filters.min_score is not None and not scores:
            raise InputError(f"{NO_SCORES}: those in {given} have none")
        decoding = {"verb": "pseudo-label", "hypotheses": hashes[1], "input": hashes[0]}
        request = {**decoding, "num_hypotheses": most, "scores": scores, **selection.request()}
        if finished := manifest.find_finished(directory, request, overwrite):
            checks.check_manifest(finished, directory, names)
            return finished, True
        selection.check(lines, most, request)
        remove_shards(manifest.claim(directory, names, overwrite), overwrite)
        manifest.start_run(directory, names, overwrite)
        nbest = f"{NBEST}{selection.suffix}"
        with open_numbered(directory, {nbest: b""}, selection.lines_per_file) as streams_of:
            for first, content in _made(_nbest_lines, given, text, hashes, selection.lines_per_file):
                streams_of(first)[0].write(content)
        written = Texts([directory / numbered(nbest, number) for number in numbers])
        where = written.paths, written.sha256(), directory
        counted = write_selection(*where, selection, lines, progress, request)
        facts = {"input_name": shown_names(*text.paths), "hypotheses_name": shown_names(*given.paths)}
        return manifest.finish_run(directory, request, names, {"engine": ENGINE, **facts, **counted}), False


def _look_through(given: Texts, text: Texts, hashes: Hashes, lines: int) -> tuple[int, bool]:
    """Return the most hypotheses of a line, at least 1, and whether all of them have scores.

    Raises:
        InputError: as `label_given`.
    """
    count = sum(map(text_files.count_lines, given.paths))
    if count != lines:
        raise InputError(f"{given} has {count} lines but {text} has {lines}; line N must translate line N")
    most, scored = 1, collections.Counter()
    for longest, some in _made(_count, given, text, hashes):
        most = max(most, longest)
        scored.update(some)
    return most, bool(scored[True] and not scored[False])


def remove_shards(directory: Path, overwrite: bool) -> None:
    """Remove what an interrupted run with a teacher left, if it may be replaced."""
    for left in sorted(directory.glob(f"{shard_directory.PREFIX}*")):
        if not overwrite:
            raise InputError(
                f"'{directory}' holds an interrupted run; give another output directory, or --overwrite to discard it"
            )
        shard_directory.remove(left)


def _made(
    work: Callable[..., T], given: Texts, text: Texts, hashes: Hashes, lines_per_file: int | None = None
) -> Iterator[T]:
    """Yield what is made of each block of hypotheses and the lines of the input that they translate, by all cores.

    Raises:
        InputError: a line is not of the form; a file has changed.
    """
    processes = text_files.parts(given.paths, _BLOCK_BYTES, available_cores())
    return run_in_order(work, _blocks(given, text, hashes, lines_per_file), processes, given.paths[0])


def _blocks(
    given: Texts, text: Texts, hashes: Hashes, lines_per_file: int | None
) -> Iterator[tuple[Path, int, int, bytes, list[str]]]:
    sources = text.lines(hashes[0])
    for path, own, first, block in cut_blocks(given.blocks(hashes[1], _BLOCK_BYTES), lines_per_file):
        yield path, own, first, block, list(islice(sources, block.count(b"\n") + 1))
    for _ in sources:  # to its end, where its hash is compared
        pass


def _count(*block) -> tuple[int, collections.Counter]:
    """Return the most hypotheses of a line of a block, and how many have a score and have none."""
    most, scored = 0, collections.Counter()
    for row in _rows(*block):
        most = max(most, len(row.hypotheses))
        scored.update(one.score is not None for one in row.hypotheses)
    return most, scored


def _nbest_lines(path: Path, own: int, first: int, *block) -> tuple[int, bytes]:
    """Return the number of the first line of the input in a block, and the n-best lists."""
    return first, files.line_bytes(map(nbest_line, _rows(path, own, first, *block)))


def _rows(path: Path, own: int, first: int, block: bytes, sources: list[str]) -> Iterator[NBest]:
    """Yield some lines of the input with their hypotheses, best first.

    Args:
        path: a file of hypotheses.
        own: number of the first line in it.
        first: and in the input.
        block: the lines.
        sources: those that they translate.

    Raises:
        InputError: a line is not of the form.
    """
    is_json = plain_name(path).lower().endswith(_JSON_LINES)
    given = text_files.decode_block(path, own, block)
    for place, (source, text) in enumerate(zip(sources, given, strict=True)):
        number = first + place
        if not is_json:
            if _is_record(text):
                raise InputError(
                    f"'{path}', line {own + place}: is JSON, and a file is read as such where its name ends in "
                    f"{_JSON_LINES}; give it that name"
                )
            found = NBest(number, one_line(source), (Hypothesis(one_line(text), None, None),))
        else:
            try:
                found = _read_record(text, number, one_line(source))
            except ValueError as error:
                raise InputError(
                    f"'{path}', line {own + place}: {plain_text(str(error))}; give one object a line, such as "
                    '{"hypotheses": [{"text": "...", "score": -1.5}]}'
                ) from error
        if len(source) + len(text) > LINE_BYTES // 8 and len(nbest_line(found).encode()) > LINE_BYTES:
            raise InputError(  # of six bytes for a control character, it could not be read again
                f"'{path}', line {own + place}: with its source it makes more than {LINE_BYTES >> 20} MB; leave it out"
            )
        yield found


def _is_record(text: str) -> bool:
    """Return whether a line of text is the object that a line of JSON would be."""
    if not (text.startswith("{") and text.rstrip().endswith("}") and '"' in text):
        return False
    try:
        record = parse_json(text)
    except ValueError:
        return False
    return isinstance(record, dict) and not {"text", "hypotheses"}.isdisjoint(record)


def _read_record(text: str, number: int, source: str) -> NBest:
    """Return a line of JSON, the hypothesis of the highest score first.

    Raises:
        ValueError: it is not of the form, or of another line.
    """
    record = parse_json(text)
    if not isinstance(record, dict):
        raise ValueError("it is no object")
    if record.get("line", number) != number or one_line(str(record.get("source", source))) != source:
        raise ValueError("its line or source is that of another line of the input")
    flags = {key: record[key] for key in _OF_LINE if "hypotheses" in record and key in record}
    own = {key: value for key, value in record.items() if key not in ("line", "source", *flags)}
    found = own.pop("hypotheses") if "hypotheses" in own else [dict(own)]
    if ("hypotheses" in record and own) or not isinstance(found, list):
        raise ValueError("it needs a list of hypotheses, or a text, and nothing else")
    flags.pop("processed", None)
    if not all(type(flag) is bool for flag in flags.values()):
        raise ValueError("cut and unknown of a line must be true or false")
    ready = [_hypothesis(each) for each in found]
    if {one.score is None for one in ready} == {True, False}:
        raise ValueError("some of its hypotheses have a score and some have none")
    if {one.length is None for one in ready if one.score is not None} == {True, False}:
        raise ValueError("some of its hypotheses have a length and some have none, so that scores do not compare")
    if ready and ready[0].score is not None:
        ready.sort(key=lambda one: -one.score_per_token)
    return NBest(number, source, tuple(ready), **flags)


def _hypothesis(record: Any) -> Hypothesis:
    if not isinstance(record, dict) or not isinstance(record.get("text"), str):
        raise ValueError("a hypothesis needs a text")
    if unknown := record.keys() - {*_KEYS, "processed"}:
        raise ValueError(f"the key {min(unknown)[:40]!a} is unknown; known are {', '.join(_KEYS)}")
    own = {key: record[key] for key in _KEYS if key in record}
    return read_hypothesis({"score": None, "length": None, **own, "text": one_line(record["text"])})
