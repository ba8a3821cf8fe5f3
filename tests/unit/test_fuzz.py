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
"""Damaged and random input: whatever the bytes, the only errors are those that the library documents."""

import contextlib
import json
import random
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from damage import damaged, damaged_json, time_limit, tree, write_damaged_json
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nemo_distill.archives.restore import extract_tokenizers, restore_model
from nemo_distill.config.mixture import ComponentConfig
from nemo_distill.config.section import DistillationConfig
from nemo_distill.data.mixing.tarred import TarredBatches, _read_arrays, index_shards
from nemo_distill.decoding.engine import SearchSettings
from nemo_distill.errors import ArchiveError, ConfigurationError, InputError, StageError
from nemo_distill.evaluation.results import EvaluationResult
from nemo_distill.jobs.noted import EARLIER_DIR, RECORD_NAME, Stage
from nemo_distill.jobs.stages import run_stages
from nemo_distill.labels.labelling import label
from nemo_distill.labels.nbest import read_nbest
from nemo_distill.support import files, text_files
from nemo_distill.support.manifest import MANIFEST, find_finished, finish_run, start_run
from nemo_distill.teachers.cache_format import LogitCache
from nemo_distill.teachers.cache_writer import CacheSettings, write_cache

QUICK = settings(
    max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["every_nth", "same", "${oc.env:HOME}", "${", "???", "\0", "\ud800", "../x", "a" * 300]),
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)


def open_damaged_archives(source: Path, directory: Path, count: int, seed: int) -> int:
    """Damage an archive in `count` ways and open each; return how many opened all the same."""
    generator, opened = random.Random(seed), 0
    content, path = source.read_bytes(), directory / "damaged.nemo"
    with tarfile.open(source) as archive:  # half of the damage outside the weights, which are most of the file
        (weights,) = [member for member in archive if member.name.endswith(".ckpt")]
    for number in range(count):
        changed = damaged(content, generator)
        if number % 2:
            head = damaged(content[: weights.offset_data], generator)
            changed = head + content[weights.offset_data :]
        path.write_bytes(changed)
        before = tree(directory)
        with time_limit(60):
            try:
                restore_model(path)
                opened += 1
            except ArchiveError:
                pass
            try:
                extract_tokenizers(path, directory / "out")
                shutil.rmtree(directory / "out")
            except InputError:
                pass
        assert tree(directory) == before
    return opened


def test_damaged_archives(tiny_teacher_path, tmp_path):
    assert open_damaged_archives(tiny_teacher_path, tmp_path, 50, seed=1) < 40


@pytest.mark.slow
def test_a_thousand_damaged_archives(tiny_teacher_path, tmp_path):
    assert open_damaged_archives(tiny_teacher_path, tmp_path, 1000, seed=2) < 800


@QUICK
@given(st.dictionaries(st.sampled_from(["teacher", "objective", "capture", "mixture", "init", "x"]), VALUES))
def test_random_sections(section):
    with contextlib.suppress(ConfigurationError):
        DistillationConfig.from_section(section)


SECTION = {
    "teacher": {"model_path": ["a.nemo", "b.nemo"], "precision": "fp32", "sha256": ["0" * 64] * 2, "cache": "dir"},
    "objective": {
        "nll": {"weight": 1.0},
        "word_kd": {"weight": 1.0, "temperature": 2.0, "divergence": "forward_kl"},
        "hidden": {"weight": 1.0, "distance": "mse", "encoder": [[0, 1]], "decoder": "last", "projection": True},
        "attention": {"weight": 0.5, "encoder": "last"},
        "terms": [{"_target_": "my.Term", "weight": 1.0, "name": "mine"}],
    },
    "mixture": {
        "components": {
            "gold": {"source": "a", "target": ["b"], "probability": 0.5},
            "pseudo": {"directory": "d", "probability": 0.5},
        }
    },
    "init": {"from_nemo": "a.nemo", "encoder": [[0, 0], [1, 2]], "decoder": None},
}


