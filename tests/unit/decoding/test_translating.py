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
"""`nemo-distill translate`, and the program of an export: the same text line by line, in batches and in files."""

import io
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from nemo_distill import cli
from nemo_distill.decoding import exported_program, translating
from nemo_distill.decoding.ctranslate2_engine import CTranslate2Engine
from nemo_distill.decoding.engine import SearchSettings
from nemo_distill.decoding.translating import LineSettings, open_lines
from nemo_distill.support.lock import locked_file
from nemo_distill.support.text_files import read_lines


@pytest.fixture(scope="module")
def many_lines(tiny_corpus) -> list[str]:
    """Three hundred different lines, empty and very long ones among them."""
    generator = random.Random(5)
    words = sorted(
        {word for line in (tiny_corpus / "train.de").read_text("utf-8").splitlines() for word in line.split()}
    )
    lines = [" ".join(generator.choices(words, k=generator.randint(0, 11))) for _ in range(297)]
    return [*lines, " ".join(words * 3), "Das „Radio“ läuft – seit gestern …", " \t"]


@pytest.fixture
def run(monkeypatch, capsys):
    """A function that runs a command with a text at its standard input: `status, output, errors`."""

    def run(*arguments, text: str | bytes = "") -> tuple[int, str, str]:
        text = text if isinstance(text, bytes) else text.encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
        capsys.readouterr()
        status = cli.main(["translate", *map(str, arguments)])
        return status, *capsys.readouterr()

    return run


def test_a_package_that_is_missing(exported, run, monkeypatch):
    for name in ("youtokentome", "sentencepiece"):  # the one that the tokenizers of this NeMo are of
        monkeypatch.setitem(sys.modules, name, None)
    status, output, errors = run(exported, text="Die Lampe.\n")
    assert (status, output) == (2, "")
    assert re.search("import of (youtokentome|sentencepiece) halted", errors)
    assert "README.md of the export says what to install" in errors


class Pieces:
    """A stream that has so many bytes at once, as a pipe has what was written."""

    def __init__(self, text: bytes, sizes) -> None:
        self.text, self.sizes = text, sizes

    def read1(self, limit: int) -> bytes:
        size = min(next(self.sizes), limit)
        found, self.text = self.text[:size], self.text[size:]
        return found


def test_the_verb_and_the_program_say_the_same(exported, tiny_teacher_path, many_lines, tmp_path, run):
    """The archive by the engine from a file, the export line by line, in a program without this library, in pieces."""
    text = "".join(f"{line}\n" for line in many_lines)
    (tmp_path / "in.de").write_text(text, "utf-8")
    status, output, _ = run(tiny_teacher_path, "--input", tmp_path / "in.de")
    assert status == 0
    assert len(output.split("\n")) == 301
    assert output.split("\n")[299] == ""
    assert len(set(output.split("\n"))) > 60
    assert run(exported, text=text)[1] == output
    model = exported_program.Model(exported)
    assert "".join(model.translate(line) + "\n" for line in many_lines) == output
    done = subprocess.run([sys.executable, exported / "translate.py"], input=text.encode(), capture_output=True)
    assert (done.returncode, done.stdout.decode()) == (0, output)
    assert done.stderr.decode().splitlines() == ["translate.py: line 298 is longer than the model takes, and cut"]
    generator = random.Random(2)
    sizes = iter(lambda: generator.choice((1, 7, 300, 2000)), None)
    pieces = list(exported_program.read_lines(Pieces(text.encode(), sizes)))
    assert len(pieces) > 10
    assert list(itertools.chain.from_iterable(pieces)) == many_lines
    assert "".join(found[0][0] + "\n" for texts in pieces for found in model.hypotheses(texts)) == output


@pytest.mark.parametrize("engine", ["ctranslate2", "nemo"])
def test_what_a_line_gets_does_not_depend_on_the_others(engine, tiny_teacher_path, many_lines):
    settings = LineSettings(tiny_teacher_path, engine, device="cpu", n_best=2)
    some = many_lines[:15]
    with open_lines(settings) as translate:
        together = translate(some, 1)
        alone = [translate([line], 1)[0] for line in some]
    for one, other in zip(together, alone, strict=True):
        assert [text for text, _ in one] == [text for text, _ in other]
        assert [score for _, score in one] == pytest.approx([score for _, score in other], abs=1e-4)


