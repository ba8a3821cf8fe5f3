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
"""Test sets of sacreBLEU's: found, downloaded, unpacked, or refused. Stand-ins take the place of what it downloads."""

import hashlib
import io
import os
import tarfile
import time
from pathlib import Path

import pytest
import sacrebleu
from sacrebleu.dataset import DATASETS

from nemo_distill.errors import InputError
from nemo_distill.evaluation.named_sets import label_of, named_set_files
from nemo_distill.evaluation.results import EvaluationResult
from nemo_distill.evaluation.scoring import evaluate
from nemo_distill.evaluation.speed import measure_speed
from nemo_distill.evaluation.test_sets import NamedSet, TestSet, parse_test_set
from nemo_distill.support.text_files import read_lines


def sgm(lines: list[str]) -> str:
    segments = "".join(f'<seg id="{number}">{line}</seg>\n' for number, line in enumerate(lines, 1))
    return f'<srcset><doc docid="d" genre="news" origlang="de">\n{segments}</doc></srcset>\n'


def xml(source: list[str], references: dict[str, list[str]]) -> str:
    """The form of WMT21 and later."""

    def segments(lines: list[str]) -> str:
        return "".join(f'<seg id="{number}">{line}</seg>' for number, line in enumerate(lines, 1) if line)

    targets = "".join(
        f'<ref lang="en" translator="{who}">{segments(lines)}</ref>' for who, lines in references.items()
    )
    return f'<d><doc id="a" origlang="de"><src lang="de">{segments(source)}</src>{targets}</doc></d>'


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A function that gives a set of sacreBLEU's other content and another cache; returns its archive there."""

    def build(name: str, pair: str, *content: str) -> Path:
        dataset = DATASETS[name]
        files = dataset.langpairs[pair]
        archive = tmp_path / f"elsewhere/{name.replace('/', '_')}.tgz"
        archive.parent.mkdir(exist_ok=True)
        with tarfile.open(archive, "w:gz") as tar:
            for path, text in zip(files, content, strict=True):
                member = tarfile.TarInfo(path)
                member.size = len(text.encode())
                tar.addfile(member, io.BytesIO(text.encode()))
        monkeypatch.setattr(dataset, "data", [archive.as_uri()])
        monkeypatch.setattr(dataset, "md5", [hashlib.md5(archive.read_bytes()).hexdigest()])
        monkeypatch.setattr(dataset, "_outdir", str(tmp_path / "cache" / name))
        monkeypatch.setattr(dataset, "_rawdir", str(tmp_path / "cache" / name / "raw"))
        return Path(dataset._rawdir, f"{name.replace('/', '_')}.{archive.name}")

    return build


@pytest.fixture
def lines(tiny_corpus) -> tuple[list[str], list[str], list[str]]:
    """Source, references in other words than the teacher's, and in its own."""
    source, target = (read_lines(tiny_corpus / f"test.{side}") for side in ("de", "en"))
    return source, [line.replace("The ", "Any ").replace(" is ", " was ") for line in target], target


