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
"""Every verb of the parser where it is stopped: Ctrl-C, a full disk, a file system that may be read alone.

One line, the documented status, and the same command ends well afterwards. A new verb needs an entry in `commands`.
"""

import argparse
import errno
import itertools
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from damage import small_disk
from made_up_results import an_evaluation
from short_text import short_test_set

from nemo_distill import cli
from nemo_distill.data.corpora import wheel
from nemo_distill.support import files

STRINGS = Path(__file__).parent / "data/corpora/conftest.py"
INTERRUPTED = "interrupted; run the same command again, and it goes on"


def verbs(parser: argparse.ArgumentParser | None = None, words: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield what the command line can do: `tokenizer`, `corpus multi30k`."""
    parser = parser or cli.build_parser()
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for word, child in itertools.chain.from_iterable(action.choices.items() for action in below):
        yield from verbs(child, (*words, word))
    if not below:
        yield " ".join(words)


OF_JOBS = ("plan", "run", "status")
"""Stages of a job end in these ways in `test_hostile_disks_jobs.py` and `test_hostile_together_jobs.py`; `status`
writes nothing, and `plan` only what `--save` asks for."""
VERBS = [verb for verb in verbs() if verb not in OF_JOBS]


@pytest.fixture(scope="module")
def inputs(tiny_corpus, tiny_tokenizer, tiny_teacher_path, word_engine, tmp_path_factory) -> dict[str, str]:
    """What the verbs read."""
    from nemo_distill.labels.labelling import label

    place = tmp_path_factory.mktemp("inputs")
    for prefix, split in (("train", "train"), ("val", "valid"), ("test_2016_flickr", "test")):
        for language in ("de", "en"):
            text = (tiny_corpus / f"{split}.{language}").read_text("utf-8").splitlines(keepends=True)[:12]
            (place / f"{prefix}.{language}").write_text("".join(text), "utf-8")
    words = [first + second for first in "aeiou" for second in "bdfgkl"]  # none alike
    (place / "own.tsv").write_text("".join(f"{word}\t{word.upper()}s\n" for word in words))
    (place / "results").mkdir()
    an_evaluation().save(place / "results")
    (place / "student.yaml").write_text("encoder: {num_layers: 1}")
    label(word_engine, place / "val.de", place / "labels", teacher={"teachers": ["words"]}, progress=False)
    with zipfile.ZipFile(place / wheel.WHEEL_NAME, "w") as archive:
        for component, languages in runpy.run_path(str(STRINGS))["made_up_strings"]().items():
            for language, tree in languages.items():
                name = f"homeassistant/components/{component}/translations/{language}.json"
                archive.writestr(name, json.dumps(tree))
    return {
        "tokenizer": str(tiny_tokenizer),
        "place": str(place),
        "teacher": str(tiny_teacher_path),
        "test": short_test_set(tiny_corpus, place, 3),
    }


@pytest.fixture
def commands(inputs, tmp_path, monkeypatch) -> dict[str, list[str]]:
    """A command of each verb, whose output is in `out`."""
    place, teacher, test, out = inputs["place"], inputs["teacher"], inputs["test"], str(tmp_path / "out")
    monkeypatch.setattr(wheel, "WHEEL_SHA256", files.sha256(Path(place, wheel.WHEEL_NAME)))
    pair, text = ["--source", "de", "--target", "en"], [f"{place}/val.de", f"{place}/val.en"]
    sides = ["--source", text[0], "--target", text[1]]
    strings = ["--cache-dir", place, "--valid-size", "20", "--test-size", "20", "--min-words", "1"]
    found = {
        "corpus ui-strings": [*pair, *strings],
        "corpus multi30k": [*pair, "--from", place],
        "corpus own": [*pair, "--tsv", f"{place}/own.tsv", "--valid-size", "9", "--test-size", "9"],
        "tokenizer": ["--input", *text, "--vocab-size", "50", "--library", "sentencepiece"],
        "preprocess": [*sides, "--source-lang", "de", "--target-lang", "en", "--jobs", "1"],
        "tokens": ["--input", *text, "--tokenizer", inputs["tokenizer"]],
        "init": ["--teacher", teacher, "--student", f"{place}/student.yaml", "--output", f"{out}/student.nemo"],
        "leak-check": ["--train", f"{place}/train.de", "--test", text[0], "--report", f"{out}/report.json"],
        "pseudo-label": ["--teacher", teacher, "--input", text[0], "--beam-size", "1"],
        "select": ["--nbest", f"{place}/labels"],
        "cache": ["--teacher", teacher, *sides],
        "evaluate": ["--model", teacher, "--test", test, "--beam-size", "1"],
        "report": ["--results", f"{place}/results", "--format", "markdown", "json"],
        "export": ["--model", teacher],
        "translate": [teacher, "--input", text[0], "--output", f"{out}/text.en", "--overwrite", "--beam-size", "1"],
        "speed": ["--model", teacher, "--test", test, "--engines", "float32", "--latency-sentences", "1"],
    }
    given = {"init", "leak-check", "translate"}  # which file to write
    return {
        verb: [*verb.split(), *args, *([] if verb in given else ["--output-dir", out])] for verb, args in found.items()
    }


class Writing:
    """Calls something in front of what opens a file for writing, makes, moves or removes one, below a directory.

    A hook of the interpreter stays for good, so there is one of them.
    """

    EVENTS = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.link", "os.symlink")

    def __init__(self) -> None:
        self.place, self.call = "", None
        sys.addaudithook(self.audit)

    def audit(self, event: str, arguments: tuple) -> None:
        if self.call is None or not (event in self.EVENTS or self.is_writing(event, arguments)):
            return
        path = os.fsdecode(arguments[0]) if isinstance(arguments[0], str | bytes) else ""
        if path.startswith(self.place):
            self.call(path)

    @staticmethod
    def is_writing(event: str, arguments: tuple) -> bool:
        return event == "open" and bool(arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))

    @contextmanager
    def calling(self, place: Path, call) -> Iterator[None]:
        self.place, self.call = str(place), call
        try:
            yield
        finally:
            self.call = None


WRITING = Writing()


def test_every_verb_has_a_command(commands):
    assert set(commands) == set(VERBS)


def one_line(capsys, verb: str) -> str:
    """Return the one line that a verb has said at its end."""
    error = capsys.readouterr().err
    assert "Traceback" not in error
    lines = [line for line in error.splitlines() if line.startswith("nemo-distill ")]
    assert len(lines) == 1, error
    assert error.rstrip().endswith(lines[0])
    return lines[0].removeprefix(f"nemo-distill {verb.split()[0]}: ")


@pytest.mark.parametrize("verb", VERBS)
def test_ctrl_c_while_it_writes(verb, commands, tmp_path, capfd):
    """At the second thing beside the lock that it does where its output goes, and at the fourth."""
    for at in (2, 4):
        times = itertools.count(1)

        def interrupt(path: str, at: int = at, times: Iterator[int] = times) -> None:
            if ".lock" not in path and next(times) == at:
                signal.raise_signal(signal.SIGINT)

        with WRITING.calling(tmp_path, interrupt):
            assert cli.main(commands[verb]) == 130
        if verb == "translate":  # nothing of it is kept: it ends quietly
            assert "nemo-distill translate:" not in capfd.readouterr().err
        else:
            assert one_line(capfd, verb) == INTERRUPTED
        assert not list(tmp_path.rglob("*.tmp"))
    assert cli.main(commands[verb]) == 0
    assert cli.main(commands[verb]) == 0


@pytest.mark.parametrize("verb", VERBS)
def test_a_full_disk(verb, commands, tmp_path, capsys):
    with small_disk(10):
        assert cli.main(commands[verb]) == 1
    assert "File too large" in one_line(capsys, verb)
    assert not list(tmp_path.rglob("*.tmp"))
    assert cli.main(commands[verb]) == 0


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("verb", VERBS)
def test_a_read_only_file_system(verb, exists, commands, tmp_path, capfd, monkeypatch):
    """The output directory is not there, or is: nothing can be made in either place."""
    if exists:
        (tmp_path / "out").mkdir()

    def refuse(path: str) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)

    def access(path, mode: int, real=os.access) -> bool:
        return real(path, mode) and not (mode & os.W_OK and os.fspath(path).startswith(str(tmp_path)))

    monkeypatch.setattr(os, "access", access)
    with WRITING.calling(tmp_path, refuse):
        status = cli.main(commands[verb])
    said = one_line(capfd, verb)
    assert status in (1, 2)
    assert str(tmp_path) in said
    assert "Read-only file system" in said or "cannot be written" in said
    assert "give another" in said or "run the same command again" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == (["out"] if exists else [])


HOLDER = """
import sys, time
from nemo_distill.support import lock
with getattr(lock, sys.argv[1])(sys.argv[2]):
    print("held", flush=True)
    time.sleep(300)
"""
FILES = {"init": "out/student.nemo", "leak-check": "out/report.json", "export": "out", "translate": "out/text.en"}
"""Outputs that are locked as one file, or one directory that is replaced."""


@pytest.mark.parametrize("verb", VERBS)
def test_another_process_works_there(verb, commands, tmp_path, capfd):
    """It is named with its host, nothing is touched; its lock goes with it, killed or not."""
    kind, place = ("locked_file", FILES[verb]) if verb in FILES else ("locked", "out")
    command = [sys.executable, "-c", HOLDER, kind, str(tmp_path / place)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        before = sorted(tmp_path.rglob("*"))
        assert cli.main(commands[verb]) == 2
        assert f"is in use: process {holder.pid} on '{socket.gethostname()}' since 20" in one_line(capfd, verb)
        assert sorted(tmp_path.rglob("*")) == before
    finally:
        holder.kill()
        holder.wait()
    assert cli.main(commands[verb]) == 0


IMPORTING = """
import os, runpy, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == wanted:
            sys.meta_path.remove(finder)
            os.kill(os.getpid(), signal.SIGINT)

wanted, script = sys.argv[1:3]
finder = Interrupt()
sys.meta_path.insert(0, finder)
sys.argv[:] = sys.argv[2:]
if script.endswith(".py"):
    sys.path[0] = os.path.dirname(script)
    runpy.run_path(script, run_name="__main__")
else:
    runpy.run_module(script, run_name="__main__")
"""
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(
    ("script", "module", "name"),
    [
        ("nemo_distill.cli", "nemo_distill.cli.labels", "nemo-distill"),
        (str(EXAMPLES / "distill.py"), "nemo_distill.training.beginning", "distill.py"),
        (str(EXAMPLES / "train_nmt.py"), "nemo_distill.training.beginning", "train_nmt.py"),
    ],
)
def test_ctrl_c_while_it_imports(script, module, name):
    command = [sys.executable, "-c", IMPORTING, module, script]
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode in (130, -signal.SIGINT), done.stderr
    assert done.stderr.splitlines()[-1] == f"{name}: {INTERRUPTED}"
    assert "Traceback" not in done.stderr
