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
import errno
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nemo_distill.cli.parser import main
from nemo_distill.decoding.engine import Hypothesis, SearchSettings
from nemo_distill.errors import InputError, StorageError
from nemo_distill.labels.disturbing import DisturbedTexts
from nemo_distill.labels.filtering import FilterSettings
from nemo_distill.labels.labelling import NAMES, label
from nemo_distill.labels.nbest import read_nbest
from nemo_distill.labels.selection import select
from nemo_distill.labels.settings import SelectionSettings
from nemo_distill.labels.teachers import pseudo_label
from nemo_distill.support import files, text_files
from nemo_distill.support.quoting import one_line
from nemo_distill.support.share import Share

LINES = [
    "eine kurze Zeile",
    "",
    "Zeile\u2028mit\x85vielen\x0bTrennern\rdarin und\x1cmehr",
    "anna otto",  # the engine copies it
    " ".join(["lang"] * 13),
    "Tabulator\thier drin",
    "Hallo {name} da",
    " \u00a0 ",
    "die letzte Zeile",
]


@pytest.fixture
def text(tmp_path):
    """A text of nine lines with everything that could shift a line."""
    path = tmp_path / "input.de"
    path.write_bytes("\n".join(LINES).encode())
    return path


@pytest.fixture
def run(word_engine, text, tmp_path):
    """A function that labels the text with a new engine and returns the engine and what `label` returned."""

    def run(output_dir="labels", search=None, name="words", input_path=text, **options):
        engines = []

        def open_engine():
            engines.append(word_engine(name))
            return engines[-1]

        options = {"teacher": {"teachers": ["words"]}, "shard_lines": 2, "progress": False, **options}
        result = label(open_engine, input_path, tmp_path / output_dir, search, **options)
        assert len(engines) <= 1
        return (engines[0] if engines else None), *result

    return run


def contents(directory) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_every_line_is_in_one_place(run, tmp_path):
    engine, manifest, was_finished = run()
    assert not was_finished
    assert sorted(contents(tmp_path / "labels")) == sorted([*NAMES, "manifest.json"])
    rows = list(read_nbest(tmp_path / "labels/nbest.jsonl"))
    assert [row.source for row in rows] == [one_line(line) for line in LINES]
    assert [row.line for row in rows] == list(range(1, 10))
    assert [row.cut for row in rows] == [False] * 4 + [True] + [False] * 4
    assert rows[0].hypotheses == (Hypothesis("enie ezruk elieZ", -3.3000000000000003, 4),)
    assert rows[1].hypotheses == rows[7].hypotheses == (Hypothesis("", 0.0, 0),)

    pairs = text_files.read_parallel(tmp_path / "labels/source.txt", tmp_path / "labels/hypotheses.txt")
    assert [source for source, _ in pairs] == [
        "eine kurze Zeile",
        "Zeile mit vielen Trennern darin und mehr",
        "Tabulator\thier drin",
        "die letzte Zeile",
    ]
    assert all(" ".join(word[::-1] for word in source.split()) == hypothesis for source, hypothesis in pairs)
    for name in ("source.txt", "hypotheses.txt"):  # whatever a reader takes for the end of a line
        assert len((tmp_path / "labels" / name).read_text("utf-8").splitlines()) == 4

    dropped = [line.split("\t") for line in (tmp_path / "labels/dropped.tsv").read_text("utf-8").splitlines()]
    assert dropped == [
        ["line", "reason", "source", "hypothesis"],
        ["2", "empty source", "", ""],
        ["4", "copy of the source", "anna otto", "anna otto"],
        ["5", "source too long", " ".join(["lang"] * 13), " ".join(["gnal"] * 12)],
        ["7", "placeholders differ", "Hallo {name} da", "ollaH }eman{ ad"],
        ["8", "empty source", " \u00a0 ", ""],
    ]
    assert manifest["counts"] == {
        "lines": 9,
        "kept": 4,
        "dropped": {"empty source": 2, "source too long": 1, "copy of the source": 1, "placeholders differ": 1},
    }
    assert manifest["engine"] == "words"
    assert [len(sentences) for sentences, _ in engine.calls] == [2, 2, 2, 2, 1]


