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
import pytest

from nemo_distill.errors import InputError
from nemo_distill.support import numbered, text_files
from nemo_distill.support.numbered import cut, cut_blocks, numbers_for, numbers_in, open_numbered
from nemo_distill.support.texts import Texts


def test_names_and_back():
    names = [numbered.numbered("source.tok.txt.zst", number) for number in (None, 1, 99_999)]
    assert names == ["source.tok.txt.zst", "source-00001.tok.txt.zst", "source-99999.tok.txt.zst"]
    assert list(map(numbered.number_of, names)) == [None, 1, 99_999]
    assert {numbered.unnumbered(f"a-00001.d/{name}") for name in names} == {"a-00001.d/source.tok.txt.zst"}
    assert {numbered.base_name(f"a/{name}") for name in names} == {"source.tok.txt"}
    for name in ("wmt-2019.de", "model-000001.de", "", "..", "a-00001b.txt"):
        assert numbered.number_of(name) is None
        assert numbered.unnumbered(name) == name


def test_as_many_as_there_are_lines_for():
    assert [list(numbers_for(lines, 4)) for lines in (1, 4, 5)] == [[1], [1], [1, 2]]
    assert list(numbers_for(10**9, None)) == [None]
    assert len(numbers_for(99_999 * 4, 4)) == 99_999
    with pytest.raises(InputError, match=r"got 4, which makes 100000 files of 399997 lines; give at least 5"):
        numbers_for(99_999 * 4 + 1, 4)
    assert list(numbers_in(["a-00001.txt", "b-00003.txt"])) == [1, 2, 3]
    assert list(numbers_in(["a.txt"])) == [None]


@pytest.mark.parametrize("lines_per_file", [1, 2, 3, 7, 20, None])
@pytest.mark.parametrize("size", [1, 9, 1000])
def test_blocks_are_cut_where_files_end(tmp_path, lines_per_file, size):
    (tmp_path / "a").write_bytes(b"".join(b"%d\n" % number for number in range(1, 12)))
    (tmp_path / "b").write_bytes(b"".join(b"%d\n" % number for number in range(12, 15)))
    text = Texts([tmp_path / "a", tmp_path / "b"])
    found = []
    for path, own, first, block in cut_blocks(text.blocks(size=size), lines_per_file):
        lines = [int(line) for line in block.split(b"\n")]
        assert lines == list(range(first, first + len(lines)))
        assert own == first - (11 if path.name == "b" else 0)
        if lines_per_file:
            assert (first - 1) // lines_per_file == (first + len(lines) - 2) // lines_per_file
        found += lines
    assert found == list(range(1, 15))
    if size == 1000:  # no more than needed
        assert len(list(cut_blocks(text.blocks(size=size), 100))) == 2


def test_lines_that_end_with_a_file_are_not_cut():
    assert list(cut(5, "abcd", 4)) == [(5, "abcd")]
    assert list(cut(4, "abcd", 4)) == [(4, "a"), (5, "bcd")]
    assert list(cut(4, "", 4)) == [(4, "")]


def test_files_appear_together(tmp_path):
    with open_numbered(tmp_path, {"a.txt": b"", "b.tsv.gz": b"head\n"}, 2) as streams_of:
        for line in range(1, 6):
            one, two = streams_of(line)
            one.write(b"%d\n" % line)
            two.write(b"%d\n" % -line)
            assert not list(tmp_path.glob("[ab]*"))
    assert {path.name: text_files.read_lines(path) for path in tmp_path.iterdir()} == {
        **{"a-00001.txt": ["1", "2"], "a-00002.txt": ["3", "4"], "a-00003.txt": ["5"]},
        **{f"b-{number:05d}.tsv.gz": ["head", *lines] for number, lines in ((1, ["-1", "-2"]), (2, ["-3", "-4"]))},
        "b-00003.tsv.gz": ["head", "-5"],
    }


def test_or_none_of_them(tmp_path):
    with pytest.raises(ZeroDivisionError), open_numbered(tmp_path, {"a.txt.gz": b""}, 1) as streams_of:
        streams_of(1)[0].write(b"x\n")
        streams_of(2)[0].write(b"x\n")
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_only_a_few_files_are_open_at_a_time(tmp_path):
    import os

    before = len(os.listdir("/proc/self/fd"))
    with open_numbered(tmp_path, {"a.txt": b"", "b.txt": b""}, 1) as streams_of:
        for line in range(1, 100):
            streams_of(line)
        assert len(os.listdir("/proc/self/fd")) <= before + 2
