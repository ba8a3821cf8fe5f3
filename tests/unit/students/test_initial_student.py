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
"""`nemo-distill init`: a student without training, from every kind of YAML file that users have at hand."""

import re
from pathlib import Path

import pytest
import torch
from nemo.collections.nlp.models import MTEncDecModel
from omegaconf import OmegaConf

from nemo_distill import DistilledMTEncDecModel, cli
from nemo_distill.archives.restore import restore_model

CONFIGS = Path(__file__).parents[3] / "configs"


@pytest.fixture
def run(tiny_teacher_path, tmp_path, capsys):
    """A function that runs the verb on a student section; returns status, output, errors and the archive's path."""

    def go(student: str | Path, *options: str):
        if not isinstance(student, Path):
            text, student = student, tmp_path / "student.yaml"
            student.write_text(text, encoding="utf-8")
        output = tmp_path / "out" / "student.nemo"
        arguments = ["--teacher", str(tiny_teacher_path), "--student", str(student), "--output", str(output)]
        status = cli.main(["init", *arguments, *options])
        captured = capsys.readouterr()
        return status, captured.out, captured.err, output

    return go


def test_writes_a_plain_student(run, tiny_teacher_path, tiny_sources, student_config):
    status, printed, _, path = run("decoder: {num_layers: 1}", "--layers", "last")
    assert status == 0
    assert "decoder._decoder.layers.0.layer_norm_1.weight" in printed
    assert "<- decoder._decoder.layers.1.layer_norm_1.weight  [32]" in printed
    assert f"{path}: " in printed.splitlines()[-1]
    student, teacher = MTEncDecModel.restore_from(str(path)), restore_model(tiny_teacher_path)
    assert type(student) is MTEncDecModel
    assert "train_ds" not in student.cfg
    assert student.decoder_tokenizer.ids_to_tokens(list(range(120))) == teacher.decoder_tokenizer.ids_to_tokens(
        list(range(120))
    )
    mine, theirs = student.state_dict(), teacher.state_dict()
    for name, tensor in mine.items():
        assert torch.equal(tensor, theirs[name.replace("_decoder.layers.0", "_decoder.layers.1")])
    assert student.log_softmax.mlp.layer0.weight is student.decoder.embedding.token_embedding.weight
    assert len(student.translate(tiny_sources[:1])) == 1

    config = student_config(hidden_size=32, num_layers=2, **{"decoder.num_layers": 1})
    config.distillation.init = {"from_nemo": str(path)}
    started = DistilledMTEncDecModel(config).state_dict()
    assert all(torch.equal(tensor, started[name]) for name, tensor in mine.items())


def test_nothing_differs(run, tiny_teacher_path):
    """An empty mapping is the teacher itself."""
    status, printed, _, path = run("{}")
    assert status == 0
    assert "as it was" not in printed
    theirs = restore_model(tiny_teacher_path).state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in restore_model(path).state_dict().items())


def test_a_file_of_the_configs_is_composed(run):
    """It fails by its own size alone: hidden size 64 against the teacher's 32."""
    status, _, errors, _ = run(CONFIGS / "model" / "tiny_1x1.yaml", "--width", "project")
    assert status == 2
    assert "hidden_size is 64 in the student and 32 in the source" in errors


def test_a_directory_of_hydra_files(run, tmp_path):
    for name in ("base", "tiny_1x1"):
        (tmp_path / f"{name}.yaml").write_text((CONFIGS / "model" / f"{name}.yaml").read_text("utf-8"), "utf-8")
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        "defaults: [tiny_1x1, _self_]\nencoder: {hidden_size: 16, inner_size: 32, max_sequence_length: 64}\n"
    )
    status, printed, errors, path = run(mine, "--width", "project")
    assert status == 0, errors
    assert "([16, 16], [32, 32])" in printed
    student = restore_model(path)
    assert (student.cfg.encoder.hidden_size, student.cfg.decoder.hidden_size) == (16, 16)
    assert student.cfg.decoder.inner_size == 32
    assert len(student.encoder._encoder.layers) == 1
    assert (student.cfg.src_language, student.cfg.tgt_language) == ("de", "en")  # the files say ignore: raw text


