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
"""Pseudo-labels: what an engine says to every line of a text, chosen, filtered and written with a manifest."""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nemo_distill.decoding.engine import Engine, SearchSettings
from nemo_distill.errors import InputError
from nemo_distill.labels import checks
from nemo_distill.labels.agreement import checked_engine
from nemo_distill.labels.checks import DROPPED, NBEST
from nemo_distill.labels.choosing import Forecast, write_selection
from nemo_distill.labels.disturbing import DisturbedTexts
from nemo_distill.labels.filtering import check_least_score
from nemo_distill.labels.settings import SelectionSettings, check_shard_lines
from nemo_distill.labels.shards import FORMAT, MOST_LINE_BYTES, Shards
from nemo_distill.support import incoming, manifest, text_files
from nemo_distill.support.composed import Decomposed
from nemo_distill.support.lock import locked
from nemo_distill.support.numbered import numbered, numbers_for
from nemo_distill.support.quoting import shown_names
from nemo_distill.support.seen import Seen
from nemo_distill.support.share import Share
from nemo_distill.support.texts import GivenText, Texts
from nemo_distill.support.warned import warn

NAMES = checks.file_names(False, NBEST, DROPPED)
"""Of all labels; with a teacher that processes text there are two more, see `checks.file_names`."""


def label(
    open_engine: Callable[[], Engine],
    input_path: GivenText,
    output_dir: str | os.PathLike,
    search: SearchSettings | None = None,
    selection: SelectionSettings | None = None,
    *,
    teacher: Mapping[str, Any],
    details: Callable[[], Mapping[str, Any]] = dict,
    check: Callable[[], None] | None = None,
    disturb: int | None = None,
    batch_tokens: int = 4096,
    shard_lines: int = 5000,
    share: Share | None = None,
    overwrite: bool = False,
    force: bool = False,
    progress: bool = True,
) -> tuple[dict[str, Any] | None, bool]:
    """Translate a text with an engine, choose among the hypotheses, filter them, and write all that with a manifest.

    Killed at any point, the same call goes on where it was, and its files are those of an undisturbed run, byte for
    byte. See `docs/pseudo-labels.md` for the files.

    Args:
        open_engine: called at most once, and only if there is something to decode.
        input_path: source text, one sentence a line, in a file or several.
        output_dir: directory to write.
        search: how to search; by default a beam of 4 and one hypothesis.
        selection: what to choose and what to refuse; by default the likeliest hypothesis and the default filters.
        teacher: what identifies the engine's models, as JSON values; part of the request.
        details: called at the end, gives further keys of the manifest.
        check: called before the work, and only if there is some; raises where the input does not serve.
        disturb: translate so many disturbed copies of the text in its place, see `labels.disturbing`.
        batch_tokens: most source tokens in a batch, padding included. A run may go on with another value.
        shard_lines: lines translated as a whole; a killed process loses at most so many.
        share: which of several processes this one is.
        overwrite: replace another run in `output_dir`.
        force: go on though the engine's model knows nothing of the gold text, see `nemo_distill.data.agreement`.
        progress: show progress bars.

    Returns:
        The manifest, None in a process that leaves the end to the first one; and whether nothing had to be done.

    Raises:
        InputError: missing, empty or broken files, or files that change meanwhile; settings that do not fit;
            `output_dir` is taken, or another process works in it; the gold text is not one that the model knows.
        StorageError: there is no room for the table of pairs that `drop_duplicates` needs.
        TimeoutError: another process has stopped.
    """
    search, selection, share = search or SearchSettings(), selection or SelectionSettings(), share or Share()
    check_shard_lines(shard_lines)
    directory, text = Path(output_dir), Texts(input_path)
    settings = {**dataclasses.asdict(search), "shard_lines": shard_lines}
    if disturb is not None:  # requests of earlier releases have no such key
        text, settings["disturb"] = DisturbedTexts(input_path, disturb, search.seed), disturb
        if selection.target is not None:
            raise InputError(
                f"disturb: got {disturb} with gold translations, which no disturbed line has; leave out one"
            )
        if selection.tests:
            raise InputError(
                f"disturb: got {disturb} with test sets, whose lines are not found once they are disturbed; take them "
                "out of the input (leak-check finds them), and leave out --test"
            )
    check_least_score(selection.filters)
    with locked(directory, share):
        digest = text.sha256()
        lines = count_lines(text, digest, warns=share.rank == 0) * (disturb or 1)
        decoding = {"verb": "pseudo-label", **teacher, "input": digest, **settings}
        request = {**decoding, **selection.request()}
        numbers = numbers_for(lines, selection.lines_per_file)
        all_names = checks.file_names(True, NBEST, DROPPED, suffix=selection.suffix, numbers=numbers)
        manifest.refuse_inputs_as_outputs([*text.paths, *selection.inputs], [directory / name for name in all_names])
        shards = Shards(directory, decoding, text, lines, shard_lines, share)
        if finished := _find_finished(directory, request, decoding, overwrite):
            return _leave(shards, finished), True
        if check is not None:
            check()
        selection.check(lines, search.num_hypotheses, request)
        if share.rank == 0:
            manifest.claim(directory, all_names, overwrite)
        shards.claim(overwrite)
        if share.rank > 0 and (finished := _find_finished(directory, request, decoding, overwrite)):
            return _leave(shards, finished), True  # meanwhile
        if selection.filters.drop_duplicates and share.rank == 0:
            Seen(directory, lines * selection.keep)  # is there room? It is made anew when all is translated
        texts = text, Texts(selection.target) if selection.target else None, lines, force, share.rank == 0
        with shards.progress_bar(progress) as bar:
            describe = None if bar.disable else Forecast(selection, request).add
            shards.decode(lambda: checked_engine(open_engine(), *texts), search, batch_tokens, bar, describe)
            if share.rank > 0:
                return None, False
            shards.wait_for_others(bar)
        facts = {
            "input_name": shown_names(*text.paths),
            **({} if disturb is None else {"disturb": disturb}),
            **details(),
        }
        return _write_result(shards, request, selection, facts, overwrite, progress), False


