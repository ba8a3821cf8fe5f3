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
"""What grows with the number of sentence pairs, and how? To be run with nothing else on the machine.

    SCALE_PAIRS="10000 100000 1000000" BENCH_JSON=scale.json python -m pytest -m slow tests/benchmarks/test_scale.py

takes these numbers of made-up pairs, of 5 to 20 words. Each step is done in a process of its own, which is watched:
its time, and the most memory that it has for itself. Pages of mapped files are left out: all processes share them.
"""

import contextlib
import itertools
import json
import math
import multiprocessing
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from nemo_distill.config.mixture import ComponentConfig, MixtureConfig
from nemo_distill.data.mixing.dataset import build_mixture_loader
from nemo_distill.data.positions import Positions
from nemo_distill.data.processors import Processing
from nemo_distill.labels.filtering import FilterSettings
from nemo_distill.labels.given import label_given
from nemo_distill.labels.leak_check import check_leaks
from nemo_distill.labels.selection import select
from nemo_distill.labels.settings import SelectionSettings
from nemo_distill.support.files import known_sha256
from nemo_distill.support.threads import available_cores
from nemo_distill.teachers.cache_arrays import ROW
from nemo_distill.teachers.cache_index import CacheIndex, write_index
from nemo_distill.teachers.cache_manifest import INDEX
from nemo_distill.teachers.cache_pairs import CachePairs, Limits, read_pairs
from nemo_distill.teachers.cache_text import TextPair

PAIRS = [int(each) for each in os.environ.get("SCALE_PAIRS", "10000 100000 1000000").split()]
MOST_BYTES, MOST_INDEX_BYTES, MOST_GROWTH, TOKENS_IN_BATCH = 24, 16, 1.1, 4096
_CONTEXT = multiprocessing.get_context("fork")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tokenizer(corpus: Path):
    from nemo.collections.nlp.modules.common.tokenizer_utils import get_nmt_tokenizer

    from nemo_distill.support import compat

    return get_nmt_tokenizer(compat.DEFAULT_TOKENIZER_LIBRARY, tokenizer_model=str(corpus / "bpe.model"))


def test_training_text(corpus: Path, tokenizer, tmp_path: Path, capsys) -> None:
    """Ids and batches made, found again, and shared; an epoch's order; the first batches."""
    rows = []
    for pairs in PAIRS:
        paths = _made_up(corpus, tmp_path / str(pairs), pairs)
        size = sum(path.stat().st_size for path in paths)
        store = tmp_path / str(pairs) / "tokens"
        arguments = (paths, tokenizer, store)
        row: dict[str, Any] = {"pairs": pairs, "text bytes": size}
        row["store"] = _watched(_load, *arguments)
        row["store"]["disk"] = sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
        row["start"] = _watched(_load, *arguments)
        row["epoch"] = _watched(_epoch, *arguments)
        row["batches"] = _watched(_first_batches, *arguments)
        for processes in (2, 4):
            row[f"{processes} processes"] = _together(processes, *arguments)
        rows.append(row)
        with capsys.disabled():
            print(f"\n{pairs} pairs, {size / 2**20:.0f} MB of text: {json.dumps(row)}")
    _note("training text", rows)
    for row in rows:
        held = max(row[step]["bytes"] for step in ("start", "epoch", "batches"))
        assert held < MOST_BYTES * row["pairs"] + (16 << 20), (row["pairs"], held)
    _check_growth(rows, ("store", "epoch"))


