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
"""Crafted archives: each is refused with a typed error, writes nothing and leaves the process as it was."""

import gzip
import hashlib
import io
import json
import os
import random
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from nemo.collections.nlp.models import MTEncDecModel
from nemo.utils.app_state import AppState

from nemo_distill.archives import restore
from nemo_distill.archives.reader import LIMIT_VARIABLE, ArchiveLimits, read_parts, trusted_archives
from nemo_distill.archives.restore import extract_tokenizers, read_archive_config, restore_model
from nemo_distill.errors import ArchiveError, InputError

CONFIG, WEIGHTS = "model_config.yaml", "model_weights.ckpt"
Members = list[tuple[tarfile.TarInfo, bytes]]


class MyTranslationModel(MTEncDecModel):
    """Somebody's own model class."""


@pytest.fixture(scope="module")
def stock_members(tiny_teacher_path) -> dict[str, bytes]:
    """The members of a stock archive by name."""
    with tarfile.open(tiny_teacher_path) as archive:
        return {Path(member.name).name: archive.extractfile(member).read() for member in archive if member.isfile()}


@pytest.fixture
def write(tmp_path, stock_members) -> Callable:
    """A function that writes an archive: the stock members, changed as said, and further ones behind them."""

    def build(
        config: Callable[[dict], None] | bytes | None = None,
        weights: bytes | None = None,
        extra: Members = (),
        packed: bool = False,
        **replaced: bytes,
    ) -> Path:
        members = {**stock_members, **replaced}
        if callable(config):
            section = yaml.safe_load(members[CONFIG])
            config(section)
            config = yaml.safe_dump(section).encode()
        members[CONFIG] = members[CONFIG] if config is None else config
        members[WEIGHTS] = members[WEIGHTS] if weights is None else weights
        path = tmp_path / "attack.nemo"
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as archive:
            for info, data in [*((plain(name, data)) for name, data in members.items()), *extra]:
                archive.addfile(info, io.BytesIO(data))
        path.write_bytes(gzip.compress(content.getvalue(), 1) if packed else content.getvalue())
        return path

    return build


