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
"""The shards of a cache that is being written: which are whole, which this process makes, and how.

A shard is written beside its place and renamed when it is whole.
"""

import contextlib
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nemo.collections.nlp.models import MTEncDecModel
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from nemo_distill.data.text import batches
from nemo_distill.errors import InputError, TeacherError
from nemo_distill.support import files, incoming
from nemo_distill.support.manifest import MANIFEST, REQUEST, claim_shards, refuse_other_shards
from nemo_distill.support.progress_bar import progress_bar
from nemo_distill.support.quoting import size_text
from nemo_distill.support.records import read_record
from nemo_distill.support.share import Share
from nemo_distill.teachers.cache_arrays import ROW, open_rows, open_tokens, write_array
from nemo_distill.teachers.cache_manifest import CacheRequest, shard_files
from nemo_distill.teachers.cache_pairs import CachePairs
from nemo_distill.teachers.cache_records import Records
from nemo_distill.teachers.cached import teacher_records
from nemo_distill.teachers.frozen import Teacher

_OURS = re.compile(r"\d{6}\.(tokens|rows)\.npy|" + re.escape(REQUEST))


@dataclass(frozen=True)
class CacheRun:
    """How the teacher is run, and what is kept."""

    records: Records
    batch_tokens: int
    device: str
    equal_sources: bool = False
    """Only sources of the same length share a batch, for a teacher whose encoder sees padding."""


def write_shards(
    directory: Path,
    teacher: Teacher,
    model: MTEncDecModel,
    corpus: CachePairs,
    shards: list[slice],
    run: CacheRun,
    share: Share,
) -> None:
    """Write the shards of this process that are missing; in the first process, wait for those of the others."""
    missing = list(range(len(shards)))

    def find_missing(verify: bool = False) -> list[int]:
        missing[:] = [each for each in missing if not _is_whole(directory, each, shards[each], corpus, run, verify)]
        return list(missing)

    def tokens_of(numbers: list[int]) -> int:
        return sum(int(corpus.lengths[shards[number]].sum()) for number in numbers)

    own = share.own(find_missing(verify=True))
    total = tokens_of(range(len(shards)))
    _check_space(directory, tokens_of(own) * run.records.dtype.itemsize)
    pads = model.encoder_tokenizer.pad_id, model.decoder_tokenizer.pad_id
    with progress_bar("cache", total, "tokens", share.rank == 0, total - tokens_of(missing)) as bar:
        for number in own:
            records = _shard_records(teacher, corpus, shards[number], pads, run, bar)
            _write_shard(directory, number, records, corpus, shards[number])
        for left in share.wait_for(find_missing, len(shards)) if share.rank == 0 else ():
            bar.update(total - tokens_of(left) - bar.n)


