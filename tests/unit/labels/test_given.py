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
"""Hypotheses of somebody else get what a teacher's get: choice, filters, n-best lists, manifest."""

import functools
import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest

from nemo_distill.cli.parser import main
from nemo_distill.decoding.engine import Hypothesis
from nemo_distill.errors import InputError
from nemo_distill.labels import given as given_module
from nemo_distill.labels.filtering import FilterSettings
from nemo_distill.labels.given import label_given
from nemo_distill.labels.nbest import NBest, nbest_line, read_nbest
from nemo_distill.labels.selection import select
from nemo_distill.labels.settings import SelectionSettings
from nemo_distill.support.quoting import one_line

SOURCES = ["die Lampe ist offen", "", "die Tür\u2028ist {kaputt}", "anna otto"]
GIVEN = ["the lamp is open", "nothing", "the door is broken", "anna otto"]
SCORED = [
    {"hypotheses": [{"text": "lamp", "score": -2.0}, {"text": "the lamp is\u2028open", "score": 0.5}]},
    {"text": "nothing", "score": 3},
    {"line": 3, "source": "die Tür ist {kaputt}", "hypotheses": [
        {"text": "the door", "score": -1.0, "length": 2}, {"text": "the door is {kaputt}", "score": -1.5, "length": 6},
    ]},
    {"hypotheses": []},
]  # fmt: skip


@pytest.fixture
def given(tmp_path):
    """A function that labels `SOURCES` with the lines of a file of hypotheses."""
    (tmp_path / "input.de").write_text("\n".join(SOURCES) + "\n", "utf-8")

    def run(lines, name="given.en", output="labels", **options):
        text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
        content = text.encode()
        (tmp_path / name).write_bytes(gzip.compress(content, mtime=0) if name.endswith(".gz") else content)
        return label_given(tmp_path / name, tmp_path / "input.de", tmp_path / output, progress=False, **options)

    return run


