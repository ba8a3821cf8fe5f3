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
import random

import pytest

from nemo_distill import cli
from nemo_distill.data import tokenizer
from nemo_distill.errors import InputError
from nemo_distill.support import compat, files, text_files

SENTENCES = [
    "Öffne {url} und melde dich an.",
    "Das Gerät ist nicht erreichbar …",
    "Open {url} and sign in.",
    "The device cannot be reached …",
    "½ of the ﬁles, 2² times",
]


@pytest.fixture
def texts(tmp_path):
    """Two files of made-up sentences, one with characters that other tools break lines at."""
    maker = random.Random(3)
    words = ["".join(maker.choices("abdeiklmnorstuw", k=maker.randint(2, 7))) for _ in range(120)]
    paths = [tmp_path / "text.de", tmp_path / "text.en"]
    for path in paths:
        lines = [" ".join(maker.choices(words, k=8)) for _ in range(60)]
        files.write_lines_atomic(path, [*lines, *SENTENCES, "vor\u2028nach"])
    return paths


@pytest.mark.parametrize("library", compat.TOKENIZER_LIBRARIES)
def test_nemo_loads_the_tokenizer(texts, tmp_path, library):
    from nemo.collections.nlp.modules.common.tokenizer_utils import get_nmt_tokenizer

    manifest, was_finished = tokenizer.train(texts, 300, tmp_path / "tok", library=library)
    assert not was_finished
    loaded = get_nmt_tokenizer(library=library, tokenizer_model=str(tmp_path / "tok" / "tokenizer.model"))
    assert loaded.vocab_size == 300
    assert [loaded.pad_id, loaded.unk_id, loaded.bos_id, loaded.eos_id] == [0, 1, 2, 3]
    for sentence in SENTENCES:
        ids = loaded.text_to_ids(sentence)
        assert loaded.unk_id not in ids
        assert len(ids) < len(sentence)
        assert loaded.ids_to_text(ids) == sentence
    assert manifest["lines"] == 132
    assert manifest["files"]["tokenizer.model"]["sha256"] == files.sha256(tmp_path / "tok" / "tokenizer.model")
    assert manifest["request"]["inputs"] == [files.sha256(path) for path in texts]


@pytest.mark.parametrize("library", compat.TOKENIZER_LIBRARIES)
def test_names_of_special_tokens_in_the_text_are_words(texts, tmp_path, library):
    from nemo.collections.nlp.modules.common.tokenizer_utils import get_nmt_tokenizer

    words = ("<PAD>", "<UNK>", "<BOS>", "<EOS>", "<pad>", "<unk>", "<s>", "</s>")
    lines = [f'{before}{word}" and {word}' for word in words for before in ("", '"', "the ")]
    files.write_lines_atomic(texts[0], [*text_files.read_lines(texts[0]), *lines * 20])
    tokenizer.train(texts, 300, tmp_path / "tok", library=library)
    loaded = get_nmt_tokenizer(library=library, tokenizer_model=str(tmp_path / "tok" / "tokenizer.model"))
    pieces = loaded.ids_to_tokens(list(range(300)))
    assert len({*pieces}) == 300
    for line in lines:
        ids = loaded.text_to_ids(line)
        assert min(ids) > 3
        assert loaded.ids_to_text(ids) == line


def test_sentencepiece_gives_the_same_bytes_and_names_no_path(texts, tmp_path):
    for name in ("one", "two"):
        tokenizer.train(texts, 300, tmp_path / name, library="sentencepiece")
    model = (tmp_path / "one" / "tokenizer.model").read_bytes()
    assert model == (tmp_path / "two" / "tokenizer.model").read_bytes()
    assert str(tmp_path).encode() not in model


def test_a_file_whose_name_is_not_utf8(texts, tmp_path):
    named = texts[0].rename(tmp_path / "caf\udce9.de")
    manifest, _ = tokenizer.train([named, texts[1]], 300, tmp_path / "tok", library="sentencepiece")
    assert manifest["input_names"] == ["caf .de", "text.en"]
    assert tokenizer.train([named, texts[1]], 300, tmp_path / "tok", library="sentencepiece") == (manifest, True)


@pytest.mark.parametrize("library", compat.TOKENIZER_LIBRARIES)
def test_finished_directory_is_left_alone(texts, tmp_path, library):
    manifest, _ = tokenizer.train(texts, 300, tmp_path / "tok", library=library)
    assert sorted(path.name for path in (tmp_path / "tok").iterdir()) == ["manifest.json", "tokenizer.model"]
    assert tokenizer.train(texts, 300, tmp_path / "tok", library=library) == (manifest, True)
    with pytest.raises(InputError, match=r"vocab_size 300 \(now 299\)"):
        tokenizer.train(texts, 299, tmp_path / "tok", library=library)
    tokenizer.train(texts, 299, tmp_path / "tok", library=library, overwrite=True)
    texts[0].write_text("other text of the same name\n")
    with pytest.raises(InputError, match="made with other content of inputs"):
        tokenizer.train(texts, 299, tmp_path / "tok", library=library)


