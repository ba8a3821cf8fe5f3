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
"""Caches, corpora and tokenizers whose files are whole but say what cannot be: refused when they are opened."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from nemo_distill import cli
from nemo_distill.errors import InputError, TeacherError
from nemo_distill.support import files
from nemo_distill.support.manifest import MANIFEST, find_finished, finish_run, is_unfinished, start_run
from nemo_distill.teachers.cache_format import LogitCache
from nemo_distill.teachers.cache_manifest import INDEX
from nemo_distill.teachers.cache_records import LOGIT_BITS, Records
from nemo_distill.teachers.cache_writer import CacheSettings, write_cache


@pytest.fixture(scope="module")
def whole(tiny_corpus, tiny_teacher_path, tmp_path_factory) -> Path:
    """A small cache of two shards or more."""
    directory = tmp_path_factory.mktemp("records") / "cache"
    pair = str(tiny_corpus / "valid.de"), str(tiny_corpus / "valid.en")
    write_cache([str(tiny_teacher_path)], [pair], directory, CacheSettings(4, (1.0, 2.0), shard_tokens=200))
    return directory


@pytest.fixture
def cache(whole, tmp_path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(whole, tmp_path / "cache"))


def change(directory: Path, edit) -> None:
    """Change the manifest."""
    manifest = json.loads((directory / MANIFEST).read_text("utf-8"))
    edit(manifest)
    (directory / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")


def rewrite(directory: Path, part: str, edit) -> None:
    """Change the array of the first shard, and let the manifest fit it."""
    name = f"shards/000000.{part}.npy"
    array = np.load(directory / name)
    array = edit(array)
    np.save(directory / name, array)

    def fit(manifest: dict) -> None:
        manifest["bytes"][name] = (directory / name).stat().st_size
        manifest["files"][name] = {"sha256": files.sha256(directory / name)}

    change(directory, fit)


def setting(field: str, place, value):
    """Return an edit of an array that sets values of one field."""

    def edit(array: np.ndarray) -> np.ndarray:
        array[field][place] = value
        return array

    return edit


RECORDS = Records(4, 0, [1.0, 2.0], 120)


def words(part: int, place, value):
    """Return an edit of records that sets ids (part 0) or levels (part 1) of words."""

    def edit(array: np.ndarray) -> np.ndarray:
        parts = [each.numpy() for each in RECORDS.unpack(torch.from_numpy(array["words"].copy()))]
        parts[part][place] = value
        array["words"] = RECORDS._pack((parts[0] << LOGIT_BITS) | parts[1])
        return array

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (words(0, (3, 1), 120), "a word beyond the vocabulary of 120"),
        (words(0, (3, slice(0, 2)), 7), "a word twice for one token"),
        (words(1, (0, 0), 1), "logits that are not in their order"),
        (words(1, (0, slice(1, 4)), [30, 20, 10]), "logits that are not in their order"),
        (setting("rest", (5, 0), 32767), "a rest that its logits cannot have at temperature 1"),
        (setting("rest", (5, 1), 32767), "a rest that its logits cannot have at temperature 2"),
        (lambda array: array[:-1], "do not share out its shard"),
        (lambda array: array.reshape(1, -1), "does not fit the manifest"),
    ],
)
def test_records_that_no_teacher_gives(cache, edit, message):
    rewrite(cache, "tokens", edit)
    with pytest.raises(TeacherError, match=message):
        LogitCache(cache)


@pytest.mark.parametrize("scale", [0.01, 1, 300])
@pytest.mark.parametrize(
    ("words", "top_k", "sampled"),
    [(100, 100, 0), (100, 1, 0), (100, 1, 99), (100, 5, 20), (5000, 16, 0), (5000, 16, 9)],
)
def test_no_record_of_a_teacher_is_refused(scale, words, top_k, sampled):
    """Of flat and of sharp distributions, at temperatures of any size, in half precision, with words ruled out."""
    records = Records(top_k, sampled, [0.001, 1.0, 5.0, 9e5], words)
    logits = torch.randn(200, words, generator=torch.Generator().manual_seed(1)) * scale
    uniform = np.random.default_rng(0).random(200)
    for values in (logits, logits.bfloat16(), logits.masked_fill(logits > scale, -1e9)):
        encoded = records.encode(values, uniform)
        assert records.fault(encoded) is None
        for column in range(4):
            targets = vars(records.targets(encoded, column, "cpu"))
            assert all(each.isfinite().all() for each in targets.values())


def test_drawn_words_that_no_teacher_gives():
    records = Records(4, 8, [1.0, 2.0], 120)
    logits = torch.randn(50, 120, generator=torch.Generator().manual_seed(1)) * 3
    encoded = records.encode(logits, np.random.default_rng(0).random(50))
    ids, levels = (each.numpy() for each in records.unpack(torch.from_numpy(encoded["words"].copy())))
    assert records.fault(encoded) is None
    for edit, message in (
        (lambda: levels.__setitem__((7, 5), 0), "a drawn word that is likelier than the best ones"),
        (lambda: ids.__setitem__((7, 5), ids[7, 6]), "a word twice for one token"),
        (lambda: ids.__setitem__((7, 5), ids[7, 1]), "a word twice for one token"),
    ):
        kept = ids.copy(), levels.copy()
        edit()
        broken = encoded.copy()
        broken["words"] = records._pack((ids << LOGIT_BITS) | levels)
        ids[:], levels[:] = kept
        assert records.fault(broken) == message
    encoded["rest"][3, 1] = -20_000
    assert records.fault(encoded) == "a rest that its logits cannot have at temperature 2"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (setting("start", 1, 0), "do not share out its shard"),
        (setting("start", 0, -1), "do not share out its shard"),
        (setting("tokens", 0, 10_000), "do not share out its shard"),
        (setting("tokens", 0, -3), "do not share out its shard"),
        (setting("tokens", 0, 0), "do not share out its shard"),
        (setting("key", 1, [0, 0]), "and its index do not fit each other"),
        (lambda array: np.concatenate([array, array[-1:]]), "do not share out its shard"),
    ],
)
def test_rows_outside_of_their_shard(cache, edit, message):
    rewrite(cache, "rows", edit)
    with pytest.raises(TeacherError, match=message):
        LogitCache(cache)
    assert len(LogitCache(cache, verify=False)) == 20  # which reads no row


def changed_index(directory: Path, name: str, edit) -> None:
    """Change an array of the index, and let the manifest fit it."""
    array = np.load(directory / name)
    np.save(directory / name, edit(array))
    digest = files.sha256(directory / name)
    change(directory, lambda manifest: manifest["files"].update({name: {"sha256": digest}}))


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        (INDEX[0], lambda array: array[::-1], "its keys are in no order"),
        (INDEX[0], lambda array: array[:-1], "has 19 pairs, and the manifest 20"),
        (INDEX[0], lambda array: array.astype(np.int32), "does not fit the manifest"),
        (INDEX[0], lambda array: array ^ np.uint64(1), "and its index do not fit each other"),
        (INDEX[1], lambda array: array ^ np.uint64(1), "and its index do not fit each other"),
        (INDEX[1], lambda array: array + np.uint64(1 << 8), "and its index do not fit each other"),
        (INDEX[1], lambda array: array + np.uint64(1 << 24), "and its index do not fit each other"),
        (INDEX[1], lambda array: np.roll(array, 1), "and its index do not fit each other"),
    ],
)
def test_an_index_that_is_not_that_of_the_rows(cache, name, edit, message):
    changed_index(cache, name, edit)
    with pytest.raises(TeacherError, match=message):
        LogitCache(cache)


def test_an_index_that_leads_nowhere_is_noticed_in_every_process(cache):
    changed_index(cache, INDEX[1], lambda array: array | np.uint64(1 << 63))
    opened = LogitCache(cache, verify=False)
    with pytest.raises(TeacherError, match="index of the cache in .* is damaged; make the cache anew"):
        opened.read(np.arange(20))


def test_a_cache_of_an_earlier_version_says_what_to_do(cache):
    change(cache, lambda manifest: manifest.update(cache_format=1))
    with pytest.raises(
        TeacherError, match=r"earlier version \(format 1, now 2\); make the cache anew: .* --overwrite"
    ):
        LogitCache(cache)


def put(*path, value):
    """Return an edit of a manifest."""

    def edit(manifest: dict) -> None:
        for key in path[:-1]:
            manifest = manifest[key]
        manifest[path[-1]] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (put("shards", value=True), "shards is True, no list"),
        (put("shards", 0, value=-1), "shards is wrong"),
        (put("shards", value=[20]), "files is wrong"),
        (put("pairs", value=21), "shards is wrong"),
        (put("tokens", value="many"), "tokens is 'many', no whole number"),
        (put("tokens", value=10**9), "the shards have other tokens"),
        (put("bytes", "shards/000000.rows.npy", value=1.5), "is 1.5, no whole number"),
        (put("bytes", "shards/000000.rows.npy", value=128), "bytes in place of 128"),
        (put("vocabularies", value={"source": "0" * 64}), "vocabularies is wrong"),
        (put("vocabularies", "target", value=7), "vocabularies.target is 7, no text"),
        (put("vocabulary_size", value=3), "request.top_k is wrong"),
        (put("vocabulary_size", value=True), "vocabulary_size is True, no whole number"),
        (put("vocabulary_size", value=1 << 20), "does not fit the manifest"),
        (put("request", "temperatures", value=[2.0, 1.0]), "request.temperatures is wrong"),
        (put("request", "temperatures", value=[]), "request.temperatures is wrong"),
        (put("request", "teachers", value=["x"]), "a hash is wrong"),
        (put("files", "../../thesis.tex", value={"sha256": "0" * 64}), "files is wrong"),
        (put("files", "shards/000000.rows.npy", value={}), "sha256 is missing"),
        (put("left_out", value=[1]), "left_out is a list, no mapping"),
        (put("left_out", value={"too_long": -1, "copies": 0}), "left_out is wrong"),
        (put("left_out", value={"too_long": 0}), "left_out is wrong"),
        (put("left_out", value={"too_long": 0, "copies": 0, "others": 0}), "left_out is wrong"),
        (put("more", value=1), "more is unknown"),
    ],
)
def test_manifests_of_caches(cache, edit, message):
    change(cache, edit)
    for verify in (True, False):
        with pytest.raises(TeacherError, match=message) as error:
            LogitCache(cache, verify)
        assert "\n" not in str(error.value)


def test_an_unfinished_cache_with_wrong_records_makes_them_anew(whole, cache, tiny_corpus, tiny_teacher_path):
    rewrite(cache, "tokens", words(0, (3, 1), 120))
    (cache / MANIFEST).unlink()
    pair = str(tiny_corpus / "valid.de"), str(tiny_corpus / "valid.en")
    settings = CacheSettings(4, (1.0, 2.0), shard_tokens=200)
    manifest, was_finished = write_cache([str(tiny_teacher_path)], [pair], cache, settings)
    assert not was_finished
    assert manifest == json.loads((whole / MANIFEST).read_text("utf-8"))


def test_a_shard_that_changes_behind_the_check_names_no_word_that_is_not_there(cache):
    opened = LogitCache(cache)
    array = np.load(cache / "shards/000000.tokens.npy", mmap_mode="r+")
    array["words"][:] = 255
    array.flush()
    with pytest.raises(TeacherError, match="has changed since it was opened"):
        opened.read(np.arange(20))
    with pytest.raises(TeacherError, match="the shards of the cache in .* have changed"):
        opened.targets(np.array(array), 1.0, "cpu")


def test_the_teacher_of_a_cache_is_the_one_that_the_section_names(whole, student_config, tiny_teacher_path):
    from nemo_distill import DistilledMTEncDecModel

    config = student_config()
    config.distillation.teacher = {"cache": str(whole), "model_path": str(tiny_teacher_path), "sha256": "0" * 64}
    with pytest.raises(TeacherError, match="was made by another teacher"):
        DistilledMTEncDecModel(config)


CORPUS = {"licence": "free", "splits": {split: {"pairs": 1} for split in ("train", "valid", "test")}}


@pytest.fixture
def corpus_command(tmp_path) -> list[str]:
    """The command of a corpus that is there."""
    raw = tmp_path / "raw"
    raw.mkdir()
    for prefix in ("train", "val", "test_2016_flickr"):
        for language in ("de", "en"):
            (raw / f"{prefix}.{language}").write_text("ein Satz\n")
    command = ["corpus", "multi30k", "--from", str(raw), "--source", "de", "--target", "en"]
    command += ["--output-dir", str(tmp_path / "out")]
    assert cli.main(command) == 0
    return command


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (put("files", value={}), "does not list the files of such a run"),
        (put("splits", value=[]), "splits is a list, no mapping"),
        (put("splits", "train", "pairs", value=10**6), "train.de has 1 lines"),
        (put("splits", "train", "pairs", value="1"), "no whole number"),
        (put("splits", value={}), "is damaged"),
        (put("dropped", value=3), "dropped is 3"),
        (put("x", value=3), "x is unknown"),
    ],
)
def test_manifests_of_corpora(corpus_command, tmp_path, capsys, edit, message):
    change(tmp_path / "out", edit)
    assert cli.main(corpus_command) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_finished_tokenizer_is_one(tiny_corpus, tmp_path, capsys):
    command = ["tokenizer", "--input", str(tiny_corpus / "train.de"), "--vocab-size", "60"]
    command += ["--output-dir", str(tmp_path / "out")]
    assert cli.main(command) == 0
    (tmp_path / "out/tokenizer.model").write_bytes(b"5 5\nnothing\n")
    change(
        tmp_path / "out",
        put("files", "tokenizer.model", "sha256", value=files.sha256(tmp_path / "out/tokenizer.model")),
    )
    assert cli.main(command) == 2
    assert "is no whole model" in capsys.readouterr().err


def test_a_run_that_was_killed_right_behind_its_manifest_is_finished(tmp_path):
    start_run(tmp_path, ["a.txt"])
    (tmp_path / "a.txt").write_text("text")
    started = (tmp_path / ".started.json").read_bytes()
    finish_run(tmp_path, {"seed": 1}, ["a.txt"], {})
    (tmp_path / ".started.json").write_bytes(started)
    assert not is_unfinished(tmp_path)
    assert find_finished(tmp_path, {"seed": 1})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", MANIFEST]


def test_a_request_of_hostile_depth_or_names_is_one_line(tmp_path):
    deep = "[" * 500 + "]" * 500
    (tmp_path / MANIFEST).write_text(f'{{"request": {deep}, "files": {{}}}}')
    with pytest.raises(InputError, match="nested more than"):
        find_finished(tmp_path, {"seed": 1})
    (tmp_path / MANIFEST).write_text(json.dumps({"request": {"a\nb" + "c" * 9999: 1}, "files": {}}))
    with pytest.raises(InputError) as error:
        find_finished(tmp_path, {"seed": 1})
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000


def test_pairs_that_no_line_of_the_text_gives(cache, tiny_corpus, tiny_teacher_path):
    change(cache, lambda manifest: manifest["left_out"].update(copies=3))
    pair = str(tiny_corpus / "valid.de"), str(tiny_corpus / "valid.en")
    with pytest.raises(TeacherError, match="left_out is wrong"):
        write_cache([str(tiny_teacher_path)], [pair], cache, CacheSettings(4, (1.0, 2.0), shard_tokens=200))