def lines_of(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines()


def test_text(given, tmp_path):
    manifest, was_finished = given(GIVEN, "given.en.gz")
    assert not was_finished
    assert lines_of(tmp_path / "labels/source.txt") == [SOURCES[0]]
    assert lines_of(tmp_path / "labels/hypotheses.txt") == [GIVEN[0]]
    dropped = {"empty source": 1, "placeholders differ": 1, "copy of the source": 1}
    assert manifest["counts"] == {"lines": 4, "kept": 1, "dropped": dropped}
    assert (manifest["engine"], manifest["hypotheses_name"]) == ("given", "given.en.gz")
    rows = list(read_nbest(tmp_path / "labels/nbest.jsonl"))
    assert [row.hypotheses[0].text for row in rows] == GIVEN
    assert (rows[0].hypotheses[0].score, rows[0].hypotheses[0].length) == (None, None)
    assert given(GIVEN, "given.en.gz") == (manifest, True)
    with pytest.raises(InputError, match="made with other content of hypotheses .then given.en.gz.;"):
        given([*GIVEN[:3], "Anna Otto!"])
    with pytest.raises(InputError, match="min_score needs a score of each hypothesis"):
        given(GIVEN, output="other", selection=SelectionSettings(filters=FilterSettings(min_score=-1.0)))
    with pytest.raises(InputError, match="min_score needs a score of each hypothesis"):
        select(tmp_path / "labels", tmp_path / "low", SelectionSettings(filters=FilterSettings(min_score=-1.0)))
    (tmp_path / "test.de").write_text("Die Lampe ist offen!\n", "utf-8")
    manifest, _ = given(GIVEN, overwrite=True, selection=SelectionSettings(tests=[tmp_path / "test.de"]))
    assert manifest["counts"]["dropped"]["in test set"] == 1


def test_scores_and_several_hypotheses(given, tmp_path):
    """The highest score is the best, by token where a length is given; gold chooses among all."""
    manifest, _ = given(SCORED, "given.jsonl")
    assert lines_of(tmp_path / "labels/hypotheses.txt") == ["the lamp is open", "the door is {kaputt}"]
    assert manifest["request"]["num_hypotheses"] == 2
    assert manifest["request"]["scores"] is True
    rows = list(read_nbest(tmp_path / "labels/nbest.jsonl"))
    assert [one.score for one in rows[2].hypotheses] == [-1.5, -1.0]
    assert rows[3].hypotheses == ()
    (tmp_path / "gold.en").write_text("lamp\n\nthe door\n\n", "utf-8")
    closest = SelectionSettings("closest-chrf", tmp_path / "gold.en", filters=FilterSettings(check_placeholders=False))
    select(tmp_path / "labels", tmp_path / "closest", closest, progress=False)
    assert lines_of(tmp_path / "closest/hypotheses.txt") == ["lamp", "the door"]
    for least, count in ((-0.1, 1), (0.5, 1), (0.6, 0)):  # scores of others may be above 0
        low = SelectionSettings(filters=FilterSettings(min_score=least))
        manifest, _ = select(tmp_path / "labels", tmp_path / f"low{least}", low, progress=False)
        assert manifest["counts"]["kept"] == count
    again, _ = given(lines_of(tmp_path / "labels/nbest.jsonl"), "again.jsonl", "again")  # its own form is one too
    assert (tmp_path / "again/nbest.jsonl").read_bytes() == (tmp_path / "labels/nbest.jsonl").read_bytes()
    assert again["counts"]["kept"] == 2


def test_what_is_unknown_or_cut_is_read_and_filtered(given, tmp_path):
    """As in the library's own n-best lists, which can be given again."""
    texts = ["the lamp is open", "", "the door is {broken}", "anna and otto"]
    rows = [
        NBest(line, one_line(source), (Hypothesis(text, -1.0, 6),))
        for line, (source, text) in enumerate(zip(SOURCES, texts, strict=True), start=1)
    ]
    rows[0] = replace(rows[0], hypotheses=(Hypothesis(texts[0], -1.0, 6, cut=True), Hypothesis("lamps", -9.0, 6)))
    rows[2] = replace(rows[2], hypotheses=(replace(rows[2].hypotheses[0], unknown=2, processed="the door"),))
    rows[3] = replace(rows[3], unknown=True, processed="anna  otto")
    keep = SelectionSettings(filters=FilterSettings(drop_cut=False, drop_unknown=False, check_placeholders=False))
    lines = [nbest_line(row) for row in rows]
    manifest, _ = given(lines, "nbest.jsonl", "kept", selection=keep)
    assert manifest["counts"] == {"lines": 4, "kept": 3, "dropped": {"empty source": 1}}
    plain = SelectionSettings(filters=FilterSettings(check_placeholders=False))
    manifest, _ = given(lines, "nbest.jsonl", selection=plain)
    assert manifest["counts"]["dropped"] == {"empty source": 1, "source of unknown pieces": 1, "unknown pieces": 1}
    assert lines_of(tmp_path / "labels/hypotheses.txt") == ["lamps"]
    read = list(read_nbest(tmp_path / "labels/nbest.jsonl"))
    assert [row.unknown for row in read] == [False, False, False, True]
    assert [one.cut for one in read[0].hypotheses] == [True, False]
    simple = [{"text": texts[0], "cut": True}, '{"text": ""}', {"text": texts[2], "unknown": 1}, {"text": texts[3]}]
    manifest, _ = given(simple, "simple.jsonl", "simple", selection=plain)
    dropped = {"empty source": 1, "cut at the length limit": 1, "unknown pieces": 1}
    assert manifest["counts"]["dropped"] == dropped


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "a"', "not|delimiter"),
        ("[1]", "it is no object"),
        ('{"text": "a", "score": NaN}', "NaN"),
        ('{"text": "a", "score": 1e999}', "no float holds"),
        ('{"text": "a", "score": "high"}', "a score must be a finite number"),
        ('{"text": "a", "score": 1, "length": 3}', "with a length, a score must be a log-probability"),
        ('{"text": "a", "length": 3}', "with a length, a score must be a log-probability"),
        ('{"text": "a", "cut": 1}', "cut must be true or false"),
        ('{"text": "a", "score": -1, "length": 2, "unknown": 3}', "at most the length"),
        ('{"hypotheses": [], "unknown": 1}', "cut and unknown of a line must be true or false"),
        ('{"text": "a", "model": "b"}', "the key 'model' is unknown"),
        ('{"score": -1}', "a hypothesis needs a text"),
        ('{"hypotheses": [{"text": "a", "score": -1}, {"text": "b"}]}', "some .* have a score and some have none"),
        ('{"hypotheses": [], "text": "a"}', "and nothing else"),
        ('{"text": "a", "line": 3}', "is that of another line"),
        ('{"text": "a", "source": "x"}', "is that of another line"),
        ('{"text": "\\ud800"}', "surrogate"),
    ],
)
def test_a_line_that_is_not_of_the_form_is_named(line, message, given, tmp_path):
    with pytest.raises(InputError, match=rf"given.jsonl', line 2: .*({message})"):
        given([SCORED[0], line, *SCORED[2:]], "given.jsonl")
    assert not (tmp_path / "labels/nbest.jsonl").exists()


