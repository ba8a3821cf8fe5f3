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
"""The records of scored pairs, `scores/MODEL.TEST.json` beside `hypotheses/MODEL.TEST.txt`: taken over, or removed.

A record is written before its hypotheses, so that no file of hypotheses lies there that none lists.
"""

import hashlib
import math
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

from omegaconf import DictConfig

from nemo_distill.errors import InputError
from nemo_distill.evaluation.results import (
    HYPOTHESES_DIR,
    MOST_WEIGHTS,
    RESULTS_NAME,
    EvaluationResult,
    Score,
    hypotheses_path,
    refuse_faults,
)
from nemo_distill.evaluation.test_sets import TestInput
from nemo_distill.support.files import (
    is_plain,
    line_bytes,
    prepare_output_dir,
    remove_unfinished,
    sha256,
    write_json_atomic,
    write_lines_atomic,
)
from nemo_distill.support.incoming import read_json
from nemo_distill.support.records import read_record
from nemo_distill.support.text_files import read_lines
from nemo_distill.support.warned import warn

SCORES_DIR = "scores"
PLACES = (RESULTS_NAME, HYPOTHESES_DIR, SCORES_DIR)
"""What an evaluation writes, removes and replaces in its directory."""
_FIX = "move it away, its pair is decoded again then"

Pair = tuple[str, str]
"""Label of a model, name of a test set."""


@dataclass(frozen=True)
class ScoreKey:
    """What decides a score: a record with another key is another evaluation's."""

    format_version: int
    beam_size: int | None
    batch_tokens: int
    device: str
    engine: str
    archive_sha256: str
    source_sha256: str
    target_sha256: str
    further_target_sha256: tuple[str, ...] = ()
    source_language: str | None = None
    """As asked for, where that takes the place of the archive's."""
    target_language: str | None = None


@dataclass
class ScoreRecord:
    """A score and what it belongs to."""

    key: ScoreKey
    parameters: int
    """Number of the model's weights."""
    score: Score
    versions: dict[str, str] = field(default_factory=dict)
    """Releases of the libraries that decoded; empty in records of older releases."""

    @property
    def pair(self) -> Pair:
        """Model and test set."""
        return self.score.model, self.score.test_set


def score_of(hypotheses: list[str], test: TestInput) -> dict[str, float | str]:
    """Return BLEU and chrF with their signatures, and the length, by the names of the fields of `Score`."""
    found = {}
    for name, metric in (("bleu", test.metrics["BLEU"]), ("chrf", test.metrics["chrF2"])):
        result = metric.corpus_score(hypotheses, test.references)
        found[name] = result.score
        found[f"{name}_signature"] = str(metric.get_signature())
        if name == "bleu":
            found["length_ratio"] = result.sys_len / max(result.ref_len, 1)
    return found


def read_finished(output_dir: Path, keys: Mapping[Pair, ScoreKey]) -> dict[Pair, ScoreRecord]:
    """Return the records of an earlier evaluation that this one takes over.

    Raises:
        InputError: the directory holds another evaluation, or something that is none.
    """
    paths = _record_paths(output_dir)
    if not paths:
        prepare_output_dir(output_dir, holds=[RESULTS_NAME])
    _check_results(output_dir)
    finished = {}
    for path in paths:
        record = _read(path)
        wanted = keys.get(record.pair)
        differing = [] if wanted is None else _differing(record.key, wanted)
        if wanted is None or differing:
            why = "is not part of this one" if wanted is None else f"differs in {', '.join(differing)}"
            raise InputError(
                f"'{output_dir}' already holds another evaluation: {' on '.join(record.pair)} {why}; "
                "name its models and test sets too, give another output directory, --renew (which keeps what still "
                "fits), or --overwrite"
            )
        finished[record.pair] = record
    return finished