def test_line_breaks_in_hypotheses_are_harmless(tmp_path, text, word_engine):
    class Breaking(word_engine):
        def hypotheses(self, sentence, settings):
            return [
                Hypothesis(one.text.replace(" ", "\n\u2028"), one.score, 1)
                for one in super().hypotheses(sentence, settings)
            ]

    manifest, _ = label(Breaking, text, tmp_path / "labels", teacher={}, progress=False)
    assert len((tmp_path / "labels/hypotheses.txt").read_text("utf-8").splitlines()) == manifest["counts"]["kept"] == 4


def test_hypotheses_without_a_finite_score_are_left_out(tmp_path, text, word_engine):
    class Overflowing(word_engine):
        def hypotheses(self, sentence, settings):
            return [Hypothesis("nothing", float("nan"), 2), Hypothesis("neither", -float("inf"), 2)]

    manifest, _ = label(Overflowing, text, tmp_path / "labels", teacher={}, progress=False)
    assert manifest["counts"]["kept"] == 0
    assert manifest["counts"]["dropped"]["empty hypothesis"] == 6


def test_finished_directory_is_verified_and_left_alone(run, tmp_path):
    run()
    before = contents(tmp_path / "labels")
    engine, manifest, was_finished = run()
    assert engine is None
    assert was_finished
    assert manifest == json.loads(before["manifest.json"])
    assert contents(tmp_path / "labels") == before
    (tmp_path / "labels/source.txt").write_text("changed\n")
    with pytest.raises(InputError, match="source.txt' has changed since it was written"):
        run()
    engine, _, was_finished = run(overwrite=True)
    assert engine is not None
    assert not was_finished
    assert contents(tmp_path / "labels") == before


def test_other_settings_are_refused(run, tmp_path):
    run()
    with pytest.raises(InputError, match=r"made with beam_size 4 \(now 2\); give another output directory, or --ov"):
        run(search=SearchSettings(beam_size=2))
    with pytest.raises(InputError, match="nemo-distill select --nbest .*labels"):
        run(selection=SelectionSettings(ngram=3, tests=[tmp_path / "input.de"]))
    _, manifest, was_finished = run(search=SearchSettings(beam_size=2), overwrite=True)
    assert not was_finished
    assert manifest["request"]["beam_size"] == 2


def test_foreign_files_are_refused(run, tmp_path):
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/source.txt").write_text("mine\n")
    with pytest.raises(InputError, match=r"source.txt' does not prove to be of an earlier run, so it stays"):
        run()
    assert (tmp_path / "labels/source.txt").read_text() == "mine\n"


class Stop(Exception):
    """What stops a run in these tests."""


@pytest.fixture
def stop_after(word_engine, tmp_path, text):
    """A function that labels the text and stops at a shard; returns the directory."""

    def stop(number, search=None, **options):
        class Stopping(word_engine):
            def translate(self, sentences, settings, batch_tokens=4096):
                if len(self.calls) == number:
                    raise Stop
                return super().translate(sentences, settings, batch_tokens)

        with pytest.raises(Stop):
            label(
                Stopping,
                text,
                tmp_path / "labels",
                search,
                teacher={"teachers": ["words"]},
                shard_lines=2,
                progress=False,
                **options,
            )
        return tmp_path / "labels"

    return stop


@pytest.mark.parametrize("search", [None, SearchSettings("top_k", num_hypotheses=2, seed=3)])
def test_a_stopped_run_goes_on(run, stop_after, tmp_path, search):
    run("undisturbed", search)
    directory = stop_after(3, search)
    assert len(list(directory.glob(".shards-*/0*.jsonl.gz"))) == 3
    engine, _, was_finished = run(search=search, batch_tokens=10)
    assert len(engine.calls) == 2
    assert not was_finished
    assert contents(directory) == contents(tmp_path / "undisturbed")


def test_shards_do_not_share_a_seed(run):
    engine, _, _ = run(search=SearchSettings("top_p", seed=7))
    assert [seed for _, seed in engine.calls] == [7, 8, 9, 10, 11]


