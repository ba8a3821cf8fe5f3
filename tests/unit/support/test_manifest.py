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
import json
import re

import pytest

from nemo_distill.errors import InputError
from nemo_distill.support import files, manifest

REQUEST = {"corpus": "own", "seed": 0}


def test_a_finished_run_is_found_again(tmp_path):
    written = manifest.write_run(tmp_path / "run", REQUEST, {"a.txt": b"text\n"}, {"lines": 1})
    assert written["files"] == {"a.txt": {"sha256": files.sha256(tmp_path / "run" / "a.txt")}}
    assert manifest.find_finished(tmp_path / "run", REQUEST) == written
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["a.txt", "manifest.json"]


def test_nothing_is_found_where_nothing_is(tmp_path):
    assert manifest.find_finished(tmp_path / "absent", REQUEST) is None


def test_another_request_is_refused_and_named(tmp_path):
    manifest.write_run(tmp_path, REQUEST, {"a.txt": b"text\n"}, {})
    with pytest.raises(InputError, match=r"made with seed 0 \(now 1\); .*--overwrite"):
        manifest.find_finished(tmp_path, REQUEST | {"seed": 1})
    assert manifest.find_finished(tmp_path, REQUEST | {"seed": 1}, overwrite=True) is None


@pytest.mark.parametrize("change", ["changed", "missing"])
def test_a_damaged_run_is_reported(tmp_path, change):
    manifest.write_run(tmp_path, REQUEST, {"a.txt": b"text\n"}, {})
    if change == "changed":
        (tmp_path / "a.txt").write_bytes(b"texT\n")
    else:
        (tmp_path / "a.txt").unlink()
    with pytest.raises(InputError, match=r"a\.txt' (has changed since it was written|is missing); --overwrite"):
        manifest.find_finished(tmp_path, REQUEST)


@pytest.mark.parametrize("name", ["コーパス\u3000一.de", "a\u00a0b.de", "می\u200cخواهم.fa", "x" * 225 + ".de"])
def test_a_file_is_called_as_people_call_files(tmp_path, name):
    written = manifest.write_run(tmp_path, REQUEST, {name: b"text\n"}, {})
    assert manifest.find_finished(tmp_path, REQUEST) == written


@pytest.mark.parametrize(
    "name", ["", "..", "/a", "a/../b", "a\nb", "a\x9bb", "a\u2028b", "a\u202eb", "a\ud800", "ä" * 128]
)
def test_names_of_no_files(name):
    assert not manifest.is_file_list({name: {"sha256": "a" * 64}})
    assert manifest.is_file_list({"a/b": {"sha256": "a" * 64}})


@pytest.mark.parametrize("content", ["[]", '{"name": "web page"}', "{"])
def test_a_manifest_of_something_else_is_refused(tmp_path, content):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(InputError, match="of another tool|not valid JSON"):
        manifest.find_finished(tmp_path, REQUEST)


def test_files_of_unknown_origin_are_not_overwritten(tmp_path):
    (tmp_path / "a.txt").write_text("mine")
    with pytest.raises(InputError, match=r"a\.txt' does not prove to be of an earlier run, so it stays"):
        manifest.write_run(tmp_path, REQUEST, {"a.txt": b"text\n"}, {})
    assert (tmp_path / "a.txt").read_text() == "mine"
    assert not (tmp_path / "manifest.json").exists()