@pytest.mark.parametrize(
    ("key", "value"), [("src_language", "es"), ("tgt_language", "[en, es]"), ("multilingual", True)]
)
def test_the_language_is_the_teachers(run, key, value):
    status, _, errors, path = run(f"{key}: {value}")
    assert (status, path.exists()) == (2, False)
    assert re.search(rf"{key}: got .*, and the teacher has .*; leave it out, or give --source-lang", errors)


def test_a_run_of_its_own(run, student_config, tmp_path):
    """The config.yaml in a run's directory: a whole configuration with `model`, data sets and distillation."""
    whole = tmp_path / "config.yaml"
    OmegaConf.save(OmegaConf.create({"name": "x", "model": student_config(hidden_size=32, num_layers=1)}), whole)
    status, _, errors, path = run(whole, "--encoder", "[[0, 1]]", "--decoder", "none", "--no-embeddings")
    assert status == 0, errors
    assert restore_model(path).cfg.encoder.num_layers == 1


def test_what_stays_random_hangs_on_the_seed(run):
    name = "decoder._decoder.layers.0.first_sub_layer.query_net.weight"
    seen = []
    for seed in ("1", "1", "2"):
        *_, path = run("{}", "--decoder", "none", "--seed", seed, "--overwrite")
        seen.append(restore_model(path).state_dict()[name])
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])


@pytest.mark.parametrize(
    ("student", "options", "message"),
    [
        (
            "encoder: {num_layers: 3}",
            [],
            "init.encoder: every_nth needs .* but 3 are more than 2; give the student fewer",
        ),
        (
            "encoder: {hidden_size: 16}\ndecoder: {hidden_size: 16}",
            [],
            r"(.|\n)*is \[16\], but .*(.|\n)*`width: project`",
        ),
        (
            "encoder: {hidden_size: 17, num_attention_heads: 1}\ndecoder: {hidden_size: 17, num_attention_heads: 1}",
            ["--width", "project"],
            "student.yaml gives no model: encoder.hidden_size: got 17, and positions are pairs of sines and cosines",
        ),
        ("encoder: {hidden_size: 16}", [], "student.yaml gives no model: .*hidden_size"),
        (
            "encoder: {num_layrs: 1}",
            [],
            r"student.yaml: model.encoder.num_layrs: unknown key \(did you mean 'num_layers'\?\)",
        ),
        ("encodr: {num_layers: 1}", [], r"student.yaml: model.encodr: unknown key \(did you mean 'encoder'\?\)"),
        ("encoder:\n  num_layers: ???", [], "student.yaml' has no value for a key: .*num_layers"),
        ("encoder: {num_layers: '${x}'}", [], "student.yaml' has no value for a key: .*'x'"),
        ("- a", [], "student.yaml' is no mapping; give a model section"),
        ("a: [", [], "student.yaml' is not YAML that can be read"),
        ("{}", ["--layers", "nth"], r"init.from_teacher: got 'nth'; give one of .*every_nth"),
        ("{}", ["--encoder", "[0, 8"], r"init.encoder: got '\[0, 8'; give one of"),
        ("{}", ["--layers", "none"], "--layers none copies no layers; give --encoder none or --decoder none"),
    ],
)
def test_bad_input(run, student, options, message):
    status, _, errors, path = run(student, *options)
    assert status == 2
    assert re.search(f"nemo-distill init: {message}|nemo-distill init: \\S*{message}", errors), errors
    assert not path.exists()
    assert not path.parent.exists() or not list(path.parent.iterdir())


def test_files_that_are_not_there(run, tmp_path):
    status, _, errors, _ = run(tmp_path / "no.yaml")
    assert (status, "no.yaml' does not exist; check the path" in errors) == (2, True)
    status, _, errors, _ = run("{}", "--teacher", str(tmp_path / "no.nemo"))
    assert (status, "no.nemo' does not exist; give the path of a .nemo file" in errors) == (2, True)


def test_an_older_archive_is_kept(run):
    *_, path = run("{}")
    before = path.read_bytes()
    status, printed, _, _ = run("{}")
    assert (status, "tensors from" in printed, "already there, hash verified" in printed) == (0, True, True)
    status, _, errors, _ = run("{}", "--decoder", "none")
    assert (status, "another run, made with init.decoder 'same' (now None)" in errors) == (2, True), errors
    assert path.read_bytes() == before
    assert run("{}", "--overwrite", "--decoder", "none")[0] == 0
    assert path.read_bytes() != before