def test_a_stopped_run_of_other_settings_is_refused(run, stop_after, tmp_path):
    directory = stop_after(3)
    with pytest.raises(
        InputError, match=r"an interrupted run, made with beam_size 4 \(now 2\); go on with its settings"
    ):
        run(search=SearchSettings(beam_size=2))
    with pytest.raises(InputError, match="an interrupted run"):
        run(search=SearchSettings(beam_size=2), share=Share(1, 2))
    with pytest.raises(InputError, match=r"made with the engine 'words', this process has 'other'"):
        run(name="other")
    assert len(list(directory.glob(".shards-*/0*.jsonl.gz"))) == 3
    run(search=SearchSettings(beam_size=2), overwrite=True)
    assert not list(directory.glob(".*"))


def test_numbers_written_otherwise_are_no_other_settings(run, stop_after):
    """1 and 1.0: the shards are neither refused nor removed."""
    directory = stop_after(3, SearchSettings(temperature=1.0))
    engine, _, _ = run(search=SearchSettings(temperature=1))
    assert len(engine.calls) == 2
    assert not list(directory.glob(".shards-*"))


def test_a_stopped_run_may_go_on_with_other_filters(run, stop_after, tmp_path):
    stop_after(3)
    engine, manifest, _ = run(selection=SelectionSettings(tests=[tmp_path / "input.de"]))
    assert len(engine.calls) == 2
    assert manifest["counts"]["kept"] == 0
    assert manifest["counts"]["dropped"]["in test set"] == 7


def test_a_stop_while_the_result_is_written(run, tmp_path, monkeypatch):
    run("undisturbed")

    def stop(*arguments):
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr("nemo_distill.labels.labelling.write_selection", stop)
        with pytest.raises(Stop):
            run()
    (tmp_path / "labels/.nbest.jsonl.nemo_distill-0123abcd.tmp").write_text("left by a kill")
    engine, _, _ = run()
    assert engine is None
    assert contents(tmp_path / "labels") == contents(tmp_path / "undisturbed")


def test_a_damaged_shard_is_named_and_made_again(run, stop_after, tmp_path, caplog):
    run("undisturbed")
    directory = stop_after(3)
    shard = next(directory.glob(".shards-*/000001.jsonl.gz"))
    shard.write_bytes(b"")
    engine, _, _ = run()
    assert engine.calls[0][0] == ["Zeile mit vielen Trennern darin und mehr", "anna otto"]
    assert "000001.jsonl.gz' is damaged: it has 0 of 2 lines, or has changed: this shard is made again" in caplog.text
    assert contents(directory) == contents(tmp_path / "undisturbed")


def test_decomposed_letters_are_told_once(run, text, tmp_path, monkeypatch):
    messages = []
    monkeypatch.setattr("nemo.utils.logging.warning", messages.append)
    run("plain")
    text.write_text("Tür\nTu\u0308r\n", encoding="utf-8")
    run()
    [message] = messages
    assert message.startswith(f"nemo_distill: '{text}': line 2: letters are decomposed (NFD")