def test_a_line_too_long_to_be_read_again_is_named_before_anything_is_written(given, tmp_path):
    """A control character takes six bytes in the n-best lists."""
    with pytest.raises(InputError, match=r"given.en', line 2: with its source it makes more than 16 MB"):
        given([GIVEN[0], "\0" * (3 << 20), *GIVEN[2:]])
    assert not (tmp_path / "labels/nbest.jsonl").exists()


@pytest.mark.parametrize("name", ["given.json", "given.txt.gz", "jsonl"])
def test_lines_of_json_under_another_name_are_no_text(given, name):
    with pytest.raises(InputError, match=rf"{name}', line 2: is JSON, and a file is read as such where its name ends"):
        given(["{the} lamp", *SCORED[1:]], name)


@pytest.mark.parametrize("name", ["given.JSONL", "given.jsonl"])
def test_the_name_of_a_file_of_json(given, name):
    assert given(SCORED, name)[0]["request"]["scores"] is True


@pytest.mark.parametrize("line", ['{"text"}', "{name} is open", '{"name": "x"}', '{"a": {"b": [1}'])
def test_text_in_braces_is_text(given, line):
    assert given([line, *GIVEN[1:]])[0]["counts"]["lines"] == 4


def test_labels_without_a_teacher_are_not_taken_for_old_ones(given, tmp_path, caplog):
    given(GIVEN)
    select(tmp_path / "labels", tmp_path / "again")
    assert "earlier release" not in caplog.text


def test_other_numbers_of_lines_and_options_of_decoding(given, tmp_path, capsys):
    with pytest.raises(InputError, match=r"given.en' has 3 lines but '.*input.de' has 4"):
        given(GIVEN[:3])
    command = ["pseudo-label", "--hypotheses", str(tmp_path / "given.en"), "--input", str(tmp_path / "input.de")]
    command += ["--output-dir", str(tmp_path / "labels")]
    for options in (["--beam-size", "4", "--source-lang", "de"], ["--shard-lines", "3"], ["--batch-tokens", "7"]):
        assert main([*command, *options]) == 2
        given_options = ", ".join(option for option in options if option.startswith("--"))
        assert f"{given_options}: nothing is decoded" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*command, "--teacher", "teacher.nemo"])
    assert "--teacher: not allowed with argument --hypotheses" in capsys.readouterr().err
    (tmp_path / "given.en").write_text("\n".join(GIVEN) + "\n")
    assert main(command) == 0
    assert "1 of 4 lines kept" in capsys.readouterr().out


