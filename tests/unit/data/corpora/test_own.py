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
import gzip
import re

import pytest

from nemo_distill import cli
from nemo_distill.data.corpora import corpus, own
from nemo_distill.errors import InputError
from nemo_distill.support import files
from nemo_distill.support.text_files import read_lines, read_parallel

NUMBERS = ["null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"]
DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
PAIRS = [
    (
        " ".join(NUMBERS[int(digit)] for digit in f"{number:03}"),
        " ".join(DIGITS[int(digit)] for digit in f"{number:03}"),
    )
    for number in range(200)
]
"""Of three words each, so that near-copies are those that are alike."""
SIZES = {"valid_size": 20, "test_size": 30}
TMX = """<?xml version="1.0" encoding="{encoding}"?>
<!DOCTYPE tmx SYSTEM "tmx14.dtd">
<tmx version="1.4"><header srclang="de"/><body>{units}</body></tmx>
"""


def tmx(path, units: str, encoding="UTF-8"):
    path.write_bytes(TMX.format(units=units, encoding=encoding).encode(encoding))
    return path


def unit(*segments: tuple[str, str]) -> str:
    return "<tu>" + "".join(f'<tuv xml:lang="{code}"><seg>{text}</seg></tuv>' for code, text in segments) + "</tu>"


def write(path, lines):
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return path


@pytest.fixture
def text(tmp_path) -> own.Part:
    paths = [write(tmp_path / f"all.{code}", [pair[side] for pair in PAIRS]) for side, code in enumerate(("de", "en"))]
    return own.Part("text", tuple(paths))


def sets(directory) -> dict[str, list[tuple[str, str]]]:
    return {split: read_parallel(directory / f"{split}.de", directory / f"{split}.en") for split in corpus.SPLITS}