@pytest.mark.parametrize("world_size", [2, 3, 9])
def test_processes_share_the_work(run, tmp_path, world_size):
    run("undisturbed")
    calls = []
    for rank in reversed(range(world_size)):
        engine, manifest, _ = run(share=Share(rank, world_size))
        calls.append(len(engine.calls) if engine else 0)
        assert (manifest is None) == (rank > 0)
    assert sum(calls) == 5
    assert max(calls) == -(-5 // world_size)
    assert contents(tmp_path / "labels") == contents(tmp_path / "undisturbed")


@pytest.mark.parametrize("world_size", [1, 2])
def test_disturbed_copies_are_translated_in_place_of_the_text(run, text, tmp_path, world_size):
    options = {"search": SearchSettings("top_k", seed=3), "disturb": 3}
    for rank in reversed(range(world_size)):
        _, manifest, _ = run(share=Share(rank, world_size), **options)
    rows = list(read_nbest(tmp_path / "labels/nbest.jsonl"))
    assert [row.source for row in rows] == list(map(one_line, DisturbedTexts(text, 3, seed=3).lines()))
    assert len({row.source for row in rows if "letzte" in row.source or "Zeile" in row.source}) > 6
    assert manifest["counts"]["lines"] == 27
    assert (manifest["request"]["disturb"], manifest["request"]["input"]) == (3, files.sha256(text))
    assert run(**options)[2]
    for other in (None, 4):
        with pytest.raises(InputError, match="disturb"):
            run(search=options["search"], disturb=other)
    undisturbed = run("undisturbed")[1]
    assert "disturb" not in undisturbed["request"].keys() | undisturbed.keys()


def test_disturbed_copies_are_never_chosen_by_gold(run, text, tmp_path):
    """Though a single one has as many lines as the gold text."""
    run(disturb=1, search=SearchSettings("top_k", num_hypotheses=2))
    with pytest.raises(
        InputError, match="target: the labels in '.*labels' are of disturbed copies, which have no gold"
    ):
        select(tmp_path / "labels", tmp_path / "chosen", SelectionSettings("closest-bleu", target=text))
    with pytest.raises(
        InputError, match="tests: the labels in '.*labels' are of disturbed copies, in which no test line"
    ):
        select(tmp_path / "labels", tmp_path / "chosen", SelectionSettings(tests=[text]))
    assert select(tmp_path / "labels", tmp_path / "chosen", progress=False)[0]["disturb"] == 1


def test_disturbed_copies_go_on_where_they_were(run, stop_after, tmp_path):
    run("undisturbed", disturb=2)
    directory = stop_after(3, disturb=2)
    engine, _, _ = run(disturb=2)
    assert len(engine.calls) == 9 - 3
    assert contents(directory) == contents(tmp_path / "undisturbed")


def test_what_does_not_go_with_disturbed_copies(run, text, tmp_path, capsys):
    gold = SelectionSettings("closest-bleu", target=text)
    with pytest.raises(InputError, match="disturb: got 2 with gold translations, which no disturbed line has"):
        run(disturb=2, selection=gold, search=SearchSettings(num_hypotheses=2))
    with pytest.raises(
        InputError, match="disturb: got 2 with test sets, whose lines are not found once they are dist"
    ):
        run(disturb=2, selection=SelectionSettings(tests=[text]))
    with pytest.raises(InputError, match="disturb: got 0; give at least 1"):
        run(disturb=0)
    command = ["pseudo-label", "--input", str(text), "--output-dir", str(tmp_path / "labels"), "--disturb", "2"]
    assert main([*command, "--hypotheses", str(text)]) == 2
    assert "--disturb: nothing is decoded where --hypotheses gives the translations" in capsys.readouterr().err
    assert not (tmp_path / "labels").exists()


def test_the_first_process_does_not_wait_for_ever(run):
    with pytest.raises(TimeoutError, match="2 of 5 shards are missing .* rank 1 should have made them"):
        run(share=Share(0, 2, wait_minutes=0.01))


def test_bad_input(run, tmp_path):
    (tmp_path / "latin.de").write_bytes(b"gut\nGr\xfc\xdfe\n")
    (tmp_path / "empty.de").write_bytes(b"")
    with pytest.raises(InputError, match=r"latin.de', line 2: byte 0xfc"):
        run(input_path=tmp_path / "latin.de")
    with pytest.raises(InputError, match="empty.de' is empty"):
        run(input_path=tmp_path / "empty.de")
    with pytest.raises(InputError, match="absent.de' does not exist"):
        run(input_path=tmp_path / "absent.de")
    with pytest.raises(InputError, match="shard_lines: got 0"):
        run(shard_lines=0)
    with pytest.raises(InputError, match="wait_minutes: got 0"):
        Share(wait_minutes=0)
    assert not (tmp_path / "labels").exists()


def test_text_of_empty_lines_is_labelled(run, tmp_path):
    (tmp_path / "blank.de").write_bytes(b"\n\n\n")
    _, manifest, _ = run(input_path=tmp_path / "blank.de")
    assert manifest["counts"] == {"lines": 3, "kept": 0, "dropped": {"empty source": 3}}
    assert (tmp_path / "labels/source.txt").read_bytes() == b""


def test_killed_at_random_moments(word_engine, kill_repeatedly, tmp_path):
    generator = random.Random(11)
    lines = [" ".join(f"wort{generator.randint(0, 999)}" for _ in range(generator.randint(0, 14))) for _ in range(800)]
    (tmp_path / "input.de").write_text("".join(f"{line}\n" for line in lines))
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}

    def command(directory, seconds_per_batch):
        command = [sys.executable, str(word_engine.script), str(tmp_path / "input.de"), str(tmp_path / directory)]
        return [*command, "20", str(seconds_per_batch)]

    subprocess.run(command("undisturbed", 0), env={**os.environ, **environment}, check=True, timeout=60)
    made = kill_repeatedly(command("labels", 0.05), tmp_path / "labels", 2, 0.5, generator, environment)
    assert made == sorted(set(made))  # each went on, none began again
    subprocess.run(command("labels", 0), env={**os.environ, **environment}, check=True, timeout=60)
    assert contents(tmp_path / "labels") == contents(tmp_path / "undisturbed")


