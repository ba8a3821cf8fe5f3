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
"""Records of an evaluation are believed only as far as they can be checked."""

import json
import shutil
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import pytest
from made_up_results import an_evaluation
from short_text import short_test_set

from nemo_distill import __version__
from nemo_distill.config.layers import InitConfig
from nemo_distill.errors import InputError
from nemo_distill.evaluation import scoring
from nemo_distill.evaluation.report import write_report
from nemo_distill.evaluation.results import EvaluationResult
from nemo_distill.evaluation.scoring import evaluate
from nemo_distill.evaluation.speed import measure_speed
from nemo_distill.students.initial_student import write_initial_student
from nemo_distill.support.files import sha256


@pytest.fixture(scope="module")
def texts(tiny_corpus, tmp_path_factory) -> list[str]:
    """Two test sets of five sentences."""
    directory = tmp_path_factory.mktemp("texts")
    return [short_test_set(tiny_corpus, directory, 5, split) for split in ("test", "valid")]


@pytest.fixture(scope="module")
def evaluated(tiny_teacher_path, texts, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("evaluation") / "out"
    evaluate([tiny_teacher_path], texts, directory, beam_size=1, progress=False)
    return directory


@pytest.fixture
def again(evaluated, tiny_teacher_path, texts, tmp_path, monkeypatch):
    """A function that evaluates once more in a changed copy; returns the result, and what was decoded."""
    directory = Path(shutil.copytree(evaluated, tmp_path / "out"))
    decoded, original = [], scoring._decode
    monkeypatch.setattr(
        scoring, "_decode", lambda engine, pair, *rest: decoded.append(pair) or original(engine, pair, *rest)
    )

    def go(change, **options):
        change(directory)
        return evaluate([tiny_teacher_path], texts, directory, beam_size=1, progress=False, **options), decoded

    return go


def record_with(name: str, **changes):
    """Return a function that changes keys of the record of `test`, dotted for those of a section."""

    def change(directory: Path):
        path = directory / "scores" / name
        content = json.loads(path.read_text())
        for key, value in changes.items():
            *sections, last = key.split("__")
            holder = content
            for section in sections:
                holder = holder[section]
            holder[last] = value
        path.write_text(json.dumps(content).replace('"1e400"', "1e400").replace('"NaN"', "NaN"))

    return change


REFUSED = {
    "a text for a number": ({"score__seconds": "x"}, "score.seconds is 'x', no finite number"),
    "a bool for a number": ({"score__bleu": True}, "score.bleu is True, no finite number"),
    "too large for a float": ({"score__seconds": "1e400"}, "1e400, which no float holds"),
    "NaN": ({"score__bleu": "NaN"}, "NaN, which is not JSON"),
    "out of range": ({"score__bleu": 101}, "bleu is 101"),
    "no time at all": ({"score__seconds": 0}, "seconds is 0"),
    "negative": ({"parameters": -1}, "parameters is -1"),
    "hypotheses above": ({"score__hypotheses": "../../secret.txt"}, "hypotheses is '../../secret.txt', not"),
    "hypotheses elsewhere": ({"score__hypotheses": "/etc/passwd"}, "hypotheses is '/etc/passwd', not"),
    "another pair": ({"score__model": "other"}, "hypotheses is|is the record of"),
    "a label with a path": ({"score__model": "../x"}, "are no names of model and test set"),
    "no section": ({"score": []}, "score is .*, no mapping"),
    "no key": ({"key": {}}, "key.format_version is missing"),
    "parameters that differ": ({"parameters": 5}, "records of one model differ in its parameters"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_records_that_are_refused(case, again, tmp_path):
    changes, message = REFUSED[case]
    (tmp_path / "secret.txt").write_text("secret")
    with pytest.raises(InputError, match=message) as caught:
        again(record_with("teacher.test.json", **changes))
    assert "\n" not in str(caught.value)


def cut(directory: Path):
    path = directory / "scores/teacher.test.json"
    path.write_bytes(path.read_bytes()[:-20])


def copied(directory: Path):
    shutil.copy(directory / "scores/teacher.test.json", directory / "scores/teacher.valid.json")


@pytest.mark.parametrize(("change", "message"), [(cut, "is not valid JSON"), (copied, "is the record of")])
def test_files_that_are_refused(change, message, again):
    with pytest.raises(InputError, match=message):
        again(change)


def shorter(directory: Path):
    """Hypotheses of another number of lines, with the hash and the scores that they have."""
    import hashlib

    place = directory / "hypotheses/teacher.test.txt"
    place.write_text("".join(place.read_text("utf-8").splitlines(keepends=True)[:3]), "utf-8")
    digest = hashlib.sha256(place.read_bytes()).hexdigest()
    record_with("teacher.test.json", score__hypotheses_sha256=digest)(directory)


DECODED_AGAIN = {
    "BLEU is another": record_with("teacher.test.json", score__bleu=12.5),
    "chrF is another": record_with("teacher.test.json", score__chrf=12.5),
    "fewer hypotheses": shorter,
    "fewer sentences": record_with(
        "teacher.test.json", score__decoded=4, score__seconds=4, score__sentences_per_second=1
    ),
    "another engine": record_with("teacher.test.json", score__engine="nemo"),
    "another beam": record_with("teacher.test.json", score__beam_size=4),
    "another penalty": record_with("teacher.test.json", score__length_penalty=0.7),
    "hypotheses gone": lambda directory: (directory / "hypotheses/teacher.test.txt").unlink(),
}


@pytest.mark.parametrize("case", DECODED_AGAIN)
def test_records_that_do_not_fit_their_hypotheses_are_decoded_again(case, again, evaluated):
    result, decoded = again(DECODED_AGAIN[case])
    assert decoded == [("teacher", "test")]
    earlier = EvaluationResult.load(evaluated).score("teacher", "test")
    found = result.score("teacher", "test")
    assert (found.bleu, found.chrf, found.engine, found.beam_size, found.hypotheses_sha256) == (
        earlier.bleu, earlier.chrf, earlier.engine, earlier.beam_size, earlier.hypotheses_sha256,
    )  # fmt: skip


def test_the_beam_of_the_archive(evaluated, tiny_teacher_path, texts, tmp_path, caplog):
    """Without --beam-size the archive says it."""
    options = {"test_sets": texts[:1], "output_dir": tmp_path / "out", "progress": False}
    whole = evaluate([tiny_teacher_path], **options)
    record_with("teacher.test.json", score__beam_size=9)(tmp_path / "out")
    assert evaluate([tiny_teacher_path], **options).scores[0].beam_size == whole.scores[0].beam_size == 4


def test_versions_are_those_of_what_decoded(again):
    def older(directory: Path):
        record_with("teacher.test.json", versions={"nemo_distill": "0.0.1", "torch": "1.0"})(directory)
        path = directory / "scores/teacher.valid.json"
        content = json.loads(path.read_text())
        assert content["versions"].pop("torch") == version("torch")
        path.write_text(json.dumps(content))

    result, decoded = again(older)
    assert decoded == []
    assert result.versions == {
        "nemo_distill": f"0.0.1, {__version__}",
        "nemo_toolkit": f"unknown, {version('nemo_toolkit')}",
        "torch": "1.0, unknown",
        "ctranslate2": f"unknown, {version('ctranslate2')}",
        "sacrebleu": version("sacrebleu"),
    }


def test_scores_of_another_release_are_computed_again(again, evaluated):
    result, decoded = again(record_with("teacher.test.json", score__bleu=12.5, score__bleu_signature="version:1.0.0"))
    earlier = EvaluationResult.load(evaluated).score("teacher", "test")
    assert decoded == []
    assert result.score("teacher", "test") == earlier


RESULTS = {
    "a bool": (("models", 0, "parameters"), True, "models.0..parameters is True, no whole number"),
    "a huge number": (("models", 0, "parameters"), 10**400, "parameters is 1000"),
    "BLEU": (("scores", 0, "bleu"), -0.1, "bleu is -0.1"),
    "p": (("comparisons", 0, "p_value"), 1.5, "p_value is 1.5"),
    "no sentences": (("test_sets", 0, "sentences"), 0, "sentences is 0"),
    "compression": (("models", 1, "compression"), 0, "compression is 0"),
    "another ratio": (("models", 1, "compression"), 2.0, "compression is 2.0, not parameters of the first / its own"),
    "the score of a system": (("comparisons", 0, "system_score"), 32.0, "system_score is not the BLEU of student"),
    "the score of a baseline": (
        ("comparisons", 0, "baseline_score"),
        32.0,
        "baseline_score is not the BLEU of",
    ),
    "another metric": (("comparisons", 0, "metric"), "chrF2", "system_score is not the chrF2 of student"),
    "a tokenizer": (("scores", 0, "bleu_signature"), "nrefs:1|tok:zh", "signature is not that of the BLEU of teacher"),
    "samples": (("comparisons", 0, "samples"), 10, "samples is 10, not as the signature says"),
    "no score": (("scores",), [], "system_score is not the BLEU of student among the scores"),
    "speed": (("scores", 0, "sentences_per_second"), 1e300, "not decoded / seconds"),
    "hypotheses": (("scores", 0, "hypotheses"), "../x", "hypotheses is '../x'"),
    "a label twice": (("models", 1, "label"), "teacher", "models: teacher comes twice"),
    "a model that is not there": (("models", 1, "label"), "other", "is no pair of the models and test sets"),
    "a system that is not there": (("comparisons", 0, "system"), "other", "are not in the results"),
    "a metric": (("comparisons", 0, "metric"), "x", "metric is 'x'"),
    "an unknown key": (("models", 0, "x"), 1, "models.0..x is unknown"),
    "a version": (("format_version",), True, "no format version"),
}


@pytest.mark.parametrize("case", RESULTS)
def test_results_are_read_by_type_range_and_name(case, tmp_path):
    content = {"format_version": 1, **asdict(an_evaluation())}
    (*where, last), value, message = RESULTS[case]
    holder = content
    for key in where:
        holder = holder[key]
    holder[last] = value
    (tmp_path / "results.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=message) as caught:
        EvaluationResult.load(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def measured(tiny_teacher_path, texts, tmp_path_factory):
    """A function that measures speed, and its directory."""
    directory = tmp_path_factory.mktemp("speed") / "out"
    options = {"engines": ["float32"], "latency_sentences": 2, "beam_size": 1, "device": "cpu", "progress": False}
    measure_speed([tiny_teacher_path], texts[0], directory, **options)
    return lambda out: measure_speed([tiny_teacher_path], texts[0], out, **options), directory


OTHER_ANSWERS = {
    "test_set": "valid",
    "test_sha256": ["a", "b"],
    "sentences": 6,
    "device": "cuda",
    "batch_tokens": 1,
    "skipped": {"teacher": "no reason"},
    "model": "other",
    "engine": "ctranslate2 int8",
    "beam_size": 9,
    "latency_sentences": 3,
    "cores": "one",
}


@pytest.mark.parametrize("key", OTHER_ANSWERS)
def test_a_measurement_that_does_not_answer(key, measured, tmp_path):
    """With the hash that its manifest lists."""
    measure, whole = measured
    out = Path(shutil.copytree(whole, tmp_path / "out"))
    content = json.loads((out / "speed.json").read_text())
    (content if key in content else content["rows"][0])[key] = OTHER_ANSWERS[key]
    (out / "speed.json").write_text(json.dumps(content))
    manifest = json.loads((out / "speed.manifest.json").read_text())
    manifest["files"]["speed.json"]["sha256"] = sha256(out / "speed.json")
    (out / "speed.manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="speed.json' does not answer what was asked for"):
        measure(out)


def without_files(path: Path):
    path.write_text(json.dumps({**json.loads(path.read_text()), "files": {}}))


def test_a_manifest_that_lists_nothing(measured, tiny_teacher_path, tmp_path):
    measure, whole = measured
    out = Path(shutil.copytree(whole, tmp_path / "out"))
    an_evaluation().save(out)
    write_report([out], out)
    (tmp_path / "student.yaml").write_text("{}")
    student = tiny_teacher_path, tmp_path / "student.yaml", out / "s.nemo", InitConfig(from_teacher="every_nth")
    write_initial_student(*student)
    for name in ("speed.manifest.json", "report.manifest.json", "s.nemo.json"):
        without_files(out / name)
    for again in (lambda: measure(out), lambda: write_report([out], out), lambda: write_initial_student(*student)):
        with pytest.raises(InputError, match="does not list the files of such a run"):
            again()
