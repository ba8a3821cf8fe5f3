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
import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from nemo.collections.nlp.models import MTEncDecModel

from nemo_distill.cli import main
from nemo_distill.data.tokens import store as store_module
from nemo_distill.data.tokens.store import MANIFEST, store_of, stored_text
from nemo_distill.data.tokens.text import tokenize
from nemo_distill.errors import ConfigurationError, InputError, StorageError
from nemo_distill.training.multilingual import languages_of_sets

try:
    from megatron.core.datasets.indexed_dataset import IndexedDataset, IndexedDatasetBuilder
except ImportError:
    from megatron.core.datasets.indexed_dataset import MMapIndexedDataset as IndexedDataset
    from megatron.core.datasets.indexed_dataset import MMapIndexedDatasetBuilder as IndexedDatasetBuilder


@pytest.fixture(scope="module")
def tokenizer(load_tiny_tokenizer):
    return load_tiny_tokenizer()


@pytest.fixture
def blocks(monkeypatch):
    """Blocks of a few lines, so that a small text has many, and two processes."""
    monkeypatch.setattr(store_module, "_BLOCK", 32)
    monkeypatch.setattr(store_module, "available_cores", lambda: 2)


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def same(one, other) -> bool:
    return len(one) == len(other) and all(np.array_equal(one[n], other[n]) for n in range(len(one)))


def test_a_stored_text_is_that_of_memory(tiny_corpus, tokenizer, blocks, tmp_path):
    text = tiny_corpus / "train.de"
    key, stored = stored_text(tmp_path, text, tokenizer)
    assert same(stored, tokenize(text, tokenizer))
    assert stored_text(tmp_path, text, tokenizer)[0] == key
    assert sorted(path.name for path in (tmp_path / "texts" / key).iterdir()) == [MANIFEST, "tokens.bin", "tokens.idx"]


@pytest.mark.parametrize("size", [200, 70_000])
def test_the_files_are_megatrons(tiny_corpus, tokenizer, tmp_path, size, monkeypatch):
    text = tiny_corpus / "valid.de"
    monkeypatch.setattr(store_module, "token_dtype", lambda _: np.dtype(np.uint16 if size < 1 << 16 else np.int32))
    key, stored = stored_text(tmp_path, text, tokenizer)
    directory = tmp_path / "texts" / key
    builder = IndexedDatasetBuilder(str(tmp_path / "theirs.bin"), dtype=stored.ids.dtype.type)
    for ids in tokenize(text, tokenizer):
        builder.add_item(torch.tensor(ids))
    builder.end_document()
    builder.finalize(str(tmp_path / "theirs.idx"))
    for end in ("bin", "idx"):
        assert (directory / f"tokens.{end}").read_bytes() == (tmp_path / f"theirs.{end}").read_bytes()
    theirs = IndexedDataset(str(directory / "tokens"))
    assert all(np.array_equal(theirs.get(number), stored[number]) for number in range(len(stored)))


def test_white_space_has_no_tokens(tokenizer, tmp_path):
    (tmp_path / "text").write_text("die Lampe\n \n\u3000\n\ndas Radio")
    _, stored = stored_text(tmp_path / "store", tmp_path / "text", tokenizer)
    assert [length > 0 for length in stored.lengths] == [True, False, False, False, True]


def test_a_compressed_text_is_the_same(tiny_corpus, tokenizer, blocks, tmp_path):
    (tmp_path / "plain.de").write_bytes(content := (tiny_corpus / "train.de").read_bytes())
    (tmp_path / "packed.de.gz").write_bytes(gzip.compress(content))
    texts = [stored_text(tmp_path, tmp_path / name, tokenizer)[1] for name in ("plain.de", "packed.de.gz")]
    assert same(*texts)


def test_another_text_or_tokenizer_is_another_key(tiny_corpus, tokenizer, train_tokenizer, tmp_path):
    from nemo.collections.nlp.modules.common.tokenizer_utils import get_nmt_tokenizer

    texts = tiny_corpus / "valid.de", tiny_corpus / "test.de"
    library = "yttm" if "YouToken" in type(tokenizer).__name__ else "sentencepiece"
    smaller = train_tokenizer([tiny_corpus / "train.de"], 60)
    other = get_nmt_tokenizer(library, tokenizer_model=str(smaller))
    keys = [stored_text(tmp_path, text, each)[0] for text in texts for each in (tokenizer, other)]
    assert len(set(keys)) == 4


