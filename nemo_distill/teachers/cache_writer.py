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
"""Write a teacher's outputs for a training text as a `LogitCache`; see there for the format.

A shard is written beside its place and renamed when it is whole. A run that was killed goes on with the shards that
are missing; the manifest comes last.
"""

import math
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nemo.collections.nlp.models import MTEncDecModel
from nemo.utils import logging
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from nemo_distill.config.section import PRECISIONS, CaptureConfig, TeacherConfig
from nemo_distill.data.text import batches, no_bpe_dropout
from nemo_distill.errors import InputError
from nemo_distill.support import files
from nemo_distill.support.manifest import (
    REQUEST,
    claim_shards,
    find_finished,
    finish_run,
    refuse_other_shards,
    start_run,
)
from nemo_distill.support.share import Share
from nemo_distill.teachers.cache_format import (
    FORMAT,
    ROW,
    SHARDS,
    pair_keys,
    shard_files,
    token_dtype,
    vocabulary_hash,
)
from nemo_distill.teachers.cached import teacher_records
from nemo_distill.teachers.frozen import Teacher, check_teacher
from nemo_distill.teachers.opening import live_teacher, load_teacher_models


@dataclass(frozen=True)
class CacheSettings:
    """What decides the content of a cache, beside teacher and text."""

    top_k: int = 16
    """Words kept of each distribution."""
    temperatures: tuple[float, ...] = (1.0,)
    """Temperatures that a student can be trained at."""
    precision: str = "fp32"
    """What the teacher computes in: `fp32`, `bf16` or `fp16`."""
    max_seq_length: int | None = None
    """Longer pairs are left out, counted with BOS and EOS, as `train_ds.clean` does; by default what the teacher can
    take."""
    shard_tokens: int = 1_000_000
    """Target tokens of a shard, about."""

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise InputError(f"top k is {self.top_k}; give at least 1")
        bad = [each for each in self.temperatures if not (math.isfinite(each) and each > 0)]
        if bad or not self.temperatures:
            raise InputError(f"temperatures are {list(self.temperatures)}; give finite numbers above 0, such as 1 2")
        if self.precision not in PRECISIONS:
            raise InputError(f"precision is '{self.precision}'; give one of {', '.join(PRECISIONS)}")
        for name in ("max_seq_length", "shard_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}; give at least 1")

    def request(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        temperatures = sorted({float(each) for each in self.temperatures})
        return {**vars(self), "temperatures": temperatures}


@dataclass
class _Corpus:
    """The pairs to cache, each once."""

    sources: list[np.ndarray]
    targets: list[np.ndarray]
    keys: np.ndarray
    dropped: dict[str, int]

    @property
    def lengths(self) -> np.ndarray:
        """Records of each pair: its target tokens without BOS."""
        return np.array([len(target) - 1 for target in self.targets], dtype=np.int64)


@dataclass(frozen=True)
class _Run:
    """How the teacher is run, and what is kept."""

    temperatures: list[float]
    dtype: np.dtype
    batch_tokens: int
    device: str


def write_cache(
    teachers: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    output_dir: str | os.PathLike,
    settings: CacheSettings | None = None,
    *,
    batch_tokens: int = 4096,
    device: str = "cpu",
    share: Share | None = None,
    overwrite: bool = False,
    announce: Callable[[str], None] = logging.info,
) -> tuple[dict[str, Any] | None, bool]:
    """Write the cache, or go on with one that was interrupted, or verify one that is finished.

    Args:
        teachers: a `.nemo` archive, or several: the cache holds the mean of their probabilities.
        pairs: text files of the training, source and target, one sentence a line.
        output_dir: gets the cache.
        settings: what is kept.
        batch_tokens: tokens of a batch, source and target, padding included.
        device: `cpu`, `cuda` or `cuda:N`.
        share: which of several processes this one is.
        overwrite: replace another cache there.
        announce: called with the size before the work starts.

    Returns:
        The manifest, None in a process that leaves the end to the first one; and whether the cache was there before.

    Raises:
        InputError: a file or setting cannot be used, the directory holds another cache, or the disk is too small.
        TimeoutError: another process has stopped.
        TeacherError: a teacher cannot be opened, or gives NaN.

    Example:
        >>> write_cache(["teacher.nemo"], [("train.de", "train.en")], "cache")  # doctest: +SKIP
    """
    settings, output_dir, share = settings or CacheSettings(), Path(output_dir), share or Share()
    if overwrite and share.world_size > 1 and output_dir.exists():
        raise InputError(f"overwrite: {share.world_size} processes cannot replace '{output_dir}'; remove it first")
    config = TeacherConfig(model_path=list(teachers), precision=settings.precision)
    check_teacher(config)
    lines = [pair for source, target in pairs for pair in files.read_parallel(source, target)]
    request = {
        "teachers": [files.sha256(path) for path in teachers],
        "text": [[files.sha256(path) for path in pair] for pair in pairs],
        **settings.request(),
    }
    finished = find_finished(output_dir, request, overwrite)
    if finished is not None:
        return finished, True
    models = load_teacher_models(config)
    corpus = _tokenize(lines, models, settings.max_seq_length)
    vocabulary_size = _vocabulary_size(models[0], settings.top_k)
    dtype = token_dtype(settings.top_k, len(request["temperatures"]), vocabulary_size)
    run = _Run(request["temperatures"], dtype, batch_tokens, device)
    shards = _cut(corpus.lengths, settings.shard_tokens)
    tokens = int(corpus.lengths.sum())
    (announce if share.rank == 0 else logging.debug)(
        f"{output_dir}: {tokens} target tokens of {len(corpus.keys)} pairs, {dtype.itemsize} bytes each, "
        f"{tokens * dtype.itemsize / 1e6:.1f} MB in {len(shards)} shards"
    )
    if share.rank == 0:
        start_run(output_dir, [], overwrite)
    _claim_shards(output_dir / SHARDS, request, overwrite, share)
    teacher = live_teacher(models, config, CaptureConfig())
    _write_shards(output_dir, teacher, models[0], corpus, shards, run, share)
    if share.rank > 0:
        return None, False
    _remove_partial(output_dir / SHARDS)
    names = [f"{SHARDS}/{path.name}" for number in range(len(shards)) for path in shard_files(output_dir, number)]
    sides = {"source": models[0].encoder_tokenizer, "target": models[0].decoder_tokenizer}
    details = {
        "cache_format": FORMAT,
        "vocabulary_size": vocabulary_size,
        "vocabularies": {side: vocabulary_hash(tokenizer) for side, tokenizer in sides.items()},
        "pairs": len(corpus.keys),
        "left_out": corpus.dropped,
        "tokens": tokens,
        "shards": [len(corpus.keys[rows]) for rows in shards],
        "bytes": {name: (output_dir / name).stat().st_size for name in names},
    }
    return finish_run(output_dir, request, names, details), False


def _write_shards(
    directory: Path,
    teacher: Teacher,
    model: MTEncDecModel,
    corpus: _Corpus,
    shards: list[slice],
    run: _Run,
    share: Share,
) -> None:
    """Write the shards of this process that are missing; in the first process, wait for those of the others."""
    missing = list(range(len(shards)))

    def find_missing() -> list[int]:
        missing[:] = [each for each in missing if not _is_whole(directory, each, shards[each], corpus, run.dtype)]
        return list(missing)

    def tokens_of(numbers: list[int]) -> int:
        return sum(int(corpus.lengths[shards[number]].sum()) for number in numbers)

    own = share.own(find_missing())
    total = tokens_of(range(len(shards)))
    _check_space(directory, tokens_of(own) * run.dtype.itemsize)
    pads = model.encoder_tokenizer.pad_id, model.decoder_tokenizer.pad_id
    options = {"mininterval": 0.5 if sys.stderr.isatty() else 30.0, "disable": share.rank > 0}
    with tqdm(total=total, initial=total - tokens_of(missing), unit=" tokens", desc="cache", **options) as bar:
        for number in own:
            records = _shard_records(teacher, corpus, shards[number], pads, run, bar)
            _write_shard(directory, number, records, corpus, shards[number])
        for left in share.wait_for(find_missing, len(shards)) if share.rank == 0 else ():
            bar.n = total - tokens_of(left)
            bar.refresh()


def _tokenize(lines: list[tuple[str, str]], models: list[MTEncDecModel], max_seq_length: int | None) -> _Corpus:
    """Return the pairs as NeMo's training data set gives them, each once, without those that are too long."""
    if models[0].multilingual:
        raise InputError("the teacher is multilingual; only models of one pair of languages can be cached")
    longest = [min(getattr(model, side).max_sequence_length for model in models) for side in ("encoder", "decoder")]
    sides = []
    for column, tokenizer in enumerate((models[0].encoder_tokenizer, models[0].decoder_tokenizer)):
        with no_bpe_dropout(tokenizer):
            sides.append([
                np.array([tokenizer.bos_id, *tokenizer.text_to_ids(pair[column]), tokenizer.eos_id], dtype=np.int32)
                for pair in tqdm(lines, desc="tokenizing", unit=" lines", leave=False)
            ])  # fmt: skip
    keys = pair_keys(zip(*sides, strict=True))
    first = {key: place for place, key in reversed(list(enumerate(map(bytes, keys))))}
    kept, dropped = [], {"too_long": 0, "copies": 0}
    for place, (source, target) in enumerate(zip(*sides, strict=True)):
        limit = max_seq_length or sys.maxsize
        if len(source) > min(limit, longest[0]) or len(target) > min(limit, longest[1] + 1):
            dropped["too_long"] += 1
        elif first[bytes(keys[place])] != place:
            dropped["copies"] += 1
        else:
            kept.append(place)
    if not kept:
        raise InputError(f"no sentence pair is left of {len(lines)}; give more text, or a larger --max-seq-length")
    return _Corpus(*([side[place] for place in kept] for side in sides), keys[kept], dropped)


def _vocabulary_size(model: MTEncDecModel, top_k: int) -> int:
    size = model.decoder.vocab_size
    if top_k > size:
        raise InputError(f"top k is {top_k}, above the {size} words of the teacher's vocabulary; give at most {size}")
    return size


def _cut(lengths: np.ndarray, shard_tokens: int) -> list[slice]:
    """Return the rows of each shard: the row at which a multiple of `shard_tokens` is passed begins the next one."""
    ends = np.flatnonzero(np.diff(np.cumsum(lengths) // shard_tokens)) + 1
    edges = [0, *ends.tolist(), len(lengths)]
    return [slice(start, stop) for start, stop in pairwise(edges)]


def _claim_shards(directory: Path, request: dict[str, Any], overwrite: bool, share: Share) -> None:
    """Refuse to go on with shards of another request; in the first process, note the request beside the shards."""
    if overwrite and directory.exists():
        shutil.rmtree(directory)
    elif (directory / REQUEST).is_file():
        refuse_other_shards(directory, directory.parent, request)
    directory.mkdir(parents=True, exist_ok=True)
    if share.rank == 0:
        claim_shards(directory, request)
    if share.world_size == 1:  # others may be writing already
        _remove_partial(directory)


def _remove_partial(directory: Path) -> None:
    """Remove what runs that were killed while writing left behind."""
    for left in directory.glob(".*.tmp"):
        left.unlink(missing_ok=True)


def _is_whole(directory: Path, number: int, rows: slice, corpus: _Corpus, dtype: np.dtype) -> bool:
    """Return whether an earlier run wrote this shard."""
    tokens_path, rows_path = shard_files(directory, number)
    if not (tokens_path.is_file() and rows_path.is_file()):
        return False
    try:
        tokens = np.load(tokens_path, mmap_mode="r", allow_pickle=False)
        found = np.load(rows_path, allow_pickle=False)
    except (OSError, ValueError):
        return False
    whole = tokens.dtype == dtype and len(tokens) == corpus.lengths[rows].sum() and found.dtype == ROW
    return bool(whole and np.array_equal(found["key"], corpus.keys[rows]))


def _check_space(directory: Path, wanted: int) -> None:
    free = shutil.disk_usage(directory).free
    if wanted > free:
        raise InputError(
            f"'{directory}' needs {wanted / 1e9:.1f} GB more and its disk has {free / 1e9:.1f} GB; give another "
            "directory or a smaller --top-k"
        )


def _shard_records(
    teacher: Teacher, corpus: _Corpus, rows: slice, pads: tuple[int, int], run: _Run, bar: tqdm
) -> np.ndarray:
    """Run the teacher on the rows of one shard; return their records, row after row."""
    sources, targets, lengths = corpus.sources[rows], corpus.targets[rows], corpus.lengths[rows]
    ends = np.cumsum(lengths)
    found = np.empty(int(ends[-1]), run.dtype)
    sizes = {place: len(pair[0]) + len(pair[1]) for place, pair in enumerate(zip(sources, targets, strict=True))}
    for places in batches(sizes, run.batch_tokens):
        source, target = (
            pad_sequence([torch.from_numpy(side[place]).long() for place in places], True, pad).to(run.device)
            for side, pad in zip((sources, targets), pads, strict=True)
        )
        inputs, labels = target[:, :-1], target[:, 1:]  # as NeMo's training data set gives them
        batch = [source, (source != pads[0]).int(), inputs, (inputs != pads[1]).int(), labels]
        records = teacher_records(teacher, batch, pads[1], run.temperatures, run.dtype)
        for place, part in zip(places, np.split(records, np.cumsum(lengths[places])[:-1]), strict=True):
            found[ends[place] - lengths[place] : ends[place]] = part
        bar.update(len(records))
    return found


def _write_shard(directory: Path, number: int, records: np.ndarray, corpus: _Corpus, rows: slice) -> None:
    lengths = corpus.lengths[rows]
    table = np.empty(len(lengths), ROW)
    table["key"], table["tokens"] = corpus.keys[rows], lengths
    table["start"] = np.cumsum(lengths) - lengths
    for path, array in zip(shard_files(directory, number), (records, table), strict=True):
        with files.atomic_path(path) as temporary, open(temporary, "wb") as stream:
            np.save(stream, array, allow_pickle=False)