def _write_result(
    shards: Shards,
    request: Mapping[str, Any],
    selection: SelectionSettings,
    facts: Mapping[str, Any],
    overwrite: bool,
    progress: bool,
) -> dict[str, Any]:
    """Put the shards together, choose among the hypotheses, write the manifest and return it."""
    directory, engine = shards.path.parent, shards.engine()
    numbers = numbers_for(shards.lines, selection.lines_per_file)
    names = checks.file_names(engine.processed, NBEST, DROPPED, suffix=selection.suffix, numbers=numbers)
    manifest.start_run(directory, names, overwrite)
    nbest = f"{NBEST}{selection.suffix}"
    hashes = shards.merge(nbest, selection.lines_per_file)
    where = [directory / numbered(nbest, number) for number in numbers], hashes, directory
    forms = engine.processed, checks.reads_processed(request)
    counts = write_selection(*where, selection, shards.lines, progress, request, *forms)
    facts = {"engine": engine.name, "languages": engine.languages, "nbest_format": FORMAT, **facts, **counts}
    result = manifest.finish_run(directory, request, names, facts)
    shards.remove()
    return result


def _leave(shards: Shards, finished: dict[str, Any]) -> dict[str, Any]:
    """Return the manifest of a finished directory, after removing what a process that was killed at its end left."""
    directory = shards.path.parent
    checks.check_manifest(finished, directory, checks.listed_names(finished, NBEST, DROPPED))
    shards.remove()
    return finished


def count_lines(text: Texts, sha256: str | Sequence[str], warns: bool = True) -> int:
    """Return the number of lines of the input, of which each may serve; warn of decomposed letters, or not.

    Raises:
        InputError: there is none, one is very long, or the file has changed since its hash was noted.
    """
    hashes = [sha256] if isinstance(sha256, str) else sha256
    return sum(_count_lines(path, digest, warns) for path, digest in zip(text.paths, hashes, strict=True))


def _count_lines(path: Path, sha256: str, warns: bool) -> int:
    number, decomposed = 0, Decomposed()
    for number, line in enumerate(text_files.iterate_lines(path, sha256), start=1):
        decomposed.look([line])
        if len(line) > MOST_LINE_BYTES // 4 and len(line.encode()) > MOST_LINE_BYTES:
            raise InputError(
                f"'{path}', line {number}: more than {MOST_LINE_BYTES >> 20} MB; give one sentence a line"
            )
    if not number:
        raise InputError(f"'{path}' is empty; give a file with one sentence a line")
    if warns and (warning := decomposed.warning(f"'{path}'")):
        warn(warning)
    return number


def _find_finished(
    directory: Path, request: Mapping[str, Any], decoding: Mapping[str, Any], overwrite: bool
) -> dict[str, Any] | None:
    """Return what `manifest.find_finished` returns; where only the selection is another, the error names `select`."""
    try:
        return manifest.find_finished(directory, request, overwrite)
    except InputError as error:
        content = incoming.read_json(directory / manifest.MANIFEST)
        earlier = content.get("request", {}) if isinstance(content, dict) else {}
        if not isinstance(earlier, dict):
            raise
        if earlier != request and all(earlier.get(key) == value for key, value in decoding.items()):
            raise InputError(
                f"{error}. To choose or filter anew without decoding: nemo-distill select --nbest {directory}"
            ) from error
        raise
