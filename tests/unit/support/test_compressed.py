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
import importlib
import os
import time

import pytest

from nemo_distill.config.mixture import label_names
from nemo_distill.errors import InputError
from nemo_distill.support import compressed, text_files
from nemo_distill.support.compressed import SUFFIXES, compress, open_atomic, plain_name, suffix_of

LINES = ["eine Zeile", "", "Zeile\u2028zwei", "Größe {name}", *map(str, range(5000))]


@pytest.fixture(params=SUFFIXES)
def suffix(request):
    """The end of a name, of a kind of compression that is installed."""
    if request.param == ".zst":
        pytest.importorskip("backports.zstd")
    return request.param


def content(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def test_names():
    assert [suffix_of(name) for name in ("a.de", "b/a.de.gz", "a.zst", "gz", "a.gz/b")] == ["", ".gz", ".zst", "", ""]
    assert [plain_name(name) for name in ("x/a.de", "a.de.gz", "a.tok.zst")] == ["a.de", "a.de", "a.tok"]


def test_a_text_of_several_frames_is_read_as_one(suffix, tmp_path):
    path = tmp_path / f"text.de{suffix}"
    path.write_bytes(compress(content(LINES[:3]), suffix) + compress(content(LINES[3:]), suffix))
    assert text_files.read_lines(path) == LINES
    assert text_files.measure_text(path)[:2] == (len(LINES), True)
    assert path.stat().st_size < len(content(LINES)) / 2


@pytest.mark.parametrize("window_log", [28, 31])
def test_a_text_that_was_packed_with_a_long_window(tmp_path, window_log):
    """As `zstd --long=28` does it, which zstd itself unpacks only where it is told to."""
    zstd = pytest.importorskip("backports.zstd")
    options = {zstd.CompressionParameter.window_log: window_log, zstd.CompressionParameter.hash_log: 10}
    with zstd.open(path := tmp_path / "text.de.zst", "wb", options=options) as stream:
        stream.write(content(LINES[:3]))
        stream.write(content(LINES[3:]))
    assert zstd.get_frame_info(path.read_bytes()).decompressed_size is None
    assert text_files.read_lines(path) == LINES


def test_the_same_bytes_at_any_time(suffix, tmp_path, monkeypatch):
    for name in ("a", "b"):
        with open_atomic(tmp_path / f"{name}.de{suffix}") as stream:
            for line in LINES:
                stream.write(content([line]))
        monkeypatch.setattr(time, "time", lambda: 1e9)
    assert (tmp_path / f"a.de{suffix}").read_bytes() == (tmp_path / f"b.de{suffix}").read_bytes()
    assert text_files.read_lines(tmp_path / f"a.de{suffix}") == LINES


def test_plain_names_are_left_plain(tmp_path):
    with open_atomic(tmp_path / "a.de") as stream:
        stream.write(b"x\n")
    assert (tmp_path / "a.de").read_bytes() == compress(b"x\n", "") == b"x\n"


@pytest.mark.parametrize("fault", ["cut", "cut between", "changed", "another", "behind"])
def test_damage_is_said(suffix, tmp_path, fault):
    whole = compress(content(LINES), suffix)
    changed = bytearray(whole)
    changed[len(whole) // 2] ^= 255
    damaged = {
        "cut": whole[:-3],
        "cut between": whole + whole[:40],
        "changed": bytes(changed),
        "another": b"no compressed file at all\n",
        "behind": whole + b"something else",
    }
    path = tmp_path / f"text.de{suffix}"
    path.write_bytes(damaged[fault])
    kind = {".gz": "gzip", ".zst": "zstd"}[suffix]
    with pytest.raises(InputError, match=f"text.de{suffix}' is not a complete {kind} file"):
        text_files.read_lines(path)


def test_a_bomb_is_refused(suffix, tmp_path, monkeypatch):
    monkeypatch.setattr("nemo_distill.support.incoming.GZIP_FREE", 1 << 20)
    path = tmp_path / f"text.de{suffix}"
    path.write_bytes(compress(b"a\n" * (8 << 20), suffix))
    with pytest.raises(InputError, match="much larger than text can be; if it is text, decompress it by hand"):
        text_files.read_lines(path)


def test_zstd_that_is_not_installed_is_one_clear_error(tmp_path, monkeypatch):
    def missing(name: str):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    compressed._zstd.cache_clear()
    (tmp_path / "text.de.zst").write_bytes(b"x")
    with pytest.raises(InputError, match="in .zst needs backports.zstd; pip install backports.zstd, or use .gz"):
        text_files.read_lines(tmp_path / "text.de.zst")
    with pytest.raises(InputError, match=r"needs backports.zstd"), open_atomic(tmp_path / "out.zst"):
        pass
    assert os.listdir(tmp_path) == ["text.de.zst"]
    compressed._zstd.cache_clear()


def test_labels_are_found_under_either_name(tmp_path):
    assert label_names(tmp_path) == [("source.txt", "hypotheses.txt")]
    (tmp_path / "source.txt.gz").touch()
    assert label_names(tmp_path) == [("source.txt.gz", "hypotheses.txt.gz")]
    (tmp_path / "source.tok.txt.zst").touch()
    assert label_names(tmp_path) == [("source.tok.txt.zst", "hypotheses.tok.txt.zst")]
