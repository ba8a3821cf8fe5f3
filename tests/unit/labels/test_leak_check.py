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
from pathlib import Path

import pytest

from nemo_distill import cli
from nemo_distill.errors import InputError
from nemo_distill.labels import leak_check
from nemo_distill.labels.leak_check import Leak, TestText, check_leaks, normalise


@pytest.fixture
def write(tmp_path):
    """A function that writes lines to a file of a name and returns its path."""

    def make(name: str, *lines: str) -> str:
        (tmp_path / name).write_bytes("".join(f"{line}\n" for line in lines).encode())
        return str(tmp_path / name)

    return make


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Die Lampe ist offen.", "die  lampe\tist OFFEN"),
        ("Straße", "STRASSE"),
        ("Işığı İptal et", "IŞIĞI iptal et"),
        ("ΑΚΥΡΩΣΗ", "Ακύρωση"),
        ("ﬁne “quotes”", 'fine "quotes"'),
        ("Tür\u2028zu", "tür zu!"),
        ("e\u0301", "é"),
        ("e\u200b\u0301", "é"),
        *[
            (f"La{mark}mpe", "Lampe")
            for mark in "\xad\u200b\u200c\u200d\u2060\ufeff\u034f\ufe0f\u3164\U000e0061\x01\x7f\x9f"
        ],
        ("La\x85mpe", "La mpe"),
    ],
)
def test_normalise_equates(one, other):
    assert normalise(one) == normalise(other) != ""


@pytest.mark.parametrize(("one", "other"), [("Zone 1", "Zone 2"), ("Tür", "Tor"), ("ein aus", "einaus")])
def test_normalise_keeps_apart(one, other):
    assert normalise(one) != normalise(other)


def test_exact_matches_and_their_places(write):
    text = TestText([write("a.de", "Der Motor läuft.", "...", "Die Pumpe"), write("b.de", "die pumpe!")])
    assert text.find("der motor LÄUFT") == Leak("exact", text.paths[0], 1)
    assert text.find_all("Die Pumpe") == [Leak("exact", text.paths[0], 3), Leak("exact", text.paths[1], 1)]
    for innocent in ("", "...", "!!", "Der Motor"):
        assert text.find(innocent) is None


def test_ngrams(write):
    path = write("a.de", "Der alte Motor läuft seit gestern im Keller.", "Ja")
    line = "Gestern sagte er: Der alte Motor läuft seit gestern."
    assert TestText([path]).find(line) is None
    assert TestText([path], ngram=6).find(line) == Leak("ngram", path, 1)
    assert TestText([path], ngram=7).find(line) is None
    assert TestText([path], ngram=6).find("ja") == Leak("exact", path, 2)


def test_ngrams_of_a_script_without_spaces(write):
    path = write("a.zh", "水泵今天修好了。")
    assert TestText([path], ngram=4).find("昨天水泵今天修坏了") is None
    assert TestText([path], ngram=3).find("昨天水泵今天修坏了") == Leak("ngram", path, 1)


def test_report_counts_every_pair_of_files(write, tmp_path):
    train = write("train.de", "Die Pumpe", "die pumpe.", "Tab\tund Motor", "neu", "")
    other = write("more.de", "neu")
    test, second = write("test.de", "DIE PUMPE", "Tab und Motor", "fehlt"), write("test2.de", "nichts davon")
    report = check_leaks([train, other], [test, second], report=tmp_path / "new" / "leaks.tsv")
    counts = [(count.exact, count.ngram, len(count.test_lines_found), count.train_lines) for count in report.counts]
    assert counts == [(3, 0, 2, 5), (0, 0, 0, 5), (0, 0, 0, 1), (0, 0, 0, 1)]
    assert report.leaks == 3
    assert "2 (66.7 %)" in report.table().splitlines()[1]
    lines = (tmp_path / "new" / "leaks.tsv").read_text().split("\n")
    assert lines[0] == "train\tline\tkind\ttest\tline\ttext"
    assert lines[3] == f"{train}\t3\texact\t{test}\t2\tTab und Motor"


