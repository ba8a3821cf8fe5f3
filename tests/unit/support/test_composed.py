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
import unicodedata

import pytest

from nemo_distill.support.composed import Decomposed
from nemo_distill.support.text_files import measure_text


@pytest.mark.parametrize(
    "text", ["schön", "Việt", "приём", "ακύρωση", "آب", "한국어", "ガス", "কো", "କୋ", "கொ", "കൊ", "කො"]
)
def test_decomposed_letters_of_every_script_are_seen(text):
    composed = unicodedata.normalize("NFC", text)
    found = Decomposed()
    found.look(["plain", composed, unicodedata.normalize("NFD", text)])
    assert (found.lines, found.first) == (1, 3)


@pytest.mark.parametrize("text", ["क़लम", "\u0958", "য়", "神\ufa19", "Å", "i\u0307\u0301", "ﬁ", "नहीं", "x\u0301"])
def test_text_that_composing_does_not_shorten_is_none(text):
    """Also where it is not NFC: U+0958 has no composed form, Å is another character for Å."""
    found = Decomposed()
    found.look([text])
    assert found.warning("a") is None


@pytest.mark.parametrize("size", [3, 1 << 20, (1 << 20) + 1])
def test_a_measured_text_has_the_decomposed_lines_of_its_lines(tmp_path, size):
    """At the borders of the blocks that are read, too."""
    text = tmp_path / "text"
    text.write_text("a" * (size - 2) + "u\u0308\n\nschön\ngut\nscho\u0308n", encoding="utf-8")
    found = measure_text(text)
    assert (found.lines, found.decomposed.lines, found.decomposed.first) == (5, 2, 1)
    text.write_text("a" * size + "\nschön\n" + "u\u0308\n" * 3, encoding="utf-8")
    assert (
        measure_text(text)
        .decomposed.warning("'text'")
        .startswith("'text': 3 lines, the first is 3: letters are decomposed")
    )
