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
"""`nemo-distill speed`: rows, files, bad input."""

import json

import pytest
from nemo.collections.nlp.models import MTEncDecModel

from nemo_distill import cli
from nemo_distill.archives.restore import restore_model
from nemo_distill.errors import InputError
from nemo_distill.evaluation.speed import measure_speed
from nemo_distill.evaluation.speed_results import SpeedResult


@pytest.fixture(scope="module")
def pair(tiny_corpus) -> str:
    return f"test:{tiny_corpus}/test.de:{tiny_corpus}/test.en"


@pytest.fixture(scope="module")
def measured(tiny_teacher_path, tiny_model_config, pair, tmp_path_factory) -> tuple[SpeedResult, str]:
    directory = tmp_path_factory.mktemp("speed")
    masked = directory / "masked.nemo"
    MTEncDecModel(tiny_model_config(num_layers=1, **{"encoder.mask_future": True})).save_to(str(masked))
    models = [str(tiny_teacher_path), str(masked)]
    return measure_speed(models, pair, directory / "out", latency_sentences=3, progress=False), directory / "out"


def test_each_model_with_each_engine(measured, tiny_teacher_path):
    result, _ = measured
    assert [(row.model, row.engine) for row in result.rows] == [
        ("teacher", "nemo"),
        ("teacher", "ctranslate2 float32"),
        ("teacher", "ctranslate2 int8"),
        ("masked", "nemo"),
    ]
    nemo, full, small, _ = result.rows
    assert nemo.disk_bytes == tiny_teacher_path.stat().st_size
    assert nemo.parameters == full.parameters
    assert full.disk_bytes > small.disk_bytes > nemo.parameters
    assert full.bleu == pytest.approx(nemo.bleu, abs=15)  # of 20 sentences rounding may change one
    for row in result.rows:
        assert row.sentences_per_second == pytest.approx(20 / row.seconds)
        assert row.latency_ms > 0
        assert (row.latency_sentences, row.beam_size) == (3, 4)
    assert list(result.skipped) == ["masked"]
    assert "mask_future" in result.skipped["masked"]


def test_a_gpu_without_ctranslate2s_cuda(tiny_teacher_path, pair, tmp_path, monkeypatch):
    monkeypatch.setattr("nemo_distill.evaluation.speed.device_fault", lambda device: f"no CUDA 12 on {device}")
    arguments = [tiny_teacher_path], pair, tmp_path / "out"
    with pytest.raises(
        InputError, match=r"no model converts to CTranslate2 \(no CUDA 12 on cpu\); add the engine nemo"
    ):
        measure_speed(*arguments, ("float32", "int8"), latency_sentences=1, device="cpu", progress=False)
    arguments = [*arguments, ("nemo", "float32", "int8")]
    result = measure_speed(*arguments, latency_sentences=1, device="cpu", progress=False)
    assert ([row.engine for row in result.rows], result.skipped) == (["nemo"], {"teacher": "no CUDA 12 on cpu"})
    assert measure_speed(*arguments, latency_sentences=1, device="cpu", progress=False) == result


def test_what_only_the_model_shows_not_to_convert_is_skipped(tiny_teacher_path, pair, tmp_path, monkeypatch):
    def restore_with_another_encoder(path, *arguments, **options):
        model = restore_model(path, *arguments, **options)
        model.encoder.__class__ = type("Another", (type(model.encoder),), {})
        return model

    monkeypatch.setattr("nemo_distill.evaluation.engines.restore_model", restore_with_another_encoder)
    arguments = [tiny_teacher_path], pair, tmp_path / "out", ("float32", "int8")
    with pytest.raises(InputError, match="nothing to measure: no model converts"):
        measure_speed(*arguments, latency_sentences=1, progress=False)
    arguments = [tiny_teacher_path], pair, tmp_path / "out", ("nemo", "float32", "int8")
    result = measure_speed(*arguments, latency_sentences=1, progress=False)
    assert [row.engine for row in result.rows] == ["nemo"]
    assert "encoder: a Another" in result.skipped["teacher"]
    assert measure_speed(*arguments, latency_sentences=1, progress=False) == result
    monkeypatch.undo()
    with pytest.raises(InputError, match=r"does not answer what was asked for \(skipped, rows\)"):
        measure_speed(*arguments, latency_sentences=1, progress=False)


def test_files(measured):
    result, directory = measured
    markdown = (directory / "speed.md").read_text("utf-8")
    assert markdown == result.markdown()
    assert "| Model | Engine | BLEU | Sentences/s | Latency, ms | Size, MB | Params. |" in markdown
    assert "masked was not decoded by CTranslate2: encoder.mask_future: true" in markdown
    assert len(json.loads((directory / "speed.json").read_text("utf-8"))["rows"]) == 4


def test_command_line(tiny_teacher_path, pair, tmp_path, capsys):
    arguments = ["speed", "--model", str(tiny_teacher_path), "--test", pair, "--output-dir", str(tmp_path)]
    arguments += ["--engines", "int8", "--beam-size", "2", "--latency-sentences", "2"]
    assert cli.main(arguments) == 0
    assert "ctranslate2 int8" in capsys.readouterr().out
    assert cli.main(arguments) == 0
    assert f"{tmp_path}: already there, hashes verified" in capsys.readouterr().out
    assert cli.main([*arguments, "--latency-sentences", "1"]) == 2
    assert "already holds another run, made with latency_sentences 2 (now 1)" in capsys.readouterr().err
    assert cli.main([*arguments, "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"engines": ["int3"]}, "engine 'int3': give any of nemo, float32"),
        ({"engines": []}, "engine '': give any of"),
        ({"latency_sentences": 0}, "latency sentences is 0; give at least 1"),
        ({"beam_size": 0}, "beam size is 0"),
        ({"test_set": "a:b"}, "write it as name:source"),
    ],
)
def test_bad_input(tiny_teacher_path, pair, tmp_path, change, message):
    options = {"models": [tiny_teacher_path], "test_set": pair, "output_dir": tmp_path / "out", **change}
    with pytest.raises(InputError, match=message):
        measure_speed(**options)
    assert not (tmp_path / "out").exists()