def plain(name: str, data: bytes = b"x", **fields) -> tuple[tarfile.TarInfo, bytes]:
    """Return one member; `fields` are those of its header."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def special(name: str, kind: bytes, linkname: str = "") -> tuple[tarfile.TarInfo, bytes]:
    """Return a link, a device, a directory or a pipe."""
    return plain(name, b"", type=kind, linkname=linkname)


def tree(*directories: Path) -> dict[str, bytes]:
    """Return every file below the directories with its content, and every directory."""
    paths = [path for directory in directories for path in directory.rglob("*")]
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in paths}


def process_state() -> list:
    """Return what opening an archive must not change."""
    state, mask = AppState(), os.umask(0o022)
    os.umask(mask)
    return [
        os.getcwd(),
        dict(os.environ),
        mask,
        torch.get_rng_state().tolist(),
        np.random.get_state()[1].tolist(),
        random.getstate(),
        state.is_model_being_restored,
        state.nemo_file_folder,
        state.model_restore_path,
    ]


@pytest.fixture
def refused(tmp_path, monkeypatch) -> Iterator[Callable]:
    """A function that makes sure that an archive is refused, leaving no trace: `refused(path, "why")`."""
    for name in ("work", "temporary"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "work")
    private = Path(restore._private_directory().name)  # made once by a process, for tokenizers
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))  # other processes may use the common one
    monkeypatch.setenv("NEMO_DISTILL_TEST_SECRET", "secret")

    def check(path: Path, message: str, open_archive: Callable = restore_model) -> None:
        watched = tmp_path, private, Path("/tmp/nemo_distill_attack")
        before, state = tree(*watched), process_state()
        with pytest.raises(ArchiveError, match=message) as caught:
            open_archive(path)
        assert path.name in str(caught.value)
        assert isinstance(caught.value, InputError)
        assert tree(*watched) == before
        assert process_state() == state

    yield check
    assert not [path for path in tmp_path.rglob("*") if "evil" in path.name]


CONTAINERS = {
    "traversal": ([plain("../evil")], r"'../evil' is not a plain file name"),
    "deep traversal": ([plain("./a/../../evil")], "is not a plain file name"),
    "absolute": ([plain("/tmp/nemo_distill_attack/evil")], "is not a plain file name"),
    "windows path": ([plain("..\\evil")], "is not a plain file name"),
    "folder": ([plain("folder/evil")], "is not a plain file name"),
    "only dots": ([plain("..")], "is not a plain file name"),
    "control character": ([plain("a\nevil")], "is not a plain file name"),
    "no UTF-8": ([plain("evil\udce9")], "is not a plain file name"),
    "end of a line": ([plain("a\u2028evil")], "is not a plain file name"),
    "other direction": ([plain("evil\u202etxt.model")], "is not a plain file name"),
    "isolated direction": ([plain("evil\u2067txt.model")], "is not a plain file name"),
    "longer than names are": ([plain("evil" + "ä" * 126)], "is not a plain file name"),
    "symbolic link": ([special("evil", tarfile.SYMTYPE, "/etc/passwd")], "is no regular file"),
    "write through a link": (
        [special("link", tarfile.SYMTYPE, ".."), plain("link/evil")],
        "'link' is no regular file",
    ),
    "link as weights": ([special("./" + WEIGHTS, tarfile.SYMTYPE, "/etc/passwd")], "is no regular file"),
    "hard link": ([special("evil", tarfile.LNKTYPE, CONFIG)], "is no regular file"),
    "named pipe": ([special("evil", tarfile.FIFOTYPE)], "is no regular file"),
    "character device": ([special("evil", tarfile.CHRTYPE)], "is no regular file"),
    "block device": ([special("evil", tarfile.BLKTYPE)], "is no regular file"),
    "contiguous file": ([special("evil", tarfile.CONTTYPE)], "is no regular file"),
    "directory": ([special("evil", tarfile.DIRTYPE)], "is no regular file"),
    "second configuration": ([plain(CONFIG, b"a: 1")], f"holds '{CONFIG}' twice"),
    "second configuration, other spelling": ([plain("./" + CONFIG, b"a: 1")], f"holds '{CONFIG}' twice"),
    "second weights": ([plain("././" + WEIGHTS, b"a: 1")], f"holds '{WEIGHTS}' twice"),
    "many members": ([plain(f"{number}.txt") for number in range(50)], "more than 32 members"),
}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("attack", CONTAINERS)
def test_members(attack, packed, write, refused):
    extra, message = CONTAINERS[attack]
    path = write(extra=extra, packed=packed)
    for open_archive in (restore_model, read_archive_config, lambda path: extract_tokenizers(path, Path.cwd())):
        refused(path, message, open_archive)


@pytest.mark.parametrize("name", ["spm\u300032k.model", "spm\u00a032k", "می\u200cخواهم.model", "x" * 216 + ".model"])
def test_a_tokenizer_is_called_as_people_call_files(name, write, stock_members):
    """NeMo puts 33 characters in front."""
    name = f"{'0' * 32}_{name}"
    section = yaml.safe_load(stock_members[CONFIG])["encoder_tokenizer"]
    content = stock_members[section["tokenizer_model"].removeprefix("nemo:")]
    path = write(config=at("encoder_tokenizer.tokenizer_model", f"nemo:{name}"), **{name: content})
    model = restore_model(path)
    assert Path(model.cfg.encoder_tokenizer.tokenizer_model).name == name[33:]
    assert model.encoder_tokenizer.vocab_size > 4


def test_trust_does_not_open_a_bad_container(write, refused):
    path = write(extra=[plain("../evil")])
    refused(path, "is not a plain file name", lambda path: restore_model(path, trust=True))


def with_size(path: Path, name: str, size: bytes) -> None:
    """Write another size into the header of a member, with the right checksum."""
    content = bytearray(path.read_bytes())
    start = content.index(name.encode())
    content[start + 124 : start + 136] = size
    content[start + 148 : start + 156] = b" " * 8
    content[start + 148 : start + 156] = b"%06o\0 " % sum(content[start : start + 512])
    path.write_bytes(content)


def test_header_that_lies_about_its_size(write, refused):
    path = write()
    with_size(path, WEIGHTS, b"\x80" + (1 << 33).to_bytes(11, "big"))
    refused(path, f"it ends inside '{WEIGHTS}'")
    with_size(path, CONFIG, b"\x80" + (1 << 33).to_bytes(11, "big"))
    refused(path, f"its {CONFIG} has 8589934592 bytes, and 262144 are allowed")


def test_negative_size(write, refused):
    """Which some versions of Python read for ever."""
    path = write()
    with_size(path, CONFIG, b"\xff" * 11 + b"\x00")
    refused(path, "negative size|is not a .nemo model")
    path.write_bytes(gzip.compress(path.read_bytes()))
    refused(path, "negative size|is not a .nemo model")


def test_bombs(write, refused, monkeypatch):
    zeros = bytes(30 << 20)
    bomb = write(weights=zeros, packed=True)
    assert bomb.stat().st_size < len(zeros) / 100
    limits = ArchiveLimits(gzip_free=1 << 20)
    refused(bomb, "uncompressed it is larger than is allowed", lambda path: read_parts(path, limits=limits))
    refused(write(weights=zeros), "uncompressed it is", lambda path: read_parts(path, limits=ArchiveLimits(1 << 20)))
    refused(write(**{"more.model": bytes(65 << 20)}, packed=True), "has 68157440 bytes, and 67108864 are allowed")
    refused(write(config=b"#" * 300_000), f"its {CONFIG} has 300000 bytes, and 262144 are allowed")
    monkeypatch.setenv(LIMIT_VARIABLE, "0.001")
    refused(write(weights=zeros), "is larger than is allowed; .* set NEMO_DISTILL_MAX_ARCHIVE_GB")
    monkeypatch.setenv(LIMIT_VARIABLE, "much")
    with pytest.raises(ArchiveError, match="NEMO_DISTILL_MAX_ARCHIVE_GB is 'much'; give a number of GB above 0"):
        restore_model(bomb)


def test_bomb_of_padding(write, refused):
    """Behind the end of the tar, gzip goes on for long."""
    path = write()
    path.write_bytes(gzip.compress(path.read_bytes() + bytes(30 << 20)))
    refused(path, "is larger than is allowed", lambda path: read_parts(path, limits=ArchiveLimits(gzip_free=1 << 20)))


def at(dotted: str, value) -> Callable[[dict], None]:
    """Return a change of the configuration."""

    def change(section: dict) -> None:
        *path, last = dotted.split(".")
        for key in path:
            section = section.setdefault(key, {})
        section[last] = value

    return change


MKDIR = {"_target_": "os.mkdir", "path": "evil"}
CONFIGS = {
    "class": (at("target", "os.mkdir"), "target is 'os.mkdir', which is no class of NeMo's translation models"),
    "another importable class": (at("target", "subprocess.Popen"), "which is no class"),
    "own class": (at("target", f"{__name__}.MyTranslationModel"), "trust_archive: true, or --trust-archive"),
    "class as a mapping": (at("target", {"a": 1}), "which is no class"),
    "interpolation": (at("beam_size", "${encoder.hidden_size}"), "beam_size is an interpolation"),
    "environment": (at("src_language", "${oc.env:NEMO_DISTILL_TEST_SECRET}"), "src_language is an interpolation"),
    "hydra target as a size": (at("encoder.hidden_size", MKDIR), "encoder.hidden_size._target_ names something to"),
    "hydra target in a list": (at("src_language", [MKDIR]), r"src_language\[0\]._target_ names something to run"),
    "old hydra as a size": (
        at("beam_size", {"cls": "os.mkdir", "params": {}}),
        "beam_size.cls names something to run",
    ),
    "shell as a tokenizer": (
        at("decoder_tokenizer.tokenizer_model", "pipe:touch evil"),
        "tokenizer_model is a command",
    ),
    "of another library": (
        at("encoder", {"library": "huggingface", **MKDIR}),
        "encoder._target_ is 'os.mkdir'; transformers.XConfig",
    ),
    "local file as tokenizer": (at("encoder_tokenizer.tokenizer_model", "/etc/passwd"), "only its own files are read"),
    "tokenizer by traversal": (at("encoder_tokenizer.tokenizer_model", "nemo:../../etc/passwd"), "only its own files"),
    "tokenizer as a list": (at("decoder_tokenizer.tokenizer_model", ["a"]), "tokenizer_model is a list; text"),
    "tokenizer from a hub": (at("encoder_tokenizer.library", "huggingface"), "library is 'huggingface', none of yttm"),
    "pickled tokenizer": (at("encoder_tokenizer.library", "tabular"), "library is 'tabular', none of yttm"),
    "transformer from a hub": (at("encoder.library", "huggingface"), "encoder._target_ is null; transformers.XConfig"),
    "named transformer": (at("decoder.model_name", "bert-base-cased"), "decoder is a model of another library"),
    "weights from elsewhere": (at("encoder.checkpoint_file", "/tmp/x.ckpt"), "encoder is a model of another library"),
    "language model": (at("language_model", {"pretrained_model_name": "x"}), "language_model names another model"),
    "further tokenizer": (at("tokenizer", {"tokenizer_name": "x"}), "tokenizer names another model"),
    "no sections": (at("encoder", "x"), "encoder is no section"),
    "memory": (at("encoder.hidden_size", 1 << 18), "describes encoder weights of .* numbers at least"),
    "layers": (at("decoder.num_layers", 1024), "describes 1024 layers of the decoder, and weights of 2 are in the"),
    "endless layers": (at("decoder.num_layers", 10**9), "decoder.num_layers is 1000000000; a whole number from 1 to"),
    "positions": (at("encoder.max_sequence_length", 1 << 20), "describes encoder weights of"),
    "token types": (at("encoder.num_token_types", 1 << 20), "describes encoder weights of"),
    "astronomic size": (at("encoder.hidden_size", 10**30), "encoder.hidden_size is 1000000.*; a whole number from 1"),
    "size as text": (at("encoder.inner_size", "many"), "encoder.inner_size is 'many'; a whole number from 1"),
    "truth as size": (at("encoder.num_layers", True), "encoder.num_layers is True; a whole number from 1"),
}


@pytest.mark.parametrize("attack", CONFIGS)
def test_configurations(attack, write, refused):
    change, message = CONFIGS[attack]
    refused(write(config=change), message)


UNREAD = {
    "hydra target": lambda section: section.update(MKDIR),
    "hydra target inside": at("encoder.extra", MKDIR),
    "hydra target in a tokenizer": at("encoder_tokenizer._target_", "os.mkdir"),
    "hydra target in a list": at("optim.extra", [MKDIR]),
    "hydra target in a dataset": at("train_ds", MKDIR),
    "optimizer of a recipe": at("optim._target_", "torch.optim.Adam"),
    "old hydra": lambda section: section.update(cls="os.mkdir", params={"path": "evil"}),
    "params alone": at("params", {"path": "evil"}),
    "nested class": at("encoder.target", "os.mkdir"),
    "environment": at("optim.name", "${oc.env:NEMO_DISTILL_TEST_SECRET}"),
    "interpolated key": at("optim", {"${oc.env:HOME}": 1}),
    "broken interpolation": at("optim.name", "${"),
    "shell": at("train_ds.tar_files", "pipe:touch evil"),
    "shell in a list": at("validation_ds.tar_files", ["a.tar", "pipe:touch evil"]),
    "vocabulary from outside": at("encoder_tokenizer.vocab_file", "/etc/passwd"),
    "vocabulary of the decoder": at("decoder_tokenizer.vocab_file", "/data/vocab.txt"),
    "directory of another machine": at("preproc_out_dir", "/etc"),
}


def test_what_is_not_read_does_nothing(write, stock_members, tmp_path, monkeypatch):
    """No release of NeMo reads these when a model is built: the archive opens, and nothing of them is left."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NEMO_DISTILL_TEST_SECRET", "secret")
    stock = read_archive_config(write())

    def change(section: dict) -> None:
        for attack in UNREAD.values():
            attack(section)
        section.update(json.loads(json.dumps(section)))  # nothing comes twice, which YAML would write as an anchor

    sparse = plain("evil", b"\0" * 512, pax_headers={"GNU.sparse.major": "1"})
    path = write(config=change, extra=[plain("evil.py", b"import os"), sparse, plain("nemo:evil", b"x")])
    before, private = tree(tmp_path), Path(restore._private_directory().name)
    state = process_state()
    assert isinstance(restore_model(path), MTEncDecModel)
    assert read_archive_config(path) == stock
    assert tree(tmp_path) == before
    assert process_state() == state
    assert not [found for found in private.rglob("*") if "evil" in found.name]
    assert not {"optim", "train_ds", "params", "_target_"} & read_archive_config(path).keys()