def test_each_pair_is_in_one_set_and_what_is_held_out_are_stretches(text, tmp_path):
    manifest, was_finished = own.build([text], "de", "en", tmp_path / "out", **SIZES)
    found = sets(tmp_path / "out")
    assert not was_finished
    assert sorted([pair for pairs in found.values() for pair in pairs]) == sorted(PAIRS)
    assert (len(found["valid"]), len(found["test"])) == (20, 30)
    places = [PAIRS.index(pair) for pair in found["test"]]
    assert len({place // 10 for place in places}) == 3
    assert found["train"] == [pair for pair in PAIRS if pair in found["train"]]  # in their order
    assert manifest["request"]["inputs"]["1"]["sha256"] == [files.sha256(path) for path in text.paths]
    assert manifest["read_pairs"] == 200
    assert not any(manifest["dropped"].values())
    assert own.build([text], "de", "en", tmp_path / "out", **SIZES) == (manifest, True)
    own.build([text], "de", "en", tmp_path / "other", **SIZES, seed=1)
    assert sets(tmp_path / "other")["test"] != found["test"]
    with pytest.raises(InputError, match=r"made with seed 0 \(now 1\)"):
        own.build([text], "de", "en", tmp_path / "out", **SIZES, seed=1)


def test_all_translations_of_a_source_stay_and_what_is_dropped_is_counted(text, tmp_path):
    more = [(PAIRS[0][0], "nought"), PAIRS[1], ("", "nothing"), ("Bahnhof Zoo", "Bahnhof Zoo"), ("Wort", "word")]
    paths = [write(tmp_path / f"more.{code}", [pair[side] for pair in more]) for side, code in enumerate(("de", "en"))]
    parts = [text, own.Part("text", tuple(paths))]
    manifest, _ = own.build(parts, "de", "en", tmp_path / "out", min_words=2, **SIZES)
    found = sets(tmp_path / "out")
    reasons = {reason for reason, count in manifest["dropped"].items() if count}
    assert (
        {"empty", "copy", "short"}
        <= reasons
        <= {"empty", "copy", "short", "duplicate", "near_copy_of_test", "near_copy_of_valid"}
    )
    assert sum(map(len, found.values())) + sum(manifest["dropped"].values()) == manifest["read_pairs"] == 205
    kept, _ = own.build(parts, "de", "en", tmp_path / "kept", keep_copies=True, **SIZES)
    assert kept["dropped"]["copy"] == 0


def test_columns_of_a_table(text, tmp_path):
    plain = tmp_path / "two.tsv"
    write(plain, ["\t".join(pair) for pair in PAIRS])
    wide = tmp_path / "wide.tsv.gz"
    wide.write_bytes(gzip.compress("".join(f'{n}\t"{de}"\t-\t{en}\n' for n, (de, en) in enumerate(PAIRS)).encode()))
    own.build([text], "de", "en", tmp_path / "text", **SIZES)
    own.build([own.Part("tsv", (plain,))], "de", "en", tmp_path / "plain", **SIZES)
    own.build([own.Part("tsv", (wide,), (4, 2))], "en", "de", tmp_path / "wide", **SIZES)
    assert sets(tmp_path / "plain") == sets(tmp_path / "text")
    found = [pair for pairs in sets(tmp_path / "wide").values() for pair in pairs]
    assert sorted(found) == sorted((f'"{de}"', en) for de, en in PAIRS)  # quotes are text


@pytest.mark.parametrize(
    ("lines", "columns", "message"),
    [
        (["a\tb", "a b"], None, "line 2: has no tab, and tabs stand between columns: a b"),
        ([], None, "a.tsv' is empty"),
        (["1\ta\t2\tb"], None, "line 1: has 4 columns, where two were expected"),
        (["1\ta\t2\tb", "", "1\ta"], (2, 4), "line 3: has 2 columns, and --columns 2 4 asks for more"),
    ],
)
def test_a_table_that_is_none(tmp_path, lines, columns, message):
    part = own.Part("tsv", (write(tmp_path / "a.tsv", lines),), columns)
    with pytest.raises(InputError, match=message):
        own.build([part], "de", "en", tmp_path / "out", **SIZES)


@pytest.mark.parametrize("kind", ["text", "tsv"])
def test_lines_that_end_in_carriage_returns(tmp_path, kind):
    (tmp_path / "a.de").write_text("\r".join(f"{de}\t{en}" for de, en in PAIRS), newline="")
    write(tmp_path / "a.en", [en for _, en in PAIRS])
    paths = (tmp_path / "a.de", tmp_path / "a.en")[: 2 if kind == "text" else 1]
    with pytest.raises(InputError, match=r"a.de' is one line with carriage returns in it: .* tr '.r' '.n' < OLD"):
        own.build([own.Part(kind, paths)], "de", "en", tmp_path / "out", **SIZES)


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16"])
def test_segments_of_a_translation_memory(text, tmp_path, encoding):
    """Markup of other formats is left out, what it encloses stays; `de` is any German, `de-AT` that one."""
    units = "".join(unit(("DE-de", de), ("en_US", en), ("fr", "nombre")) for de, en in PAIRS)
    memory = own.Part("tmx", (tmx(tmp_path / "all.tmx", units, encoding),))
    own.build([text], "de", "en", tmp_path / "text", **SIZES)
    own.build([memory], "de", "en", tmp_path / "memory", **SIZES)
    assert sets(tmp_path / "memory") == sets(tmp_path / "text")
    odd = unit(
        ("de-DE", "ein"),
        ("de-AT", 'der <bpt i="1">&lt;b&gt;</bpt><hi>rote</hi><ept i="1">x</ept>\nHut &amp;<ph/>'),
        ("en", "red"),
    )
    part = own.Part("tmx", (tmx(tmp_path / "odd.tmx", odd + unit(("de", "nur")), encoding),))
    assert pairs_of(part, "de-AT", "en") == [("der rote\nHut &", "red"), ("", "")]
    assert pairs_of(part, "de", "en") == [("ein", "red"), ("", "")]


def pairs_of(part: own.Part, source: str, target: str) -> list[tuple[str, str]]:
    return own._read_tmx(part, source, target, {part.paths[0]: files.sha256(part.paths[0])})


def test_of_several_segments_the_one_of_the_very_language_that_has_text(tmp_path):
    units = unit(("de-AT", "Jänner"), ("de", ""), ("de", "Januar"), ("en-GB", " "), ("en-US", "January"))
    part = own.Part("tmx", (tmx(tmp_path / "a.tmx", units),))
    assert pairs_of(part, "de", "en") == [("Januar", "January")]


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("Meer<ph>&lt;br/&gt;</ph>Zeile", "Meer Zeile"),
        ("Meer<ut>x</ut> Zeile", "Meer Zeile"),
        ("Mee<bpt>&lt;b&gt;</bpt>r<ept/>!", "Meer!"),
        ("<ph/>Meer<ph/>", "Meer"),
        ("Meer<ph/>, Zeile", "Meer, Zeile"),
        ("Meer<ph>a<sub>Titel</sub></ph>", "Meer"),
    ],
)
def test_words_on_either_side_of_markup(tmp_path, text, read):
    part = own.Part("tmx", (tmx(tmp_path / "a.tmx", unit(("de", text), ("en", "sea"))),))
    assert pairs_of(part, "de", "en") == [(read, "sea")]


