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
"""Labels in several files are those in one, wherever each file ends, and every reader takes them."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from labelled_lines import LINES, label_lines, write_lines

from nemo_distill.cli.parser import main
from nemo_distill.config.mixture import ComponentConfig, MixtureConfig, label_names
from nemo_distill.data.checks import check_model_files
from nemo_distill.data.forms import labels_are_processed
from nemo_distill.data.mixing.components import load_batches
from nemo_distill.errors import InputError
from nemo_distill.labels import selection
from nemo_distill.labels.filtering import FilterSettings
from nemo_distill.labels.given import label_given
from nemo_distill.labels.selection import select
from nemo_distill.labels.settings import SelectionSettings
from nemo_distill.support import text_files
from nemo_distill.support.texts import Texts
from nemo_distill.teachers.cache_writer import CacheSettings, write_cache

NAMES = ("source.txt", "hypotheses.txt", "nbest.jsonl", "dropped.tsv")


@pytest.fixture
def text(tmp_path):
    return write_lines(tmp_path / "input.de")


@pytest.fixture
def make(word_engine, text, tmp_path):
    """A function that labels the text, into one file of each kind or several; returns what `label` does."""

    def make(name: str, lines_per_file: int | None = None, overwrite: bool = False, **settings):
        chosen = SelectionSettings(lines_per_file=lines_per_file, **settings)
        return label_lines(word_engine, text, tmp_path / name, chosen, overwrite=overwrite)

    return make


def files_of(directory: Path, name: str) -> list[Path]:
    stem, _, ends = name.partition(".")
    return sorted(directory.glob(f"{stem}-[0-9][0-9][0-9][0-9][0-9].{ends}"))


def mixture_of(directory: Path) -> MixtureConfig:
    return MixtureConfig(components={"pseudo": ComponentConfig(directory=str(directory))})


def check_same(directory: Path, plain: Path, count: int, lines_per_file: int, suffix: str = "", names=NAMES) -> None:
    """Assert that so many files of each kind hold together what one holds, each what its lines of the input became."""
    tables = {}
    for name in names:
        tables[name] = [text_files.read_lines(path) for path in files_of(directory, name + suffix)]
        assert len(tables[name]) == count
        heads = 1 if name == "dropped.tsv" else 0
        together = tables[name][0][:heads] + [line for lines in tables[name] for line in lines[heads:]]
        assert together == text_files.read_lines(plain / name)
    for number, dropped in enumerate(tables["dropped.tsv"]):
        lines = {int(row.split("\t")[0]) for row in dropped[1:]}
        own = range(number * lines_per_file + 1, min((number + 1) * lines_per_file, len(LINES)) + 1)
        assert lines <= {*own}
        sources = tables["source.txt"][number]
        assert [LINES[line - 1] for line in own if line not in lines] == sources
        assert len(tables["hypotheses.txt"][number]) == len(sources) == len(own) - len(lines)
    listed = json.loads((directory / "manifest.json").read_text())["files"]
    assert {path.name for path in directory.iterdir()} == {"manifest.json", *listed}
    assert len(listed) == count * len(names)


@pytest.mark.parametrize(("lines_per_file", "count"), [(5, 24), (7, 18), (40, 3), (119, 2), (120, 1), (10_000, 1)])
def test_together_they_are_the_one_file(make, tmp_path, lines_per_file, count):
    plain, _ = make("plain")
    found, was_finished = make("several", lines_per_file)
    check_same(tmp_path / "several", tmp_path / "plain", count, lines_per_file)
    assert not was_finished
    assert found["counts"] == plain["counts"]
    assert found["request"] == {**plain["request"], "lines_per_file": lines_per_file}
    assert "lines_per_file" not in plain["request"]
    assert make("several", lines_per_file) == (found, True)


def test_all_pairs_of_a_line_go_to_its_file(make, tmp_path):
    plain, _ = make("plain", keep=3)
    found, _ = make("several", 50, keep=3)
    assert found["counts"] == plain["counts"]
    assert plain["counts"]["pairs"] > plain["counts"]["kept"]
    for name in NAMES[:3]:
        together = b"".join(path.read_bytes() for path in files_of(tmp_path / "several", name))
        assert together == (tmp_path / "plain" / name).read_bytes()
    assert make("several", 50, keep=3)[1]
    check_model_files({"train_ds": {"tokens_in_batch": 100}}, mixture_of(tmp_path / "several"))


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_compressed(make, tmp_path, suffix):
    if suffix == "zst":
        pytest.importorskip("backports.zstd")
    make("plain")
    make("several", 50, compress=suffix)
    check_same(tmp_path / "several", tmp_path / "plain", 3, 50, f".{suffix}")
    [first, *_] = label_names(tmp_path / "several")
    assert first == (f"source-00001.txt.{suffix}", f"hypotheses-00001.txt.{suffix}")
    select(tmp_path / "several", tmp_path / "again", progress=False)
    assert (tmp_path / "again/dropped.tsv").read_bytes() == (tmp_path / "plain/dropped.tsv").read_bytes()


def test_chosen_anew_from_and_into_any_number(make, tmp_path):
    settings = {"filters": FilterSettings(drop_duplicates=True)}
    make("plain", **settings)
    make("several", 50)
    for name, lines_per_file, count in (("plain", 50, 3), ("several", 20, 6), ("several", 70, 2)):
        out = tmp_path / f"{name}-{lines_per_file}"
        facts, _ = select(
            tmp_path / name, out, SelectionSettings(lines_per_file=lines_per_file, **settings), progress=False
        )
        check_same(out, tmp_path / "plain", count, lines_per_file, names=(*NAMES[:2], "dropped.tsv"))
        assert len(np.atleast_1d(facts["request"]["nbest"])) == (1 if name == "plain" else 3)
    select(tmp_path / "several", tmp_path / "one", SelectionSettings(**settings), progress=False)
    for name in (*NAMES[:2], "dropped.tsv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()


@pytest.mark.parametrize("processes", [1, 3])
def test_from_what_somebody_else_wrote(make, text, tmp_path, monkeypatch, processes):
    """Blocks of a few lines, by any number of processes."""
    make("plain")
    for module in ("given", "choosing"):
        monkeypatch.setattr(f"nemo_distill.labels.{module}._BLOCK_BYTES", 1500)
        monkeypatch.setattr(f"nemo_distill.labels.{module}.available_cores", lambda: processes)
    given = tmp_path / "plain/nbest.jsonl"
    label_given(given, text, tmp_path / "one", progress=False)
    settings = SelectionSettings(lines_per_file=11)
    label_given(given, text, tmp_path / "several", settings, progress=False)
    check_same(tmp_path / "several", tmp_path / "one", 11, 11)
    assert label_given(given, text, tmp_path / "several", settings, progress=False)[1]


def test_other_numbers_replace_them_where_they_are_asked_to(make, tmp_path):
    make("plain")
    make("several", 7)
    (tmp_path / "several/source-00019.txt").write_text("mine")
    (tmp_path / "several/letter-00001.txt").write_text("mine")
    with pytest.raises(
        InputError, match=r"lines_per_file 7 \(now 50\); .*choose or filter anew without decoding: nem"
    ):
        make("several", 50)
    make("several", 50, overwrite=True)
    for name in ("source-00019.txt", "letter-00001.txt"):
        path = tmp_path / "several" / name
        assert path.read_text() == "mine"
        path.unlink()
    check_same(tmp_path / "several", tmp_path / "plain", 3, 50)
    make("several", overwrite=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "several").iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "plain").iterdir()
    }


class Stop(Exception):
    """Stands for a kill."""


def test_nothing_of_an_interrupted_run_stays(make, tmp_path, monkeypatch):
    """It was stopped behind its last file, and the next one, of other numbers, while it removed what was left."""
    make("labels")
    out = tmp_path / "out"

    def choose(lines_per_file, compress=None):
        settings = SelectionSettings(lines_per_file=lines_per_file, compress=compress)
        return select(tmp_path / "labels", out, settings, progress=False)

    def stop(*arguments, **options):
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(selection.manifest, "finish_run", stop)
        with pytest.raises(Stop):
            choose(7, "gz")
    assert len(list(out.glob("source-000*.txt.gz"))) == 18
    with monkeypatch.context() as patch:
        original, left = Path.unlink, [20]

        def unlink(path, *arguments, **options):
            if path.name.endswith(".gz"):
                left[0] -= 1
                if not left[0]:
                    raise Stop
            original(path, *arguments, **options)

        patch.setattr(Path, "unlink", unlink)
        with pytest.raises(Stop):
            choose(50)
    assert not (out / "manifest.json").exists()
    assert len(list(out.glob("*.gz"))) == 3 * 18 - 19
    choose(60)
    check_same(out, tmp_path / "labels", 2, 60, names=(*NAMES[:2], "dropped.tsv"))


def test_a_fault_leaves_nothing(make, tmp_path):
    make("several", 10)
    lists = tmp_path / "several/nbest-00009.jsonl"
    lists.write_text(lists.read_text().replace('"line": 81', '"line": 80'))
    manifest = json.loads((tmp_path / "several/manifest.json").read_text())
    manifest["files"][lists.name]["sha256"] = Texts(lists).sha256()
    (tmp_path / "several/manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"nbest-00009.jsonl', line 1: holds input line 80 where 81 belongs"):
        select(tmp_path / "several", tmp_path / "out", SelectionSettings(lines_per_file=10), progress=False)
    assert {path.name for path in (tmp_path / "out").iterdir()} <= {".started.json"}


@pytest.mark.parametrize(
    ("number", "message"),
    [(0, "lines_per_file: got 0; give at least 1"), (-5, "lines_per_file: got -5; give at least 1")],
)
def test_numbers_that_do_not_serve(number, message):
    with pytest.raises(InputError, match=message):
        SelectionSettings(lines_per_file=number)


def test_too_many_files_are_refused_before_any_work(make, tmp_path, monkeypatch):
    monkeypatch.setattr("nemo_distill.support.numbered.MOST_FILES", 50)
    with pytest.raises(InputError, match=r"got 2, which makes 60 files of 120 lines; give at least 3"):
        make("several", 2)
    assert not (tmp_path / "several").exists()


@pytest.fixture
def several(make, tmp_path) -> Path:
    """A finished directory of three files of each kind."""
    make("several", 40)
    return tmp_path / "several"


def check_refused(directory: Path, match: str) -> None:
    """Assert that choosing anew, training and a cache each refuse a directory."""
    with pytest.raises(InputError, match=match):
        select(directory, directory.parent / "out", progress=False)
    with pytest.raises(InputError, match=match):
        check_model_files({"train_ds": {"tokens_in_batch": 100}}, mixture_of(directory))


def test_a_missing_file_is_one_clear_error(several, capsys):
    (several / "source-00002.txt").unlink()
    check_refused(several, r"source-00002.txt' is missing")
    command = ["cache", "--teacher", str(several / "manifest.json"), "--labels", str(several)]
    assert main([*command, "--output-dir", str(several.parent / "cache")]) == 2
    shown = capsys.readouterr().err
    assert re.search(r"source-00002.txt' is missing \(labels in 3 pairs of files\); put it back, or make", shown)


def test_files_that_have_changed_places_are_refused(several, capsys):
    names = [several / f"source-0000{number}.txt" for number in (1, 3)]
    contents = [path.read_text() for path in names]
    assert contents[0] != contents[1]
    for path, content in zip(names, reversed(contents), strict=True):
        path.write_text(content)
    check_refused(several, r"source-00001.txt' has changed since it was written")
    command = ["cache", "--teacher", str(several / "manifest.json"), "--labels", str(several)]
    assert main([*command, "--output-dir", str(several.parent / "cache")]) == 2
    assert "source-00003.txt' has changed since it was written" in capsys.readouterr().err


@pytest.mark.parametrize("change", ["one fewer", "another number", "moved"])
def test_a_manifest_that_does_not_fit_is_refused(several, change):
    content = json.loads((several / "manifest.json").read_text())
    if change == "one fewer":
        del content["files"]["hypotheses-00003.txt"]
    elif change == "another number":
        content["request"]["lines_per_file"] = 41
    else:  # a pair from the second file to the first
        for name in ("source", "hypotheses"):
            one, two = (several / f"{name}-0000{number}.txt" for number in (1, 2))
            line, rest = two.read_text().split("\n", 1)
            one.write_text(one.read_text() + line + "\n")
            two.write_text(rest)
            for path in (one, two):
                content["files"][path.name]["sha256"] = Texts(path).sha256()
    (several / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"manifest.json' is damaged: "):
        select(several, several.parent / "out", progress=False)


def test_without_a_manifest_they_are_found_by_their_names(several):
    (several / "manifest.json").unlink()
    assert label_names(several) == [
        (f"source-0000{number}.txt", f"hypotheses-0000{number}.txt") for number in (1, 2, 3)
    ]
    (several / "source.txt").touch()
    with pytest.raises(
        InputError, match=r"several' has source.txt and hypotheses-00001.txt, of which one is left of an"
    ):
        label_names(several)
    (several / "source.txt").unlink()
    (several / "hypotheses-00001.txt").unlink()
    with pytest.raises(InputError, match=r"hypotheses-00001.txt' is missing \(labels in 3 pairs of files\)"):
        label_names(several)


def test_a_pair_of_files_without_a_line_is_left_out(make, text, tmp_path):
    """Nothing of lines 1 to 4 is kept: both files are there, aligned, and training reads the others."""
    text.write_text("\n\nanna\notto\n" + "".join(f"{line}\n" for line in LINES))
    make("several", 4, compress="gz")
    names = label_names(tmp_path / "several")
    assert names[0] == ("source-00002.txt.gz", "hypotheses-00002.txt.gz")
    assert len(names) == 30
    assert make("several", 4, compress="gz")[1]
    check_model_files({"train_ds": {"tokens_in_batch": 100}}, mixture_of(tmp_path / "several"))
    train = sorted(map(str, (tmp_path / "several").glob("source-*")))
    assert main(["leak-check", "--train", *train, "--test", str(text)]) == 0
    assert main(["leak-check", "--train", train[0], "--test", str(text)]) == 2


@pytest.mark.parametrize("is_stored", [False, True])
def test_training_reads_the_same_batches(make, tmp_path, load_tiny_tokenizer, is_stored):
    make("plain")
    make("several", 40)
    tokenizer, found = load_tiny_tokenizer(), []
    train_ds = {"tokens_in_batch": 200, "token_store": str(tmp_path / "tokens") if is_stored else None}
    for name in ("plain", "several"):
        component = ComponentConfig(directory=str(tmp_path / name), fraction=0.7)
        batches = load_batches(name, component, train_ds, tokenizer, tokenizer, seed=1)
        found.append([batches.rows(number) for number in range(len(batches))])
    assert len(found[0]) > 1
    np.testing.assert_equal(found[0], found[1])
    assert not is_stored or len(list((tmp_path / "tokens/texts").iterdir())) == 2 * 4


def test_they_are_one_text_for_those_who_look_at_its_form(tmp_path):
    """The first file has too few marks to tell, and is processed as the others are."""
    for name in ("source", "hypotheses"):
        (tmp_path / f"{name}-00001.txt").write_text("ja\n")
        (tmp_path / f"{name}-00002.txt").write_text("ja , gut .\n" * 30)
    pairs = [tuple(tmp_path / name for name in pair) for pair in label_names(tmp_path)]
    assert [labels_are_processed(pair) for pair in pairs] == [False, True]
    assert labels_are_processed(tuple(zip(*pairs, strict=True)))


def test_a_cache_of_them_is_that_of_the_one_file(tiny_corpus, tiny_teacher_path, tmp_path):
    for name, lines_per_file in (("one", None), ("several", 8)):
        settings = SelectionSettings(lines_per_file=lines_per_file)
        label_given(tiny_corpus / "valid.en", tiny_corpus / "valid.de", tmp_path / name, settings, progress=False)
        labels = ComponentConfig(directory=str(tmp_path / name)).text_files
        assert (len(labels) > 1) == (name == "several")
        write_cache([str(tiny_teacher_path)], [], tmp_path / f"cache-{name}", CacheSettings(4), labels=labels)
    shards = [
        {path.name: path.read_bytes() for path in (tmp_path / f"cache-{name}").rglob("*.npy")}
        for name in ("one", "several")
    ]
    assert shards[0] == shards[1]
    assert shards[0]
    agreements = [
        json.loads((tmp_path / f"cache-{name}/manifest.json").read_text())["agreement"] for name in ("one", "several")
    ]
    assert agreements[0] == agreements[1]
    assert len(agreements[0]) == 1


def test_from_the_command_line(make, tmp_path, tiny_tokenizer, text, capsys):
    make("plain")
    command = ["select", "--nbest", str(tmp_path / "plain"), "--output-dir", str(tmp_path / "out")]
    assert main([*command, "--lines-per-file", "50"]) == 0
    check_same(tmp_path / "out", tmp_path / "plain", 3, 50, names=(*NAMES[:2], "dropped.tsv"))
    assert f"(see {tmp_path}/out/dropped-00001.tsv to dropped-00003.tsv)" in capsys.readouterr().out
    train = sorted(map(str, (tmp_path / "out").glob("source-*")))
    assert main(["leak-check", "--train", *train, "--test", str(text)]) == 0
    assert "80 leaked lines" in capsys.readouterr().out
    assert (
        main(["tokens", "--input", *train, "--tokenizer", str(tiny_tokenizer), "--output-dir", f"{tmp_path}/t"]) == 0
    )
    assert capsys.readouterr().out.count(" lines, ") == 3
    with pytest.raises(SystemExit):
        main([*command, "--lines-per-file", "some"])


def test_a_run_notes_all_of_them(several):
    from nemo_distill.training.inputs import input_hashes

    model = {"distillation": {"mixture": {"components": {"pseudo": {"directory": str(several)}}}}}
    [hashes] = input_hashes(model).values()
    assert hashes == [
        Texts(path).sha256()
        for number in (1, 2, 3)
        for path in sorted(several.glob(f"[hs]*-0000{number}.txt"), reverse=True)
    ]
    assert not os.path.lexists(several / ".started.json")