def test_a_teacher_that_is_not_nemos(foreign_model, tiny_corpus, tmp_path, capsys):
    """The manifest names kind, languages and the model's files; a change of either is another run."""
    teacher, languages = str(foreign_model("mbart50")), ["--source-lang", "de", "--target-lang"]
    command = ["pseudo-label", "--teacher", teacher, "--input", str(tiny_corpus / "test.de"), "--output-dir"]
    command += [str(tmp_path / "labels"), "--num-hypotheses", "2", "--max-repeats", "off", "--max-repeated", "off"]
    command += ["--keep-cut", "--keep-unknown"]
    assert main([*command, *languages, "en"]) == 0
    manifest = json.loads((tmp_path / "labels/manifest.json").read_text("utf-8"))
    assert manifest["request"]["kind"] == "transformers"
    assert manifest["request"]["languages"] == {"source": "de", "target": "en"}
    assert manifest["engine"] == "ctranslate2 float32"
    assert manifest["teacher"]["family"] == "mbart"
    hashes = manifest["teacher"]["sha256"]
    assert all(digest == files.sha256(Path(teacher, name)) for name, digest in hashes.items())
    assert {"config.json", "model.safetensors", "sentencepiece.bpe.model"} <= hashes.keys()
    rows = list(read_nbest(tmp_path / "labels/nbest.jsonl"))
    assert len(rows) == 20
    assert all(len(row.hypotheses) == 2 and row.hypotheses[0].score < 0 for row in rows)
    capsys.readouterr()
    assert main([*command, *languages, "en"]) == 0
    assert "already there" in capsys.readouterr().out
    assert main([*command, *languages, "fr"]) == 2
    assert "made with languages.target 'en' (now 'fr')" in capsys.readouterr().err
    assert main([*command, *languages, "xx", "--overwrite"]) == 2
    assert "has no language 'xx'" in capsys.readouterr().err
    pair = ["--source", str(tiny_corpus / "test.de"), "--target", str(tiny_corpus / "test.en")]
    live = ["cache", "--teacher", teacher, *pair, "--output-dir", str(tmp_path / "cache")]
    assert main(live) == 2
    assert "it teaches by labels alone (nemo-distill pseudo-label --teacher)" in capsys.readouterr().err


def test_input_of_another_form_than_is_said(tiny_teacher_path, tiny_corpus, tmp_path):
    """Nothing is tokenized twice, or never; both are seen before the teacher is opened."""
    raw, tokenized = tiny_corpus / "train.de", tmp_path / "tokenized.de"
    tokenized.write_text(raw.read_text("utf-8").replace(".", " ."), "utf-8")
    for path, processed, message in (
        (tokenized, False, "--input .* looks tokenized already .* give --processed"),
        (raw, True, "--input .* looks raw .* leave it out, and MosesProcessor de does so"),
    ):
        with pytest.raises(InputError, match=message):
            pseudo_label([tiny_teacher_path], path, tmp_path / "out", processed=processed)
    assert not (tmp_path / "out").exists()