def test_labels(corpus: Path, tmp_path: Path, capsys) -> None:
    """Translations of somebody else taken as labels; chosen anew, with a look for duplicates too; a leak check."""
    rows = []
    (test,) = _made_up(corpus, tmp_path / "test", 1000)[:1]
    for pairs in PAIRS:
        source, target = _made_up(corpus, tmp_path / str(pairs), pairs)
        size = sum(path.stat().st_size for path in (source, target))
        row: dict[str, Any] = {"pairs": pairs, "text bytes": size}
        labels = source.with_name("labels")
        row["given"] = _watched(label_given, target, source, labels, measure=_tree_bytes)
        for name, settings in (
            ("filter", SelectionSettings()),
            ("filter, duplicates", SelectionSettings(filters=FilterSettings(drop_duplicates=True))),
            ("filter, compressed", SelectionSettings(compress="gz")),
        ):
            out = source.with_name(name)
            row[name] = _watched(select, labels, out, settings, measure=_tree_bytes)
            shutil.rmtree(out)
        row["leak check"] = _watched(check_leaks, [source], [test], 8, measure=_tree_bytes)
        rows.append(row)
        shutil.rmtree(labels)
        with capsys.disabled():
            print(f"\n{pairs} pairs, {size / 2**20:.0f} MB of text: {json.dumps(row)}")
    _note("labels", rows)
    steps = ("given", "filter", "filter, duplicates", "filter, compressed", "leak check")
    for row in rows:
        held = {step: row[step]["bytes"] for step in steps}
        assert max(held.values()) < (40 << 20) * (1 + available_cores()), (row["pairs"], held)
    _check_growth(rows, steps)


def _check_growth(rows: list[dict[str, Any]], steps: tuple[str, ...]) -> None:
    for before, after in itertools.pairwise(rows):
        for step in steps:
            if before[step]["seconds"] < 1:  # of which a part is no work, and another chance
                continue
            growth = math.log(after[step]["seconds"] / before[step]["seconds"], after["pairs"] / before["pairs"])
            assert growth < MOST_GROWTH, (step, after["pairs"], growth)


def test_cache_index(corpus: Path, tokenizer, tmp_path: Path, capsys) -> None:
    """The pairs of a cache chosen; its index written of them; opened and searched; a student's text looked up."""
    rows = []
    for pairs in PAIRS:
        paths = _made_up(corpus, tmp_path / str(pairs), pairs)
        arguments = (paths, tokenizer, tmp_path / str(pairs) / "tokens")
        row: dict[str, Any] = {"pairs": pairs}
        _watched(_load, *arguments)  # makes the store
        row["choice"] = _watched(_cache_pairs, *arguments, measure=_tree_bytes)
        row["index"] = _watched(_write_index, *arguments)
        row["index"]["disk"] = sum((tmp_path / str(pairs) / "tokens" / name).stat().st_size for name in INDEX)
        row["open"] = _watched(_search_index, *arguments)
        rows.append(row)
        with capsys.disabled():
            print(f"\n{pairs} pairs: {json.dumps(row)}")
    _note("cache", rows)
    for row in rows:
        assert row["index"]["disk"] <= MOST_INDEX_BYTES * row["pairs"] + 256
        assert row["open"]["bytes"] < (16 << 20), row
        for step in ("choice", "index"):  # some memory of two million pairs at a time
            assert row[step]["bytes"] < MOST_BYTES * row["pairs"] + (150 << 20) * (1 + available_cores()), (step, row)
    _check_growth(rows, ("choice", "index"))


def _cache_pairs(paths: list[Path], tokenizer, store: Path) -> CachePairs:
    text = TextPair(*map(str, paths), tuple(map(known_sha256, paths)), is_raw=False)
    return read_pairs([text], Processing(None, None), [None], (tokenizer,) * 2, Limits(None, Positions()), store)


def _shard_rows(pairs: CachePairs) -> Iterator[np.ndarray]:
    """Yield the rows of shards, without their teacher."""
    for start in range(0, len(pairs), 50_000):
        some = slice(start, min(start + 50_000, len(pairs)))
        rows = np.empty(some.stop - start, ROW)
        rows["key"], rows["tokens"] = pairs.keys(some), pairs.lengths[some]
        rows["start"] = np.cumsum(rows["tokens"]) - rows["tokens"]
        yield rows


def _write_index(*arguments) -> None:
    pairs = _cache_pairs(*arguments)
    write_index(arguments[-1], _shard_rows(pairs), len(pairs))