@pytest.mark.parametrize("kind", ["archive", "export"])
def test_several_hypotheses_with_their_scores(kind, exported, tiny_teacher_path, tiny_sources, run):
    lines = [tiny_sources[0], "", tiny_sources[1]]
    options = [exported if kind == "export" else tiny_teacher_path, "--beam-size", 5, "--n-best", 3]
    status, output, _ = run(*options, text="\n".join(lines))
    assert status == 0
    rows = [json.loads(line) for line in output.splitlines()]
    assert [(row["line"], row["source"]) for row in rows] == list(enumerate(lines, start=1))
    engine = CTranslate2Engine.from_archive(tiny_teacher_path)
    search = SearchSettings(beam_size=5, num_hypotheses=3, max_length_delta=engine.default_settings.max_length_delta)
    for place, wanted in itertools.chain.from_iterable(engine.translate(lines, search)):
        found = rows[place]["hypotheses"]
        assert [one["text"] for one in found] == [one.text for one in wanted]
        assert [one["score"] for one in found] == pytest.approx([one.score for one in wanted], abs=1e-4)
    assert len(rows[0]["hypotheses"]) == 3
    assert rows[1]["hypotheses"] == [{"text": "", "score": 0.0}]


@pytest.mark.parametrize("source", ["stdin", "file"])
def test_line_ends(source, exported, tmp_path, run):
    text = "\ufeffDie Lampe\u2028ist offen.\r\n\r\n \nDie Pumpe\x0bist offen."
    (tmp_path / "in.de").write_bytes(text.encode())
    arguments = ["--input", tmp_path / "in.de"] if source == "file" else []
    status, output, _ = run(exported, *arguments, text="" if source == "file" else text)
    assert status == 0
    assert [bool(line) for line in output.split("\n")] == [True, False, False, True, False]
    assert run(exported) == (0, "", "")


@pytest.mark.parametrize("kind", ["archive", "export"])
def test_bytes_that_are_not_utf_8(kind, exported, tiny_teacher_path, run):
    """What came before is translated."""
    model = exported if kind == "export" else tiny_teacher_path
    status, output, error = run(model, text="Die Lampe.\n\nGrüße\n".encode("latin-1") + b"Die Pumpe.\n")
    assert status == 2
    assert [bool(line) for line in output.split("\n")] == [True, False, False]
    said = [line for line in error.splitlines() if line.startswith("nemo-distill translate: ")]
    assert said == ["nemo-distill translate: line 3 of the input is not UTF-8; convert it, for instance with iconv"]


def test_a_line_without_end(run, exported, monkeypatch):
    monkeypatch.setattr(exported_program, "MOST_LINE_BYTES", 99)
    monkeypatch.setattr(exported_program, "BLOCK_BYTES", 50)
    status, output, error = run(exported, text="Die Lampe.\n" + "x" * 120)
    assert (status, output.count("\n")) == (2, 1)
    assert "line 2 of the input has more than 1 MB; give one sentence a line" in error


def test_a_file_is_written_whole_or_not_at_all(exported, tmp_path, run, monkeypatch):
    source, target = tmp_path / "in.de", tmp_path / "new/out.en"
    source.write_text("Die Lampe ist offen.\n", "utf-8")
    files = ["--input", source, "--output", target]
    assert run(exported, *files) == (0, "", "")
    text = target.read_text("utf-8")
    assert text.count("\n") == 1
    status, _, error = run(exported, *files)
    assert (status, target.read_text("utf-8")) == (2, text)
    assert f"'{target}' exists; give another name, or --overwrite to replace it" in error
    source.write_bytes(b"Die Lampe ist offen.\n\xff\n")
    status, _, error = run(exported, *files, "--overwrite")
    assert (status, target.read_text("utf-8")) == (2, text)
    assert f"'{source}', line 2: byte 0xff" in error
    source.write_text("\n\n", "utf-8")
    assert run(exported, *files, "--overwrite")[0] == 0
    assert target.read_text("utf-8") == "\n\n"
    assert run(exported, "--input", source, "--output", source, "--overwrite")[0] == 2
    with locked_file(target):
        assert "is in use" in run(exported, *files, "--overwrite")[2]
    assert sorted(path.name for path in target.parent.iterdir()) == ["out.en"]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_compressed_file_is_what_its_name_says(suffix, exported, tmp_path, run):
    source, target = tmp_path / "in.de", tmp_path / f"out.en{suffix}"
    source.write_text("Die Lampe ist offen.\n\n", "utf-8")
    assert run(exported, "--input", source, "--output", target) == (0, "", "")
    _, plain, _ = run(exported, "--input", source)
    assert "".join(f"{line}\n" for line in read_lines(target)) == plain


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--n-best", 9], "n-best is 9 with a beam of 4; a beam has at most that many"),
        (["--n-best", 0], "n-best is 0; give at least 1"),
        (["--beam-size", 0], "beam size is 0; give at least 1"),
        (["--overwrite"], "--overwrite is for --output"),
        (["--engine", "nemo"], "engine is 'nemo', but '.*' is no .nemo archive"),
        (["--quantization", "int8"], "quantization is 'int8', but '.*' has float32; export again"),
        (["--device", "cuda:x"], "device is 'cuda:x'; give cpu, cuda or cuda:N"),
        (["--device", "cuda:77"], "CTranslate2 (finds no device|cannot decode on .*) ?cuda:77.* give the device cpu"),
    ],
)
def test_what_cannot_be(options, message, exported, run):
    status, output, error = run(exported, *options, text="Die Lampe.\n")
    assert (status, output) == (2, "")
    assert re.search(f"nemo-distill translate: .*{message}", error)


