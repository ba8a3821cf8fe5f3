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

A run that was killed goes on with the shards that are missing (`cache_shards`); the manifest comes last.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import astuple, replace
from functools import reduce
from operator import and_
from pathlib import Path
from typing import Any

import numpy as np
from nemo.collections.nlp.models import MTEncDecModel
from nemo.utils import logging

from nemo_distill.archives.reader import archive_sha256
from nemo_distill.archives.restore import read_archive_config
from nemo_distill.config.languages import Languages
from nemo_distill.config.section import CaptureConfig, TeacherConfig
from nemo_distill.data.agreement import Sample, spread
from nemo_distill.data.encoders import depends_on_padding
from nemo_distill.data.languages import language_tokens, listed_languages, listed_side
from nemo_distill.data.positions import Positions
from nemo_distill.data.tokens.store import TOKEN_STORE, is_large
from nemo_distill.data.vocabulary import plain_size, vocabulary_hash
from nemo_distill.errors import InputError
from nemo_distill.support import files, text_files
from nemo_distill.support.lock import locked
from nemo_distill.support.manifest import (
    MANIFEST,
    claim,
    find_finished,
    finish_run,
    refuse_inputs_as_outputs,
    start_run,
)
from nemo_distill.support.quoting import size_text
from nemo_distill.support.share import Share
from nemo_distill.support.texts import Texts
from nemo_distill.support.threads import settle_torch_threads
from nemo_distill.teachers.agreement import check_cached_text
from nemo_distill.teachers.cache_index import write_index
from nemo_distill.teachers.cache_manifest import (
    FORMAT,
    INDEX,
    MOST_SHARDS,
    SHARDS,
    file_names,
    read_cache_manifest,
    shard_files,
)
from nemo_distill.teachers.cache_pairs import CachePairs, Limits, read_pairs
from nemo_distill.teachers.cache_records import Records
from nemo_distill.teachers.cache_settings import CacheSettings
from nemo_distill.teachers.cache_shards import (
    CacheRun,
    are_of_a_cache,
    check_cache_shards,
    claim_cache_shards,
    cut,
    write_shards,
)
from nemo_distill.teachers.cache_text import OF_LABELS, processing_of, read_form, text_request, texts_of
from nemo_distill.teachers.frozen import check_teacher
from nemo_distill.teachers.multilingual import MultilingualTeacher, SourceAxes
from nemo_distill.teachers.opening import live_teacher, load_teacher_models