@pytest.mark.parametrize("library", compat.TOKENIZER_LIBRARIES)
@pytest.mark.parametrize(
    ("size", "message"),
    [(20_000, "20000 .*(more than this text supports|too high)"), (12, "12 cannot be trained: .*")],
)
def test_size_that_the_text_does_not_support(texts, tmp_path, library, size, message):
    with pytest.raises(InputError, match=f"--vocab-size {message}"):
        tokenizer.train(texts, size, tmp_path / "tok", library=library)
    assert not (tmp_path / "tok").exists()


@pytest.mark.parametrize("library", compat.TOKENIZER_LIBRARIES)
def test_coverage_leaves_rare_characters_out(texts, tmp_path, library):
    from nemo.collections.nlp.modules.common.tokenizer_utils import get_nmt_tokenizer

    tokenizer.train(texts, 200, tmp_path / "tok", library=library, coverage=0.98)
    loaded = get_nmt_tokenizer(library=library, tokenizer_model=str(tmp_path / "tok" / "tokenizer.model"))
    assert loaded.unk_id in loaded.text_to_ids("½")


def test_unusable_input(texts, tmp_path):
    empty, latin = tmp_path / "empty.de", tmp_path / "latin.de"
    empty.write_text("\n  \n")
    latin.write_bytes(b"gut\nGr\xfc\xdfe\n")
    for inputs, options, message in (
        ([texts[0], tmp_path / "absent"], {}, "absent' does not exist"),
        ([texts[0], empty], {}, r"--input '.*empty\.de' is empty"),
        ([latin], {}, r"latin\.de', line 2: byte 0xfc"),
        ([], {}, "--input names no file"),
        (texts, {"library": "wordpiece"}, "--library 'wordpiece' is unknown; give (yttm or )?sentencepiece"),
        (texts, {"coverage": 1.5}, r"--coverage 1\.5 is not in \(0, 1\]"),
        (texts, {"vocab_size": 4}, "--vocab-size 4 leaves no piece"),
    ):
        with pytest.raises(InputError, match=message):
            tokenizer.train(inputs, options.pop("vocab_size", 300), tmp_path / "tok", **options)
    assert not (tmp_path / "tok").exists()


def test_command_line_round_trip(texts, tmp_path, capfd):
    command = ["tokenizer", "--input", *map(str, texts), "--vocab-size", "300", "--output-dir", str(tmp_path / "tok")]
    assert cli.main(command) == 0
    library = compat.DEFAULT_TOKENIZER_LIBRARY
    said = f"{tmp_path}/tok/tokenizer.model: {library}, 300 pieces (learnt from 132 lines)\n"
    assert capfd.readouterr() == (said, "")
    assert cli.main(command) == 0
    assert "already there" in capfd.readouterr().out
    assert tokenizer.library_of(tmp_path / "tok" / "tokenizer.model") == library
    if library != "sentencepiece":
        assert cli.main([*command, "--library", "sentencepiece"]) == 2
        assert "tokenizer 'yttm' (now 'sentencepiece')" in capfd.readouterr().err


@pytest.mark.parametrize("library", compat.TOKENIZER_LIBRARIES)
def test_the_file_shows_its_library(texts, tmp_path, library):
    tokenizer.train(texts, 300, tmp_path / "tok", library=library)
    path = str(tmp_path / "tok" / "tokenizer.model")
    assert tokenizer.library_of(path) == library
    section = {
        "encoder_tokenizer": {"library": None, "tokenizer_model": path},
        "decoder_tokenizer": {"library": "huggingface", "tokenizer_model": path},
    }
    tokenizer.name_libraries(section)
    assert [section[f"{side}_tokenizer"]["library"] for side in ("encoder", "decoder")] == [library, "huggingface"]


def test_youtokentome_without_a_nemo_that_reads_it(texts, tmp_path, monkeypatch):
    monkeypatch.setattr(compat, "TOKENIZER_LIBRARIES", ("sentencepiece",))
    with pytest.raises(InputError, match="--library yttm: NeMo 2 has dropped YouTokenToMe; take NeMo 1.23"):
        tokenizer.train(texts, 300, tmp_path / "tok", library="yttm")