@pytest.mark.parametrize("option", ["--n-best=9", "--beam-size=1000", "--target-lang=fr"])
def test_options_are_looked_at_before_anything_is_read(option, exported, tiny_teacher_path, run, monkeypatch):
    """A program that waits for lines said nothing before the first one came, and of no lines all was well."""
    message = "n-best is 9|num_hypotheses: got 9|the beam is 1000|beam_size is 1000|leave .*--target-lang out"
    for model in (exported, tiny_teacher_path)[: 1 if "lang" in option else 2]:
        status, output, error = run(model, option)
        assert (status, output) == (2, "")
        assert re.search(message, error)
    monkeypatch.setattr(exported_program, "__file__", str(exported / "translate.py"))
    with pytest.raises(SystemExit, match=f"translate.py: .*({message})"):
        exported_program.main([option])


@pytest.mark.parametrize("kind", ["archive", "export"])
def test_the_model_is_no_output(kind, exported, tiny_teacher_path, tmp_path, run):
    model = tmp_path / "model"
    (shutil.copy2 if kind == "archive" else shutil.copytree)(
        tiny_teacher_path if kind == "archive" else exported, model
    )
    output = model if kind == "archive" else model / "model.bin"
    before = output.read_bytes()
    status, _, error = run(model, "--output", output, "--overwrite", text="Die Lampe.\n")
    assert status == 2
    assert "is an input, and would be replaced by the output" in error
    assert output.read_bytes() == before


def test_a_changed_export_is_refused(exported, tmp_path, run):
    directory = tmp_path / "copy"
    directory.mkdir()
    for path in exported.iterdir():
        (directory / path.name).write_bytes(path.read_bytes())
    (directory / "tokenizer.model").write_bytes(b"x")
    assert "has changed since the model was exported; export the model again" in run(directory, text="x\n")[2]


def test_what_libraries_print_is_no_translation(tiny_teacher_path, run, monkeypatch):
    from nemo_distill.decoding import opening

    def open_loudly(*arguments, original=opening.open_engine, **options):
        sys.stdout.write("loading ...\n")
        return original(*arguments, **options)

    monkeypatch.setattr(opening, "open_engine", open_loudly)
    status, output, error = run(tiny_teacher_path, text="\n")
    assert (status, output) == (0, "\n")
    assert "loading ...\n" in error


def test_a_line_that_is_cut_is_named(exported, tiny_teacher_path, monkeypatch, caplog):
    messages = []
    monkeypatch.setattr("nemo.utils.logging.warning", messages.append)
    long = " ".join(["Lampe"] * 90)
    with open_lines(LineSettings(tiny_teacher_path, device="cpu")) as translate:
        translate(["Die Lampe.", long], 41)
    assert [text.partition("cut")[2] for text in messages if "cut" in text] == [" to 64 tokens (line 42)"]
    with open_lines(LineSettings(exported, device="cpu")) as translate:
        translate(["Die Lampe.", long], 41)
    assert "line 42 is longer than the model takes, and cut" in caplog.text