def test_overwrite_replaces_the_listed_files_and_no_others(tmp_path):
    manifest.write_run(tmp_path, REQUEST, {"a.de": b"a\n", "a.fr": b"b\n"}, {})
    (tmp_path / "notes.txt").write_text("mine")
    second = manifest.write_run(tmp_path, REQUEST | {"seed": 1}, {"a.fr": b"new\n"}, {}, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.fr", "manifest.json", "notes.txt"]
    assert manifest.find_finished(tmp_path, REQUEST | {"seed": 1}) == second


def test_overwrite_never_deletes_outside_the_directory(tmp_path):
    (tmp_path / "outside.txt").write_text("mine")
    run = tmp_path / "run"
    run.mkdir()
    (run / "manifest.json").write_text(json.dumps({"request": {}, "files": {"../outside.txt": {"sha256": "0"}}}))
    with pytest.raises(InputError, match="manifest of another tool"):
        manifest.write_run(run, REQUEST, {"a.txt": b"a\n"}, {}, overwrite=True)
    assert (tmp_path / "outside.txt").read_text() == "mine"


def test_a_run_that_was_cut_short_is_done_again(tmp_path, monkeypatch):
    real, calls = manifest.files.sha256, []

    def stop(path):
        calls.append(path)
        raise KeyboardInterrupt

    monkeypatch.setattr(manifest.files, "sha256", stop)
    with pytest.raises(KeyboardInterrupt):
        manifest.write_run(tmp_path, REQUEST, {"a.txt": b"a\n", "b.txt": b"b\n"}, {})
    monkeypatch.setattr(manifest.files, "sha256", real)
    assert calls
    assert (tmp_path / "a.txt").exists()
    assert manifest.find_finished(tmp_path, REQUEST) is None
    manifest.write_run(tmp_path, REQUEST, {"a.txt": b"a\n", "b.txt": b"b\n"}, {})
    assert manifest.find_finished(tmp_path, REQUEST) is not None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b.txt", "manifest.json"]


@pytest.mark.parametrize(
    ("earlier", "request_now"),
    [({"a": 1}, {"a": 1.0}), ({"a": 1}, {"a": 1, "b": None}), ({"a": (1, 2)}, {"a": [1, 2]}), ({1: "x"}, {"1": "x"})],
)
def test_requests_that_mean_the_same_are_one(earlier, request_now):
    manifest.refuse_other("here", earlier, request_now)
    assert manifest.request_text(earlier) == manifest.request_text(request_now)


@pytest.mark.parametrize(
    ("earlier", "request_now", "words"),
    [
        ({"a": 1}, {"a": True}, r"a 1 \(now True\)"),
        ({"a": 1, 2: 3}, {"a": 2, 2: 3}, r"a 1 \(now 2\);"),
        ({}, {"teacher": {"path": "t.nemo", "cache": None}}, r"teacher.path None \(now 't.nemo'\);"),
        ({"a": {"b": 1}}, {"a": 5}, r"a \{'b': 1\} \(now 5\)"),
        (dict.fromkeys("abcdefg", 0), dict.fromkeys("abcdefg", 1), r"e 0 \(now 1\) and 2 more;"),
        ({"input": "a" * 64, "b": 1}, {"input": "b" * 64, "b": 1}, r"other content of input \(then old\.de\);"),
        ({"inputs": ["a" * 64]}, {"inputs": ["b" * 64, "c" * 64]}, r"other content of inputs \(then a\.de, b\.en\);"),
        ({"texts": {"train.de": "a" * 64}}, {"texts": {"train.de": "b" * 64}}, r"other content of texts\.train\.de;"),
        ({"models": [["s", "a" * 64]]}, {"models": [["s", "b" * 64]]}, "other content of models;"),
        ({"archive_sha256": "a" * 64}, {"archive_sha256": "b" * 64}, "other content of archive;"),
        ("no mapping", {"a": 1}, r"a None \(now 1\)"),
    ],
)
def test_what_differs_is_named(earlier, request_now, words):
    with pytest.raises(InputError, match=f"'here' already holds another run, made with .*{words}") as error:
        manifest.refuse_other(
            "here", earlier, request_now, names={"input_name": "old.de", "input_names": ["a.de", "b.en"]}
        )
    assert not re.search("[0-9a-f]{20}", str(error.value)), "a hash says nothing to people"
    assert manifest.request_text(earlier) != manifest.request_text(request_now)