def cut(lengths: np.ndarray, shard_tokens: int) -> list[slice]:
    """Return the rows of each shard: the row at which a multiple of `shard_tokens` is passed begins the next one."""
    ends = np.flatnonzero(np.diff(np.cumsum(lengths) // shard_tokens)) + 1
    edges = [0, *ends.tolist(), len(lengths)]
    return [slice(start, stop) for start, stop in pairwise(edges)]


def check_cache_shards(directory: Path, request: dict[str, Any], overwrite: bool, processes: int = 1) -> None:
    """Refuse a directory of shards that holds what is not ours, or shards of another request; nothing is changed.

    Args:
        directory: of the shards.
        request: of the cache.
        overwrite: shards of another request will be removed.
        processes: that share the work; several of them remove nothing.

    Raises:
        InputError: it does, or is a link; the message names the file, or in what the requests differ.
    """
    if directory.is_symlink():
        raise InputError(
            f"'{directory}' is a link, which is not followed; remove it, or give another output directory"
        )
    if not directory.exists():
        return
    if not directory.is_dir():
        raise InputError(f"'{directory}' is no directory; move it elsewhere, or give another output directory")
    entries = sorted(directory.iterdir())
    unknown = next((path for path in entries if not _is_ours(path)), None)
    if unknown is not None:
        raise InputError(f"'{unknown}' is no file of a cache; move it elsewhere, or give another output directory")
    if all(files.is_unfinished(path) for path in entries):
        return
    if overwrite and not are_of_a_cache(directory):
        raise InputError(
            f"'{directory}' has files named like shards, and neither {REQUEST} in it nor {MANIFEST} beside it says "
            "that they are a cache's; move them elsewhere, or give another output directory"
        )
    if overwrite:
        return
    if (directory / REQUEST).is_file():
        discard = f"remove '{directory}' to discard it"
        refuse_other_shards(directory, directory.parent, request, *([discard] if processes > 1 else []))
    else:
        raise InputError(f"'{directory}' has shards, and no {REQUEST} says of what; give another output directory")


def are_of_a_cache(directory: Path) -> bool:
    """Return whether the request noted beside the shards, or the manifest above them, is a cache's."""
    for path, part in ((directory / REQUEST, None), (directory.parent / MANIFEST, "request")):
        with contextlib.suppress(InputError):
            content = incoming.read_json(path)
            if part is not None:
                content = content.get(part) if isinstance(content, dict) else None
            read_record(CacheRequest, content, str(path), "")
            return True
    return False


def claim_cache_shards(directory: Path, request: dict[str, Any], overwrite: bool, share: Share) -> None:
    """Note the request beside the shards; with `overwrite` remove those that are there. `check_cache_shards` first."""
    if overwrite and directory.exists():
        for path in sorted(directory.iterdir()):
            if _is_ours(path):
                path.unlink()
    directory.mkdir(parents=True, exist_ok=True)
    if not (directory / REQUEST).is_file():
        claim_shards(directory, request)
    if share.world_size == 1:  # others may be writing already
        files.remove_unfinished(directory)


def _is_ours(path: Path) -> bool:
    """Return whether something in the directory of shards is what this module leaves there."""
    return files.is_unfinished(path) or bool(_OURS.fullmatch(path.name) and path.is_file() and not path.is_symlink())


def _is_whole(directory: Path, number: int, rows: slice, corpus: CachePairs, run: CacheRun, verify: bool) -> bool:
    """Return whether an earlier run, or another process, wrote this shard; with `verify` each record is looked at."""
    tokens_path, rows_path = shard_files(directory, number)
    if not (tokens_path.is_file() and rows_path.is_file()):
        return False
    try:
        tokens = open_tokens(tokens_path, run.records, verify=verify)
        found = open_rows(rows_path, len(tokens))
    except TeacherError:
        return False
    whole = len(tokens) == corpus.lengths[rows].sum() and np.array_equal(found["tokens"], corpus.lengths[rows])
    return bool(whole and np.array_equal(found["key"], corpus.keys(rows)))


def _check_space(directory: Path, wanted: int) -> None:
    free = shutil.disk_usage(directory).free
    if wanted > free:
        raise InputError(
            f"'{directory}' needs {size_text(wanted)} more and its disk has {size_text(free)}; give another directory "
            "or smaller --top-k and --sampled"
        )


def _shard_records(
    teacher: Teacher, corpus: CachePairs, rows: slice, pads: tuple[int, int], run: CacheRun, bar: tqdm
) -> np.ndarray:
    """Run the teacher on the rows of one shard; return their records, row after row."""
    (sources, targets), lengths, keys = corpus.rows(rows), corpus.lengths[rows], corpus.keys(rows)
    ends = np.cumsum(lengths)
    found = np.empty(int(ends[-1]), run.records.dtype)
    for places in _batches(sources, targets, run):
        source, target = (
            pad_sequence([torch.from_numpy(side[place]).long() for place in places], True, pad).to(run.device)
            for side, pad in zip((sources, targets), pads, strict=True)
        )
        inputs, labels = target[:, :-1], target[:, 1:]  # as NeMo's training data set gives them
        batch = [source, (source != pads[0]).int(), inputs, (inputs != pads[1]).int(), labels]
        records = teacher_records(teacher, batch, pads[1], run.records, keys[places])
        for place, part in zip(places, np.split(records, np.cumsum(lengths[places])[:-1]), strict=True):
            found[ends[place] - lengths[place] : ends[place]] = part
        bar.update(len(records))
    return found


def _batches(sources: list[np.ndarray], targets: list[np.ndarray], run: CacheRun) -> Iterator[list[int]]:
    sizes = {place: len(pair[0]) + len(pair[1]) for place, pair in enumerate(zip(sources, targets, strict=True))}
    groups = {len(source): {} for source in sources} if run.equal_sources else {None: sizes}
    for place, source in enumerate(sources) if run.equal_sources else ():
        groups[len(source)][place] = sizes[place]
    for group in groups.values():
        yield from batches(group, run.batch_tokens)


def _write_shard(directory: Path, number: int, records: np.ndarray, corpus: CachePairs, rows: slice) -> None:
    lengths = corpus.lengths[rows]
    table = np.empty(len(lengths), ROW)
    table["key"], table["tokens"] = corpus.keys(rows), lengths
    table["start"] = np.cumsum(lengths) - lengths
    for path, array in zip(shard_files(directory, number), (records, table), strict=True):
        with files.atomic_path(path) as temporary, open(temporary, "wb") as stream:
            write_array(stream, array)
