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
"""Exported models translate raw text as the engines do, with nothing of NeMo or of this library."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from nemo.collections.nlp.models import MTEncDecModel

from nemo_distill import cli
from nemo_distill.archives.restore import restore_model
from nemo_distill.data import tokenizer as tokenizer_module
from nemo_distill.decoding import exported_program
from nemo_distill.decoding.ctranslate2_engine import CTranslate2Engine
from nemo_distill.decoding.exporting import export, open_export
from nemo_distill.errors import ConversionError, InputError
from nemo_distill.support import compat
from nemo_distill.support.files import sha256

WITHOUT_US = """\
import runpy, sys
for name in ("nemo", "nemo_distill", "torch", "pytorch_lightning", "lightning"):
    sys.modules[name] = None
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def best(engine, sentences) -> list[str]:
    found = sorted(pair for batch in engine.translate(sentences) for pair in batch)
    return [hypotheses[0].text for _, hypotheses in found]


def run_program(directory: Path, sentences: list[str]) -> list[str]:
    """Run the program of an export in a process that has neither NeMo nor this library nor torch."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_US, str(directory / "translate.py")],
        input="".join(f"{sentence}\n" for sentence in sentences),
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def exported(tiny_teacher_path, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("export") / "student"
    assert cli.main(["export", "--model", str(tiny_teacher_path), "--output-dir", str(directory)]) == 0
    return directory


def test_the_program_translates_as_the_engine(exported, tiny_teacher_path, tiny_sources, tmp_path):
    """German and English: Moses on both sides."""
    sentences = [*tiny_sources, "Das „Radio“ läuft – seit gestern … (im Keller).", "Ω?"]
    expected = best(CTranslate2Engine.from_archive(tiny_teacher_path), sentences)
    assert best(open_export(exported), sentences) == expected
    assert run_program(Path(shutil.copytree(exported, tmp_path / "elsewhere")), sentences) == expected
    assert "sacremoses" in (exported / "README.md").read_text("utf-8")


def test_directory(exported, tiny_teacher_path):
    names = {"README.md", "config.json", "export.json", "model.bin", "shared_vocabulary.json", "tokenizer.model"}
    names |= {"translate.py"}
    assert {path.name for path in exported.iterdir()} == names
    content = json.loads((exported / "export.json").read_text("utf-8"))
    languages = {"source_lang": None, "target_lang": None}
    asked = {"archive_sha256": sha256(tiny_teacher_path), "quantization": "float32"}
    assert content["request"] == asked | languages
    assert content["files"].keys() == names - {"export.json"}
    assert content["files"]["model.bin"] == {
        "sha256": sha256(exported / "model.bin"),
        "bytes": (exported / "model.bin").stat().st_size,
    }
    assert (exported / "translate.py").read_bytes() == Path(exported_program.__file__).read_bytes()
    assert content["search"] == {"beam_size": 4, "length_penalty": 0.6, "max_length_delta": 20}
    assert not [path for path in exported.parent.iterdir() if path != exported]


def test_raw_text_and_two_tokenizers(tiny_model_config, tiny_corpus, tiny_sources, tmp_path):
    """SentencePiece on one side; on the other, where NeMo has it, YouTokenToMe from right to left; raw text."""
    backwards = compat.DEFAULT_TOKENIZER_LIBRARY == "yttm"  # NeMo's SentencePiece reads forward only
    tokenizer_module.train([str(tiny_corpus / "train.en")], 90, tmp_path / "t", library="sentencepiece")
    torch.manual_seed(5)
    config = tiny_model_config(
        num_layers=1,
        src_language="ignore",
        tgt_language="ignore",
        shared_tokenizer=False,
        shared_embeddings=False,
        **{
            "encoder_tokenizer.r2l": backwards,
            "decoder_tokenizer.library": "sentencepiece",
            "decoder_tokenizer.tokenizer_model": str(tmp_path / "t" / tokenizer_module.MODEL),
        },
    )
    MTEncDecModel(config).save_to(str(tmp_path / "model.nemo"))
    export(tmp_path / "model.nemo", tmp_path / "out", "int8")
    assert {"source.model", "target.model", "source_vocabulary.json"} <= {p.name for p in (tmp_path / "out").iterdir()}
    engine = open_export(tmp_path / "out")
    assert engine.name == "ctranslate2 int8"
    model = restore_model(tmp_path / "model.nemo")
    assert getattr(model.encoder_tokenizer, "r2l", False) == backwards
    expected = best(CTranslate2Engine.from_model(model, "int8"), tiny_sources)
    assert best(engine, tiny_sources) == expected
    assert run_program(tmp_path / "out", tiny_sources) == expected
    assert "sacremoses" not in (tmp_path / "out/README.md").read_text("utf-8")


def test_output_directory_is_respected(exported, tiny_teacher_path, tmp_path, capsys):
    arguments = ["export", "--model", str(tiny_teacher_path), "--output-dir"]
    copy = Path(shutil.copytree(exported, tmp_path / "copy"))
    before = (copy / "model.bin").stat().st_mtime_ns
    assert cli.main([*arguments, str(copy)]) == 0
    assert "already there, hashes verified" in capsys.readouterr().out
    assert cli.main([*arguments, str(copy), "--quantization", "int8"]) == 2
    assert "made with quantization 'float32' (now 'int8'); give another output" in capsys.readouterr().err
    assert (copy / "model.bin").stat().st_mtime_ns == before
    assert cli.main([*arguments, str(copy), "--overwrite", "--quantization", "int8"]) == 0
    assert open_export(copy).name == "ctranslate2 int8"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    assert cli.main([*arguments, str(tmp_path / "mine"), "--overwrite"]) == 2
    assert "holds something else (no export.json)" in capsys.readouterr().err
    assert (tmp_path / "mine" / "thesis.txt").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "mine"]


def test_a_failure_leaves_nothing(exported, tiny_teacher_path, tmp_path, monkeypatch):
    copy = Path(shutil.copytree(exported, tmp_path / "copy"))
    monkeypatch.setattr("nemo_distill.decoding.exporting.page", lambda *_: 1 / 0)
    for directory in (tmp_path / "new", copy):
        with pytest.raises(ZeroDivisionError):
            export(tiny_teacher_path, directory, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy"]
    assert open_export(copy).name == "ctranslate2 float32"


def test_what_does_not_convert_is_refused_before_anything_is_written(tiny_model_config, tmp_path):
    MTEncDecModel(tiny_model_config(**{"encoder.mask_future": True})).save_to(str(tmp_path / "m.nemo"))
    with pytest.raises(ConversionError, match="encoder.mask_future: true"):
        export(tmp_path / "m.nemo", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "is not an exported model"),
        ('{"format_version": 1}', "format version 1, this release reads 2; export the model again"),
        ('{"format_version": 2}', "is damaged: archive is missing"),
    ],
)
def test_foreign_directories_are_refused(tmp_path, content, message):
    (tmp_path / "export.json").write_text(content)
    with pytest.raises(InputError, match=message):
        open_export(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        open_export(tmp_path / "none")
