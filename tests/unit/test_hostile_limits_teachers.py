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
"""Small files that would take all memory or hours: refused in one line, within seconds."""

import json
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
from damage import odd_files, time_limit

from nemo_distill import DistillationConfig, cli
from nemo_distill.config.mixture import ComponentConfig
from nemo_distill.config.reading import read_yaml
from nemo_distill.config.section import TeacherConfig
from nemo_distill.data.corpora import corpus, wheel
from nemo_distill.data.mixing.tarred import TarredBatches, _expand, _read_arrays, index_shards
from nemo_distill.errors import ConfigurationError, InputError, TeacherError
from nemo_distill.support import files
from nemo_distill.teachers.cache_arrays import ROW, open_rows, open_tokens
from nemo_distill.teachers.cache_format import LogitCache
from nemo_distill.teachers.cache_records import Records

MEMBER = "homeassistant/components/a/translations/en.json"


def opened_wheel(directory, write) -> wheel.Wheel:
    """Write a zip and open it as the wheel."""
    path = directory / wheel.WHEEL_NAME
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        write(archive)
    return wheel.Wheel(path, files.sha256(path))


def write_lzma(archive: zipfile.ZipFile) -> None:
    archive.writestr(MEMBER, "{}", zipfile.ZIP_LZMA)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda archive: archive.writestr(MEMBER, bytes(100 << 20)), "104857600 bytes of method 8"),
        (lambda archive: [archive.writestr(MEMBER, "{}") for _ in range(2)], "twice"),
        (write_lzma, "2 bytes of method 14"),
        (lambda archive: archive.writestr(MEMBER, "[" * 100_000), "nested too deep"),
        (lambda archive: archive.writestr(MEMBER, '{"a": "\\ud800"}'), "surrogates not allowed"),
        (lambda archive: archive.writestr(MEMBER, '{"a": "b", "a": "c"}'), "the key 'a' twice"),
        (lambda archive: archive.writestr(MEMBER, b"\xff\xff"), "cannot be read as a wheel of strings"),
        (lambda archive: archive.writestr("x", "y"), "language 'en' is not in this corpus"),
    ],
)
def test_wheels(tmp_path, write, message):
    with time_limit(20), pytest.raises(InputError, match=message) as error:
        opened_wheel(tmp_path, write).strings("en")
    assert "\n" not in str(error.value)


def test_a_wheel_of_too_many_members_or_bytes(tmp_path):
    path = tmp_path / wheel.WHEEL_NAME
    path.write_bytes(b"PK\x01\x02" * 300_000)
    with pytest.raises(InputError, match="more than 250000 members"):
        wheel.Wheel(path, files.sha256(path))
    with open(path, "wb") as stream:
        stream.truncate(1 << 40)
    with time_limit(10), pytest.raises(InputError, match="(has more than the 268435456 bytes|is a sparse file)"):
        wheel.Wheel(path, "0" * 64)


def test_near_copies_of_a_long_text_take_little_memory():
    text = " ".join(f"word{chr(97 + number % 26)}{number // 26 * 'x'}" for number in range(600))
    other = " ".join([*text.split()[:-1], "another"])
    with time_limit(20):
        assert corpus.near_keys(text) & corpus.near_keys(other)
        long = "a b " * 200_000
        assert sum(map(len, corpus.near_keys(long))) < 30 << 20
    assert not corpus.near_keys("one two three four") & corpus.near_keys("four three two five")
    assert not corpus.near_keys("one two three four") & corpus.near_keys("one two three four five")


@pytest.mark.parametrize("code", ["../../x", "de/x", "a" * 40, "", "de\nen", ".", "d\0e", "\ud800"])
def test_language_codes(tmp_path, capsys, code):
    options = ["--source", code, "--target", "en", "--output-dir", str(tmp_path / "out")]
    for command in (["ui-strings"], ["multi30k", "--from", str(tmp_path)]):
        assert cli.main(["corpus", *command, *options]) == 2
        error = capsys.readouterr().err
        assert "is not a language code" in error
        assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_vocabulary_that_youtokentome_would_never_refuse(tiny_corpus, tmp_path, capsys):
    command = ["tokenizer", "--input", str(tiny_corpus / "train.de"), "--output-dir", str(tmp_path / "out")]
    with time_limit(20):
        assert cli.main([*command, "--vocab-size", str(2**31 - 1)]) == 2
    assert "--vocab-size is above 1000000" in capsys.readouterr().err


@pytest.mark.parametrize(
    "pattern", ["s.{0..999999999}.tar", "{0..99999}" * 3, "{a,b}" * 40, "{" * 3000, "{a", "{1..99999999999999999999}"]
)
def test_braces(pattern):
    with time_limit(20), pytest.raises(InputError, match="cannot be expanded") as error:
        _expand(pattern)
    assert len(str(error.value)) < 1000


