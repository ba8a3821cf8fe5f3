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
"""Files that a model's configuration names are checked before NeMo reads them."""

import io
import re

import pytest
import sentencepiece
from omegaconf import OmegaConf

from nemo_distill.config.mixture import ComponentConfig, MixtureConfig
from nemo_distill.data.checks import check_model_files
from nemo_distill.data.tokenizer import train
from nemo_distill.errors import InputError
from nemo_distill.support import compat
from nemo_distill.support.text_files import read_lines


def test_two_tokenizers_under_one_table_of_words(tiny_model_config, tiny_corpus, tmp_path):
    """NeMo ties unrelated words where the sizes agree, and trains."""
    train([tiny_corpus / "train.de"], 60, tmp_path / "other")
    config = tiny_model_config(data=True, shared_embeddings=True)
    check_model_files(config)
    config.decoder_tokenizer.tokenizer_model = str(tmp_path / "other/tokenizer.model")
    with pytest.raises(InputError, match="model.shared_embeddings: true .* different words at the same ids"):
        check_model_files(config)
    config.shared_embeddings = False
    check_model_files(config)


def train_sentencepiece(corpus, **settings) -> bytes:
    """Return a small SentencePiece model."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(read_lines(corpus / "train.de")),
        model_writer=written,
        vocab_size=60,
        minloglevel=2,
        **settings,
    )
    return written.getvalue()


@pytest.fixture(scope="module")
def sentencepiece_model(tiny_corpus) -> bytes:
    """One with padding."""
    return train_sentencepiece(tiny_corpus, pad_id=3)


@pytest.fixture
def section(tmp_path, sentencepiece_model):
    """A model section with three good pairs, as OmegaConf holds it, and a function that writes one of its files."""

    def write(name: str, content: bytes) -> str:
        (tmp_path / name).write_bytes(content)
        return str(tmp_path / name)

    source, target = write("train.de", "eins\nzwei\nüber drei\n".encode()), write("train.en", b"one\ntwo\nthree\n")
    tokenizer = {"library": None, "tokenizer_model": write("tokenizer.model", sentencepiece_model)}
    dataset = {"src_file_name": source, "tgt_file_name": target, "tokens_in_batch": 100}
    return OmegaConf.create(
        {"encoder_tokenizer": tokenizer, "decoder_tokenizer": tokenizer, "train_ds": dataset}
    ), write


def test_good_files(section):
    config, write = section
    check_model_files(config)
    check_model_files(OmegaConf.to_container(config))
    write("train.de", "eins\r\nzwei\u2028noch zwei\n\n".encode())  # counts as NeMo does: \n alone ends a line
    check_model_files(config)
    write("train.de", b"eins\nzwei\rnoch zwei\ndrei")
    check_model_files(config)


def test_decomposed_letters_are_told_once(section, monkeypatch):
    messages = []
    monkeypatch.setattr("nemo.utils.logging.warning", messages.append)
    config, write = section
    check_model_files(config)
    assert messages == []
    path = write("train.de", "Tür\nTu\u0308r\nu\u0308ber\n".encode())
    for _ in range(2):
        check_model_files(config)
    [message] = messages
    assert message.startswith(
        f"nemo_distill: model.train_ds.src_file_name: '{path}': 2 lines, the first is 2: letters are decomposed"
    )


def test_no_data_sets():
    check_model_files({})
    check_model_files({"train_ds": None})


def test_lists_of_files(section):
    config, write = section
    pair = OmegaConf.to_container(config.train_ds)
    config.validation_ds = {**pair, **{key: [pair[key]] * 2 for key in ("src_file_name", "tgt_file_name")}}
    check_model_files(config)
    config.train_ds = {**config.validation_ds, "concat_sampling_technique": "temperature"}
    with pytest.raises(InputError, match="concat_sampling_technique: is given for 2 files, which NeMo's"):
        check_model_files(config)
    config.train_ds = {"metadata_file": ["a.json", "b.json"], "use_tarred_dataset": True, **config.train_ds}
    with pytest.raises(InputError, match="model.train_ds.metadata_file: got 2 tarred sets, which NeMo"):
        check_model_files(config)
    config.train_ds = pair
    write("short.en", b"one\n")
    config.validation_ds.tgt_file_name[1] = pair["tgt_file_name"].replace("train", "short")
    with pytest.raises(InputError, match=r"model.validation_ds: \S+train.de has 3 lines, \S+short.en has 1"):
        check_model_files(config)
    config.validation_ds.tgt_file_name = pair["tgt_file_name"]
    with pytest.raises(InputError, match="model.validation_ds: got 2 src_file_name and 1 tgt_file_name; give one"):
        check_model_files(config)


@pytest.mark.parametrize(("section_name", "extra"), [("train_ds", 1), ("validation_ds", 0), ("test_ds", -1)])
def test_unequal_files(section, section_name, extra):
    config, write = section
    config[section_name] = config.train_ds
    write("train.en", b"line\n" * (3 + extra))
    if not extra:
        return check_model_files(config)
    with pytest.raises(
        InputError, match=rf"model.{section_name}: \S+train.de has 3 lines, \S+train.en has {3 + extra};"
    ):
        check_model_files(config)


def test_missing_file(section, tmp_path):
    config, _ = section
    (tmp_path / "train.en").unlink()
    with pytest.raises(InputError, match=r"model.train_ds.tgt_file_name: no file \S+train.en"):
        check_model_files(config)


def test_directory_instead_of_a_file(section, tmp_path):
    config, _ = section
    config.train_ds.src_file_name = str(tmp_path)
    with pytest.raises(InputError, match=r"model.train_ds.src_file_name: .* is a directory; check the path"):
        check_model_files(config)


@pytest.mark.parametrize("content", [b"", b"\n\n \n"])
def test_empty_file(section, content):
    config, write = section
    write("train.de", content)
    with pytest.raises(InputError, match=r"model.train_ds.src_file_name: \S+train.de is empty"):
        check_model_files(config)


def test_not_utf8(section):
    config, write = section
    write("train.de", b"eins\nzwei\n\xfcber drei\n")
    with pytest.raises(InputError, match=r"train.de', line 3: byte 0xfc at position 0 of the line is not UTF-8"):
        check_model_files(config)


def test_every_fault_is_listed_once(section, tmp_path):
    config, write = section
    write("train.de", b"")
    (tmp_path / "train.en").unlink()
    config.decoder_tokenizer.tokenizer_model = str(tmp_path / "other.model")
    with pytest.raises(InputError) as error:
        check_model_files(config)
    assert len(str(error.value).splitlines()) == 3


def test_missing_tokenizer(section, tmp_path):
    config, _ = section
    (tmp_path / "tokenizer.model").unlink()
    with pytest.raises(InputError, match=r"model.encoder_tokenizer.tokenizer_model: no file \S+; `nemo-distill token"):
        check_model_files(config)


@pytest.mark.parametrize("key", [{"use_tarred_dataset": True}, {"dataset_type": "tarred"}])
def test_tarred_data_are_left_to_nemo(section, key):
    config, _ = section
    config.train_ds = {**key, "tar_files": "shards_{0..3}.tar", "metadata_file": "metadata.json"}
    check_model_files(config)


def test_a_mixture_is_checked_in_place_of_the_training_files(section, tmp_path):
    config, write = section
    config.distillation = {"mixture": {"components": {}}}
    config.train_ds.src_file_name = "absent"
    check_model_files(config)
    labels = tmp_path / "labels"
    labels.mkdir()
    components = {
        "gold": ComponentConfig(source=write("a.de", b"eins\n"), target=write("a.en", b"one\ntwo\n")),
        "pseudo": ComponentConfig(directory=str(labels)),
        "shards": ComponentConfig(metadata_file="absent.json"),
        "bad": ComponentConfig(source=write("b.de", b"\xff\n"), target="absent.en"),
    }
    with pytest.raises(InputError) as error:
        check_model_files(config, MixtureConfig(components))
    lines = str(error.value).splitlines()
    assert len(lines) == 5
    for message in (
        r"mixture.components.gold: \S+a.de has 1 lines, \S+a.en has 2; line n",
        r"components.pseudo.directory: \S+labels does not hold source.txt and hypotheses.txt, which `nemo-distill",
        "components.shards: 'absent.json' does not exist",
        r"components.bad.source: \S+b.de', line 1: byte 0xff",
        "components.bad.target: no file absent.en",
    ):
        assert sum(re.search(message, line) is not None for line in lines) == 1, message
    write("labels/source.txt", b"eins\nzwei\n")
    write("labels/hypotheses.txt", b"one\n")
    write("labels/.started.json", b"[]")
    with pytest.raises(InputError, match=r"pseudo.directory: the labels in \S+labels are unfinished; run the same"):
        check_model_files(config, MixtureConfig({"pseudo": components["pseudo"]}))
    (labels / ".started.json").unlink()
    with pytest.raises(InputError, match=r"components.pseudo: \S+source.txt has 2 lines, \S+hypotheses.txt has 1"):
        check_model_files(config, MixtureConfig({"pseudo": components["pseudo"]}))


def test_library_and_file_of_a_tokenizer(section, monkeypatch):
    config, write = section
    config.decoder_tokenizer = {"library": "yttm", "tokenizer_model": config.encoder_tokenizer.tokenizer_model}
    with pytest.raises(
        InputError, match="decoder_tokenizer.library: yttm, but .* is a sentencepiece model; give sent"
    ):
        check_model_files(config)
    config.decoder_tokenizer.library = "huggingface"
    with pytest.raises(InputError, match="decoder_tokenizer.tokenizer_model: got .* for yttm and sentencepiece alone"):
        check_model_files(config)
    del config.decoder_tokenizer.tokenizer_model
    check_model_files(config)
    write("tokenizer.model", b"1 0\n9601 4\n1 0 2 3\n")
    monkeypatch.setattr(compat, "TOKENIZER_LIBRARIES", ("sentencepiece",))
    with pytest.raises(
        InputError, match="model.encoder_tokenizer.tokenizer_model: .* yttm model, but NeMo 2 has drop"
    ):
        check_model_files(config)


@pytest.mark.parametrize("key", ["use_cache", "cache_ids", "cache_data_per_node"])
@pytest.mark.parametrize("dataset", ["train_ds", "validation_ds", "test_ds"])
def test_caches_beside_the_text_are_refused(section, dataset, key):
    """NeMo unpickles them."""
    config, _ = section
    config[dataset] = {**config.train_ds, key: False}
    check_model_files(config)
    config[dataset][key] = True
    with pytest.raises(InputError, match=f"model.{dataset}.{key}: runs code in a file beside the text"):
        check_model_files(config)


@pytest.mark.parametrize("value", [None, 0, "many", True])
def test_tokens_in_batch_that_do_not_serve(section, value):
    config, _ = section
    config.train_ds.tokens_in_batch = value
    with pytest.raises(InputError, match=r"model.train_ds.tokens_in_batch: .*; give the tokens of a batch with"):
        check_model_files(config)


@pytest.mark.parametrize("train_ds", [None, {}])
def test_a_mixture_takes_its_batches_from_train_ds(section, train_ds):
    config, _ = section
    pair = {"source": config.train_ds.src_file_name, "target": config.train_ds.tgt_file_name}
    config.distillation = {"mixture": {"components": {"text": pair}}}
    check_model_files(config)
    config.train_ds = train_ds
    with pytest.raises(InputError, match="model.train_ds.tokens_in_batch: is missing; a mixture takes it from there"):
        check_model_files(config)


def test_a_sentencepiece_model_without_padding(section, tiny_corpus, tmp_path):
    config, write = section
    path = write("bare.model", train_sentencepiece(tiny_corpus))
    config.encoder_tokenizer = {"library": "sentencepiece", "tokenizer_model": path}
    with pytest.raises(InputError, match=r"encoder_tokenizer.tokenizer_model: .*bare.model has no pad_id \(-1\)"):
        check_model_files(config)
    config.encoder_tokenizer.sentencepiece_legacy = True
    check_model_files(config)