def test_a_tokenizer_that_normalizes_otherwise_is_another_key(tiny_corpus, tmp_path):
    """Of equal vocabularies, and of equal ids for the first thousand lines."""
    import sentencepiece
    from nemo.collections.nlp.modules.common.tokenizer_utils import get_nmt_tokenizer

    text = tmp_path / "text"
    text.write_bytes(b"die Lampe\n" * 1100 + "die Lampe ﬁel\n".encode())
    tokenizers = []
    for rule in ("identity", "nmt_nfkc"):
        sentencepiece.SentencePieceTrainer.train(
            input=str(tiny_corpus / "train.en"),
            model_prefix=str(tmp_path / rule),
            vocab_size=60,
            normalization_rule_name=rule,
            pad_id=0,
            unk_id=1,
            bos_id=2,
            eos_id=3,
            hard_vocab_limit=False,
            minloglevel=2,
        )
        tokenizers.append(get_nmt_tokenizer("sentencepiece", tokenizer_model=str(tmp_path / f"{rule}.model")))
    assert tokenizers[0].vocab == tokenizers[1].vocab
    for tokenizer in tokenizers:
        assert same(stored_text(tmp_path / "store", text, tokenizer)[1], tokenize(text, tokenizer))


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_text_that_changes_meanwhile_leaves_nothing_behind(
    tiny_corpus, tokenizer, blocks, tmp_path, monkeypatch, is_killed
):
    """What was made of other lines would be taken for that of the text, once it is back."""
    monkeypatch.setattr(store_module, "available_cores", lambda: 1)
    monkeypatch.setattr(store_module.text_files, "_BLOCK_BYTES", 100)
    encode, text = store_module._encode_block, tmp_path / "text"
    content = (tiny_corpus / "train.de").read_bytes() * 8

    def encode_block(*block):
        if block[-2] == 65:
            text.write_bytes(content.lower().replace(b"e", b"i"))
        if block[-2] == 1 + 32 * 30 and is_killed:
            raise KeyboardInterrupt
        return encode(*block)

    text.write_bytes(content)
    with monkeypatch.context() as patch:
        patch.setattr(store_module, "_encode_block", encode_block)
        with pytest.raises(KeyboardInterrupt if is_killed else InputError):
            stored_text(tmp_path / "store", text, tokenizer)
    text.write_bytes(content)
    assert same(stored_text(tmp_path / "store", text, tokenizer)[1], tokenize(text, tokenizer))


@pytest.mark.parametrize("two_processes", [False, True])
def test_a_fault_of_the_text_is_named_by_its_line(tokenizer, tmp_path, two_processes, blocks, monkeypatch):
    if not two_processes:
        monkeypatch.setattr(store_module, "available_cores", lambda: 1)
    (tmp_path / "text").write_bytes(b"die Lampe\n" * 2200 + b"das \xff Radio\n" + b"die Lampe\n" * 100)
    with pytest.raises(InputError, match=r"text', line 2201: byte 0xff at position 4"):
        stored_text(tmp_path / "store", tmp_path / "text", tokenizer)


def test_a_text_without_text(tokenizer, tmp_path):
    (tmp_path / "text").write_text(" \n\n")
    with pytest.raises(InputError, match=r"text' is empty \(2 lines, no text\)"):
        stored_text(tmp_path / "store", tmp_path / "text", tokenizer)


def test_a_damaged_store_is_not_read(tiny_corpus, tokenizer, tmp_path):
    key, _ = stored_text(tmp_path, tiny_corpus / "valid.de", tokenizer)
    for name in ("tokens.bin", "tokens.idx", MANIFEST):
        path = tmp_path / "texts" / key / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-3])
        with pytest.raises(InputError, match="damaged|JSON"):
            stored_text(tmp_path, tiny_corpus / "valid.de", tokenizer)
        path.write_bytes(whole)
    assert len(stored_text(tmp_path, tiny_corpus / "valid.de", tokenizer)[1])


def test_an_index_that_points_elsewhere_is_not_read(tiny_corpus, tokenizer, tmp_path):
    key, text = stored_text(tmp_path, tiny_corpus / "valid.de", tokenizer)
    path, begin = tmp_path / "texts" / key / "tokens.idx", 34
    whole = path.read_bytes()
    for place, dtype, value in (
        (begin, np.int32, -1),
        (begin, np.int32, text.lengths[0] + 1),
        (begin + 4 * len(text), np.int64, -8),
        (begin + 4 * len(text) + 8, np.int64, 1 << 50),
        (begin + 12 * len(text) - 8, np.int64, text.offsets[-1] + 2),
    ):
        number = np.array([value], dtype=dtype).tobytes()
        path.write_bytes(whole[:place] + number + whole[place + len(number) :])
        with pytest.raises(InputError, match="damaged .*one behind the other.*; remove it"):
            stored_text(tmp_path, tiny_corpus / "valid.de", tokenizer)


def test_a_store_without_tokens_is_damaged(tiny_corpus, tokenizer, tmp_path):
    key, _ = stored_text(tmp_path, tiny_corpus / "valid.de", tokenizer)
    directory = tmp_path / "texts" / key
    manifest = json.loads((directory / MANIFEST).read_text())
    (directory / MANIFEST).write_text(json.dumps({**manifest, "tokens": 0}))
    (directory / "tokens.bin").write_bytes(b"")
    (directory / "tokens.idx").write_bytes((directory / "tokens.idx").read_bytes()[:34] + bytes(12 * 20 + 16))
    with pytest.raises(InputError, match="damaged"):
        stored_text(tmp_path, tiny_corpus / "valid.de", tokenizer)