def test_a_report_is_not_named_as_if_it_were_compressed(write, tmp_path):
    with pytest.raises(InputError, match="leaks.tsv.gz': a report is not compressed; give another name"):
        check_leaks([write("a.de", "ja")], [write("b.de", "ja")], report=tmp_path / "leaks.tsv.gz")


def test_blocks_and_processes_change_nothing(write, tmp_path, monkeypatch):
    words = ["die", "Lampe", "ist", "offen", "Tür", "neu"]
    lines = [
        " ".join(words[place % size] for place in range(start, start + 5)) for start in range(80) for size in (4, 6)
    ]
    train, tests = (
        write("train.de", *lines),
        [write("a.de", *lines[::9], "x"), write("b.de", "ist offen neu", lines[0])],
    )
    texts = [TestText([path], ngram=3) for path in tests]
    rows = [
        (train, str(number), leak.kind, leak.file, str(leak.line), line)
        for number, line in enumerate(lines, start=1)
        for leak in [text.find(line) for text in texts]
        if leak is not None
    ]
    assert {row[2] for row in rows} == {"exact", "ngram"}
    monkeypatch.setattr(leak_check, "_BLOCK_BYTES", 700)
    for processes in (1, 3):
        monkeypatch.setattr(leak_check, "available_cores", lambda processes=processes: processes)
        report = check_leaks([train], tests, 3, tmp_path / f"{processes}.tsv")
        written = (tmp_path / f"{processes}.tsv").read_text("utf-8").splitlines()[1:]
        assert [tuple(line.split("\t")) for line in written] == rows
        assert [count.train_lines for count in report.counts] == [160, 160]
        assert report.leaks == len(rows)
        exact = {int(row[4]) for row in rows if row[2:4] == ("exact", tests[0])}
        assert exact <= report.counts[0].test_lines_found < set(range(1, 20))


def test_bad_input(write, tmp_path):
    text = write("a.de", "Wort")
    with pytest.raises(InputError, match="absent' does not exist"):
        check_leaks([text], [tmp_path / "absent"])
    with pytest.raises(InputError, match="empty.de' is empty"):
        check_leaks([text], [write("empty.de", "", " ")])
    with pytest.raises(InputError, match="void.de' is empty"):
        check_leaks([write("void.de")], [text])
    with pytest.raises(InputError, match="ngram: got -1"):
        check_leaks([text], [write("b.de", "x")], ngram=-1)
    with pytest.raises(InputError, match="as training and as test text"):
        check_leaks([text], [text])
    (tmp_path / "latin.de").write_bytes(b"gut\nGr\xfc\xdfe\n")
    with pytest.raises(InputError, match=r"latin\.de', line 2"):
        check_leaks([tmp_path / "latin.de"], [text])


def test_command_line(write, tmp_path, capsys):
    train, test, clean = write("train.de", "Wort"), write("test.de", "wort!"), write("clean.de", "Satz")
    report = str(tmp_path / "leaks.tsv")
    command = ["leak-check", "--train", train, "--test", test, "--report", report]
    assert cli.main(command) == 0
    assert "1 leaked lines" in capsys.readouterr().out
    assert cli.main(command) == 0
    assert "leaks.tsv: already there" in capsys.readouterr().out
    assert cli.main([*command, "--fail"]) == 1
    other = [*command[:2], clean, train, *command[3:]]
    assert cli.main(other) == 0  # finds the same
    other[2] = write("more.de", "\nWort")
    assert cli.main(other) == 2
    assert "leaks.tsv' exists and holds another report; give another name, or --overwrite" in capsys.readouterr().err
    assert cli.main([*other, "--overwrite", "--fail"]) == 1
    assert "more.de\t2" in Path(report).read_text("utf-8")
    assert cli.main(["leak-check", "--train", clean, "--test", test, "--fail"]) == 0
    assert "no leaked line" in capsys.readouterr().out
    assert cli.main(["leak-check", "--train", clean, "--test", test, "--overwrite"]) == 2  # of nothing
    assert "--overwrite: is for the file of --report, which is not given" in capsys.readouterr().err
