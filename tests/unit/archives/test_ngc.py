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
"""Archives by name: fetched once from a mirror on this machine, kept where NeMo keeps them, compared at each use."""

import errno
import http.server
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from nemo.collections.nlp.models import MTEncDecModel

from nemo_distill.archives import ngc
from nemo_distill.archives.ngc import cache_path, fetch_archive, find_archive, find_teachers, known_names
from nemo_distill.archives.reader import archive_sha256
from nemo_distill.archives.restore import restore_model
from nemo_distill.cli.options import find_archives
from nemo_distill.cli.parser import build_parser, main
from nemo_distill.config.section import TeacherConfig
from nemo_distill.errors import ArchiveError, StorageError
from nemo_distill.support.files import sha256
from nemo_distill.support.incoming import read_json
from nemo_distill.teachers.frozen import check_teacher, load_teacher_model
from nemo_distill.training.inputs import input_hashes

NAME, FILE = "nmt_de_en_transformer24x6", "de_en_24x6.nemo"
PLACE = f"/v2/models/nvidia/nemo/{NAME}/versions/1.5/files/{FILE}"


class Mirror(http.server.ThreadingHTTPServer):
    """Serves one file, in one of several ways."""

    content, length, status, seconds = b"", None, 200, 0.0

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str] = []


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        mirror = self.server
        mirror.asked.append(self.path)
        time.sleep(mirror.seconds)
        self.send_response(mirror.status if self.path == f"/ngc{PLACE}" else 404)
        self.send_header("Content-Length", str(mirror.length or len(mirror.content)))
        self.end_headers()
        self.wfile.write(mirror.content)

    def log_message(self, *_) -> None:
        """Say nothing."""


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch) -> Path:
    """NeMo's cache directory, and a working directory with nothing in it."""
    monkeypatch.setenv("NEMO_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "cache"


@pytest.fixture
def mirror(tiny_teacher_path, monkeypatch) -> Iterator[Mirror]:
    with Mirror() as server:
        server.content = tiny_teacher_path.read_bytes()
        monkeypatch.setenv(ngc.URL_VARIABLE, f"http://127.0.0.1:{server.server_port}/ngc/")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def refused(message: str, run: Callable = fetch_archive, given: object = NAME) -> str:
    """Make sure that fetching fails with one line, and leaves no archive."""
    with pytest.raises(ArchiveError, match=message) as caught:
        run(given)
    assert "\n" not in str(caught.value)
    assert not [path for path in cache_path(NAME).parent.glob("*") if not path.name.endswith(".lock")]
    return str(caught.value)


def test_fetched_once_into_the_cache_of_nemo(mirror, tiny_teacher_path, empty_cache, capsys, monkeypatch):
    monkeypatch.setenv("NEMO_DISTILL_PROGRESS", "1e-6")
    path = fetch_archive(NAME)
    assert mirror.asked == [f"/ngc{PLACE}"]
    assert f"fetching {NAME}" in capsys.readouterr().err
    assert path.read_bytes() == tiny_teacher_path.read_bytes()
    assert path.is_relative_to(empty_cache)
    assert MTEncDecModel._get_ngc_pretrained_model_info(model_name=NAME)[1] == str(path)  # NeMo uses it, too
    assert path.with_name(f"{path.name}.sha256").read_text() == f"{sha256(path)}  {path.name}\n"
    assert find_archive(NAME) == str(fetch_archive(NAME)) == str(path)
    assert len(mirror.asked) == 1
    path.write_bytes(path.read_bytes() + bytes(512))  # still an archive that opens
    assert isinstance(restore_model(path), MTEncDecModel)
    with pytest.raises(
        ArchiveError, match=f"has the SHA-256 {sha256(path)}, and had {archive_sha256(tiny_teacher_path)}"
    ):
        fetch_archive(NAME)
    path.with_name(f"{path.name}.sha256").write_text("yes\n")
    with pytest.raises(ArchiveError, match="is not what sha256sum writes; remove it"):
        fetch_archive(NAME)


def test_a_file_that_lies_there_is_used(tiny_teacher_path, monkeypatch):
    """Fetched by stock NeMo, or put there by hand: no server is asked."""
    monkeypatch.setenv(ngc.URL_VARIABLE, "http://127.0.0.1:9")
    path = cache_path(NAME)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"half a file")
    with pytest.raises(ArchiveError, match="is not a .nemo model"):
        fetch_archive(NAME)
    shutil.copy(tiny_teacher_path, path)
    assert fetch_archive(NAME) == path
    assert path.with_name(f"{path.name}.sha256").exists()


def test_a_cache_that_others_fill(tiny_teacher_path, monkeypatch):
    """Nothing can be noted where somebody else may write alone, or where the file system is read-only."""
    numbers = iter((errno.EACCES, errno.EROFS, errno.ENOSPC))

    def write(path: Path, text: str) -> None:
        raise OSError(number := next(numbers), os.strerror(number), str(path))

    monkeypatch.setattr(ngc, "write_text_atomic", write)
    path = cache_path(NAME)
    path.parent.mkdir(parents=True)
    shutil.copy(tiny_teacher_path, path)
    assert fetch_archive(NAME) == fetch_archive(NAME) == path
    with pytest.raises(StorageError, match="No space left on device"):
        fetch_archive(NAME)