def _search_index(*arguments) -> None:
    pairs = _cache_pairs(*arguments)
    index = CacheIndex(arguments[-1], len(pairs))
    for start in range(0, len(pairs), max(len(pairs) // 100, 1)):
        assert (index.find(pairs.keys(slice(start, start + 50))) >= 0).all()


def _note(what: str, rows: list[dict[str, Any]]) -> None:
    """Add the figures of a test to the file that BENCH_JSON names."""
    if name := os.environ.get("BENCH_JSON"):
        path = Path(name)
        known = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**known, what: rows}, indent=2) + "\n")


def _made_up(corpus: Path, directory: Path, pairs: int) -> list[Path]:
    """Write pairs of lines with the words of a corpus."""
    directory.mkdir()
    generator, paths = np.random.default_rng(pairs), []
    words = np.array(sorted({word for line in (corpus / "train.de").open() for word in line.split()}), dtype=object)
    lengths = generator.integers(5, 21, pairs)
    for side in ("source", "target"):
        paths.append(directory / side)
        with open(paths[-1], "w") as stream:
            for first in range(0, pairs, 100_000):
                some = np.clip(lengths[first : first + 100_000] + generator.integers(-2, 3), 3, None)
                drawn = np.split(words[generator.integers(0, len(words), some.sum())], np.cumsum(some)[:-1])
                stream.writelines(" ".join(line) + "\n" for line in drawn)
    return paths


def _load(paths: list[Path], tokenizer, store: Path):
    component = ComponentConfig(source=str(paths[0]), target=str(paths[1]))
    mixture = MixtureConfig(components={"gold": component}, probabilities={"gold": 1.0}, seed=1)
    train_ds = {"tokens_in_batch": TOKENS_IN_BATCH, "token_store": str(store), "num_workers": 0}
    return build_mixture_loader(mixture, train_ds, tokenizer, tokenizer)


def _epoch(*arguments) -> None:
    """Walk through the numbers of all batches of an epoch."""
    loader = _load(*arguments)
    assert sum(loader.dataset.draw(number).batch >= 0 for number in loader.sampler) == len(loader)


def _first_batches(*arguments) -> None:
    for number, _ in enumerate(_load(*arguments)):
        if number == 200:
            break


def _own_bytes() -> int:
    """Return the memory of this process that is no file's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) << 10
    raise RuntimeError("this needs Linux")


def _tree_bytes() -> int:
    """Return the memory of this process, its parent and children that is no file's, what they share counted once."""
    total, parent = 0, psutil.Process().parent()
    for process in (parent, *parent.children(recursive=True)):
        with contextlib.suppress(OSError):  # it has ended
            for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
                total += int(line.split()[1]) << 10 if line.startswith("Pss_Anon") else 0
    return total


def _watch(sender, work: Callable, arguments: tuple, measure: Callable[[], int]) -> None:
    before, ended = measure(), threading.Event()
    most = [before]

    def look() -> None:
        while not ended.wait(0.02 if measure is _own_bytes else 0.2):
            most[0] = max(most[0], measure())

    watcher = threading.Thread(target=look)
    watcher.start()
    begun = time.perf_counter()
    made = work(*arguments)
    seconds = time.perf_counter() - begun
    ended.set()
    watcher.join()
    sender.send({"seconds": round(seconds, 3), "bytes": max(most[0], measure()) - before})
    del made


def _start(work: Callable, arguments: tuple, measure: Callable[[], int]):
    receiver, sender = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_watch, args=(sender, work, arguments, measure))
    process.start()
    return process, receiver


def _watched(work: Callable, *arguments, measure: Callable[[], int] = _own_bytes) -> dict[str, float]:
    return _together(1, *arguments, work=work, measure=measure)


def _together(
    processes: int, *arguments, work: Callable = _first_batches, measure: Callable[[], int] = _own_bytes
) -> dict[str, float]:
    """Return the seconds, and the bytes of the process that has the most, of processes that do the same at once."""
    started = [_start(work, arguments, measure) for _ in range(processes)]
    found = [receiver.recv() for _, receiver in started]
    for process, _ in started:
        process.join()
    return {key: max(each[key] for each in found) for key in found[0]}