@pytest.mark.parametrize("attack", UNREAD)
@pytest.mark.parametrize("trust", [False, True])
def test_one_by_one_neither(attack, trust, write, tmp_path, monkeypatch):
    if trust and attack in ("broken interpolation", "interpolated key"):
        pytest.skip("a class of one's own may read it")
    monkeypatch.chdir(tmp_path)
    path = write(config=UNREAD[attack])
    before = tree(tmp_path)
    assert "train_ds" not in read_archive_config(path, trust=trust)
    assert tree(tmp_path) == before


YAML = {
    "python object": (b"!!python/object/apply:os.mkdir [evil]", "has the tag 'tag:yaml.org,2002:python/object"),
    "python object inside": (b"a: !!python/object/new:os.system [touch evil]", "has the tag"),
    "python path": (b"a: !!python/object/apply:pathlib.Path [evil]", "has the tag"),
    "own tag": (b"a: !evil 1", "has the tag '!evil'"),
    "billion laughs": (b"a: &a [1, 1]\nb: &b [*a, *a]\nc: [*b, *b]", "has anchors"),
    "merge": (b"a: &a {x: 1}\nb: {<<: *a}", "has anchors"),
    "deep nesting": (b"[" * 100_000, "is nested more than 32 deep"),
    "deep mapping": (b"{a: " * 20_000, "is nested more than 32 deep"),
    "many values": (b"- 1\n" * 50_000, "has too many values"),
    "same key twice": (b"target: a\ntarget: b", "has the key 'target' twice"),
    "broken interpolation": (b"beam_size: ${", "is an interpolation"),
    "NUL": (b"a: \0", "is not a .nemo model"),
    "empty": (b"", "is not a mapping"),
    "scalar": (b"5", "is not a .nemo model"),
    "endless number": (b"a: " + b"9" * 10_000, "is not a .nemo model"),
}