@pytest.mark.parametrize("seed", range(4))
def test_damaged_sections(seed):
    generator, refused = random.Random(seed), 0
    for _ in range(100):
        with contextlib.suppress(ConfigurationError):
            refused += 1
            DistillationConfig.from_section(damaged_json(SECTION, generator))
            refused -= 1
    assert refused > 50


@pytest.fixture(scope="module")
def cache(tiny_corpus, tiny_teacher_path, tmp_path_factory) -> Path:
    """A small cache of two shards."""
    directory = tmp_path_factory.mktemp("fuzz") / "cache"
    pair = str(tiny_corpus / "valid.de"), str(tiny_corpus / "valid.en")
    write_cache([str(tiny_teacher_path)], [pair], directory, CacheSettings(top_k=4, shard_tokens=200), device="cpu")
    return directory


def test_damaged_shards_of_a_cache(cache, tmp_path):
    generator = random.Random(1)
    names = sorted(str(path.relative_to(cache)) for path in cache.rglob("*.npy"))
    copy = tmp_path / "cache"
    shutil.copytree(cache, copy)
    for _ in range(100):
        name = generator.choice(names)
        content = (cache / name).read_bytes()
        changed = damaged(content, generator)
        (copy / name).write_bytes(changed)
        if changed != content:
            with pytest.raises(InputError, match="cache|shard"):
                LogitCache(copy)
            with contextlib.suppress(InputError):  # as in all processes but the first one
                LogitCache(copy, verify=False)
        (copy / name).write_bytes(content)
    assert len(LogitCache(copy)) == 20


def test_damaged_manifests_of_a_cache(cache, tmp_path):
    generator = random.Random(1)
    copy = tmp_path / "cache"
    shutil.copytree(cache, copy)
    content = json.loads((cache / MANIFEST).read_text("utf-8"))
    for _ in range(200):
        write_damaged_json(copy / MANIFEST, content, generator)
        with contextlib.suppress(InputError):
            LogitCache(copy)


def test_damaged_tarred_sets(tiny_tarred, tmp_path):
    generator = random.Random(1)
    metadata = json.loads(tiny_tarred.read_text("utf-8"))
    for path in tiny_tarred.parent.glob("*.tar"):
        shutil.copy(path, tmp_path)
    shards, description = sorted(tmp_path.glob("*.tar")), tmp_path / "metadata.json"
    description.write_text(json.dumps(metadata | {"tar_files": [str(path) for path in shards]}))

    def read_all() -> int:
        batches = TarredBatches(index_shards(ComponentConfig(metadata_file=str(description))), (0, 0), (120, 120))
        return sum(len(batches.rows(index)[0]) for index in range(len(batches)))

    sentences = read_all()
    for _ in range(200):
        shard = generator.choice(shards)
        content = shard.read_bytes()
        shard.write_bytes(damaged(content, generator))
        with contextlib.suppress(InputError), time_limit(5):
            read_all()
        shard.write_bytes(content)
    assert read_all() == sentences
    for _ in range(200):
        write_damaged_json(description, metadata, generator)
        with contextlib.suppress(InputError):
            read_all()


def test_damaged_batches_of_a_tarred_set(tiny_tarred):
    generator = random.Random(1)
    entry = index_shards(ComponentConfig(metadata_file=str(tiny_tarred)))[0]
    content = Path(entry.path).read_bytes()[entry.offset : entry.offset + entry.size]
    opened = 0
    for _ in range(2000):
        with contextlib.suppress(InputError), time_limit(5):
            opened += bool(_read_arrays(damaged(content, generator), "shard"))
    assert 0 < opened < 2000