def test_a_line_that_is_cut_is_called_by_its_number_in_the_text(
    tiny_teacher_path, tiny_sources, tmp_path, monkeypatch
):
    """Not by its place in a shard, of which there may be thousands."""
    from nemo_distill.decoding.opening import open_engine

    messages = []
    monkeypatch.setattr("nemo.utils.logging.warning", messages.append)
    lines = [*tiny_sources[:5], " ".join(tiny_sources[:20]), tiny_sources[5]]
    (tmp_path / "text.de").write_text("".join(f"{line}\n" for line in lines), "utf-8")
    search, teacher = SearchSettings("greedy"), {"teachers": ["tiny"]}
    label(
        lambda: open_engine(tiny_teacher_path),
        tmp_path / "text.de",
        tmp_path / "out",
        search,
        teacher=teacher,
        shard_lines=2,
    )
    assert [text.partition("cut")[2] for text in messages if "cut" in text] == [" to 64 tokens (line 6)"]


@pytest.mark.parametrize("sizes", [[4, 5], [1, 0, 8], [9]])
def test_an_input_of_several_files(run, tmp_path, sizes):
    """Shards and line numbers go on from one to the next; the labels are those of one file."""
    run("one")
    paths, rest = [], list(LINES)
    for number, size in enumerate(sizes):
        paths.append(tmp_path / f"part{number}.de")
        paths[-1].write_text("".join(f"{line}\n" for line in rest[:size]), newline="\n")
        rest = rest[size:]
    if 0 in sizes:
        with pytest.raises(InputError, match="part1.de' is empty"):
            run("several", input_path=paths)
        return
    _, manifest, _ = run("several", input_path=paths)
    one, several = contents(tmp_path / "one"), contents(tmp_path / "several")
    assert {name: one[name] for name in NAMES} == {name: several[name] for name in NAMES}
    assert manifest["input_name"] == ", ".join(path.name for path in paths)
    hashes = [files.sha256(path) for path in paths]
    assert manifest["request"]["input"] == (hashes if len(hashes) > 1 else hashes[0])
    assert run("several", input_path=paths)[2]
    paths[0].write_bytes(b"etwas anderes\n" + paths[0].read_bytes())
    with pytest.raises(InputError, match=r"made with other content of input \(then part0.de"):
        run("several", input_path=paths)


def test_what_will_be_kept_and_dropped_is_shown_while_a_teacher_translates(run, capsys):
    _, manifest, _ = run(progress=True)
    bars = [line for line in re.split("[\r\n]", capsys.readouterr().err) if line.startswith("pseudo-labels")]
    assert "sentences/s, 4 kept (44.4 %), empty source 2, " in bars[-1]
    assert manifest["counts"]["kept"] == 4
    run("quiet")
    assert "kept" not in capsys.readouterr().err


def test_what_will_be_kept_is_shown_whatever_chooses_by_gold(run, text, capsys):
    """A tokenizer that was asked for was refused, as one of a choice that has no BLEU."""
    selection = SelectionSettings("closest-bleu", text, bleu_tokenizer="char")
    _, manifest, _ = run(search=SearchSettings(num_hypotheses=2), selection=selection, progress=True)
    assert manifest["request"]["bleu_tokenizer"] == "char"
    assert "5 kept (55.6 %)" in capsys.readouterr().err


def test_a_look_at_the_shards_of_others_is_rare(run, tmp_path, monkeypatch):
    """Not one for each shard: of a hundred million lines there are twenty thousand."""
    looks, listed = [], os.listdir
    monkeypatch.setattr(os, "listdir", lambda path=".": looks.append(str(path)) or listed(path))
    monkeypatch.setattr(Path, "is_file", lambda path: looks.append(str(path)) or os.path.isfile(path))
    (tmp_path / "long.de").write_text("".join(f"Zeile {number}\n" for number in range(400)))
    engine, _, _ = run(input_path=tmp_path / "long.de")
    assert len(engine.calls) == 200
    assert len([path for path in looks if ".shards-" in path]) < 40


def test_no_room_for_the_table_of_pairs_is_said_before_any_work(run, monkeypatch, tmp_path):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    filters = FilterSettings(drop_duplicates=True)
    with pytest.raises(StorageError, match="labels' cannot be written .No space left on device.; make room there"):
        run(selection=SelectionSettings(filters=filters), name="never opened")
    assert not list(tmp_path.glob("labels/.shards-*/*.jsonl.gz"))
    assert run()[0] is not None
