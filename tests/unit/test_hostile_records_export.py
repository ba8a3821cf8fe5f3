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
"""Exports whose record or files are not what `export` wrote: one line, from the library and from the program alike."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from damage import damaged, odd_files, time_limit, write_damaged_json

from nemo_distill.decoding import exported_program
from nemo_distill.decoding.exporting import export, open_export
from nemo_distill.errors import InputError


@pytest.fixture
def copy(exported, tmp_path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "copy"))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def huge(path: Path) -> None:
    os.truncate(path, 1 << 41)


@pytest.mark.parametrize("change", [flip, fifo, huge, Path.unlink], ids=["bit", "fifo", "huge", "missing"])
@pytest.mark.parametrize(
    "name", ["model.bin", "tokenizer.model", "config.json", "shared_vocabulary.json", "translate.py"]
)
def test_files_that_changed(name, change, copy):
    change(copy / name)
    kinds = "has changed since|is not a regular file|is a sparse file|does not exist|cannot be opened"
    message = f"{name}' ({kinds}).*export the model again"
    with time_limit(20):
        with pytest.raises(InputError, match=message):
            open_export(copy)
        with pytest.raises(exported_program.ExportError, match=message):
            exported_program.Model(str(copy))


def test_the_page_may_be_changed(copy):
    (copy / "README.md").write_text("# Ours")
    assert open_export(copy).name == "ctranslate2 float32"
    assert isinstance(exported_program.Model(str(copy)).translate("Die Lampe"), str)


@pytest.mark.parametrize("kind", ["fifo", "directory", "device", "dangling", "loop", "missing"])
def test_odd_records(kind, copy, tmp_path):
    odd = odd_files(tmp_path / "odd")[kind]
    (copy / "export.json").unlink()
    if kind != "missing":
        odd.rename(copy / "export.json")
    with time_limit(20):
        with pytest.raises(InputError, match="export.json"):
            open_export(copy)
        with pytest.raises(exported_program.ExportError, match="export.json"):
            exported_program.Model(str(copy))


def record(change: Callable[[dict], object]) -> Callable[[Path], None]:
    """Return what changes the record of an export."""

    def write(directory: Path) -> None:
        path = directory / "export.json"
        content = json.loads(path.read_text("utf-8"))
        change(content)
        path.write_text(json.dumps(content), "utf-8")

    return write


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content["search"].update(beam_size=9), "search.beam_size 9 .now 4"),
        (lambda content: content["search"].update(length_penalty=0.5), "search.length_penalty 0.5"),
        (lambda content: content.update(longest_target=63), "longest_target 63 .now 64"),
        (lambda content: content["source"].update(language="fr"), "source.language 'fr' .now 'de'"),
    ],
)
def test_a_changed_record_is_not_the_export_that_is_there_already(change, message, copy, tiny_teacher_path):
    before = json.loads((copy / "export.json").read_text("utf-8"))
    assert export(tiny_teacher_path, copy) == before
    record(change)(copy)
    with pytest.raises(InputError, match=f"'.*copy' has a changed export.json, made with {message}"):
        export(tiny_teacher_path, copy)
    assert {**export(tiny_teacher_path, copy, overwrite=True), "files": before["files"]} == before


@pytest.mark.parametrize("end", ["<&-", ">&-", "> /dev/full"])
def test_the_program_without_its_streams(end, copy):
    done = subprocess.run(
        ["sh", "-c", f"echo Haus | '{sys.executable}' translate.py {end}"], cwd=copy, capture_output=True, timeout=60
    )
    assert done.returncode == 1
    assert re.fullmatch(
        b"translate.py: standard (input or output is closed|output cannot .* space left.*)\n", done.stderr
    )


def other_tokenizer(directory: Path) -> None:
    """Write another tokenizer, with its hash, whose tokens are not those of the model."""
    path = directory / "tokenizer.model"
    lines = path.read_text().split("\n")
    codes = lines[1].split(" ")[0], lines[2].split(" ")[0]
    lines[1], lines[2] = lines[1].replace(codes[0], codes[1], 1), lines[2].replace(codes[1], codes[0], 1)
    path.write_text("\n".join(lines))
    _hash_again(directory, "tokenizer.model")


def broken_tokenizer(directory: Path) -> None:
    """Write a tokenizer, with its hash, on which YouTokenToMe ends the process."""
    (directory / "tokenizer.model").write_bytes(b"99999999 9\n")
    _hash_again(directory, "tokenizer.model")


def broken_model(directory: Path) -> None:
    (directory / "model.bin").write_bytes(b"nonsense" * 100)
    _hash_again(directory, "model.bin")


def _hash_again(directory: Path, name: str) -> None:
    from nemo_distill.support.files import sha256

    entry = {"sha256": sha256(directory / name), "bytes": (directory / name).stat().st_size}
    record(lambda content: content["files"].update({name: entry}))(directory)


RECORDS = {
    "path": (
        record(lambda content: content["files"].update({"../x": content["files"]["model.bin"]})),
        "plain file name",
    ),
    "absolute": (record(lambda content: content["source"].update(file="/etc/passwd")), "source.file is wrong"),
    "no model": (record(lambda content: content["files"].pop("model.bin")), "files: the lack of model.bin"),
    "truth": (record(lambda content: content["search"].update(beam_size=True)), "search.beam_size is True"),
    "no beam": (record(lambda content: content["search"].update(beam_size=0)), "search.beam_size is wrong"),
    "penalty": (
        record(lambda content: content["search"].update(length_penalty=1e300)),
        "search.length_penalty is wrong",
    ),
    "library": (record(lambda content: content["source"].update(library="pickle")), "source.library is wrong"),
    "version": (
        record(lambda content: content.update(format_version=True)),
        "format version .*, this release reads 2",
    ),
    "processor": (record(lambda content: content["source"].update(processor="Mine")), "source.processor is wrong"),
    "other language": (record(lambda content: content["source"].update(language="hi")), "processors"),
    "hidden vocabulary": (
        lambda path: (path / "source_vocabulary.json").write_text("[]"),
        "CTranslate2 would read it",
    ),
    "broken model": (broken_model, "CTranslate2 cannot decode"),
    "too large": (
        record(lambda content: content["files"]["model.bin"].update(bytes=1 << 45)),
        "larger than a model may",
    ),
}


@pytest.mark.parametrize("kind", RECORDS)
def test_records(kind, copy):
    change, message = RECORDS[kind]
    change(copy)
    with time_limit(20), pytest.raises(InputError, match=message):
        open_export(copy)


def test_tokenizers_that_fit_the_record_alone(copy, tiny_tokenizer):
    if not tiny_tokenizer.name.endswith("BPE.model"):
        pytest.skip("this NeMo has no YouTokenToMe")
    other_tokenizer(copy)
    with pytest.raises(InputError, match="shared_vocabulary.json' has other tokens than the tokenizer of the source"):
        open_export(copy)
    broken_tokenizer(copy)
    with pytest.raises(InputError, match="tokenizer.model' is no tokenizer model of yttm"):
        open_export(copy)


def test_damaged_records(exported, copy):
    generator, messages = random.Random(3), []
    content = json.loads((exported / "export.json").read_text("utf-8"))
    openers = (lambda: open_export(copy), lambda: exported_program.read_record(str(copy)))
    for _ in range(150):
        write_damaged_json(copy / "export.json", content, generator)
        for opener in openers:
            with time_limit(20):
                try:
                    opener()
                except (InputError, exported_program.ExportError) as error:
                    messages.append(str(error))
    assert len(messages) > 200
    assert not [message for message in messages if "\n" in message or str(copy) not in message]


def test_damaged_models_with_the_right_hashes_end_in_one_line_of_the_program(copy, tiny_sources):
    generator = random.Random(4)
    path = copy / "config.json"
    path.write_bytes(damaged(path.read_bytes(), generator)[:20])
    _hash_again(copy, "config.json")
    done = subprocess.run([sys.executable, str(copy / "translate.py")], input=b"a\n", capture_output=True, timeout=60)
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1), done.stderr


def test_text_that_is_not_utf8(copy):
    done = subprocess.run(
        [sys.executable, str(copy / "translate.py")], input=b"Die Lampe\n\xff\n", capture_output=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stdout.count(b"\n") == 1
    assert done.stderr == b"translate.py: line 2 of the input is not UTF-8; convert it, for instance with iconv\n"
