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
from nemo_distill.support import files
from nemo_distill.support.texts import Texts


@pytest.fixture
def paths(tmp_path):
    """Two files; the second has a mark at its beginning, the first no line end at its end."""
    (tmp_path / "a.de").write_bytes(b"eins\n\nzwei")
    (tmp_path / "b.de").write_bytes("\ufeffdrei\nvier\n".encode())
    return [tmp_path / "a.de", tmp_path / "b.de"]


def test_several_files_are_read_as_one(paths):
    text = Texts(paths)
    assert list(text.lines()) == list(text.lines(text.sha256())) == ["eins", "", "zwei", "drei", "vier"]
    assert text.sha256() == [files.sha256(path) for path in paths]


def test_one_file_is_what_it_was(paths):
    for given in (paths[0], str(paths[0]), [paths[0]]):
        text = Texts(given)
        assert text.sha256() == files.sha256(paths[0])
        assert list(text.lines(text.sha256())) == ["eins", "", "zwei"]
        assert str(text) == f"'{paths[0]}'"


def test_blocks_know_their_place_in_their_file_and_in_all(paths):
    found = [(path.name, own, first, block) for path, own, first, block in Texts(paths).blocks(size=6)]
    assert found == [
        ("a.de", 1, 1, b"eins\n"),
        ("a.de", 3, 3, b"zwei"),
        ("b.de", 1, 4, "\ufeffdrei".encode()),
        ("b.de", 2, 5, b"vier"),
    ]


def test_names_and_changes(paths):
    hashes = Texts(paths).sha256()
    assert str(Texts([paths[0]] * 5)) == ", ".join([f"'{paths[0]}'"] * 3) + " and 2 more"
    paths[1].write_bytes(b"anders\n")
    with pytest.raises(InputError, match="b.de' has changed while it was in use"):
        list(Texts(paths).lines(hashes))
    with pytest.raises(InputError, match="at least one"):
        Texts([])