@pytest.mark.parametrize("attack", YAML)
def test_yaml(attack, write, refused):
    content, message = YAML[attack]
    refused(write(config=content), message)


class Payload:
    """Runs when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("evil",)


def saved(content: object, **options) -> bytes:
    """Return what `torch.save` writes."""
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def repacked(content: bytes, compression: int = zipfile.ZIP_STORED, twice: bool = False) -> bytes:
    """Return the same weights in a ZIP file of our own."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w", compression) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
        if twice:
            with pytest.warns(UserWarning, match="Duplicate name"):
                new.writestr(entry.filename, b"")
    return buffer.getvalue()


def one_bit_off(content: bytes) -> bytes:
    """Return the weights with one bit of a tensor changed, which torch does not notice."""
    with zipfile.ZipFile(io.BytesIO(content)) as packed:
        entry = next(entry for entry in packed.infolist() if entry.filename.endswith("data/0"))
    changed = bytearray(content)
    changed[entry.header_offset + 200] ^= 1
    assert isinstance(torch.load(io.BytesIO(changed), weights_only=True), dict)
    return bytes(changed)


WEIGHT_FILES = {
    "pickle that runs": (lambda stock: saved({"weight": Payload()}), "no file of plain tensors .*mkdir"),
    "pickle in the old format": (lambda stock: saved(Payload(), _use_new_zipfile_serialization=False), "no file of"),
    "old format": (lambda stock: saved({}, _use_new_zipfile_serialization=False), "no file of plain tensors"),
    "nonsense": (lambda stock: b"nonsense", "no file of plain tensors"),
    "empty": (lambda stock: b"", "no file of plain tensors"),
    "cut": (lambda stock: stock[: len(stock) // 2], "no file of plain tensors"),
    "other ZIP": (lambda stock: repacked(stock)[:0] or _zip_of(b"x"), "no file of plain tensors"),
    "compressed": (lambda stock: repacked(stock, zipfile.ZIP_DEFLATED), "is compressed, as torch never writes it"),
    "entry twice": (lambda stock: repacked(stock, twice=True), "holds an entry twice"),
    "flipped bit": (one_bit_off, "is damaged: .* the checksum of .*data/0 is wrong"),
    "no dictionary": (lambda stock: saved([torch.zeros(2)]), "no file of plain tensors .it holds EMPTY_LIST"),
    "plain data": (lambda stock: saved({"weight": 5}), "holds 'weight', which is no tensor"),
    "number as name": (lambda stock: saved({5: torch.zeros(2)}), "holds '5', which is no tensor"),
    "expanded tensor": (lambda stock: saved({"w": torch.zeros(1).expand(1 << 30)}), "w is no plain tensor"),
    "sparse tensor": (lambda stock: saved({"w": torch.eye(3).to_sparse()}), "w is no plain tensor|no file of"),
    "other names": (
        lambda stock: saved({"w": torch.zeros(200_000)}),
        "describes 2 layers of the encoder, and .* of 0 ",
    ),
}


def _zip_of(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        packed.writestr("archive/file", content)
    return buffer.getvalue()


@pytest.mark.parametrize("attack", WEIGHT_FILES)
@pytest.mark.parametrize("trust", [False, True])
def test_weights(attack, trust, write, refused, stock_members):
    """Weights are never unpickled, whoever made the archive."""
    make, message = WEIGHT_FILES[attack]
    if trust and attack == "other names":
        pytest.skip("shows only when the model is built")
    refused(write(weights=make(stock_members[WEIGHTS])), message, lambda path: restore_model(path, trust=trust))


def test_weights_of_another_model(write, stock_members, tmp_path):
    """This shows only when the model is built, after its tokenizers were written into a private directory."""
    other = torch.load(io.BytesIO(stock_members[WEIGHTS]), weights_only=True)
    del other["log_softmax.mlp.layer0.bias"]
    path = write(weights=saved(other))
    state = process_state()
    with pytest.raises(ArchiveError, match="could not be opened as a translation model: .*Missing key"):
        restore_model(path)
    assert process_state() == state
    assert tree(tmp_path).keys() == {str(path)}


@pytest.mark.parametrize(
    "damage", [lambda text: text[:-20], lambda text: b"9" * 8 + b" 9\n", lambda text: b"\xff" + text, lambda text: b""]
)
def test_damaged_tokenizers(damage, write, refused, stock_members):
    """YouTokenToMe would end the process."""
    name = next(name for name in stock_members if name not in (CONFIG, WEIGHTS))
    path = write(**{name: damage(stock_members[name])})
    refused(path, "is damaged: its (encoder|decoder) tokenizer cannot be read")
    refused(path, "is damaged", lambda path: extract_tokenizers(path, Path.cwd()))


def test_sha256(tiny_teacher_path, refused):
    digest = hashlib.sha256(tiny_teacher_path.read_bytes()).hexdigest()
    assert isinstance(restore_model(tiny_teacher_path, sha256=digest.upper()), MTEncDecModel)
    refused(
        tiny_teacher_path, f"has the SHA-256 {digest}, not 0000", lambda path: restore_model(path, sha256="0" * 64)
    )


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_a_stock_archive_opens_as_with_nemo(tiny_teacher_path, packed, tmp_path):
    path = tmp_path / "teacher.nemo"
    content = tiny_teacher_path.read_bytes()
    path.write_bytes(gzip.compress(content) if packed else content)
    model, stock = restore_model(path), MTEncDecModel.restore_from(str(path)).eval()
    ids = torch.randint(4, 100, (3, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    with torch.no_grad():
        assert torch.equal(model(ids, mask, ids, mask), stock(ids, mask, ids, mask))
    assert model.cfg.encoder == stock.cfg.encoder
    assert model.log_softmax.mlp.layer0.weight is model.decoder.embedding.token_embedding.weight


def test_a_model_can_be_saved_when_its_source_is_gone(tiny_teacher_path, tiny_tokenizer, tmp_path):
    """NeMo looks for the tokenizers in the file that it restored the model from."""
    source, saved_path, again = tmp_path / "a.nemo", tmp_path / "b.nemo", tmp_path / "c.nemo"
    shutil.copy(tiny_teacher_path, source)
    model = restore_model(source)
    source.unlink()
    model.save_to(str(saved_path))
    restore_model(saved_path).save_to(str(again))
    stock = MTEncDecModel.restore_from(str(again))
    assert all(torch.equal(stock.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
    assert stock.encoder_tokenizer.vocab_size == model.encoder_tokenizer.vocab_size
    names = list(read_parts(again).artifacts)
    assert sorted(name[33:] for name in names) == [tiny_tokenizer.name] * 2  # one prefix, not one more each time


def test_old_archives_name_the_path_of_another_machine(write):
    def change(section: dict) -> None:
        for side in ("encoder_tokenizer", "decoder_tokenizer"):
            section[side]["tokenizer_model"] = "/home/x/" + section[side]["tokenizer_model"].removeprefix("nemo:")

    assert isinstance(restore_model(write(config=change)), MTEncDecModel)


def test_trust_admits_ones_own_class(write):
    path = write(config=at("target", f"{__name__}.MyTranslationModel"), extra=[plain("notes.txt", b"mine")])
    assert type(restore_model(path, trust=True)) is MyTranslationModel
    with trusted_archives():
        assert type(restore_model(path)) is MyTranslationModel
        assert read_archive_config(path).target.endswith("MyTranslationModel")
    with pytest.raises(ArchiveError, match="If you made this file yourself"):
        restore_model(path)


def test_trust_still_wants_a_translation_model(write):
    with pytest.raises(ArchiveError, match="names os.mkdir, which is no translation model"):
        restore_model(write(config=at("target", "os.mkdir")), trust=True)


def test_trust_opens_a_class_that_is_not_installed_as_stock(write):
    assert type(restore_model(write(config=at("target", "no.such.Model")), trust=True)) is MTEncDecModel


def test_file_kinds(tmp_path, refused):
    pipe = tmp_path / "pipe.nemo"
    os.mkfifo(pipe)
    with pytest.raises(ArchiveError, match="pipe.nemo' is not a regular file"):
        restore_model(pipe)
