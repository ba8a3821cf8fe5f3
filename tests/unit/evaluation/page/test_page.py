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
import hashlib
import html
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import made_up_results
import pytest

from nemo_distill import cli
from nemo_distill.evaluation.page import page
from nemo_distill.evaluation.report import write_report
from nemo_distill.evaluation.results import EvaluationResult, TestSetResult
from nemo_distill.evaluation.speed_results import SpeedResult, SpeedRow
from nemo_distill.support.files import write_json_atomic

HOSTILE = [
    "</script><script>document.title = 'taken'</script>",
    "\"'><img src=x onerror=\"document.title = 'taken'\">",
    "{{ 7 * 7 }} {% raw %} &lt; &amp; ]]> <!-- <svg onload=alert(1)>",
    "\u202egnirts desrever\u202c \u2066 \u200f אבג",
    "nul \x00 escape \x1b[31m bell \x07 delete \x7f next \x85 form\x0cfeed \ufffe",
    "long " * 20_000,
]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


def write_lines(path: Path, lines: list[str]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8", newline="\n")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_evaluation(place: Path, hypotheses: dict[str, list[str]], sources: list[str], references: list[str]) -> Path:
    """Write an evaluation of these hypotheses as `nemo-distill evaluate` does, and return its directory."""
    source, target, directory = place / "test.de", place / "test.en", place / "evaluation"
    test = TestSetResult(
        *("test", str(source), str(target)),
        *(write_lines(source, sources), write_lines(target, references), len(sources)),
    )
    result = made_up_results.an_evaluation(tuple(hypotheses), ("test",))
    scores = [
        replace(
            score,
            hypotheses_sha256=write_lines(directory / score.hypotheses, hypotheses[score.model]),
            decoded=len(sources),
            sentences_per_second=len(sources) / score.seconds,
            bleu_signature="nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0",
        )
        for score in result.scores
    ]
    EvaluationResult(result.models, [test], scores, []).save(directory)
    return directory


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A report of a teacher, a plain model and two students, hostile text in all that is text."""
    place = tmp_path_factory.mktemp("page")
    sources = [f"Satz {number} {text}" for number, text in enumerate([*HOSTILE, *["ein roter Hund bellt"] * 14])]
    references = [f"sentence {number} a red dog barks" for number in range(20)]
    student = [f"{line} {HOSTILE[number % 5]}" for number, line in enumerate(references)]
    student[7] += HOSTILE[5]
    hypotheses = {
        "teacher": references,
        "plain": ["a dog"] * 20,
        "student": student,
        "other": [*references[:10], *["zebra <b>"] * 9, "zebra quagga"],
    }
    evaluation = write_evaluation(place, hypotheses, sources, references)
    write_lines(place / "train.de", sources)
    write_lines(place / "train.en", references)
    rows = [SpeedRow("student", "int8", 1000, 1000, 4, 30.0, 1.0, 20.0, 2.5, 20)]
    rows += [SpeedRow("student", "int8", 1000, 1000, 1, 29.0, 1.0, 40.0, 1.5, 20, 1.75, 4321.0, 88_000_000, "one", 1)]
    speed = SpeedResult(rows, {}, "test", ["hash"], 20, "tok:13a", "cpu", 1, 512, {})
    write_json_atomic(place / "speed.json", speed.__dict__ | {"rows": [row.__dict__ for row in rows]})
    write_report([evaluation], place / "out", **options(place))
    return place


def options(place: Path) -> dict:
    return {
        "teacher": "teacher",
        "plain": "plain",
        "train": [(place / "train.de", place / "train.en")],
        "speed": [place / "speed.json"],
    }


class Elements(HTMLParser):
    """What a page consists of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_nothing_of_the_text_becomes_markup(made):
    text = (made / "out/report.html").read_text("utf-8")
    found = Elements(text).found
    tags = [tag for tag, _ in found]
    assert tags.count("script") == 1
    assert not {"img", "iframe", "link", "object", "base", "form", "a"} & set(tags)
    assert not [each for _, attributes in found for each in attributes if each.startswith("on")]
    assert tags.count("svg") == 2 + 2 * 3  # size, latency; three tables of two students
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufffe]", text)
    assert "⟦202E⟧gnirts" in text
    assert "nul ⟦0000⟧ escape ⟦001B⟧[31m" in text
    assert "{{ 7 * 7 }}" in html.unescape(text)
    assert re.search(r"… 9[78],\d\d\d more characters", text)
    assert len(text) < 1_000_000


def test_speeds_of_other_devices_and_threads_are_points_of_other_series(made, monkeypatch):
    speed = SpeedResult.load(made / "speed.json")
    one = replace(speed, rows=[replace(speed.rows[0], threads=1)])
    drawn = {}
    monkeypatch.setattr(page, "quality_svg", lambda series, size, kind: drawn.update({kind: set(series)}))
    page._quality(SimpleNamespace(points=dict), [one, replace(one, device="cuda")])
    assert drawn["latency"] == {"int8, cpu", "int8, cuda"}
    page._quality(SimpleNamespace(points=dict), [one, replace(one, rows=[replace(one.rows[0], threads=8)])])
    assert drawn["latency"] == {"int8, 1 threads", "int8, 8 threads"}


def test_speeds_are_a_table_too(made):
    text = (made / "out/report.html").read_text("utf-8")
    section = text.partition('<section id="quality">')[2].partition("</section>")[0]
    cells = re.findall("<td><bdi>(.*?)</bdi></td>", section)
    assert cells[:12] == ["student", "int8", "4", "1", "30.0", "20.0", "–", "2.50", "–", "–", "0.0", "1.0 K"]
    assert cells[12:22] == ["student", "int8", "1", "1", "29.0", "40.0", "4,321", "1.50", "1.75", "88"]


