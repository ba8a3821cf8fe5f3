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
import bz2
import gzip
import lzma

import pytest

from nemo_distill.errors import InputError
from nemo_distill.support import text_files
from nemo_distill.support.compressed import compress


def test_read_lines_breaks_at_newline_only(tmp_path):
    path = tmp_path / "text.de"
    inner = "eins\u2028zwei\u2029drei\x85vier\x0cfünf\x1csechs"
    path.write_bytes(f"\ufeff{inner}\r\n\nletzte".encode())
    assert text_files.read_lines(path) == [inner, "", "letzte"]


def test_read_lines_of_gzip_equals_plain(tmp_path):
    text = "Grüße\nzweite Zeile\n".encode()
    (tmp_path / "a.de").write_bytes(text)
    with gzip.open(tmp_path / "a.de.gz", "wb") as stream:
        stream.write(text)
    assert (
        text_files.read_lines(tmp_path / "a.de.gz")
        == text_files.read_lines(tmp_path / "a.de")
        == ["Grüße", "zweite Zeile"]
    )


@pytest.mark.parametrize("cut", [5, 20, 30])
def test_read_lines_of_damaged_gzip(tmp_path, cut):
    whole = gzip.compress(b"one line of text\nanother line of text\n")
    path = tmp_path / "a.gz"
    path.write_bytes(whole[:cut])
    with pytest.raises(InputError, match="not a complete gzip file"):
        text_files.read_lines(path)


def test_read_lines_names_file_and_line_of_bad_utf8(tmp_path):
    path = tmp_path / "latin.de"
    path.write_bytes(b"gut\nauch gut\nGr\xfc\xdfe\nnoch eine\xff\n")
    with pytest.raises(InputError, match=r"latin\.de', line 3: byte 0xfc at position 2 of the line is not UTF-8"):
        text_files.read_lines(path)


def test_read_lines_of_missing_file_and_directory(tmp_path):
    with pytest.raises(InputError, match="absent.txt' does not exist"):
        text_files.read_lines(tmp_path / "absent.txt")
    with pytest.raises(InputError, match="is a directory"):
        text_files.read_lines(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"\n\n", b"last", "\ufeffeins\u2028zwei\x0bdrei\r\n\rvier\n\nletzte".encode(), b"\xef\xbb\xbf\n"],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_iterate_lines_equals_read_lines(tmp_path, content, suffix):
    path = tmp_path / f"text{suffix}"
    path.write_bytes(gzip.compress(content) if suffix else content)
    assert list(text_files.iterate_lines(path)) == text_files.read_lines(path)


def test_iterate_lines_names_file_and_line(tmp_path):
    path = tmp_path / "latin.de"
    path.write_bytes(b"gut\nauch gut\nGr\xfc\xdfe\n")
    lines = text_files.iterate_lines(path)
    assert next(lines) == "gut"
    with pytest.raises(InputError, match=r"latin\.de', line 3: byte 0xfc at position 2 of the line is not UTF-8"):
        list(lines)
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"one line of text\nanother line of text\n")[:20])
    with pytest.raises(InputError, match="not a complete gzip file"):
        list(text_files.iterate_lines(tmp_path / "a.gz"))


def test_read_parallel_pairs_lines(tmp_path):
    (tmp_path / "a.de").write_text("eins\nzwei\n", encoding="utf-8")
    (tmp_path / "a.en").write_text("one\ntwo", encoding="utf-8")
    assert text_files.read_parallel(tmp_path / "a.de", tmp_path / "a.en") == [("eins", "one"), ("zwei", "two")]


def test_read_parallel_names_both_counts(tmp_path):
    (tmp_path / "a.de").write_text("eins\nzwei\ndrei\n", encoding="utf-8")
    (tmp_path / "a.en").write_text("one\ntwo\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"a\.de' has 3 lines but .*a\.en' has 2"):
        text_files.read_parallel(tmp_path / "a.de", tmp_path / "a.en")


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_read_parallel_refuses_empty_files(tmp_path, content):
    (tmp_path / "a.de").write_text("eins\n", encoding="utf-8")
    (tmp_path / "a.en").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=r"a\.en' is empty"):
        text_files.read_parallel(tmp_path / "a.de", tmp_path / "a.en")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"one\ntwo",
        b"one\ntwo\n",
        b"\xef\xbb\xbf\n \r\n",
        b"\xef\xbb\xbf",
        "\u3000\n\u2028\nä".encode(),
        "zwölf\n".encode() * 300_000,
        b"x" * (1 << 20) + "ü\n".encode() + b" \n" * 9,
    ],
)
def test_a_measured_text_is_that_of_its_lines(tmp_path, content):
    (tmp_path / "text").write_bytes(content)
    lines = text_files.read_lines(tmp_path / "text")
    # of a mark alone there is one line without text
    assert text_files.measure_text(tmp_path / "text")[:2] == (len(lines), any(line.strip() for line in lines))