def write_cache(
    teachers: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    output_dir: str | os.PathLike,
    settings: CacheSettings | None = None,
    *,
    labels: Sequence[tuple[str, str]] = (),
    form: str | None = None,
    languages: Languages | None = None,
    batch_tokens: int = 4096,
    device: str = "cpu",
    target_languages: Sequence[str] = (),
    share: Share | None = None,
    overwrite: bool = False,
    force: bool = False,
    token_store: str | os.PathLike | None = None,
    announce: Callable[[str], None] = logging.info,
) -> tuple[dict[str, Any] | None, bool]:
    """Write the cache, or go on with one that was interrupted, or verify one that is finished.

    Args:
        teachers: a `.nemo` archive, or several: the cache holds the mean of their probabilities.
        pairs: text files of the training, source and target, one sentence a line.
        output_dir: gets the cache.
        settings: what is kept.
        labels: further pairs of files, of pseudo-labels; raw ones are processed.
        form: of `pairs`: `raw` text is processed by the teacher's processors; `processed` text, and None, which is not
            looked at, is read as it is.
        languages: of the teacher's text, in place of what its archive says.
        batch_tokens: tokens of a batch, source and target, padding included.
        device: `cpu`, `cuda` or `cuda:N`.
        target_languages: that a one-to-many teacher is told, one for each pair of files; by default that of
            `languages` for all.
        share: which of several processes this one is.
        overwrite: replace another cache there.
        force: go on though the teacher knows nothing of the text, see `nemo_distill.data.agreement`.
        token_store: a directory where token ids are found, or are put; None: they are made in memory, of a large text
            in the output directory. See `nemo_distill.data.tokens`.
        announce: called with the size, and what the teacher makes of the text, before the work starts.

    Returns:
        The manifest, None in a process that leaves the end to the first one; and whether the cache was there before.

    Raises:
        InputError: a file or setting cannot be used, the directory holds another cache, or the disk is too small.
        TimeoutError: another process has stopped.
        TeacherError: a teacher cannot be opened, gives NaN, or knows nothing of a text.

    Example:
        >>> write_cache(["teacher.nemo"], [("train.de", "train.en")], "cache")  # doctest: +SKIP
    """
    settings, output_dir, share = settings or CacheSettings(), Path(output_dir), share or Share()
    if token_store is not None:
        files.check_no_file(Path(token_store))
    if overwrite and share.world_size > 1:
        if os.path.lexists(output_dir / MANIFEST):
            raise InputError(f"overwrite: {share.world_size} processes cannot replace '{output_dir}'; remove it first")
        overwrite = False
    languages = languages or Languages()
    config = TeacherConfig(
        model_path=list(teachers),
        precision=settings.precision,
        source_language=languages.source,
        target_language=languages.target,
    )
    check_teacher(config)
    config = replace(config, sha256=[archive_sha256(path) for path in teachers])
    processing = processing_of(config)
    texts = [*read_form(pairs, form, processing), *read_form(labels, OF_LABELS, processing)]
    pairs = [*pairs, *labels]
    request = {"teachers": config.sha256, **text_request(texts, processing), **settings.request()}
    asked = target_languages or ([languages.target] if languages.target else [])
    if spoken := _languages_of_pairs(teachers[0], asked, len(pairs)):
        request["target_languages"] = spoken
    outputs = [output_dir / MANIFEST, output_dir / SHARDS]
    refuse_inputs_as_outputs([*teachers, *(path for pair in pairs for path in pair)], outputs)
    with locked(output_dir, share):
        if find_finished(output_dir, request, overwrite) is not None:
            lines = sum(text_files.count_lines(source) for source, _ in pairs)
            return read_cache_manifest(output_dir, lines), True
        check_cache_shards(output_dir / SHARDS, request, overwrite, share.world_size)
        if share.rank == 0:
            written = [] if are_of_a_cache(output_dir / SHARDS) else INDEX  # else the index is its own
            claim(output_dir, written, overwrite)
        models = load_teacher_models(config)
        tokens = {name: token for name, token in language_tokens(models[0]).items() if name in spoken}
        prefixes = [tokens.get(name) for name in spoken] or [None] * len(texts)
        if token_store is None and is_large(path for pair in pairs for path in pair):
            token_store = output_dir / TOKEN_STORE
        corpus = read_pairs(
            texts,
            processing,
            prefixes,
            (models[0].encoder_tokenizer, models[0].decoder_tokenizer),
            Limits(settings.max_seq_length, _positions(models)),
            token_store,
            share.world_size,
        )
        vocabulary_size = _vocabulary_size(models[0], settings)
        records = Records(settings.top_k, settings.sampled, request["temperatures"], vocabulary_size)
        equal_sources = any(map(depends_on_padding, models))
        run = CacheRun(records, batch_tokens, device, equal_sources)
        shards = _cut(corpus, settings.shard_tokens)
        count = int(corpus.lengths.sum())
        say = announce if share.rank == 0 else logging.debug
        say(
            f"{output_dir}: {count} target tokens of {len(corpus)} pairs, {records.dtype.itemsize} bytes each, "
            f"{size_text(count * records.dtype.itemsize)} in {len(shards)} shards"
        )
        settle_torch_threads()
        teacher = live_teacher(models, config, CaptureConfig())
        if tokens:
            teacher = MultilingualTeacher(teacher, None, vocabulary_size, SourceAxes.of(CaptureConfig()))
        agreement = check_cached_text(_samples(corpus, pairs), teacher, models[0], device, force, say)
        if share.rank == 0:
            start_run(output_dir, written, overwrite)
        claim_cache_shards(output_dir / SHARDS, request, overwrite, share)
        write_shards(output_dir, teacher, models[0], corpus, shards, run, share)
        if share.rank > 0:
            return None, False
        positions = list(astuple(_positions(models)))
        facts = {"agreement": agreement, "positions": positions, **({"languages": tokens} if tokens else {})}
        return _finish(output_dir, request, models[0], corpus, shards, vocabulary_size, facts), False