def test_a_killed_worker_is_said(tiny_corpus, tokenizer, blocks, tmp_path, monkeypatch):
    (tmp_path / "text").write_bytes((tiny_corpus / "train.de").read_bytes() * 20)
    monkeypatch.setattr(store_module, "_encode_block", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(StorageError, match="was killed, perhaps for want of memory; run the same command again"):
        stored_text(tmp_path / "store", tmp_path / "text", tokenizer)


@pytest.fixture
def start(tiny_corpus, tokenizer, blocks, tmp_path, monkeypatch):
    """A function that starts a process which makes a store of a text of many blocks, each in so many seconds."""
    text = tmp_path / "text.de"
    text.write_bytes((tiny_corpus / "train.de").read_bytes() * 8)
    encode, context = store_module._encode_block, multiprocessing.get_context("fork")

    def begin(directory: str, seconds: float = 0):
        monkeypatch.setattr(store_module, "_encode_block", lambda *block: (time.sleep(seconds), encode(*block))[1])
        process = context.Process(target=stored_text, args=(tmp_path / directory, text, tokenizer))
        process.start()
        return process

    return begin


def ended(process) -> int | None:
    process.join(60)
    return process.exitcode


def test_killed_at_random_moments(start, tmp_path):
    generator = random.Random(5)
    assert ended(start("undisturbed")) == 0
    done = []
    for _ in range(3):
        process = start("store", 0.1)
        deadline = time.monotonic() + 60
        while not (parts := list(tmp_path.glob("store/texts/*/.lengths.part"))) and time.monotonic() < deadline:
            time.sleep(0.01)
        before = parts[0].stat().st_size
        while parts[0].stat().st_size == before and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(generator.uniform(0, 0.2))
        process.kill()
        assert ended(process) == -signal.SIGKILL
        done.append(parts[0].stat().st_size)
    assert done == sorted(set(done))  # each went on, none began again
    assert ended(start("store")) == 0
    assert contents(tmp_path / "store") == contents(tmp_path / "undisturbed")


def test_what_is_left_right_behind_the_manifest_goes(tiny_corpus, tokenizer, tmp_path):
    key, _ = stored_text(tmp_path, tiny_corpus / "valid.de", tokenizer)
    whole = contents(tmp_path)
    for name in (".lengths.part", ".sums.part"):
        (tmp_path / "texts" / key / name).write_bytes(b"left by a kill")
    stored_text(tmp_path, tiny_corpus / "valid.de", tokenizer)
    assert contents(tmp_path) == whole


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_of_it(start, tmp_path, number):
    process = start("store", 0.3)
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size for path in tmp_path.glob("store/texts/*/.lengths.part")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 2
    os.kill(process.pid, number)
    begun = time.monotonic()
    assert ended(process) not in (0, None)
    while any(Path("/proc", child).exists() for child in children):
        assert time.monotonic() - begun < 30
        time.sleep(0.01)


def test_two_at_once_make_one(start, tmp_path):
    processes = [start("store", 0.05) for _ in range(2)]
    assert list(map(ended, processes)) == [0, 0]
    [manifest] = (tmp_path / "store").glob(f"texts/*/{MANIFEST}")
    assert json.loads(manifest.read_text())["lines"] == 8 * 160


def test_what_a_configuration_may_name(tmp_path):
    assert store_of({}) is store_of({"token_store": None}) is store_of({"token_store": False}) is None
    assert store_of({"token_store": str(tmp_path)}) == tmp_path
    with pytest.raises(ConfigurationError, match="token_store is 3; give a directory"):
        store_of({"token_store": 3})
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        store_of({"token_store": str(tmp_path / "file")})


def test_the_verb_makes_what_training_finds(tiny_corpus, tiny_tokenizer, tiny_model_config, tmp_path, capsys):
    texts = [str(tiny_corpus / f"train.{side}") for side in ("de", "en")]
    command = [
        "tokens",
        "--input",
        *texts,
        "--tokenizer",
        str(tiny_tokenizer),
        "--output-dir",
        str(tmp_path / "store"),
    ]
    assert main(command) == 0
    assert capsys.readouterr().out.startswith(f"{texts[0]}: 160 lines, ")
    made = contents(tmp_path / "store")
    config = tiny_model_config(data=True, **{"train_ds.token_store": str(tmp_path / "store")})
    with languages_of_sets():
        MTEncDecModel(config)
    found = contents(tmp_path / "store")
    assert {name for name in found if name.startswith("texts")} == set(made)
    assert main(command) == 0
    assert contents(tmp_path / "store") == found