def read_one(output_dir: Path, pair: Pair, key: ScoreKey) -> ScoreRecord | None:
    """Return the record of one pair, while another process may be writing it; None where it has none with this key."""
    path = record_path(output_dir, pair)
    if not os.path.lexists(path):
        return None
    record = _read(path)
    return record if record.pair == pair and not _differing(record.key, key) else None


def remove_older(output_dir: Path, keys: Mapping[Pair, ScoreKey], renew: bool = False) -> None:
    """Remove an earlier evaluation, after making sure of each file that it is one of its own.

    Args:
        output_dir: its directory.
        keys: of the pairs that will be written anew; hypotheses of others must still be those of their record.
        renew: leave the records that have these keys, under another label too: that becomes the one it has now;
            hypotheses of all others must still be those of their record.

    Raises:
        InputError: one is not; nothing was removed.
    """
    if renew:
        _relabel(output_dir, keys)
    removable = []
    for path in _record_paths(output_dir):
        record = _read(path)
        wanted, hypotheses = keys.get(record.pair), output_dir / record.score.hypotheses
        if renew and record.key == wanted:
            continue
        if os.path.lexists(hypotheses):
            _check_plain(hypotheses)
            if (renew or wanted is None) and sha256(hypotheses) != record.score.hypotheses_sha256:
                raise InputError(f"'{hypotheses}' has changed since it was written, so it stays; move it away")
            removable.append(hypotheses)
        removable.append(path)
    _check_results(output_dir)
    if removable or not renew:
        removable.append(output_dir / RESULTS_NAME)
    for path in removable:
        path.unlink(missing_ok=True)


def _relabel(output_dir: Path, keys: Mapping[Pair, ScoreKey]) -> None:
    """Copy the record of an archive under another label to that of now, and move its hypotheses there."""
    for path in _record_paths(output_dir):
        record = _read(path)
        test, hypotheses = record.score.test_set, output_dir / record.score.hypotheses
        label = next((each for (each, of), key in keys.items() if (of, key) == (test, record.key)), None)
        if label is None or record.pair in keys:
            continue
        score = replace(record.score, model=label, hypotheses=hypotheses_path(label, test))
        new_path, place = record_path(output_dir, (label, test)), output_dir / score.hypotheses
        is_free = not os.path.lexists(new_path) and not os.path.lexists(place)
        if is_free and is_plain(hypotheses) and sha256(hypotheses) == score.hypotheses_sha256:
            write_json_atomic(new_path, asdict(replace(record, score=score)))
            os.replace(hypotheses, place)


def taken_over(
    record: ScoreRecord,
    test: TestInput,
    config: DictConfig,
    output_dir: Path,
    engine: str,
) -> ScoreRecord | None:
    """Return an earlier record after comparing it with its hypotheses, which are scored again; None if they differ.

    So it is with `engine`, the name of what decodes, and with beam and length penalty, which follow from what was
    asked for and the archive's configuration. With another release of sacreBLEU or another tokenizer, whose signature
    is another, the new scores take the place of the old.
    """
    score, place = record.score, output_dir / record.score.hypotheses
    try:
        lines = read_lines(place, score.hypotheses_sha256)
    except InputError as error:
        warn(f"{error}: decoding again")
        return None
    again = replace(score, **score_of(lines, test)) if len(lines) == len(test.sources) else None
    key = record.key
    has_length = again is None or score.length_ratio is None or _same(again.length_ratio, score.length_ratio)
    wrong = (
        again is None
        or score.decoded != sum(1 for line in test.sources if line.strip())
        or (score.engine, score.device) != (engine, key.device)
        or score.beam_size != (key.beam_size or config.beam_size)
        or not _same(score.length_penalty, config.len_pen)
        or (again.bleu_signature == score.bleu_signature and not (_same(again.bleu, score.bleu) and has_length))
        or (again.chrf_signature == score.chrf_signature and not _same(again.chrf, score.chrf))
    )
    if wrong:
        warn(f"'{record_path(output_dir, record.pair)}' does not say what '{place}' is: decoding again")
        return None
    signatures = [(each.bleu_signature, each.chrf_signature) for each in (again, score)]
    if signatures[0] != signatures[1] or score.length_ratio is None:
        record = replace(record, score=again)
        write_json_atomic(record_path(output_dir, record.pair), asdict(record))
    return record


