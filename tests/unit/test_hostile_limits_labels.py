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
"""Text that is made to take long, or to fill the memory."""

import pytest
from damage import time_limit

from nemo_distill.errors import InputError
from nemo_distill.labels.filtering import FilterSettings, find_fault, placeholders
from nemo_distill.labels.labelling import label
from nemo_distill.labels.nbest import read_nbest

OPTIONS = {"teacher": {"teachers": ["words"]}, "progress": False}


@pytest.mark.parametrize(
    "piece", ["{" + " " * 50_000, "%" + "0" * 50_000, "%" + "1" * 50_000, "<" + "a" * 50_000, "%(" + "a" * 50_000]
)
def test_placeholders_that_never_end(piece):
    with time_limit(5):
        assert not placeholders(piece * 2)
        assert find_fault(piece, "gut", settings=FilterSettings(max_length_ratio=None)) is None


def test_placeholders_are_found_as_before():
    text = "{ a } {} {\t} {0:.2f} { b c } %05d %-05.1f %+3$s %1$d %(n)s %٣d 50%d %0 <b> </b> <a-b c> <x <y>"
    assert dict(placeholders(text)) == {
        **dict.fromkeys(["{ a }", "{}", "{\t}", "{0:.2f}", "%05d", "%-05.1f", "%1$d", "%(n)s", "%٣d"], 1),
        **dict.fromkeys(["<b", "</b", "<a-b", "<y"], 1),
    }


def test_a_line_that_is_no_sentence(word_engine, tmp_path):
    """Escaped and with its hypotheses it must be a line that can be read again."""
    (tmp_path / "input.de").write_bytes(b"eins\n" + b"\x01" * (1 << 20) + b"\n")
    label(word_engine, tmp_path / "input.de", tmp_path / "labels", **OPTIONS)
    assert len(list(read_nbest(tmp_path / "labels/nbest.jsonl"))) == 2
    (tmp_path / "input.de").write_bytes(b"eins\n" + b"a" * (1 << 20) + b"b\n")
    with pytest.raises(InputError, match=r"input.de', line 2: more than 1 MB; give one sentence a line"):
        label(word_engine, tmp_path / "input.de", tmp_path / "out", **OPTIONS)
    assert not (tmp_path / "out").exists()


def test_an_nbest_line_without_end(word_engine, tmp_path):
    class Long(word_engine):
        def hypotheses(self, sentence, settings):
            return super().hypotheses(sentence, settings) * 3

    (tmp_path / "input.de").write_bytes(b"\x01" * (1 << 20) + b"\n")
    with pytest.raises(InputError, match=r"input.de', line 1: with its hypotheses it has more than 16 MB"):
        label(Long, tmp_path / "input.de", tmp_path / "labels", **OPTIONS)
    with open(tmp_path / "nbest.jsonl", "wb") as stream:
        for _ in range(17):
            stream.write(b"[" * (1 << 20))
    with time_limit(20), pytest.raises(InputError, match=r"line 1: more than 16 MB in one line"):
        list(read_nbest(tmp_path / "nbest.jsonl"))