def test_damaged_manifests_of_a_run(tmp_path):
    generator, request = random.Random(1), {"verb": "x", "seed": 1}
    start_run(tmp_path, ["a.txt"])
    (tmp_path / "a.txt").write_text("text")
    content = finish_run(tmp_path, request, ["a.txt"], {"counts": {"kept": 1}})
    assert find_finished(tmp_path, request) == content
    for _ in range(200):
        write_damaged_json(tmp_path / MANIFEST, content, generator)
        with contextlib.suppress(InputError):
            find_finished(tmp_path, request)
        with contextlib.suppress(InputError):
            start_run(tmp_path, ["a.txt"], overwrite=True)
        if not (tmp_path / "a.txt").exists():
            (tmp_path / "a.txt").write_text("text")


def test_damaged_records_of_stages(tmp_path):
    generator, result = random.Random(1), tmp_path / "done"
    result.write_text("x")
    stage = Stage("one", ["python", "script.py"], result, again=False)
    for _ in range(100):
        write_damaged_json(tmp_path / RECORD_NAME, {"one": "0" * 64, "two": "1" * 64}, generator)
        record = (tmp_path / RECORD_NAME).read_bytes()
        with contextlib.suppress(InputError, StageError):
            run_stages([stage_that_fails(stage)], tmp_path)
        kept = [result] if result.exists() else sorted((tmp_path / EARLIER_DIR).iterdir())[-1:]
        assert [path.read_text() for path in kept] == ["x"]
        result.write_text("x")
        (tmp_path / RECORD_NAME).write_bytes(record)


def stage_that_fails(stage: Stage) -> Stage:
    """Return the stage with a command that ends at once."""
    stage.command = ["false", "script.py"]
    return stage


def test_damaged_results(tmp_path):
    generator = random.Random(1)
    content = {"format_version": 1, "models": [{"label": "a"}], "test_sets": [], "scores": [], "comparisons": []}
    for _ in range(100):
        write_damaged_json(tmp_path / "results.json", content, generator)
        with contextlib.suppress(InputError):
            EvaluationResult.load(tmp_path)


TROUBLE = [
    "\u2028",
    "\u2029",
    "\x85",
    "\x0b",
    "\x0c",
    "\x1c",
    "\0",
    "\ufeff",
    "\u200f",
    "\u202e",
    "\t",
    "\r",
    " ",
    "\u3000",
]
LINES = st.lists(
    st.text(st.sampled_from([*TROUBLE, "a", "ä", "语", "😀", "\u0301", "\u200d"]), max_size=12),
    min_size=1,
    max_size=12,
)


def is_refused(path: Path) -> bool:
    """Return whether a text is one line with carriage returns in it, as those of old Macs are, which is refused."""
    line = path.read_bytes().removesuffix(b"\n")
    if b"\n" in line or b"\r" not in line.rstrip(b"\r"):
        return False
    with pytest.raises(InputError, match="its lines end in"):
        text_files.read_lines(path)
    return True


@QUICK
@given(LINES, st.sampled_from(["\n", "\r\n"]), st.booleans(), st.booleans())
def test_lines_stay_in_their_places(tmp_path_factory, lines, end, mark, last_end):
    """Lines end at \\n alone, so two aligned files stay aligned."""
    path = tmp_path_factory.getbasetemp() / "lines.txt"
    content = end.join(lines) + (end if last_end else "")
    path.write_bytes((b"\xef\xbb\xbf" if mark else b"") + content.encode("utf-8"))
    if is_refused(path):
        return
    read = text_files.read_lines(path)
    assert read == list(text_files.iterate_lines(path))
    whole = content.removeprefix("\ufeff") if not mark else content
    wanted = whole.split("\n")
    wanted = [line.removesuffix("\r") for line in (wanted[:-1] if wanted[-1] == "" else wanted)]
    assert read == wanted
    files.write_lines_atomic(path, read)
    assert len(text_files.read_lines(path)) == len(read)