def write(record: ScoreRecord, hypotheses: list[str], output_dir: Path, replaces: bool) -> None:
    """Write a record, then its hypotheses.

    Args:
        record: of this pair.
        hypotheses: one per sentence.
        output_dir: of the evaluation.
        replaces: an earlier record of the pair is there, so that the hypotheses that it lists may go.

    Raises:
        InputError: other hypotheses are there, and no record lists them.
    """
    place = output_dir / record.score.hypotheses
    if os.path.lexists(place):
        _check_plain(place)
        if not replaces and sha256(place) != record.score.hypotheses_sha256:
            raise InputError(f"'{place}' is there already, and not of an evaluation; move it away")
    write_json_atomic(record_path(output_dir, record.pair), asdict(record))
    write_lines_atomic(place, hypotheses)


def hash_of(hypotheses: list[str]) -> str:
    """Return the SHA-256 of the file that `write` writes."""
    return hashlib.sha256(line_bytes(hypotheses)).hexdigest()


def record_path(output_dir: Path, pair: Pair) -> Path:
    """Return where the record of a pair is."""
    return output_dir / SCORES_DIR / f"{pair[0]}.{pair[1]}.json"


def check_sizes(records: Iterable[ScoreRecord], output_dir: Path) -> int:
    """Return the number of the weights of one model.

    Raises:
        InputError: its records differ in it.
    """
    sizes = {record.pair: record.parameters for record in records}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{record_path(output_dir, pair)} {size}" for pair, size in sizes.items())
        raise InputError(f"records of one model differ in its parameters ({listed}); move away what is wrong")
    return next(iter(sizes.values()))


def _record_paths(output_dir: Path) -> list[Path]:
    """Return the paths of all records, after removing what killed processes left beside them."""
    prepare_output_dir(output_dir, overwrite=True)
    for name in (SCORES_DIR, HYPOTHESES_DIR):
        if os.path.lexists(output_dir / name):
            if not stat.S_ISDIR((output_dir / name).lstat().st_mode):
                raise InputError(f"'{output_dir / name}' is no directory, or a link; move it away")
            remove_unfinished(output_dir / name)
    return sorted((output_dir / SCORES_DIR).glob("*.json"))


def _read(path: Path) -> ScoreRecord:
    _check_plain(path)
    record = read_record(ScoreRecord, read_json(path), str(path), _FIX)
    refuse_faults(record.score.faults(), path, _FIX)
    if path.name != f"{record.score.model}.{record.score.test_set}.json":
        raise InputError(f"'{path}' is the record of {' on '.join(record.pair)}; {_FIX}")
    if not 0 < record.parameters <= MOST_WEIGHTS:
        raise InputError(f"'{path}' is damaged: parameters is {record.parameters}; {_FIX}")
    return record


def _check_plain(path: Path) -> None:
    if not is_plain(path):
        raise InputError(f"'{path}' is no regular file, or a link; move it away")


def _check_results(output_dir: Path) -> None:
    """Make sure that a `results.json` that will be replaced is one of an evaluation."""
    path = output_dir / RESULTS_NAME
    if os.path.lexists(path):
        _check_plain(path)
        try:
            EvaluationResult.load(path)
        except InputError as error:
            raise InputError(f"{error}; it stays there: move it away, or give another output directory") from error


def _differing(earlier: ScoreKey, wanted: ScoreKey) -> list[str]:
    return [field.name for field in fields(ScoreKey) if getattr(earlier, field.name) != getattr(wanted, field.name)]


def _same(one: float, other: float) -> bool:
    return math.isclose(one, other, abs_tol=1e-6)