def test_ordinary_braces():
    assert _expand("run_20260101120000/s.{0..3}.tar")[-1] == "run_20260101120000/s.3.tar"


def tarred_set(directory, content: bytes, **metadata) -> ComponentConfig:
    (directory / "s.tar").write_bytes(content)
    (directory / "m.json").write_text(json.dumps({"num_batches": 1, "tar_files": ["s.tar"]} | metadata))
    return ComponentConfig(metadata_file=str(directory / "m.json"))


def tar_of(content: bytes, **fields) -> bytes:
    """Return a tar of one batch whose header has other fields."""
    member = tarfile.TarInfo("b.pkl")
    member.size = len(content)
    for name, value in fields.items():
        setattr(member, name, value)
    return member.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512) + bytes(1024)


@pytest.mark.parametrize(
    "content",
    [
        tar_of(b"x" * 600, size=-1024),
        tar_of(b"x" * 600, size=1 << 50),
        tar_of(b"x", type=tarfile.GNUTYPE_LONGNAME, size=1 << 50),
        tar_of(b"x", type=tarfile.XHDTYPE, size=1 << 50),
        tar_of(b"x", type=tarfile.XHDTYPE, size=-512),
        tar_of(b"x", type=tarfile.GNUTYPE_SPARSE, size=1 << 60),
        b"\x1f\x8b" + bytes(2000),
    ],
)
def test_tars(tmp_path, content):
    with time_limit(10), pytest.raises(InputError) as error:
        index_shards(tarred_set(tmp_path, content))
    assert "\n" not in str(error.value)


def test_a_tar_whose_header_is_the_whole_disk(tmp_path):
    component = tarred_set(tmp_path, tar_of(b"x", type=tarfile.XHDTYPE, size=1 << 40))
    with open(tmp_path / "s.tar", "rb+") as stream:
        stream.truncate(1 << 41)
    with time_limit(10), pytest.raises(InputError, match="a header without end|is a sparse file"):
        index_shards(component)


@pytest.mark.parametrize("count", [True, "1", 1.5, -1, 0, [], 10**30])
def test_numbers_of_batches(tmp_path, count):
    with pytest.raises(InputError, match="num_batches is no number of batches"):
        index_shards(tarred_set(tmp_path, tar_of(b"x"), num_batches=count))


@pytest.mark.parametrize("kind", ["fifo", "directory", "device", "dangling", "loop", "missing"])
def test_odd_files_in_the_place_of_shards_and_metadata(tmp_path, kind):
    odd = odd_files(tmp_path / "odd")[kind]
    component = tarred_set(tmp_path, tar_of(b"x"), tar_files=[str(odd)])
    with time_limit(10), pytest.raises(InputError, match="no file"):
        index_shards(component)
    with time_limit(10), pytest.raises(InputError):
        index_shards(ComponentConfig(metadata_file=str(odd)))


class Encoded:
    """Bytes in an encoding that takes time by the square of their length."""

    def __reduce__(self):
        import _codecs

        return _codecs.encode, ("a" * 200_000, "idna")


def many_copies() -> bytes:
    """A pickle of one large array and many copies of it."""
    array = np.zeros((1, 100_000), dtype=np.int8)
    content = pickle.dumps({"src": array, "tgt": array, "more": [array.copy() for _ in range(200)]}, 4)
    assert len(content) > 1 << 20
    return content


@pytest.mark.parametrize(
    "content", [pickle.dumps({"src": Encoded()}, 2), many_copies(), b"\x80\x02" + b"N0" * 200_000 + b"N."]
)
def test_pickles(content):
    with time_limit(10), pytest.raises(InputError, match="is no batch"):
        _read_arrays(content, "here")


@pytest.mark.parametrize("row", [[0, 0, 0], [2, 0, 0]])
def test_sentences_without_text(tmp_path, row):
    rows = {"src": np.array([[2, 5, 3], row]), "tgt": np.array([[2, 5, 3], [2, 5, 3]])}
    entries = index_shards(tarred_set(tmp_path, tar_of(pickle.dumps(rows))))
    with pytest.raises(InputError, match="a sentence has no BOS and EOS"):
        TarredBatches(entries, (0, 0), (8, 8)).rows(0)


def npy(header: str) -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    "content",
    [
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (3,), }") + pickle.dumps([1]),
        npy(f"{{'descr': {ROW.descr}, 'fortran_order': False, 'shape': (1000000000000,), }}") + bytes(28),
        npy(f"{{'descr': {ROW.descr}, 'fortran_order': False, 'shape': (-1,), }}") + bytes(28),
        npy(f"{{'descr': {ROW.descr}, 'fortran_order': True, 'shape': (1,), }}") + bytes(28),
        npy(f"{{'descr': {ROW.descr}, 'fortran_order': False, 'shape': (True,), }}") + bytes(28),
        npy(f"{{'descr': {ROW.descr}, 'fortran_order': False, 'shape': (), }}") + bytes(28),
        npy("(" * 9000),
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(100),
        b"",
    ],
)
def test_arrays(tmp_path, content):
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    for read in (
        lambda: open_rows(path, 1),
        lambda: open_tokens(path, Records(4, 0, [1.0], 100)),
    ):
        with time_limit(10), pytest.raises(TeacherError) as error:
            read()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["fifo", "directory", "device", "dangling", "loop", "missing"])
