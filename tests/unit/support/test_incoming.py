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

import gzip
import os

import pytest

from nemo_distill.errors import ArchiveError, InputError
from nemo_distill.support import incoming


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (os.mkfifo, "is not a regular file"),
        (os.mkdir, "is a directory"),
        (lambda path: os.symlink("/dev/zero", path), "is not a regular file"),
        (lambda path: os.symlink(path, path), "cannot be opened"),
        (lambda path: None, "does not exist"),
    ],
)
def test_only_regular_files_are_opened(tmp_path, make, message):
    make(tmp_path / "file")
    with pytest.raises(ArchiveError, match=f"file' {message}.*; check the path"):
        incoming.read_bytes(tmp_path / "file", error=ArchiveError)


@pytest.mark.parametrize("name", ["a\0b", "a" * 5000])
def test_names_that_no_file_can_have(tmp_path, name):
    with pytest.raises(InputError, match="cannot be opened") as error:
        incoming.read_bytes(tmp_path / name)
    assert len(str(error.value)) < 500


def test_a_link_to_a_file_is_followed(tmp_path):
    (tmp_path / "file").write_bytes(b"text")
    (tmp_path / "link").symlink_to("file")
    assert incoming.read_bytes(tmp_path / "link") == b"text"


def test_size(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    assert incoming.read_bytes(tmp_path / "file", 5) == b"12345"
    with pytest.raises(InputError, match="more than the 4 bytes"):
        incoming.read_bytes(tmp_path / "file", 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Expecting"),
        ('{"a": NaN}', "the value NaN"),
        ("[-Infinity]", "the value -Infinity"),
        ("1e999", "no float holds"),
        ('{"a": 1, "a": 2}', "the key 'a' twice"),
        ("[" * 100_000, "nested too deep"),
        ("9" * 5000, "digits"),
        (b"\xff\xfe\x00", "decode|Expecting"),
    ],
)
def test_json_that_is_none(tmp_path, text, message):
    (tmp_path / "a.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=f"a.json' is not valid JSON .*{message}"):
        incoming.read_json(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x [1]\nb: *x", "has anchors"),
        ("a: !!python/object/apply:os.mkdir [x]", "has the tag"),
        ("[" * 40 + "]" * 40, "nested more than 32 deep"),
        ("- 1\n" * 30_000, "too many values"),
        ("a: 1\nb: {c: 1, c: 2}", "the key 'c' twice"),
        ("a: [1", "expected"),
        ("a: \0", "special characters"),
    ],
)
def test_yaml_that_is_none(tmp_path, text, message):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(InputError, match=f"a.yaml' is not YAML that can be read: .*{message}"):
        incoming.read_yaml_text(tmp_path / "a.yaml")


def test_good_yaml(tmp_path):
    text = "a: [1, {b: 2, c: {b: 3}}]\nb: {c: [{c: 1}, {c: 2}]}\n? [x, y]\n: z\n"
    (tmp_path / "a.yaml").write_text(text)
    assert incoming.read_yaml_text(tmp_path / "a.yaml") == text


def test_compressed_bytes_are_bounded_by_those_on_the_disk(tmp_path):
    (tmp_path / "a.gz").write_bytes(gzip.compress(bytes(1000)))
    with open(tmp_path / "a.gz", "rb") as raw:
        assert incoming.CappedGzip(raw, 1000).read() == bytes(1000)
    with open(tmp_path / "a.gz", "rb") as raw, pytest.raises(incoming.TooLargeError):
        incoming.CappedGzip(raw, 999).drain()


def test_a_file_of_holes_is_refused_at_once(tmp_path, monkeypatch):
    with open(tmp_path / "holes", "wb") as stream:
        stream.write(b"text")
        stream.truncate(2 << 40)
    with pytest.raises(InputError, match="is a sparse file: it says 2199023255552 bytes and holds 4096"):
        incoming.read_bytes(tmp_path / "holes")
    monkeypatch.setattr(incoming, "GZIP_FREE", 0)
    (tmp_path / "whole").write_bytes(b"text" * 10_000)
    assert len(incoming.read_bytes(tmp_path / "whole")) == 40_000


def test_a_file_is_read_to_its_end_as_any_other(tmp_path):
    """A file in /proc that has nothing to say yet would give None."""
    (tmp_path / "file").write_bytes(b"text")
    with incoming.open_regular(tmp_path / "file") as stream:
        assert os.get_blocking(stream.fileno())


@pytest.mark.parametrize("read", [lambda stream: stream.read(), lambda stream: stream.read(10)])
def test_errors_of_reading_name_the_file(read):
    with incoming.open_regular("/proc/self/mem") as stream, pytest.raises(OSError, match="'/proc/self/mem'") as error:
        read(stream)
    assert error.value.filename == "/proc/self/mem"