def test_evaluation_by_name_and_with_several_references(stand_in, lines, tiny_teacher_path, tiny_corpus, tmp_path):
    source, *targets = lines
    stand_in("wmt14", "de-en", sgm(source), sgm(targets[0]))
    stand_in("wmt20/tworefs", "de-en", sgm(source), *map(sgm, targets))
    some = [line if place % 2 else "" for place, line in enumerate(targets[0])]
    (tmp_path / "some.en").write_text("".join(f"{line}\n" for line in some), "utf-8")
    own = f"own:{tiny_corpus}/test.de:{tiny_corpus}/test.en:{tmp_path}/some.en"
    sets = ["wmt14", "wmt20/tworefs:de-en", own]

    result = evaluate([tiny_teacher_path] * 2, sets, tmp_path / "out", names=["a", "b"], progress=False)
    assert [test.name for test in result.test_sets] == ["wmt14", "wmt20_tworefs_de-en", "own"]
    assert EvaluationResult.load(tmp_path / "out") == result
    variable = [line or None for line in some]
    expected = {"wmt14": [targets[0]], "wmt20_tworefs_de-en": targets, "own": [targets[1], variable]}
    for test in result.test_sets:
        assert [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in test.files] == test.hashes
        assert len(test.files) == 1 + len(expected[test.name])
        score = result.score("a", test.name)
        hypotheses = read_lines(tmp_path / "out" / score.hypotheses)
        metric = sacrebleu.BLEU()
        assert score.bleu == metric.corpus_score(hypotheses, expected[test.name]).score
        assert score.bleu_signature == str(metric.get_signature())
        assert score.chrf == sacrebleu.CHRF().corpus_score(hypotheses, expected[test.name]).score
    nrefs = [result.score("a", test.name).bleu_signature.split("|")[0] for test in result.test_sets]
    assert nrefs == ["nrefs:1", "nrefs:2", "nrefs:var"]
    assert result.score("a", "wmt20_tworefs_de-en").bleu > result.score("a", "wmt14").bleu
    assert {item.signature.split("|")[0] for item in result.comparisons} == set(nrefs)

    (tmp_path / "some.en").write_text("".join(f"{line}\n" for line in targets[0]), "utf-8")
    with pytest.raises(InputError, match="a on own differs in further_target_sha256"):
        evaluate([tiny_teacher_path] * 2, sets, tmp_path / "out", names=["a", "b"], progress=False)
    speed = measure_speed([tiny_teacher_path], "wmt14", tmp_path / "speed", ["float32"], progress=False)
    assert speed.rows[0].bleu == pytest.approx(result.score("a", "wmt14").bleu, abs=0.1)


def test_the_report_says_which_test_sets_a_signature_is_of():
    from made_up_results import a_score

    from nemo_distill.evaluation.report import build_report
    from nemo_distill.evaluation.results import ModelResult, TestSetResult

    signatures = {"wmt14": "nrefs:1|tok:13a", "wmt20": "nrefs:2|tok:13a", "own": "nrefs:1|tok:13a"}
    result = EvaluationResult(
        [ModelResult("m", "m.nemo", "a" * 64, 1, 1, 1.0)],
        [TestSetResult(name, "s", "t", "1", "2", 100) for name in signatures],
        [a_score("m", name, 20.0, 40.0, 1.0, (each, "nc:6")) for name, each in signatures.items()],
        [],
    )
    text = build_report([result]).markdown()
    assert "BLEU is sacreBLEU, signature `nrefs:1|tok:13a` (wmt14, own)." in text
    assert "BLEU is sacreBLEU, signature `nrefs:2|tok:13a` (wmt20)." in text
    assert "Signature `nc:6`.\n" in text


def test_references_by_name_come_in_one_order(stand_in, lines):
    """sacreBLEU lists the translators of WMT21 in the order of a Python set."""
    source, *targets = lines
    stand_in("wmt21/AB", "de-en", xml(source, {"B": targets[1], "A": targets[0], "C": targets[0]}))
    found, references = named_set_files("wmt21/AB", "de-en")
    assert read_lines(found) == source
    assert [Path(path).name for path in references] == ["wmt21_AB.de-en.ref-A", "wmt21_AB.de-en.ref-B"]
    assert [read_lines(path) for path in references] == targets


def test_an_archive_in_the_cache(stand_in, lines):
    """Put there by hand it is unpacked; a damaged or wrong one is refused whenever it is met."""
    cached = stand_in("wmt14", "de-en", sgm(lines[0]), sgm(lines[1]))
    elsewhere = Path(DATASETS["wmt14"].data[0].removeprefix("file://"))
    good = elsewhere.read_bytes()
    elsewhere.write_bytes(good[:-9] + b"x" + good[-8:])
    with pytest.raises(InputError, match="test set 'wmt14', de-en: sacreBLEU cannot download it"):
        named_set_files("wmt14", "de-en")
    with pytest.raises(InputError, match=r"wmt14.wmt14.tgz' is not the archive of .* \(its MD5 is not .*; remove"):
        named_set_files("wmt14", "de-en")
    elsewhere.unlink()
    cached.write_bytes(good)
    source, references = named_set_files("wmt14", "de-en")
    assert (read_lines(source), [read_lines(path) for path in references]) == (lines[0], [lines[1]])
    os.remove(source)  # as after a kill while sacreBLEU wrote it
    assert read_lines(named_set_files("wmt14", "de-en")[0]) == lines[0]