def test_odd_files_in_the_place_of_a_cache(tmp_path, kind):
    odd = odd_files(tmp_path / "odd")[kind]
    with time_limit(10):
        with pytest.raises(TeacherError):
            LogitCache(odd)
        with pytest.raises(TeacherError):
            open_rows(odd, 1)
        (tmp_path / "cache").mkdir()
        if kind != "missing":
            (tmp_path / "cache/manifest.json").symlink_to(odd)
        with pytest.raises(TeacherError):
            LogitCache(tmp_path / "cache")


@pytest.mark.parametrize("kind", ["fifo", "directory", "device", "dangling", "loop", "missing"])
def test_odd_files_in_the_place_of_inputs(tiny_corpus, tiny_teacher_path, tmp_path, capsys, kind):
    odd = str(odd_files(tmp_path / "odd")[kind])
    text, out = str(tiny_corpus / "valid.de"), ["--output-dir", str(tmp_path / "out")]
    for command in (
        ["cache", "--teacher", odd, "--source", text, "--target", text, *out],
        ["cache", "--teacher", str(tiny_teacher_path), "--source", odd, "--target", text, *out],
        ["tokenizer", "--input", odd, "--vocab-size", "50", *out],
        ["corpus", "multi30k", "--from", odd, "--source", "de", "--target", "en", *out],
    ):
        with time_limit(20):
            assert cli.main(command) == 2
        error = capsys.readouterr().err
        assert "Traceback" not in error
        assert odd in error
    assert not (tmp_path / "out").exists()


HUGE = 10**5000


def nested(depth: int) -> dict:
    content: dict = {}
    for _ in range(depth):
        content = {"a": content}
    return content


@pytest.mark.parametrize(
    "section",
    [
        {"objective": {"alpha": HUGE}},
        {"objective": {"terms": [{"_target_": "a.B", "weight": HUGE}]}},
        {"objective": {"terms": [HUGE]}},
        {"objective": {"hidden": {"weight": 1, "encoder": [[0, HUGE]]}}},
        {"mixture": {"components": {"a": {"source": "x", "target": "y"}}, "seed": HUGE}},
        {"mixture": {"components": {"a": {"source": "x", "target": "y"}}, "probabilities": {"a": 10**400}}},
        {"mixture": {"components": {"a": {"source": "x\0", "target": "y"}}}},
        {"mixture": {"components": {HUGE: {"source": "x", "target": "y"}}}},
        {
            "mixture": {
                "components": {"a": {"source": "x", "target": "y"}},
                "noise": {"word_swap": 1, "apply_to": [["a"], {}]},
            }
        },
        {"teacher": {"model_path": "x" * 10_000_000}},
        {"teacher": {"precision": "fp32\n\x1b[2J\u202e" + "x" * 5000}},
        {"x" * 100_000: 1},
        {f"key{number}": number for number in range(10_000)},
        {"init": nested(5000)},
        {"teacher": {"sha256": ["\u202e" * 64]}},
    ],
)
def test_sections(section):
    with time_limit(20), pytest.raises(ConfigurationError) as error:
        DistillationConfig.from_section(section)
    message = str(error.value)
    assert len(message) < 40_000
    assert len(message.splitlines()) < 40
    assert max(map(len, message.splitlines())) < 700
    assert message.replace("\n", "").isprintable()


@pytest.mark.parametrize(
    "text", ["model_path: " + "9" * 5000, "model_path: 0x" + "f" * 100_000, "? [a]\n: b", "a: 2026-99-99", "<<: 5"]
)
def test_yaml(tmp_path, text):
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with time_limit(20), pytest.raises(InputError) as error:
        read_yaml(TeacherConfig, path, "plan")
    assert max(map(len, str(error.value).splitlines())) < 800


def test_yaml_that_is_no_file(tmp_path):
    for path in (*odd_files(tmp_path).values(), tmp_path / ("x" * 5000), "a\0b"):
        with time_limit(10), pytest.raises(InputError) as error:
            read_yaml(TeacherConfig, path, "plan")
        assert len(str(error.value)) < 1000


def test_a_line_without_end(tmp_path, capsys):
    (tmp_path / "line").write_bytes(b"a" * (18 << 20))
    command = ["tokenizer", "--input", str(tmp_path / "line"), "--vocab-size", "50"]
    with time_limit(60):
        assert cli.main([*command, "--output-dir", str(tmp_path / "out")]) == 2
    assert "more than 16 MB in one line" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