def test_blocks_and_processes_change_nothing(given, tmp_path, monkeypatch):
    lines = [
        {"hypotheses": [{"text": f"Wort {number % 7} da", "score": -1.0 - number % 3}, {"text": "x", "score": -2.0}]}
        for number in range(400)
    ]
    (tmp_path / "input.de").write_text("".join(f"Zeile {number % 11}\n" for number in range(400)))
    run = functools.partial(given, lines, "given.jsonl")
    monkeypatch.setattr(given_module, "_BLOCK_BYTES", 5000)
    written = []
    for processes in (1, 3):
        monkeypatch.setattr(given_module, "available_cores", lambda processes=processes: processes)
        run(output=f"labels{processes}")
        written.append({path.name: path.read_bytes() for path in (tmp_path / f"labels{processes}").iterdir()})
        assert [row.line for row in read_nbest(tmp_path / f"labels{processes}/nbest.jsonl")] == list(range(1, 401))
        with pytest.raises(
            InputError, match="given.jsonl', line 301: a hypothesis needs a text; give one object a line"
        ):
            given([*lines[:300], {"hypotheses": [{}]}, *lines[301:]], "given.jsonl", "other")
    assert written[0] == written[1]
    assert not (tmp_path / "other").exists()


def test_several_files_on_each_side(given, tmp_path):
    """Line n translates line n of all files taken together, wherever one ends and the next begins."""
    given(GIVEN, output="one")
    (tmp_path / "first.de").write_text(f"{SOURCES[0]}\n", "utf-8")
    (tmp_path / "rest.de").write_text("".join(f"{line}\n" for line in SOURCES[1:]), "utf-8")
    (tmp_path / "first.en").write_text("".join(f"{line}\n" for line in GIVEN[:2]), "utf-8")
    (tmp_path / "rest.en").write_text("".join(f"{line}\n" for line in GIVEN[2:]), "utf-8")
    command = ["pseudo-label", "--input", str(tmp_path / "first.de"), str(tmp_path / "rest.de"), "--output-dir"]
    command += [str(tmp_path / "labels"), "--hypotheses", str(tmp_path / "first.en"), str(tmp_path / "rest.en")]
    assert main(command) == 0
    for name in ("source.txt", "hypotheses.txt", "nbest.jsonl", "dropped.tsv"):
        assert (tmp_path / "labels" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    manifest = json.loads((tmp_path / "labels/manifest.json").read_text())
    assert manifest["hypotheses_name"] == "first.en, rest.en"
    assert main([*command[:3], *command[4:]]) == 2  # without the rest of the input
    gold = SelectionSettings("closest-chrf", [tmp_path / "first.en", tmp_path / "rest.en"])
    assert gold.inputs == [tmp_path / "first.en", tmp_path / "rest.en"]
    gold.check(len(SOURCES), 2, gold.request())
    with pytest.raises(InputError, match=rf"first.en', '.*rest.en' has {len(SOURCES)} lines but the input has 9"):
        gold.check(9, 2)


def test_lengths_of_some_hypotheses_alone_are_refused(tmp_path):
    """A sum would be compared with a mean over tokens."""
    (tmp_path / "in.de").write_text("Die Lampe\n")
    hypotheses = [{"text": "the lamp", "score": -1.5}, {"text": "a lamp", "score": -20.0, "length": 20}]
    (tmp_path / "given.jsonl").write_text(json.dumps({"hypotheses": hypotheses}) + "\n")
    arguments = ["pseudo-label", "--hypotheses", str(tmp_path / "given.jsonl"), "--input", str(tmp_path / "in.de")]
    arguments += ["--output-dir", str(tmp_path / "out")]
    with pytest.raises(InputError, match="some of its hypotheses have a length and some have none"):
        label_given(tmp_path / "given.jsonl", tmp_path / "in.de", tmp_path / "out", progress=False)
    for option in ("--processed", "--force"):
        assert main([*arguments, option]) == 2