def test_units_without_both_languages_are_counted(tmp_path):
    units = "".join(unit(("de", de), ("en", en)) + unit(("de", de), ("fr", en)) for de, en in PAIRS)
    manifest, _ = own.build(
        [own.Part("tmx", (tmx(tmp_path / "a.tmx", units),))], "de", "en", tmp_path / "out", **SIZES
    )
    assert (manifest["read_pairs"], manifest["dropped"]["empty"]) == (400, 200)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<tmx><body>" + unit(("de", "a"), ("en", "b")), "is no XML that can be read: no element found: line 1"),
        ("Guten Tag", "is no XML that can be read"),
        (TMX.format(encoding="UTF-8", units=unit(("de", "a"), ("fr", "b"))), "its languages are de, fr: give"),
        (TMX.format(encoding="klingon", units=""), "'.*a.tmx' (is no XML that can|cannot) be read: unknown encoding"),
        (
            TMX.format(encoding="UTF-8", units=unit(("de", "a&nbsp;b"), ("en", "b"))),
            "has the entity &nbsp;, whose text",
        ),
        ("<xliff><file/></xliff>", r"a.tmx' holds no unit \(<tu>\); is it TMX"),
        (
            '<!DOCTYPE tmx [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;">]><tmx>&b;</tmx>',
            "^.[^ ]*a.tmx. declares an entity, a, which no TMX needs",
        ),
    ],
)
def test_a_translation_memory_that_is_none(tmp_path, content, message):
    path = tmp_path / "a.tmx"
    path.write_text(content, "utf-8")
    with pytest.raises(InputError, match=message):
        own.build([own.Part("tmx", (path,))], "de", "en", tmp_path / "out", **SIZES)


def test_the_files_of_an_older_corpus_are_not_made_into_one_that_removes_them(text, tmp_path, capsys):
    own.build([text], "de", "en", tmp_path / "out", **SIZES)
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    given = own.Part("text", (tmp_path / "out/train.de", tmp_path / "out/train.en"))
    with pytest.raises(InputError, match=r"train.de' is an input, and would be replaced by the output"):
        own.build([given], "de-DE", "en-US", tmp_path / "out", overwrite=True, **SIZES)
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_a_small_train_is_told(text, tmp_path, capsys):
    command = ["corpus", "own", "--text", *map(str, text.paths), "--source", "de", "--target", "en"]
    for size, told in (("30", False), ("80", True)):
        out = str(tmp_path / size)
        assert cli.main([*command, "--valid-size", size, "--test-size", size, "--output-dir", out]) == 0
        assert ("train has fewer pairs than valid and test together" in capsys.readouterr().out) == told


def test_the_command(text, tmp_path, capsys):
    """Several parts are one text."""
    table = write(tmp_path / "b.tsv", ["\t".join(["x", *("".join(side.split()) for side in pair)]) for pair in PAIRS])
    out = tmp_path / "out"
    command = ["corpus", "own", "--text", *map(str, text.paths), "--tsv", str(table), "--columns", "2", "3"]
    command += ["--valid-size", "20", "--test-size", "30"]
    command += ["--source", "de", "--target", "en", "--output-dir", str(out)]
    assert cli.main(command) == 0
    assert "own de-en, pairs: train" in capsys.readouterr().out
    assert cli.main(command) == 0
    assert "already there, hashes verified" in capsys.readouterr().out
    assert [len(read_lines(out / f"{split}.de")) for split in corpus.SPLITS] == [350, 20, 30]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "no text; give --text SOURCE TARGET, --tsv FILE or --tmx FILE"),
        (["--text", "a.de", "a.en", "--columns", "1", "2"], "--columns is for --tsv, and there is none"),
        (["--tsv", "a.de", "--columns", "0", "2"], "--columns: got 0 2; they are counted from 1"),
        (["--text", "a.de", "a.en", "--test-size", "0"], "--test-size is 0; give a number of at least 1"),
        (["--tsv", "a.de", "--columns", "2", "2"], "--columns: got 2 twice; source and target are two"),
        (
            ["--text", "a.de", "a.en"],
            "of 3 pairs 3 can be used .dropped: none., which cannot spare 1000 for the test and",
        ),
        (
            ["--text", "a.de", "a.de"],
            "of 3 pairs 0 can be used .dropped: copy 3., which cannot spare .* by stretches of 10",
        ),
        (["--text", "a.de", "short.en"], "a.de.* has 3 lines"),
        (["--text", "a.de", "a.en", "--output-dir", "."], "train.de"),
    ],
)
def test_what_is_wrong_is_told(tmp_path, monkeypatch, capsys, more, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.de", ["eins", "zwei", "drei"])
    write(tmp_path / "a.en", ["one", "two", "three"])
    write(tmp_path / "short.en", ["one", "two"])
    write(tmp_path / "train.de", ["eins"])
    assert cli.main(["corpus", "own", "--source", "de", "--target", "en", "--output-dir", "out", *more]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert re.search(message, error), error