def test_a_part_of_a_byte_order_mark_is_no_text(tmp_path):
    for content in (b"\xef", b"\xef\xbb"):
        (tmp_path / "text").write_bytes(content)
        with pytest.raises(InputError, match="line 1: byte 0xef at position 0"):
            text_files.measure_text(tmp_path / "text")


@pytest.mark.parametrize("content", [b"one\n\xff\n", b"one\ntwo \xc3", b"one\n\xc3\n\xbc", b"a\n" + b"b" * (17 << 20)])
def test_measuring_names_the_line_of_a_fault(tmp_path, content):
    (tmp_path / "text").write_bytes(content)
    with pytest.raises(InputError) as wanted:
        text_files.read_lines(tmp_path / "text")
    with pytest.raises(InputError) as found:
        text_files.measure_text(tmp_path / "text")
    assert str(found.value) == str(wanted.value)
    assert "line 2" in str(found.value)


@pytest.mark.parametrize("content", [b"one\rtwo", b"one\rtwo\r", b"one\r\rtwo\n", b"one line\r" * (17 << 17)])
def test_lines_that_end_as_those_of_old_macs(tmp_path, content):
    """Every reader of lines refuses them, not only the one of pairs."""
    (tmp_path / "text").write_bytes(content)
    for reader in (text_files.read_lines, text_files.measure_text, lambda path: list(text_files.line_blocks(path))):
        with pytest.raises(InputError, match=r"text' is one line with carriage returns in it: .* tr '.r' '.n' < OLD"):
            reader(tmp_path / "text")


@pytest.mark.parametrize("content", [b"one\r", b"one\r\r\n", b"one\rtwo\nthree", b"\none\rtwo", b"one\rtwo\n\n"])
def test_carriage_returns_within_a_text(tmp_path, content):
    (tmp_path / "text").write_bytes(content)
    assert len(text_files.read_lines(tmp_path / "text")) == text_files.measure_text(tmp_path / "text").lines
    (tmp_path / "text").write_bytes(b"\n" * 3 + content)
    assert text_files.read_lines(tmp_path / "text")[:3] == [""] * 3


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_the_bytes_of_text_whatever_they_take_on_the_disk(tmp_path, suffix):
    if suffix == ".zst":
        pytest.importorskip("backports.zstd")
    frame = compress(b"a line of text\n" * 1000, suffix)
    paths = [tmp_path / f"{name}{suffix}" for name in "ab"]
    for path in paths:
        path.write_bytes(frame * 2)  # frames may follow each other
    assert not suffix or len(frame) < 500
    assert text_files.text_bytes(paths, 1 << 40) == 4 * 15_000
    assert [text_files.text_bytes(paths, most) for most in (30_001, 1)] == [30_001, 1]
    assert [text_files.parts(paths, 20_000, most) for most in (1, 2, 3, 9)] == [1, 2, 3, 3]
    assert not text_files.is_empty(paths[0])
    paths[1].write_bytes(compress(b"", suffix))
    assert text_files.is_empty(paths[1])
    assert text_files.text_bytes(paths[1:], 10) == 0
    assert text_files.parts(paths[1:], 10, 4) == 1


def test_of_what_is_damaged_the_beginning_counts(tmp_path):
    whole = gzip.compress(bytes(range(256)) * 40_000, compresslevel=0)
    (tmp_path / "a.gz").write_bytes(whole[:-2_000_000])
    (tmp_path / "b.gz").touch()
    assert 7_000_000 < text_files.text_bytes([tmp_path / "a.gz", tmp_path / "b.gz"], 1 << 30) < 9_000_000
    for name in ("b.gz", "absent", "."):
        assert not text_files.is_empty(tmp_path / name)


@pytest.mark.parametrize(("name", "pack", "kind"), [("a.bz2", bz2.compress, "bzip2"), ("a.xz", lzma.compress, "xz")])
def test_compressed_files_that_are_not_read_are_called_by_their_kind(name, pack, kind, tmp_path):
    (tmp_path / name).write_bytes(pack(b"Zeile\n" * 50))
    with pytest.raises(InputError, match=f"is a {kind} file; decompress it"):
        text_files.read_lines(tmp_path / name)
