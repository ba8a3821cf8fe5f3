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
"""`nemo-distill evaluate`: numbers, files, going on after an interruption, and bad input."""

import hashlib
import io
import json
import re
import shutil
import tarfile
from pathlib import Path

import pytest
import sacrebleu
import torch
from nemo.collections.nlp.models import MTEncDecModel
from omegaconf import OmegaConf
from sacrebleu.tokenizers import tokenizer_ja_mecab

from nemo_distill import cli
from nemo_distill.archives.reader import trusted_archives
from nemo_distill.archives.restore import restore_model
from nemo_distill.config.languages import Languages
from nemo_distill.decoding.exporting import export
from nemo_distill.errors import ArchiveError, ConversionError, InputError
from nemo_distill.evaluation import engines
from nemo_distill.evaluation import scoring as evaluate_module
from nemo_distill.evaluation.inputs import choose_metrics, read_models
from nemo_distill.evaluation.results import EvaluationResult
from nemo_distill.evaluation.scoring import evaluate, find_or_evaluate
from nemo_distill.evaluation.test_sets import TestSet, read_test_sets
from nemo_distill.support.text_files import read_lines


@pytest.fixture(scope="module")
def tests(tiny_corpus) -> list[str]:
    return [f"{name}:{tiny_corpus}/{name}.de:{tiny_corpus}/{name}.en" for name in ("test", "valid")]


