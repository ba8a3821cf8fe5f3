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
"""Values of an archive, a record or a file name never become source code or markup."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from damage import rebuilt_archive

from nemo_distill import cli
from nemo_distill.archives.restore import restore_model
from nemo_distill.decoding import exported_program
from nemo_distill.decoding.export_page import page
from nemo_distill.decoding.export_record import TextSide
from nemo_distill.decoding.exporting import export, open_export
from nemo_distill.errors import ArchiveError, InputError

CODE = 'de");open("evil","w").write("x");("'


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("key", ["src_language", "tgt_language", "len_pen", "beam_size", "max_generation_delta"])
def test_code_in_an_archive(key, trust, tiny_teacher_path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = rebuilt_archive(
        tiny_teacher_path, tmp_path / "attack.nemo", config=lambda section: section.update({key: CODE})
    )
    command = ["export", "--model", str(path), "--output-dir", "out", *(["--trust-archive"] if trust else [])]
    assert cli.main(command) == 2
    message = capsys.readouterr().err
    assert f"attack.nemo is refused: in its model_config.yaml, {key} is 'de\")" in message
    assert "is needed" in message
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["attack.nemo"]


@pytest.mark.parametrize(
    ("place", "key"),
    [("source", "language"), ("target", "language"), ("source", "file"), ("search", "length_penalty")],
)
def test_code_in_a_record(place, key, exported, tmp_path):
    copy = Path(shutil.copytree(exported, tmp_path / "copy"))
    content = json.loads((copy / "export.json").read_text("utf-8"))
    content[place][key] = CODE
    (copy / "export.json").write_text(json.dumps(content), "utf-8")
    with pytest.raises(InputError, match=f"is damaged: {place}.{key} is .*; export the model again"):
        open_export(copy)
    done = subprocess.run(
        [sys.executable, "translate.py"], cwd=copy, input="a\n", capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"({place}.{key} is wrong); export the model again" in done.stderr
    assert not (copy / "evil").exists()


def test_markup_in_a_page():
    side = TextSide("sentencepiece", "a`b.model", "de", "MosesProcessor", False, [0])
    text = page("[x](http://x) <img>\n# evil", side, side, "int8")
    assert text.splitlines()[0].startswith("# \\[x\\](")
    assert "<img>" not in text.replace("\\<img\\>", "")
    assert "\n# evil" not in text
    assert "`` a`b.model ``" in text


def test_a_page_names_what_processes_text():
    sides = [
        TextSide("sentencepiece", "t.model", code, f"{kind}Processor", False, [0])
        for code, kind in (("zh", "Chinese"), ("en", "Moses"))
    ]
    assert "pip install ctranslate2 sentencepiece jieba opencc sacremoses\n" in page("x", *sides, "int8")
    assert "pip install ctranslate2 sentencepiece pangu sacremoses\n" in page("x", *sides[::-1], "int8")


def test_a_page_installs_what_compiles_youtokentome():
    """Its own installation does not ask for Cython; the same two lines as for the library."""
    side = TextSide("yttm", "t.model", "de", None, False, [0])
    text = page("x", side, side, "int8")
    assert '\n    pip install "setuptools<81" wheel cython\n' in text
    assert "\n    pip install --no-build-isolation ctranslate2 youtokentome\n" in text


def test_names_in_an_archive_are_no_lines_of_a_message(tiny_teacher_path, tmp_path):
    forged = "x\nnemo-distill: all is well\x1b[2K\u202e"

    def run(section: dict) -> None:
        section["encoder"] = {"library": "huggingface", forged: {"_target_": "os.system"}}

    changes = {
        "names something to run": (run, False),
        "is an interpolation": (lambda section: section.update(src_language=[{forged: "${a}"}]), False),
        "is no translation model": (lambda section: section.update(target="os.path.join"), True),
        "cannot be read": (lambda section: section.update({"x": "${" + forged}), True),
    }
    for message, (change, trust) in changes.items():
        path = rebuilt_archive(tiny_teacher_path, tmp_path / "a.nemo", config=change)
        with pytest.raises(ArchiveError, match=message) as caught:
            restore_model(path, trust=trust)
        assert str(caught.value).isprintable(), message


def test_a_language_that_is_refused_says_how_to_go_on(tiny_teacher_path, tmp_path):
    path = rebuilt_archive(
        tiny_teacher_path, tmp_path / "a.nemo", config=lambda section: section.update(src_language="de.v2")
    )
    for trust in (False, True):
        with pytest.raises(ArchiveError, match="src_language is 'de.v2'; .*Correct these values, also in a file that"):
            restore_model(path, trust=trust)


def test_no_language_is_the_empty_one(tiny_teacher_path, tmp_path):
    path = rebuilt_archive(
        tiny_teacher_path, tmp_path / "a.nemo", config=lambda section: section.update(src_language="", tgt_language="")
    )
    export(path, tmp_path / "out")
    sources = ["Die Lampe ist rot.", "Das Haus."]
    pairs = sorted(pair for batch in open_export(tmp_path / "out").translate(sources) for pair in batch)
    program = exported_program.Model(str(tmp_path / "out"))
    assert [found[0].text for _, found in pairs] == [program.translate(source) for source in sources]


def test_what_a_model_says_obeys_no_terminal(exported):
    said = "a\x1b]0;title\x07b\x9b2Jc\r\td\n"
    program = exported_program.Model(str(exported))
    program._decode, program._text_functions = lambda pieces: said, lambda pair: (None, None)
    text = open_export(exported).text
    text.target_tokenizer, text.target_processor = SimpleNamespace(ids_to_text=lambda ids: said, vocab_size=9), None
    assert text.decode([1]) == program.translate("Die Lampe") == "a ]0;title b 2Jc  d "