def test_the_page_may_load_nothing(made):
    text = (made / "out/report.html").read_text("utf-8")
    (policy,) = [each["content"] for tag, each in Elements(text).found if tag == "meta" and "http-equiv" in each]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert not [each for _, attributes in Elements(text).found for each in attributes if each in ("src", "srcset")]
    assert not re.findall(r"url\((?!#)|@import", text)


def test_the_same_results_give_the_same_bytes(made, monkeypatch):
    monkeypatch.chdir(made)
    (made / "matplotlibrc").write_text("lines.linewidth: 40\n")
    write_report(["evaluation"], made / "again", **options(made))
    assert (made / "again/report.html").read_bytes() == (made / "out/report.html").read_bytes()


def test_of_many_students_the_best_are_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "_MOST_STUDENTS", 1)
    lines = ["a red dog barks"] * 12
    place = write_evaluation(tmp_path, {"teacher": lines, "worse": lines, "better": lines}, lines, lines)
    write_report([place], tmp_path / "out", formats=["page"])
    text = (tmp_path / "out/report.html").read_text("utf-8")
    assert "1 students of lower BLEU: worse" in text
    assert set(re.findall('data-student="([^"]*)"', text)) == {"better"}


def test_where_no_teacher_is_named_none_is_spoken_of(tmp_path):
    place = write_evaluation(tmp_path, {"plain": ["a"] * 12, "student": ["b"] * 12}, ["x"] * 12, ["a"] * 12)
    write_report([place], tmp_path / "out", formats=["page"])
    text = (tmp_path / "out/report.html").read_text("utf-8")
    assert "<h2>Where a student differs from plain</h2>" in text
    assert "</span> than plain by more than chance" in text
    assert "teacher" not in text.partition("<body>")[2].partition("<script>")[0]


def test_what_is_gone_is_named(tmp_path):
    place = write_evaluation(tmp_path, {"teacher": ["a"] * 12, "student": ["b"] * 12}, ["x"] * 12, ["a"] * 12)
    write_lines(place / "hypotheses/student.test.txt", ["changed"] * 12)
    write_report([place], tmp_path / "one", formats=["page"])
    text = html.unescape((tmp_path / "one/report.html").read_text("utf-8"))
    assert re.search(r"student on test: '.*student\.test\.txt' has changed", text)
    assert 'class="view"' not in text
    (tmp_path / "test.de").unlink()
    write_report([place], tmp_path / "two", formats=["page"])
    text = html.unescape((tmp_path / "two/report.html").read_text("utf-8"))
    assert re.search(r"<li><bdi>test: '.*test\.de'", text)
    assert "nemo-distill report --train SOURCE TARGET" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--train", "test.de", "gone.en"], "'gone.en' does not exist"),
        (["--format", "json", "--train", "test.de", "test.en"], "are for the page; add 'page' to the formats"),
        (["--spent", "student:soon"], "--spent: got 'student:soon'; give a row and its seconds"),
        (["--spent", "student:3:soon"], "give a row and its seconds, as in hinton:1800, and a share: hinton:1800:600"),
        (["--spent", "student:3:4"], "spent: of 'student' the share is 4 s of 3 s; give no more"),
        (["--spent", "nobody:3"], "spent: there is no row 'nobody'; the rows are teacher, student"),
        (["--speed", "test.de"], "test.de"),
    ],
)
def test_wrong_options(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_evaluation(tmp_path, {"teacher": ["a"], "student": ["b"]}, ["x"], ["a"])
    assert cli.main(["report", "--results", "evaluation", "--output-dir", "out", *arguments]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not Path("out/report.html").exists()


def browse(path: Path, fragment: str, tmp_path: Path) -> str:
    """Return what a headless Chromium has made of a page; it must have said nothing in its console."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: the page is not looked at in a browser")
    done = subprocess.run(
        [
            *(CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0"),
            *(f"--user-data-dir={tmp_path}/profile", "--virtual-time-budget=2000", "--dump-dom"),
            f"{path.as_uri()}#{fragment}",
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "CONSOLE" not in done.stderr
    return done.stdout


def visible_sentences(dom: str) -> dict[str, int]:
    """Return how many sentences are shown of each student that is shown."""
    shown = {}
    for view in re.findall(r'<div class="view"[^>]*>.*?(?=<div class="view"|<script>)', dom, re.S):
        opening = view[: view.index(">")]
        if "hidden" not in opening:
            articles = re.findall(r'<article class="sentence"[^>]*>', view)
            shown[re.search('data-student="([^"]*)"', opening)[1]] = sum("hidden" not in each for each in articles)
    return shown


def test_in_a_browser(made, tmp_path):
    dom = browse(made / "out/report.html", "", tmp_path)
    assert "<title>Report</title>" in dom  # no hostile line has run
    assert dom.count("<svg") == 8
    assert visible_sentences(dom) == {"other": 10}  # of the two, the one with the higher BLEU
    assert "10 of 10 sentences" in dom


def test_filters_in_a_browser(made, tmp_path):
    path = made / "out/report.html"
    assert visible_sentences(browse(path, "search=zebra%20QUAGGA", tmp_path)) == {"other": 1}
    assert visible_sentences(browse(path, "student=student&kind=loss&search=ESCAPE", tmp_path)) == {"student": 4}
    assert visible_sentences(browse(path, "student=student&kind=gain", tmp_path)) == {"student": 0}
    assert visible_sentences(browse(path, "student=nobody&kind=%22%3E&search=", tmp_path)) == {"other": 10}
