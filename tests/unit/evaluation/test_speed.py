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
import os
from pathlib import Path

import pytest
from nemo.collections.nlp.models import MTEncDecModel

from nemo_distill import cli
from nemo_distill.archives.restore import restore_model
from nemo_distill.errors import InputError, StageError
from nemo_distill.evaluation import speed_rows
from nemo_distill.evaluation.speed import measure_speed
from nemo_distill.evaluation.speed_results import SpeedResult, check_cores
from nemo_distill.evaluation.speed_rows import Forecast
from nemo_distill.support import threads

ROOT = Path(__file__).parents[3]


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


def test_each_model_with_each_engine(measured, tiny_teacher_path, pair):
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
    words = sum(len(line.split()) for line in Path(pair.split(":")[1]).read_text("utf-8").splitlines())
    for row in result.rows:
        assert row.sentences_per_second == pytest.approx(20 / row.seconds)
        assert row.words_per_second == pytest.approx(words / row.seconds)
        assert row.latency_p95_ms >= row.latency_ms > 0
        assert (row.latency_sentences, row.beam_size, row.cores) == (3, 4, "all")
    assert nemo.memory_bytes is None
    assert 20e6 < small.memory_bytes < 400e6  # torch and NeMo, which this process has, take more
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
    columns = "Model | Engine | Beam | Threads | BLEU | Sentences/s | Words/s | Latency p50, ms | p95, ms | Memory, MB"
    assert f"| {columns} | Size, MB | Params. |" in markdown
    assert "| masked | nemo | 4 |" in markdown
    assert "masked was not decoded by CTranslate2: encoder.mask_future: true" in markdown
    assert len(json.loads((directory / "speed.json").read_text("utf-8"))["rows"]) == 4


def test_greedy_and_beam_on_one_core_and_on_all(tiny_teacher_path, pair, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "cores", lambda: min(len(os.sched_getaffinity(0)), 2))
    if threads.cores() == 1:
        pytest.skip("one core")
    before = os.sched_getaffinity(0)
    arguments = ["speed", "--model", str(tiny_teacher_path), "--test", pair, "--output-dir", str(tmp_path / "out")]
    arguments += ["--engines", "int8", "--latency-sentences", "2", "--device", "cpu"]
    arguments += ["--beam-size", "1", "4", "--cores", "one", "all"]
    assert cli.main(arguments) == 0
    assert os.sched_getaffinity(0) == before
    rows = SpeedResult.load(tmp_path / "out").rows
    assert [(row.cores, row.threads, row.beam_size) for row in rows] == [
        *(("one", 1, 1), ("one", 1, 4), ("all", 2, 1), ("all", 2, 4))
    ]
    assert len({row.bleu for row in rows if row.beam_size == 4}) == 1
    assert "With one thread where the process had one core" in capsys.readouterr().out
    assert cli.main(arguments) == 0
    assert cli.main([*arguments, "--cores", "all"]) == 2
    assert "made with cores ['one', 'all'] (now ['all'])" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["demo_speed.json", "multi30k_speed.json"])
def test_measurements_of_earlier_versions_are_read(name):
    """They lack words, p95, memory and cores."""
    path = ROOT / "docs/results" / name
    content = json.loads(path.read_text("utf-8"))
    for row in content["rows"]:
        for key in ("latency_p95_ms", "words_per_second", "memory_bytes", "cores", "threads"):
            row.pop(key, None)
    result = SpeedResult.load(path)
    assert len(result.markdown().splitlines()) > len(result.rows)


def test_what_was_not_measured_is_a_dash(tmp_path):
    content = json.loads((ROOT / "docs/results/demo_speed.json").read_text("utf-8"))
    for row in content["rows"]:
        for key in ("latency_p95_ms", "words_per_second", "memory_bytes", "cores", "threads"):
            row.pop(key, None)
    (tmp_path / "speed.json").write_text(json.dumps(content))
    result = SpeedResult.load(tmp_path)
    _, [line, *_] = result.table()
    assert line[6] == line[8] == line[9] == "–"
    assert line[3] == str(result.threads)
    assert "Memory is" not in result.markdown()