@pytest.fixture(scope="module")
def archives(tiny_teacher_path, tiny_model_config, tmp_path_factory) -> list[Path]:
    """The trained teacher, and a smaller model that knows nothing."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("student") / "student.nemo"
    MTEncDecModel(tiny_model_config(hidden_size=16, num_layers=1, max_generation_delta=0)).save_to(str(path))
    return [tiny_teacher_path, path]


@pytest.fixture(scope="module")
def evaluated(archives, tests, tmp_path_factory) -> tuple[Path, EvaluationResult]:
    directory = tmp_path_factory.mktemp("evaluation") / "out"
    return directory, evaluate(archives, tests, directory, progress=False)


def test_scores_are_those_of_sacrebleu_on_the_files(evaluated, tiny_corpus):
    directory, result = evaluated
    assert [(score.model, score.test_set) for score in result.scores] == [
        ("teacher", "test"),
        ("teacher", "valid"),
        ("student", "test"),
        ("student", "valid"),
    ]
    for score in result.scores:
        assert score.hypotheses == f"hypotheses/{score.model}.{score.test_set}.txt"
        hypotheses = read_lines(directory / score.hypotheses)
        references = (tiny_corpus / f"{score.test_set}.en").read_text("utf-8").splitlines()
        assert score.bleu == pytest.approx(sacrebleu.corpus_bleu(hypotheses, [references], tokenize="13a").score)
        assert score.chrf == pytest.approx(sacrebleu.corpus_chrf(hypotheses, [references]).score)
        assert "tok:13a" in score.bleu_signature
        assert f"version:{sacrebleu.__version__}" in score.bleu_signature
        assert "nc:6|nw:0" in score.chrf_signature
        assert (score.decoded, score.truncated, score.engine) == (20, 0, "ctranslate2 float32")
        assert score.sentences_per_second == pytest.approx(20 / score.seconds)
        assert (score.beam_size, score.length_penalty) == (4, 0.6)
    assert result.score("teacher", "test").bleu > 60 > 10 > result.score("student", "test").bleu


def test_sizes_count_shared_weights_once(evaluated, archives):
    _, result = evaluated
    for model, archive in zip(result.models, archives, strict=True):
        state = MTEncDecModel.restore_from(str(archive), map_location="cpu")
        storages = {parameter.data_ptr(): parameter.numel() for parameter in state.parameters()}
        assert model.parameters == sum(storages.values())
        assert model.archive_bytes == archive.stat().st_size
        assert model.archive_sha256 == hashlib.sha256(archive.read_bytes()).hexdigest()
    teacher, student = result.models
    assert teacher.compression == 1.0
    assert student.compression == pytest.approx(teacher.parameters / student.parameters)
    assert student.compression > 2


def test_every_pair_of_models_is_compared(evaluated):
    _, result = evaluated
    assert [(item.system, item.baseline, item.test_set, item.metric) for item in result.comparisons] == [
        ("student", "teacher", name, metric) for name in ("test", "valid") for metric in ("BLEU", "chrF2")
    ]
    for item in result.comparisons:
        assert item.difference < -10
        assert item.p_value < 0.01
        assert item.samples == 1000
        assert "ar:1000|seed:12345" in item.signature
        if item.metric == "BLEU":
            assert item.system_score == pytest.approx(result.score("student", item.test_set).bleu)


def test_equal_models_do_not_differ(archives, tests, tmp_path):
    """Asked for by label; sacreBLEU itself would call them different."""
    result = evaluate([archives[1]] * 3, tests[:1], tmp_path, names=["a", "b", "c"], compare=["c:a"], progress=False)
    assert [(item.system, item.baseline, item.p_value) for item in result.comparisons] == [("c", "a", 1.0)] * 2


def test_result_survives_json(evaluated):
    directory, result = evaluated
    assert EvaluationResult.load(directory) == result
    assert EvaluationResult.load(directory / "results.json") == result
    assert (
        json.loads((directory / "results.json").read_text("utf-8"))["versions"]["sacrebleu"] == sacrebleu.__version__
    )


@pytest.fixture
def copy(evaluated, tmp_path) -> Path:
    """A directory like that of `evaluated`, to go on in."""
    return Path(shutil.copytree(evaluated[0], tmp_path / "out"))


@pytest.fixture
def decoded(monkeypatch) -> list[tuple[str, str]]:
    """Records which pairs are really decoded."""
    pairs, original = [], evaluate_module._decode

    def recorder(model, pair, *rest):
        pairs.append(pair)
        return original(model, pair, *rest)

    monkeypatch.setattr(evaluate_module, "_decode", recorder)
    return pairs


def test_nothing_is_decoded_twice(copy, evaluated, archives, tests, decoded):
    assert evaluate(archives, tests, copy, progress=False) == evaluated[1]
    assert decoded == []


def test_results_of_an_older_release_get_their_lengths_and_wrong_ones_are_decoded_again(
    copy, evaluated, archives, tests, decoded
):
    for score in evaluated[1].scores:
        words = sacrebleu.corpus_bleu(
            read_lines(copy / score.hypotheses), [read_lines(tests[score.test_set == "valid"].rpartition(":")[2])]
        )
        assert score.length_ratio == words.sys_len / words.ref_len
    (copy / "results.json").unlink()
    record = copy / "scores/student.test.json"
    content = json.loads(record.read_text("utf-8"))
    for ratio in (None, 0.5):
        changed = {**content["score"], "length_ratio": ratio}
        record.write_text(json.dumps({**content, "score": changed}), "utf-8")
        (copy / "results.json").unlink(missing_ok=True)
        again = evaluate(archives, tests, copy, progress=False).score("student", "test")
        assert again.length_ratio == content["score"]["length_ratio"]
        assert decoded == ([] if ratio is None else [("student", "test")])
        assert json.loads(record.read_text("utf-8"))["score"]["length_ratio"] == content["score"]["length_ratio"]


def test_an_interrupted_evaluation_goes_on(copy, evaluated, archives, tests, decoded):
    (copy / "results.json").unlink()
    (copy / "scores/teacher.valid.json").unlink()  # stopped before the record was written
    (copy / "hypotheses/student.test.txt").write_text("half a fi", "utf-8")  # and a file was damaged
    result = evaluate(archives, tests, copy, progress=False)
    assert decoded == [("teacher", "valid"), ("student", "test")]
    for score in evaluated[1].scores:
        again = result.score(score.model, score.test_set)
        assert (again.bleu, again.hypotheses_sha256) == (score.bleu, score.hypotheses_sha256)


def test_an_evaluation_can_be_extended(copy, archives, tests, decoded):
    result = evaluate([*archives, archives[1]], tests, copy, names=["teacher", "student", "copy"], progress=False)
    assert decoded == [("copy", "test"), ("copy", "valid")]
    assert result.score("copy", "test").bleu == result.score("student", "test").bleu


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beam_size": 2}, "student on test differs in beam_size"),
        ({"batch_tokens": 99}, "differs in batch_tokens"),
        ({"engine": "nemo"}, "differs in engine"),
        ({"quantization": "int8"}, "differs in engine"),
        ({"names": ["student", "teacher"]}, "student on test differs in archive_sha256"),
        ({"names": ["a", "b"]}, "is not part of this one"),
        ({"test_sets": ["test:{valid}", "valid:{test}"]}, "differs in source_sha256, target_sha256"),
    ],
)
def test_another_evaluation_is_refused_unless_overwritten(copy, archives, tests, change, message, decoded):
    options = {"models": archives, "test_sets": tests, "output_dir": copy, "progress": False, **change}
    files = dict(spec.split(":", 1) for spec in tests)
    options["test_sets"] = [spec.format(**files) for spec in options["test_sets"]]
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=f"already holds another evaluation: .*{message}.*--overwrite"):
        evaluate(**options)
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before
    assert decoded == []
    if "names" in change:
        evaluate(**options, overwrite=True)
        assert len(decoded) == 4
        assert len(list((copy / "hypotheses").iterdir())) == 4


def test_foreign_results_are_refused(archives, tests, tmp_path):
    (tmp_path / "results.json").write_text("{}", "utf-8")
    with pytest.raises(InputError, match="already holds another run"):
        evaluate(archives, tests, tmp_path)


def test_beam_size_is_used(archives, tests, tmp_path):
    result = evaluate(archives[:1], tests[:1], tmp_path, beam_size=1, progress=False)
    assert result.scores[0].beam_size == 1


def test_empty_source_lines_keep_their_place(archives, tiny_sources, tmp_path):
    (tmp_path / "s").write_text("\n".join(["", tiny_sources[0], ""]) + "\n", "utf-8")
    (tmp_path / "t").write_text("nothing\nThe door is open.\nnothing\n", "utf-8")
    result = evaluate(archives[:1], [TestSet("gaps", str(tmp_path / "s"), str(tmp_path / "t"))], tmp_path / "out")
    lines = read_lines(tmp_path / "out" / result.scores[0].hypotheses)
    assert [bool(line) for line in lines] == [False, True, False]
    assert result.scores[0].decoded == 1


def test_engines_agree_and_are_recorded(archives, tests, tmp_path):
    """In a beam of one. Of 20 sentences int8 may change one or two."""
    nemo, full, small = (
        evaluate(archives[:1], tests[:1], tmp_path / str(place), beam_size=1, progress=False, **options).scores[0]
        for place, options in enumerate(({"engine": "nemo"}, {}, {"quantization": "int8"}))
    )
    assert (nemo.engine, full.engine, small.engine) == ("nemo", "ctranslate2 float32", "ctranslate2 int8")
    assert nemo.bleu == pytest.approx(full.bleu)
    assert small.bleu == pytest.approx(full.bleu, abs=15)


def test_what_does_not_convert_is_decoded_by_nemo(tiny_model_config, archives, tests, tmp_path, decoded):
    MTEncDecModel(tiny_model_config(num_layers=1, **{"encoder.mask_future": True})).save_to(str(tmp_path / "m.nemo"))
    models = [archives[0], tmp_path / "m.nemo"]
    result = evaluate(models, tests[:1], tmp_path / "out", progress=False)
    assert [score.engine for score in result.scores] == ["ctranslate2 float32", "nemo"]
    with pytest.raises(ConversionError, match=r"m.nemo: the model does not convert.*mask_future: true.*'nemo'"):
        evaluate(models, tests[:1], tmp_path / "out", engine="ctranslate2")
    with pytest.raises(ConversionError, match="quantization is 'int8', but the model does not convert"):
        evaluate(models, tests[:1], tmp_path / "out", quantization="int8")
    assert len(decoded) == 2


def test_nemo_decodes_what_only_the_model_shows_not_to_convert(archives, tests, tmp_path, decoded, monkeypatch):
    """A class of its own around the encoder: the configuration does not tell. Once more, nothing is decoded again."""

    def restore_with_another_encoder(path, *arguments, **options):
        model = restore_model(path, *arguments, **options)
        model.encoder.__class__ = type("Another", (type(model.encoder),), {})
        return model

    monkeypatch.setattr("nemo_distill.evaluation.engines.restore_model", restore_with_another_encoder)
    first = evaluate(archives[:1], tests[:1], tmp_path / "out", progress=False)
    assert [score.engine for score in first.scores] == ["nemo"]
    assert evaluate(archives[:1], tests[:1], tmp_path / "out", progress=False) == first
    assert len(decoded) == 1
    for options in ({"engine": "ctranslate2"}, {"quantization": "int8"}):
        with pytest.raises(ConversionError, match=r"nemo: the model does not convert.*encoder: a Another"):
            evaluate(archives[:1], tests[:1], tmp_path / next(iter(options)), progress=False, **options)
    monkeypatch.undo()
    assert [s.engine for s in evaluate(archives[:1], tests[:1], tmp_path / "out").scores] == ["ctranslate2 float32"]


def test_an_engine_chosen_is_the_same_as_asked_for(copy, archives, tests, evaluated, decoded):
    assert evaluate(archives, tests, copy, engine="ctranslate2", progress=False) == evaluated[1]
    assert decoded == []


def test_chinese_of_an_archive_without_languages(chinese_teacher_path, chinese_corpus, tmp_path, decoded):
    """By the script of the references; what is asked for goes before it, and nothing is decoded again for it."""
    paths = [chinese_corpus / f"test.{language}" for language in ("de", "zh")]
    inputs = [chinese_teacher_path], [f"t:{paths[0]}:{paths[1]}"], tmp_path / "out"
    for name, asked in (("zh", None), ("char", "char"), ("13a", "13a")):
        [score] = evaluate(*inputs, bleu_tokenizer=asked, progress=False).scores
        hypotheses = read_lines(tmp_path / "out/hypotheses/chinese.t.txt")
        assert score.bleu == sacrebleu.corpus_bleu(hypotheses, [read_lines(paths[1])], tokenize=name).score
        assert f"|tok:{name}|" in score.bleu_signature
        assert (score.bleu > 5) == (name != "13a")
    assert decoded == [("chinese", "t")]
    with pytest.raises(InputError, match="--bleu-tokenizer: got '14a'; sacreBLEU has none, zh, 13a"):
        evaluate(*inputs, bleu_tokenizer="14a")


def test_one_bleu_tokenizer_for_all_models(archives, chinese_teacher_path, tests, tmp_path):
    """By the languages that archives name; `ignore` names none."""
    names = {"ja": "tgt_language: ja", "zh": "tgt_language: zh", "th": "tgt_language: th"}
    models = {
        name: archive_with(
            archives[1], tmp_path / f"{name}.nemo", lambda text, to=to: text.replace("tgt_language: en", to)
        )
        for name, to in names.items()
    } | {"en": archives[1], "ignore": chinese_teacher_path}

    def tokenizer(*labels: str, asked: str | None = None, languages: Languages | None = None) -> str:
        candidates = read_models([models[label] for label in labels], labels, languages)
        [test] = read_test_sets(tests[:1])
        choose_metrics(test, candidates, asked)
        return test.metrics["BLEU"].tokenizer_signature

    assert [tokenizer("en", "ignore"), tokenizer("zh", "ignore"), tokenizer("th", "en")] == ["13a", "zh", "13a"]
    assert tokenizer("ignore", languages=Languages(target="zh")) == "zh"
    with pytest.raises(InputError, match=r"different BLEU tokenizers \(en 13a, zh zh\).* or choose one with --bleu"):
        tokenizer("en", "zh")
    assert tokenizer("en", "zh", "ja", asked="char") == "char"


BAD_INPUT = {
    "no model": ({"models": []}, "no model; give at least one"),
    "model missing": ({"models": ["{dir}/none.nemo"]}, "none.nemo"),
    "not an archive": ({"models": ["{dir}/two"]}, "two is not a .nemo model"),
    "same label": ({"models": ["{teacher}", "{teacher}"]}, "two models are named 'teacher'; .*--names"),
    "label with space": ({"models": ["{dir}/my model.nemo"]}, "model name 'my model': .*--names"),
    "names too few": ({"names": ["only"]}, "1 names for 2 models"),
    "name repeated": ({"names": ["a", "a"]}, "two models are named 'a'"),
    "one archive as two seeds": (
        {"models": ["{teacher}", "{teacher}"], "names": ["a@seed1", "a@seed2"]},
        "'a@seed1' and 'a@seed2' are one archive; give each seed of 'a' its own",
    ),
    "no test set": ({"test_sets": []}, "no test set; give at least one"),
    "two parts": ({"test_sets": ["a:b"]}, "test set 'a:b': write it as name:source-file:target-file"),
    "no name": ({"test_sets": [":a:b"]}, "test set ':a:b': write it as"),
    "test repeated": ({"test_sets": ["{test}", "{test}"]}, "two test sets are named 'test'"),
    "test with dot": ({"test_sets": ["a.b:{dir}/two:{dir}/two"]}, "test set name 'a.b': a name is made of"),
    "file missing": ({"test_sets": ["t:{dir}/no:{dir}/two"]}, "no' does not exist"),
    "unequal": ({"test_sets": ["t:{dir}/two:{dir}/one"]}, "two' has 2 lines but '.*one' has 1"),
    "empty": ({"test_sets": ["t:{dir}/empty:{dir}/two"]}, "empty' is empty"),
    "not UTF-8": ({"test_sets": ["t:{dir}/latin:{dir}/one"]}, "latin', line 1: .*not UTF-8"),
    "beam": ({"beam_size": 0}, "beam size is 0; give at least 1"),
    "batch": ({"batch_tokens": -5}, "batch tokens is -5; give at least 1"),
    "engine": ({"engine": "warp"}, "engine is 'warp'; give one of auto, ctranslate2, nemo"),
    "quantization": ({"quantization": "int3"}, "quantization is 'int3'; give one of float32, "),
    "quantization of NeMo": (
        {"engine": "nemo", "quantization": "int8"},
        "quantization is 'int8', but the engine 'nemo' has none",
    ),
    "device": ({"device": "tpu9"}, "device is 'tpu9'; give cpu, cuda"),
    "comparison of one": ({"compare": ["teacher"]}, "comparison 'teacher': write A:B .*teacher, student"),
    "comparison unknown": ({"compare": ["student:other"]}, "comparison 'student:other'"),
    "comparison with itself": ({"compare": ["student:student"]}, "comparison 'student:student'"),
    "output is a file": ({"output_dir": "{dir}/two"}, "two' cannot be a directory"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_refused_before_a_model_is_loaded(case, archives, tests, tmp_path, monkeypatch):
    for name, content in {"two": b"one\ntwo\n", "one": b"one\n", "empty": b"", "latin": b"T\xfcr\n"}.items():
        (tmp_path / name).write_bytes(content)
    shutil.copy(archives[1], tmp_path / "my model.nemo")
    monkeypatch.setattr(engines, "restore_model", lambda *_: pytest.fail("a model was loaded"))

    def fill(value):
        if isinstance(value, list):
            return [fill(item) for item in value]
        return value.format(dir=tmp_path, teacher=archives[0], test=tests[0]) if isinstance(value, str) else value

    change, message = BAD_INPUT[case]
    options = {"models": archives, "test_sets": tests, "output_dir": tmp_path / "out"}
    with pytest.raises(InputError, match=message):
        evaluate(**options | {name: fill(value) for name, value in change.items()})


def archive_with(source: Path, path: Path, change) -> Path:
    """Write a copy of an archive whose configuration text went through `change`."""
    with tarfile.open(source) as old, tarfile.open(path, "w") as new:
        for member in old.getmembers():
            content = old.extractfile(member).read() if member.isfile() else b""
            if member.name.endswith("model_config.yaml"):
                content = change(content.decode()).encode()
                member.size = len(content)
            new.addfile(member, io.BytesIO(content))
    return path


def test_a_class_that_cannot_be_imported_is_no_obstacle(archives, tests, tmp_path):
    """The archive of a model class of a project that is not installed here."""
    foreign = archive_with(
        archives[1],
        tmp_path / "foreign.nemo",
        lambda text: re.sub("(?m)^target:.*$", "target: no_such_project.models.TheirModel", text),
    )
    with pytest.raises(ArchiveError, match="If you made this file yourself, say so: .*--trust-archive"):
        evaluate([archives[1], foreign], tests[:1], tmp_path / "out", progress=False)
    with trusted_archives():
        result = evaluate([archives[1], foreign], tests[:1], tmp_path / "out", progress=False)
    assert result.scores[0].hypotheses_sha256 == result.scores[1].hypotheses_sha256


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda text: text.replace("tgt_language: en", "tgt_language: zh"),
            "need different BLEU tokenizers .teacher 13a",
        ),
        (lambda text: text + "multilingual: true\n", "multilingual is true; a list of languages in one"),
        (
            lambda text: re.sub("(?m)^head:", "tail:", text),
            "is refused: in its model_config.yaml, head is missing; a section is needed",
        ),
    ],
)
def test_models_that_do_not_fit_are_refused(archives, tests, tmp_path, change, message):
    other = archive_with(archives[1], tmp_path / "other.nemo", change)
    with pytest.raises(InputError, match=message):
        evaluate([archives[0], other], tests, tmp_path / "out")


def test_a_missing_bleu_tokenizer_is_named(archives, tests, tmp_path, monkeypatch):
    monkeypatch.setattr(tokenizer_ja_mecab, "MeCab", None)
    japanese = archive_with(
        archives[1], tmp_path / "j.nemo", lambda text: text.replace("tgt_language: en", "tgt_language: ja")
    )
    with pytest.raises(InputError, match=r"tokenizer 'ja-mecab' is not installed: .*pip install sacrebleu\[ja\]"):
        evaluate([japanese], tests, tmp_path / "out")


@pytest.mark.parametrize(
    "content", ["[]", "{}", '{"format_version": 9}', '{"format_version": 1, "models": [{}]}', "{"]
)
def test_what_is_no_result_is_refused(tmp_path, content):
    (tmp_path / "results.json").write_text(content, "utf-8")
    with pytest.raises(InputError, match="results.json"):
        EvaluationResult.load(tmp_path)


def test_score_that_is_not_there(evaluated):
    with pytest.raises(KeyError, match="no score of model 'teacher' on test set 'wmt20'"):
        evaluated[1].score("teacher", "wmt20")


def test_command_line(archives, tests, tmp_path, capsys):
    arguments = ["evaluate", "--model", *map(str, archives), "--output-dir", str(tmp_path / "out")]
    arguments += ["--test", tests[0], "--test", tests[1], "--names", "big", "small", "--compare", "small:big"]
    arguments += ["--bleu-tokenizer", "intl"]
    assert cli.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "|tok:intl|" in printed
    assert "| Model | test | valid | Params. | Compression | Sentences/s |" in printed
    assert "| small − big |" in printed
    assert (tmp_path / "out/hypotheses/small.valid.txt").is_file()

    assert cli.main([*arguments, "--beam-size", "3"]) == 2
    assert "differs in beam_size" in capsys.readouterr().err
    assert cli.main([*arguments, "--beam-size", "3", "--overwrite"]) == 0


def test_a_model_that_is_not_nemos_beside_one_that_is(foreign_model, archives, tests, tmp_path):
    """One table: scores, weights, bytes and significance of both; its languages are part of the request."""
    models = [foreign_model("marian_to_many"), archives[0]]
    german, french = Languages("de", "deu"), Languages("de", "fra")
    result = evaluate(models[:1], tests[:1], tmp_path / "alone", languages=french, progress=False)
    [row], [score] = result.models, result.scores
    assert (row.label, row.parameters, score.beam_size) == ("marian_to_many", 7387, 3)
    assert row.archive_bytes > (models[0] / "model.safetensors").stat().st_size
    assert score.engine == "ctranslate2 float32"
    again, was_there = find_or_evaluate(
        models[:1], tests[:1], tmp_path / "alone", *[None, None, 4096, None, None, "auto", None, False, False, french]
    )
    assert was_there
    assert again == result
    with pytest.raises(InputError, match="differs in target_language"):
        evaluate(models[:1], tests[:1], tmp_path / "alone", languages=german, progress=False)
    with pytest.raises(InputError, match="no .nemo archive; leave the engine out"):
        evaluate(models, tests[:1], tmp_path / "other", engine="nemo", languages=french, progress=False)
    both = evaluate(models, tests[:1], tmp_path / "both", languages=french, progress=False)
    assert [model.label for model in both.models] == ["marian_to_many", archives[0].name.removesuffix(".nemo")]
    assert both.comparisons[0].baseline == "marian_to_many"
    assert both.score("marian_to_many", "test").bleu < both.score(both.models[1].label, "test").bleu
    assert both.models[1].compression == both.models[0].parameters / both.models[1].parameters


def test_what_no_longer_fits_is_removed_and_the_rest_stays(copy, archives, tests, decoded, tmp_path, capsys):
    """As a job needs it, one of whose rows was trained anew or left out."""
    torch.manual_seed(2)
    again = MTEncDecModel.restore_from(str(archives[1]))
    torch.nn.init.normal_(again.log_softmax.mlp.layer0.bias)
    (tmp_path / "again").mkdir()
    again.save_to(str(tmp_path / "again" / "student.nemo"))
    models = [archives[0], tmp_path / "again" / "student.nemo"]
    with pytest.raises(InputError, match="student on test differs in archive_sha256.*--renew"):
        evaluate(models, tests, copy, progress=False)
    result = evaluate(models, tests, copy, renew=True, progress=False)
    assert decoded == [("student", "test"), ("student", "valid")]
    assert result == evaluate(models, tests, tmp_path / "fresh", progress=False) or [
        (each.model, each.bleu) for each in result.scores
    ] == [(each.model, each.bleu) for each in EvaluationResult.load(tmp_path / "fresh").scores]
    del decoded[:]
    arguments = ["evaluate", "--model", str(archives[0]), "--test", tests[0], "--output-dir", str(copy), "--renew"]
    assert cli.main(arguments) == 0  # a row and a test set less
    assert not decoded
    assert sorted(path.name for path in (copy / "scores").iterdir()) == ["teacher.test.json"]
    assert sorted(path.name for path in (copy / "hypotheses").iterdir()) == ["teacher.test.txt"]
    assert cli.main([*arguments, "--overwrite"]) == 2
    assert "renew keeps what overwrite decodes again" in capsys.readouterr().err


def test_what_has_another_label_now_is_not_decoded_again(copy, archives, tests, decoded, capsys):
    """As the first seed of a row, where others are added."""
    before = EvaluationResult.load(copy).scores
    named = {"teacher": "teacher", "student": "student@seed1"}
    result = evaluate(archives, tests, copy, names=list(named.values()), renew=True, progress=False)
    assert not decoded
    assert [(each.model, each.bleu) for each in result.scores] == [(named[each.model], each.bleu) for each in before]
    for place, suffix in (("scores", "json"), ("hypotheses", "txt")):
        found = {path.name for path in (copy / place).iterdir()}
        assert found == {f"{label}.{test}.{suffix}" for label in named.values() for test in ("test", "valid")}
    (copy / "hypotheses" / "student@seed1.test.txt").write_text("mine\n")
    with pytest.raises(InputError, match="has changed since it was written, so it stays; move it away"):
        evaluate(archives, tests, copy, renew=True, progress=False)
    assert (copy / "hypotheses" / "student@seed1.test.txt").read_text() == "mine\n"


def test_hypotheses_that_somebody_changed_are_not_removed(copy, archives, tests):
    (copy / "hypotheses" / "student.test.txt").write_text("mine\n")
    with pytest.raises(InputError, match="has changed since it was written, so it stays; move it away"):
        evaluate(archives[:1], tests, copy, renew=True, progress=False)
    assert (copy / "hypotheses" / "student.test.txt").read_text() == "mine\n"


def test_an_export_is_searched_as_it_says_and_taken_over(tiny_model_config, tests, tmp_path, decoded):
    torch.manual_seed(1)
    model = MTEncDecModel(tiny_model_config(hidden_size=16, num_layers=1, beam_size=3, len_pen=-0.5))
    model.save_to(str(tmp_path / "m.nemo"))
    export(tmp_path / "m.nemo", tmp_path / "m", "float32")
    [read] = read_models([tmp_path / "m"], None, None)
    assert (read.config.beam_size, read.config.len_pen) == (3, -0.5)
    result = evaluate([tmp_path / "m"], tests[:1], tmp_path / "out", progress=False)
    assert (result.scores[0].beam_size, result.scores[0].length_penalty) == (3, -0.5)
    assert evaluate([tmp_path / "m"], tests[:1], tmp_path / "out", progress=False) == result
    assert len(decoded) == 1


def test_an_export_has_the_bleu_tokenizer_of_its_archive(chinese_teacher_path, tmp_path):
    model = MTEncDecModel.restore_from(str(chinese_teacher_path))
    OmegaConf.update(model.cfg, "tgt_language", "zh", force_add=True)
    model.save_to(str(tmp_path / "zh.nemo"))
    export(tmp_path / "zh.nemo", tmp_path / "m", "float32")
    models = read_models([tmp_path / "zh.nemo", tmp_path / "m"], None, None)
    assert {model.config.tgt_language for model in models} == {"zh"}


def test_a_name_that_no_file_can_have(archives, tests, tmp_path):
    with pytest.raises(InputError, match="has more than 120 bytes"):
        evaluate(archives[:1], tests, tmp_path / "out", names=["模" * 90], progress=False)


def test_decomposed_letters_of_test_sets_are_told(archives, tests, tmp_path, monkeypatch):
    messages = []
    monkeypatch.setattr("nemo.utils.logging.warning", messages.append)
    files = {"a.de": "Tür\nTu\u0308r\n", "a.en": "door\n\n", "b.en": "cafe\u0301\nthe cafe\u0301\n"}
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    test = "t:" + ":".join(str(tmp_path / name) for name in files)
    evaluate(archives[1:2], [test], tmp_path / "out", progress=False)
    told = [each.split(": letters")[0] for each in messages if "decomposed" in each]
    assert told == [
        f"nemo_distill: test set t: '{tmp_path / 'a.de'}': line 2",
        f"nemo_distill: test set t: '{tmp_path / 'b.en'}': 2 lines, the first is 1",
    ]
