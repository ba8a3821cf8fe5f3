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
"""Pseudo-labels by real teachers, through the command line."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import run_processes

from nemo_distill import cli
from nemo_distill.labels.given import label_given
from nemo_distill.labels.nbest import read_nbest
from nemo_distill.support import files, text_files

LONG = "die Lampe " * 40


@pytest.fixture(scope="module")
def text(tiny_corpus, tmp_path_factory) -> Path:
    """Thirty lines, one of them empty and one longer than the teacher takes."""
    lines = text_files.read_lines(tiny_corpus / "train.de")[:28]
    path = tmp_path_factory.mktemp("text") / "input.de"
    path.write_text("".join(f"{line}\n" for line in [*lines[:5], "", LONG.strip(), *lines[5:]]))
    return path


def command(teacher: Path, text: Path, directory: Path, *options: str) -> list[str]:
    words = ["pseudo-label", "--teacher", str(teacher), "--input", str(text), "--output-dir", str(directory)]
    return [*words, "--shard-lines", "8", "--device", "cpu", *options]


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_command_line(tiny_teacher_path, tiny_corpus, text, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("NEMO_DISTILL_PROGRESS", "1e-6")
    options = ["--num-hypotheses", "3", "--test", str(tiny_corpus / "test.de")]
    assert cli.main(command(tiny_teacher_path, text, tmp_path / "labels", *options)) == 0
    said = capsys.readouterr()
    manifest = json.loads((tmp_path / "labels/manifest.json").read_text())
    counts = manifest["counts"]
    assert f"{counts['kept']} of 30 lines kept (written; engine: {manifest['engine']})" in said.out
    assert "empty source 1, source too long 1" in said.out
    assert "pseudo-labels: 30 of 30 sentences (100 %), in " in said.err
    assert manifest["engine"] == "ctranslate2 float32"
    assert manifest["request"]["teachers"] == [files.sha256(tiny_teacher_path)]
    assert set(manifest["tokenizers"]) == {"encoder", "decoder"}

    rows = list(read_nbest(tmp_path / "labels/nbest.jsonl"))
    assert [row.source for row in rows] == [line.strip() for line in text_files.read_lines(text)]
    assert [row.line for row in rows if row.cut] == [7]
    assert all(len(row.hypotheses) == (3 if row.source else 1) for row in rows)
    assert all(one.score < 0 < one.length for row in rows if row.source for one in row.hypotheses)
    pairs = text_files.read_parallel(tmp_path / "labels/source.txt", tmp_path / "labels/hypotheses.txt")
    best = {row.source: row.hypotheses[0].text for row in rows}
    assert len(pairs) == counts["kept"] > 20
    assert sum(best[source] == hypothesis for source, hypothesis in pairs) > 20

    assert cli.main(command(tiny_teacher_path, text, tmp_path / "labels", *options)) == 0
    assert "already there, hashes verified" in capsys.readouterr().out
    assert cli.main(command(tiny_teacher_path, text, tmp_path / "labels")) == 2
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.parametrize("engine", ["nemo", "ctranslate2"])
def test_labels_do_not_depend_on_shards_and_batches(tiny_teacher_path, text, tmp_path, engine):
    for directory, shard_lines, batch_tokens in (("a", "8", "4096"), ("b", "30", "1")):
        options = ["--shard-lines", shard_lines, "--batch-tokens", batch_tokens, "--engine", engine]
        assert cli.main(command(tiny_teacher_path, text, tmp_path / directory, *options)) == 0
    assert (tmp_path / "a/hypotheses.txt").read_bytes() == (tmp_path / "b/hypotheses.txt").read_bytes()


def test_select_by_command_line(tiny_teacher_path, text, tmp_path, capsys):
    (tmp_path / "gold.en").write_text("".join("The lamp\n" for _ in text_files.read_lines(text)))
    options = ["--num-hypotheses", "4"]
    assert cli.main(command(tiny_teacher_path, text, tmp_path / "labels", *options)) == 0
    select = ["select", "--nbest", str(tmp_path / "labels"), "--output-dir", str(tmp_path / "chosen")]
    select += ["--select", "closest-chrf", "--target", str(tmp_path / "gold.en"), "--max-length-ratio", "off"]
    assert cli.main(select) == 0
    assert "30 lines kept" in capsys.readouterr().out
    manifest = json.loads((tmp_path / "chosen/manifest.json").read_text())
    assert manifest["request"]["max_length_ratio"] is None
    assert manifest["engine"]
    best, chosen = (text_files.read_lines(tmp_path / name / "hypotheses.txt") for name in ("labels", "chosen"))
    assert sum(map(len, chosen)) < sum(map(len, best))  # the shorter is the closer


def test_nothing_left_is_an_error_with_the_reasons(tiny_teacher_path, text, tmp_path, capsys):
    options = ["--min-score", "-0.000001", "--search", "greedy"]
    for _ in range(2):  # a finished directory says it again
        assert cli.main(command(tiny_teacher_path, text, tmp_path / "labels", *options)) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert re.search(r"no line is left of 30 \(empty source 1, source too long 1, .*low score \d+", error)
        assert error.endswith(f"nemo-distill select --nbest {tmp_path}/labels")
    assert cli.main(["select", "--nbest", str(tmp_path / "labels"), "--output-dir", str(tmp_path / "chosen")]) == 0


def test_an_ensemble_of_teachers(tiny_teacher_path, text, tmp_path):
    single = command(tiny_teacher_path, text, tmp_path / "single", "--engine", "nemo")
    pair = command(tiny_teacher_path, text, tmp_path / "pair", "--teacher", str(tiny_teacher_path))
    assert cli.main(single) == cli.main(pair) == 0
    manifest = json.loads((tmp_path / "pair/manifest.json").read_text())
    assert len(manifest["request"]["teachers"]) == 2
    assert manifest["engine"] == "nemo, 2 models"
    assert (tmp_path / "pair/hypotheses.txt").read_text() == (tmp_path / "single/hypotheses.txt").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--beam-size", "5000"], "beam_size is 5000, but the target vocabulary has only"),
        (["--num-hypotheses", "5"], "num_hypotheses: got 5 with beam_size 4"),
        (["--search", "greedy", "--num-hypotheses", "2"], "with greedy search, which has only one"),
        (["--search", "top_p", "--top-p", "1.5", "--temperature", "0"], "top_p: got 1.5; .*temperature: got 0.0"),
        (["--batch-tokens", "0"], "batch tokens is 0; give at least 1"),
        (["--select", "closest-bleu"], "target: got None with select closest-bleu"),
        (["--min-score", "1"], "min_score: got 1.0; a mean log-probability is 0 or less"),
        (["--top-p", "0.5", "--num-hypotheses", "4"], "--top-p: --search beam does not read it; give --search top_p"),
        (
            ["--search", "greedy", "--beam-size", "2"],
            "--beam-size: --search greedy does not read it; give --search be",
        ),
        (["--search", "top_k", "--top-p", "0.5"], "--top-p: --search top_k does not read it; give --search top_p, or"),
        (["--temperature", "2"], "--temperature: --search beam does not read it; give --search top_k or top_p"),
        (["--teacher", "absent.nemo"], "'absent.nemo' does not exist"),
        (["--teacher", __file__], "is not a .nemo model"),
        (["--device", "gpu"], "device"),
        (["--quantization", "int4"], "quantization is 'int4'"),
        (["--quantization", "int8", "--engine", "nemo"], "it is for the engine ctranslate2 and a single teacher"),
    ],
)
def test_bad_input_is_one_line_and_no_work(tiny_teacher_path, text, tmp_path, capsys, options, message):
    assert cli.main(command(tiny_teacher_path, text, tmp_path / "labels", *options)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("nemo-distill pseudo-label: ")
    assert re.search(message, error)
    assert not list(tmp_path.glob("labels/**/*.jsonl*"))
    if options[0] == "--beam-size":  # nothing was decoded, so nothing stands in the way of better settings
        assert cli.main(command(tiny_teacher_path, text, tmp_path / "labels", "--beam-size", "2")) == 0


def test_two_teachers_need_nemo(tiny_teacher_path, text, tmp_path, capsys):
    options = ["--teacher", str(tiny_teacher_path), "--engine", "ctranslate2"]
    assert cli.main(command(tiny_teacher_path, text, tmp_path / "labels", *options)) == 2
    assert "ctranslate2 decodes with one teacher, got 2; several need nemo" in capsys.readouterr().err


def test_a_teacher_that_does_not_convert_is_decoded_by_nemo(tiny_model_config, text, tmp_path, capsys):
    import torch
    from nemo.collections.nlp.models import MTEncDecModel

    torch.manual_seed(0)
    model = MTEncDecModel(tiny_model_config(hidden_size=16, num_layers=1, **{"encoder.mask_future": True}))
    model.save_to(str(tmp_path / "masked.nemo"))
    options = ["--search", "greedy", "--max-length-delta", "0", "--keep-cut", "--keep-unknown"]
    for limit in ("length-ratio", "repeats", "repeated"):  # an untrained model says a word again and again
        options += [f"--max-{limit}", "off"]
    assert cli.main(command(tmp_path / "masked.nemo", text, tmp_path / "labels", *options)) == 0
    assert "engine: nemo" in capsys.readouterr().out
    for refused in (["--engine", "ctranslate2"], ["--quantization", "int8"]):
        assert cli.main(command(tmp_path / "masked.nemo", text, tmp_path / "other", *options, *refused)) == 2
        assert "encoder.mask_future: true" in capsys.readouterr().err


def test_int8_and_sampling(tiny_teacher_path, text, tmp_path, capsys):
    options = ["--search", "top_k", "--top-k", "3", "--num-hypotheses", "2", "--quantization", "int8"]
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert cli.main(command(tiny_teacher_path, text, tmp_path / name, *options, "--seed", seed)) == 0
    assert "engine: ctranslate2 int8" in capsys.readouterr().out
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert (tmp_path / "a/nbest.jsonl").read_bytes() != (tmp_path / "c/nbest.jsonl").read_bytes()


def label(arguments: list[str], log: str) -> int:
    """Do what `nemo-distill` does, in a process of its own; what it says goes to the end of a file."""
    with open(log, "a", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
    status = cli.main(arguments)
    sys.stdout.flush()
    return status


def test_two_processes(tiny_teacher_path, text, tmp_path):
    arguments = command(tiny_teacher_path, text, tmp_path / "two"), str(tmp_path / "said")
    assert run_processes(label, *arguments) == [0, 0]
    assert (tmp_path / "said").read_text("utf-8").count("of 30 lines kept (written") == 1
    assert cli.main(command(tiny_teacher_path, text, tmp_path / "one")) == 0
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


@pytest.mark.slow
def test_torchrun(tiny_teacher_path, text, tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, "-m", "nemo_distill.cli", *command(tiny_teacher_path, text, tmp_path / "two")],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("of 30 lines kept (written") == 1
    assert cli.main(command(tiny_teacher_path, text, tmp_path / "one")) == 0
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


@pytest.mark.slow
def test_twenty_kills(tiny_teacher_path, tiny_corpus, kill_repeatedly, tmp_path):
    sentences = text_files.read_lines(tiny_corpus / "train.de")
    lines = [" ".join(sentences[(place + step) % len(sentences)] for step in range(2)) for place in range(160)]
    (tmp_path / "input.de").write_text("".join(f"{line}\n" for line in lines * 8))
    words = {
        name: [
            sys.executable,
            "-m",
            "nemo_distill.cli",
            *command(tiny_teacher_path, tmp_path / "input.de", tmp_path / name),
        ]
        for name in ("undisturbed", "killed")
    }
    root = {"PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run(words["undisturbed"], check=True, timeout=600)
    made = kill_repeatedly(words["killed"], tmp_path / "killed", 20, 0.1, random.Random(3), root)
    assert made == sorted(set(made))
    subprocess.run(words["killed"], check=True, timeout=600)
    assert contents(tmp_path / "killed") == contents(tmp_path / "undisturbed")


@pytest.mark.slow
def test_twenty_kills_while_choosing(tmp_path):
    """Of `select`, which begins anew each time; what is left of its tables and processes is nothing."""
    generator = random.Random(7)
    words = Path(__file__).read_text("utf-8").replace("{", "").split()
    lines = [" ".join([*generator.choices(words, k=9), str(number % 4000)]) for number in range(20_000)]
    lines += lines[:3000]
    (tmp_path / "input.de").write_text("".join(f"{line}\n" for line in lines))
    (tmp_path / "given.en").write_text("".join(f"{line[::-1]}\n" for line in lines))
    label_given(tmp_path / "given.en", tmp_path / "input.de", tmp_path / "labels", progress=False)
    root = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}

    def choose(name: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "nemo_distill.cli", "select", "--nbest", str(tmp_path / "labels")]
        command += ["--output-dir", str(tmp_path / name), "--drop-duplicates"]
        return subprocess.Popen(command, env=root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    begun = time.monotonic()
    assert choose("undisturbed").wait(600) == 0
    seconds = time.monotonic() - begun
    at_work = 0
    for _ in range(20):
        process = choose("killed")
        time.sleep(generator.uniform(0.2, 0.95) * seconds)
        if process.poll() is None:
            at_work += (tmp_path / "killed/.started.json").exists()
        process.kill()
        if process.wait(30) == 0:  # it was quicker
            shutil.rmtree(tmp_path / "killed")
    assert at_work >= 5
    assert choose("killed").wait(600) == 0
    assert contents(tmp_path / "killed") == contents(tmp_path / "undisturbed")
    counts = json.loads((tmp_path / "killed/manifest.json").read_text())["counts"]
    assert counts["dropped"]["duplicate"] > 0