@pytest.mark.parametrize("given", ["file", "pipe"])
def test_decomposed_letters_are_told_once(given, exported, tmp_path, run, caplog):
    source = tmp_path / "in.de"
    source.write_text("Die Lampe\nTu\u0308r\n" + "Tür\nTu\u0308r\n" * 1000, encoding="utf-8")
    options = ("--input", source) if given == "file" else ()
    run(exported, *options, text=source.read_bytes())
    [message] = [each for each in caplog.messages if "decomposed" in each]
    name = f"'{source}'" if given == "file" else "standard input"
    assert message.startswith(f"nemo_distill: {name}: 1001 lines, the first is 2: letters are decomposed (NFD")


@pytest.mark.parametrize("of", ["engine", "program"])
def test_a_small_model_is_not_loaded_again_for_each_number_of_lines(
    of, exported, tiny_teacher_path, many_lines, monkeypatch
):
    """It was, whenever another number of batches came: as often as a stream pauses."""
    import ctranslate2

    loaded, original = [], ctranslate2.Translator
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    monkeypatch.setattr(exported_program, "given_threads", lambda: (None, 3))
    if of == "engine":
        engine = CTranslate2Engine.from_archive(tiny_teacher_path)
        engine.threads = 3

        def translate(lines: list[str]) -> None:
            list(engine.translate(lines))
    else:
        translate = exported_program.Model(exported).hypotheses

    def load(*arguments, **options):
        loaded.append((options["inter_threads"], options["intra_threads"]))
        return original(*arguments, **options)

    monkeypatch.setattr(ctranslate2, "Translator", load)
    for count in (1, 9, 2, 1, 30, 1):
        translate(many_lines[:count])
    assert loaded == [(3, 1)]


def test_a_bar_for_a_terminal_and_lines_for_files(tmp_path, monkeypatch):
    class Stream(io.StringIO):
        def __init__(self, is_terminal: bool) -> None:
            super().__init__()
            self.is_terminal = is_terminal

        def isatty(self) -> bool:
            return self.is_terminal

    (tmp_path / "in.de").write_text("a\nb\n", "utf-8")
    for error, source, target in itertools.product((True, False), repeat=3):
        monkeypatch.setattr(sys, "stderr", Stream(error))
        monkeypatch.setattr(sys, "stdin", Stream(source))
        bar = translating._progress_bar(None, Stream(target))
        assert bar.disable == (not error or source or target)
        bar = translating._progress_bar(tmp_path / "in.de", None)
        assert (bar.disable, bar.total, bar.leave) == (False, 2, error)


def command(kind: str, exported: Path) -> list[str]:
    """Return how an export translates: by its own program, or by the verb, which opens it without NeMo."""
    verb = [sys.executable, "-m", "nemo_distill.cli", "translate", str(exported)]
    return verb if kind == "verb" else [sys.executable, str(exported / "translate.py")]


@pytest.fixture
def start(exported):
    """A function that starts a program; it is ended with the test."""
    started = []

    def start(kind: str) -> subprocess.Popen:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(command(kind, exported), env=environment, **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            stream.close()


def answer(process: subprocess.Popen, text: str) -> str:
    """Write a text and return the line that comes back, while standard input stays open."""
    timer = threading.Timer(60, process.kill)
    timer.start()
    process.stdin.write(text.encode())
    process.stdin.flush()
    found = process.stdout.readline().decode()
    timer.cancel()
    return found


@pytest.mark.parametrize("kind", ["verb", "program"])
def test_who_writes_a_line_and_waits_gets_its_translation(kind, start, exported, tiny_sources):
    process, model = start(kind), exported_program.Model(exported)
    for line in tiny_sources[:3]:
        assert answer(process, f"{line}\nDie La") == model.translate(line) + "\n"
        assert answer(process, "mpe.\n") == model.translate("Die Lampe.") + "\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate()[1] == b""
    assert process.returncode == 130


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is full")
@pytest.mark.parametrize("kind", ["verb", "program"])
def test_an_output_without_room(kind, exported):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with open("/dev/full", "wb") as full:
        options = {"stdout": full, "stderr": subprocess.PIPE, "env": environment, "input": b"Die Lampe.\n"}
        done = subprocess.run(command(kind, exported), **options)
    assert done.returncode == 1
    (line,) = done.stderr.decode().splitlines()
    assert line.endswith(": standard output cannot be written (No space left on device)")


@pytest.mark.parametrize("kind", ["verb", "program"])
def test_a_reader_that_goes(kind, start):
    process = start(kind)
    assert answer(process, "Die Lampe.\n")
    process.stdout.close()
    process.stdin.write(b"Die Pumpe.\n" * 3)
    process.stdin.close()
    assert process.stderr.read() == b""
    assert process.wait(60) == 141