def test_files_that_do_not_fit_say_what_to_remove(stand_in, lines, tiny_teacher_path, tmp_path):
    stand_in("wmt14", "de-en", sgm(lines[0]), sgm(lines[1][:3]))
    with pytest.raises(InputError, match=r"has 20 lines but .* has 3.*; remove '.*/cache/wmt14', which sacreBLEU"):
        evaluate([tiny_teacher_path], ["wmt14"], tmp_path / "out", progress=False)
    assert not (tmp_path / "out/results.json").exists()


def test_without_a_network(stand_in, monkeypatch, tmp_path):
    cached = stand_in("wmt14", "de-en", "", "")
    monkeypatch.setattr(DATASETS["wmt14"], "data", ["http://127.0.0.1:9/wmt14.tgz"])
    start = time.monotonic()
    with pytest.raises(InputError) as error:
        named_set_files("wmt14", "de-en")
    assert time.monotonic() - start < 10
    assert "\n" not in str(error.value)
    assert f"fetch it elsewhere and put it there: http://127.0.0.1:9/wmt14.tgz as {cached} (SACREBLEU" in str(
        error.value
    )


def test_text_in_the_cache_is_used_without_a_network(stand_in, monkeypatch):
    directory = stand_in("wmt14", "de-en", "", "").parents[1]
    monkeypatch.setattr(DATASETS["wmt14"], "data", ["http://127.0.0.1:9/wmt14.tgz"])
    directory.mkdir(parents=True)
    for field in DATASETS["wmt14"].fieldnames("de-en"):
        (directory / f"wmt14.de-en.{field}").write_text("text\n", "utf-8")
    expected = f"{directory}/wmt14.de-en.src", [f"{directory}/wmt14.de-en.ref"]
    assert named_set_files("wmt14", "de-en") == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("wmt41", "test set 'wmt41': sacreBLEU knows none of this name; did you mean wmt"),
        (
            "something-else",
            "sacreBLEU knows none of this name; it knows .*wmt14.* .files: name:source-file:target-file",
        ),
        ("wmt14:de-ja", "test set 'wmt14' has not the languages de-ja; it has cs-en, de-en"),
        ("wmt41:de-en", "test set 'wmt41:de-en': write it as name:source-file:target-file.*wmt14:de-en"),
        ("wmt14:", "test set 'wmt14:': write it as"),
        ("a:b::c", "test set 'a:b::c': write it as"),
    ],
)
def test_names_that_are_not_known(text, message):
    with pytest.raises(InputError, match=message):
        parse_test_set(text)


def test_names_and_files_are_told_apart():
    assert parse_test_set("wmt14") == NamedSet("wmt14")
    assert parse_test_set("mtnt1.1/test:en-fr").name == label_of("mtnt1.1/test", "en-fr") == "mtnt1_1_test_en-fr"
    assert parse_test_set("wmt14:a:b:c") == TestSet("wmt14", "a", "b", ("c",))


def test_languages_of_a_named_set(stand_in, lines, tiny_teacher_path, chinese_teacher_path, tmp_path):
    with pytest.raises(InputError, match="no model's archive names its languages; write the test set as wmt14:SOU"):
        evaluate([chinese_teacher_path], ["wmt14"], tmp_path / "out")
    with pytest.raises(InputError, match="test set 'mtnt2019' has not the languages de-en; it has en-fr"):
        evaluate([tiny_teacher_path], ["mtnt2019"], tmp_path / "out")