def test_a_broken_download_leaves_nothing(mirror):
    whole = mirror.content
    mirror.length = len(whole) + 1
    refused(f"'{NAME}' could not be fetched as a whole")
    mirror.length, mirror.content = None, whole[: len(whole) // 2]
    refused(f"'{NAME}' could not be fetched: http://.*{PLACE} is not a .nemo model: .*put it at ")
    mirror.content = b"<html>Sign in to the network</html>" * 1000
    refused("is not a .nemo model: no tar archive")
    mirror.status = 404
    refused(f"'{NAME}' could not be fetched .HTTP Error 404: Not Found.. Fetch http://")
    mirror.status, mirror.content = 200, whole
    assert fetch_archive(NAME).exists()


def test_no_network_is_said_within_seconds(monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv(ngc.URL_VARIABLE, f"http://127.0.0.1:{closed.getsockname()[1]}")
        known_names()  # the import of NeMo takes seconds of its own
        start = time.monotonic()
        message = refused("Connection refused")
        assert time.monotonic() - start < 5
        assert f"{PLACE} where there is a network and put it at {cache_path(NAME)}" in message
        closed.listen()  # and says nothing
        monkeypatch.setattr(ngc, "_SECONDS", 0.3)
        refused("timed out")
    monkeypatch.setenv(ngc.URL_VARIABLE, "file:///etc")
    refused("NEMO_DISTILL_NGC_URL is 'file:///etc'; give the URL of a mirror")


def test_two_processes_fetch_it_once(mirror):
    mirror.seconds = 0.3
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(fetch_archive, [NAME] * 4))) == 1
    assert len(mirror.asked) == 1


def test_paths_and_names(mirror, tiny_teacher_path):
    assert find_archive("runs/nmt_de_en_transformer24x6") == "runs/nmt_de_en_transformer24x6"
    assert find_archive(f"{NAME}.nemo") == f"{NAME}.nemo"
    refused("'nmt_de_en_transformer24x' is neither a file nor .* or nmt_", find_archive, "nmt_de_en_transformer24x")
    refused("'a b' is neither a file nor the name of a translation model on NGC", find_archive, "a\nb")
    shutil.copy(tiny_teacher_path, NAME)
    assert find_archive(NAME) == NAME
    assert not mirror.asked
    assert len(known_names()) == 29


VERBS = {
    "pseudo-label": ["--teacher", NAME, "--input", "a", "--output-dir", "b"],
    "cache": ["--teacher", NAME, NAME, "--output-dir", "b"],
    "evaluate": ["--model", NAME, "x.nemo", "--test", "t:a:b", "--output-dir", "b"],
    "speed": ["--model", NAME, "--test", "t:a:b", "--output-dir", "b"],
    "init": ["--teacher", NAME, "--student", "a", "--output", "b"],
    "preprocess": ["--teacher", NAME, "--source", "a", "--output-dir", "b"],
    "export": ["--model", NAME, "--output-dir", "b"],
}


def test_every_verb_takes_names(mirror, tmp_path, capsys):
    path = str(fetch_archive(NAME))
    for verb, options in VERBS.items():
        args = build_parser().parse_args([verb, *options])
        find_archives(args)
        given = args.teacher if "--teacher" in options else args.model
        assert given in (path, [path], [path, path], [path, "x.nemo"]), verb
    assert main(["export", "--model", NAME, "--output-dir", str(tmp_path / "export")]) == 0
    capsys.readouterr()
    assert main(["export", "--model", "nmt_de_fr", "--output-dir", str(tmp_path / "export")]) == 2
    assert "nemo-distill export: 'nmt_de_fr' is neither a file nor" in capsys.readouterr().err.splitlines()[-1]
    record = read_json(tmp_path / "export/export.json")
    assert record["archive"] == FILE
    assert record["request"]["archive_sha256"] == sha256(path)


def test_names_in_a_configuration(mirror, tiny_teacher_path):
    """`teacher=NAME` of the example script is `model_path`; the hash of what is read goes to the run's inputs."""
    for key in ("model_path", "model_name"):
        check_teacher(TeacherConfig(**{key: NAME}))
        assert isinstance(load_teacher_model(TeacherConfig(**{key: NAME})), MTEncDecModel)
    path, digest = str(cache_path(NAME)), archive_sha256(tiny_teacher_path)
    model = {"distillation": {"teacher": {"model_path": [NAME, "a.nemo"]}, "init": {"from_nemo": NAME}}}
    find_teachers(model)
    assert model == {"distillation": {"teacher": {"model_path": [path, "a.nemo"]}, "init": {"from_nemo": path}}}
    named = {"distillation": {"teacher": {"model_name": NAME}}}
    find_teachers(named)
    assert input_hashes(named) == {"distillation.teacher.model_name": [digest]}
    for odd in ({}, {"distillation": 5}, {"distillation": {"teacher": [], "init": {"from_nemo": [5]}}}):
        find_teachers(odd)
    with pytest.raises(ArchiveError, match="distillation.teacher.model_path: 'nmt_de_x' is neither a file nor"):
        find_teachers({"distillation": {"teacher": {"model_path": "nmt_de_x"}}})