@QUICK
@given(st.binary(max_size=60))
def test_any_bytes_as_text(tmp_path_factory, content):
    """Lone surrogates and other bytes that are not UTF-8 are refused with their line."""
    path = tmp_path_factory.getbasetemp() / "bytes.txt"
    path.write_bytes(content)
    try:
        content.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError:
        for read in (text_files.read_lines, lambda path: list(text_files.iterate_lines(path))):
            with pytest.raises(
                InputError, match=r"line \d+: byte 0x.. at position \d+|is a (gzip|zstd|bzip2|xz|zip) file"
            ):
                read(path)
    else:
        assert is_refused(path) or text_files.read_lines(path) == list(text_files.iterate_lines(path))


def test_lone_surrogates_and_long_lines(tmp_path):
    path = tmp_path / "text"
    path.write_bytes(b"good\n\xed\xa0\x80\n")
    with pytest.raises(InputError, match="line 2: byte 0xed"):
        text_files.read_lines(path)
    path.write_bytes(b"a " * 1_000_000 + b"\nb\n")
    assert [len(line) for line in text_files.read_lines(path)] == [2_000_000, 1]


@settings(QUICK, max_examples=25)
@given(LINES)
def test_pseudo_labels_stay_aligned(word_engine, tmp_path_factory, lines):
    """Every input line is in nbest.jsonl, and either kept with its hypothesis or dropped with a reason."""
    directory = tmp_path_factory.mktemp("labels")
    source = directory / "source"
    source.write_bytes("\n".join([*lines, "ein guter Satz"]).encode("utf-8"))
    read = text_files.read_lines(source)
    options = {"teacher": {"teachers": ["words"]}, "shard_lines": 3, "progress": False}
    label(lambda: word_engine("words"), source, directory / "out", SearchSettings(), **options)
    rows = list(read_nbest(directory / "out/nbest.jsonl"))
    assert [row.line for row in rows] == list(range(1, len(read) + 1))
    kept = text_files.read_lines(directory / "out/source.txt")
    hypotheses = text_files.read_lines(directory / "out/hypotheses.txt")
    dropped = text_files.read_lines(directory / "out/dropped.tsv")
    assert len(kept) == len(hypotheses)
    assert len(kept) + len([line for line in dropped if line]) - 1 in (len(read), len(read) - 1)
    pairs = {(row.source, one.text) for row in rows for one in row.hypotheses}
    for pair in zip(kept, hypotheses, strict=True):  # what a file begins with may be taken for a byte-order mark
        assert pair in pairs or (pair[0], f"\ufeff{pair[1]}") in pairs or pair[0] == kept[0]


def test_damaged_shards_of_pseudo_labels(word_engine, tmp_path):
    generator, source = random.Random(1), tmp_path / "source"
    source.write_text("".join(f"Satz {number} ist gut\n" for number in range(6)))
    options = {"teacher": {"teachers": ["words"]}, "shard_lines": 2, "progress": False}

    def run(open_engine: Callable) -> None:
        label(open_engine, source, tmp_path / "out", SearchSettings(), **options)

    class Stop(Exception):
        pass

    class Stopping:
        def __init__(self) -> None:
            self.engine, self.calls = word_engine("words"), 0

        def __getattr__(self, name):
            return getattr(self.engine, name)

        def translate(self, *arguments):
            self.calls += 1
            if self.calls == 3:
                raise Stop
            return self.engine.translate(*arguments)

    with pytest.raises(Stop):
        run(Stopping)
    shutil.copytree(tmp_path / "out", tmp_path / "kept")
    names = sorted(str(path.relative_to(tmp_path / "kept")) for path in (tmp_path / "kept").rglob("*.json*"))
    assert len(names) >= 4
    for _ in range(60):
        shutil.rmtree(tmp_path / "out")
        shutil.copytree(tmp_path / "kept", tmp_path / "out")
        name = generator.choice(names)
        path = tmp_path / "out" / name
        content = path.read_bytes()
        if name.endswith(".json") and generator.random() < 0.7:
            write_damaged_json(path, json.loads(content), generator)
        else:
            path.write_bytes(damaged(content, generator))
        with contextlib.suppress(InputError):
            run(lambda: word_engine("words"))