def _finish(
    output_dir: Path,
    request: dict[str, Any],
    model: MTEncDecModel,
    corpus: CachePairs,
    shards: list[slice],
    vocabulary_size: int,
    facts: dict[str, Any],
) -> dict[str, Any]:
    """Write the manifest of shards that are all there, with further facts; return it."""
    files.remove_unfinished(output_dir / SHARDS)
    paths = (shard_files(output_dir, number)[1] for number in range(len(shards)))
    write_index(output_dir, map(np.load, paths), len(corpus))
    names = file_names(len(shards))
    sides = {"source": model.encoder_tokenizer, "target": model.decoder_tokenizer}
    added = language_tokens(model).values()
    details = {
        "cache_format": FORMAT,
        "vocabulary_size": vocabulary_size,
        "vocabularies": {side: vocabulary_hash(tokenizer, added) for side, tokenizer in sides.items()},
        "pairs": len(corpus),
        "left_out": corpus.dropped,
        "tokens": int(corpus.lengths.sum()),
        "shards": [rows.stop - rows.start for rows in shards],
        "bytes": {name: (output_dir / name).stat().st_size for name in names},
        **facts,
    }
    return finish_run(output_dir, request, names, details)


def _samples(corpus: CachePairs, pairs: Sequence[tuple[str, str]]) -> list[Sample]:
    """Return a sample of each text, of two files or of several pairs of them, in its order."""
    found, parts = [], zip(corpus.parts, corpus.firsts, strict=True)
    for text in texts_of(pairs):
        rows, firsts = zip(*(next(parts) for _ in text), strict=True)
        numbers = [rows[0].start + place for place in spread(rows[-1].stop - rows[0].start)]
        name = ", ".join(str(Texts(side)) for side in zip(*text, strict=True))
        lines = [corpus.line(number) - firsts[0] for number in numbers]
        found.append(Sample(name, list(zip(*corpus.rows(numbers), strict=True)), lines))
    return found


def _cut(corpus: CachePairs, shard_tokens: int) -> list[slice]:
    shards = cut(corpus.lengths, shard_tokens)
    if len(shards) > MOST_SHARDS:
        raise InputError(f"{len(shards)} shards are more than {MOST_SHARDS}; give a larger --shard-tokens")
    return shards


def _languages_of_pairs(teacher: str, languages: Sequence[str], pairs: int) -> list[str]:
    """Return the language of each pair of files, of a one-to-many teacher; of others none."""
    config = read_archive_config(teacher)
    if listed_side(config) != "target":
        return []
    known = listed_languages(config)
    choice = f"'{teacher}' writes {', '.join(known)}"
    if not languages:
        raise InputError(f"--target-lang is missing: {choice}; say which, or one for each pair of files")
    if len(languages) not in (1, pairs):
        raise InputError(f"--target-lang: got {len(languages)} for {pairs} pairs of files; give one, or one for each")
    for name in languages:
        if name not in known:
            raise InputError(f"--target-lang: got '{name:.40}', and {choice}; give one of them")
    return [*languages] * (pairs // len(languages))


def _positions(models: Sequence[MTEncDecModel]) -> Positions:
    """Return what all of the models have positions for."""
    return reduce(and_, map(Positions.of_model, models))


def _vocabulary_size(model: MTEncDecModel, settings: CacheSettings) -> int:
    size = model.decoder.vocab_size
    if added := language_tokens(model):  # no target has them
        size = plain_size(model.decoder_tokenizer, added.values())
    if settings.top_k > size:
        raise InputError(
            f"top k is {settings.top_k}, above the {size} words of the teacher's vocabulary; give at most {size}"
        )
    if settings.top_k + settings.sampled > size:
        raise InputError(
            f"top k is {settings.top_k} and sampled {settings.sampled}, together above the {size} words of the "
            f"teacher's vocabulary; give at most {size - settings.top_k} of the latter"
        )
    return size