def test_memory_is_said_to_be_of_the_sentences_that_were_translated(tmp_path):
    """Of a longer test set these are the first thousand."""
    content = json.loads((ROOT / "docs/results/demo_speed.json").read_text("utf-8"))
    content["rows"][0]["memory_bytes"] = 90_000_000
    for sentences, told in ((1000, "sentences with"), (1001, "sentences, the first 1,000, with")):
        (tmp_path / "speed.json").write_text(json.dumps(content | {"sentences": sentences}))
        assert f"nothing but translate these {told} an export" in SpeedResult.load(tmp_path).markdown()


def test_a_run_says_how_long_it_will_take(monkeypatch):
    """A row takes as long as the one before it of the same engine and beam; the first one at most as it is probed."""
    said, clock = [], iter([0.0, 50.0, 52.0])
    monkeypatch.setattr(speed_rows.logging, "info", said.append)
    monkeypatch.setattr(speed_rows.time, "monotonic", lambda: next(clock))
    rows = [("a", "nemo", "all", 4), ("a", "int8", "all", 4), ("b", "nemo", "all", 4), ("b", "int8", "all", 4)]
    forecast = Forecast([*rows, ("c", "int8", "all", 4)])
    forecast.begin(rows[0], most=120.0)
    forecast.end(rows[0])
    forecast.drop("c", "int8")
    forecast.begin(rows[1], most=9.0)
    forecast.end(rows[1])
    forecast.begin(rows[2], most=70.0)
    assert said == [
        "row 1 of 5: a, nemo, beam 4, cores all: at most 2 min 00 s; all 5 that are left about 10 min 00 s",
        "row 2 of 4: a, int8, beam 4, cores all: about 50 s; all 3 that are left about 2 min 30 s",
        "row 3 of 4: b, nemo, beam 4, cores all: about 50 s; all 2 that are left about 52 s",
    ]


def test_a_process_that_serves_and_fails_is_one_error(tiny_teacher_path, pair, tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text("raise SystemExit('first\\nno room')")
    monkeypatch.setattr("nemo_distill.evaluation.serving._PROCESS", tmp_path / "broken.py")
    with pytest.raises(StageError, match="teacher: the process whose memory is measured failed: no room"):
        measure_speed([tiny_teacher_path], pair, tmp_path / "out", ("int8",), latency_sentences=1, progress=False)


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
        ({"beam_size": [4, 0]}, "beam size is 0"),
        ({"beam_size": [4, 4]}, "beam sizes: got 4, 4; give each once"),
        ({"engines": ["int8", "int8"]}, "engines: got int8, int8; give each once"),
        ({"beam_size": []}, "no beam size; give at least one"),
        ({"cores": ["2"]}, "cores '2': give any of one, all"),
        ({"cores": []}, "cores '': give any of"),
        ({"cores": ["one"], "device": "cuda:7"}, "cuda:7"),
        ({"test_set": "a:b"}, "write it as name:source"),
    ],
)
def test_bad_input(tiny_teacher_path, pair, tmp_path, change, message):
    options = {"models": [tiny_teacher_path], "test_set": pair, "output_dir": tmp_path / "out", **change}
    with pytest.raises(InputError, match=message):
        measure_speed(**options)
    assert not (tmp_path / "out").exists()


def test_one_thread_is_not_measured_twice(tiny_teacher_path, pair, tmp_path, monkeypatch):
    arguments = [tiny_teacher_path], pair, tmp_path / "out"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with pytest.raises(InputError, match="cores: OMP_NUM_THREADS is 1, so that one and all are the same"):
        measure_speed(*arguments, cores=("one", "all"))
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(threads, "cores", lambda: 1)
    with pytest.raises(InputError, match="cores: this process has one core, so that"):
        measure_speed(*arguments, cores=("one", "all"))
    with pytest.raises(InputError, match="'one' is of a CPU, and the device is cuda; leave it out"):
        check_cores(["one"], "cuda")


def test_another_number_of_threads_is_another_measurement(tiny_teacher_path, pair, tmp_path, monkeypatch):
    arguments = [tiny_teacher_path], pair, tmp_path / "out", ("int8",)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    result = measure_speed(*arguments, latency_sentences=1, device="cpu", progress=False)
    assert measure_speed(*arguments, latency_sentences=1, device="cpu", progress=False) == result
    monkeypatch.delenv("OMP_NUM_THREADS")
    with pytest.raises(InputError, match="--overwrite"):
        measure_speed(*arguments, latency_sentences=1, device="cpu", progress=False)
