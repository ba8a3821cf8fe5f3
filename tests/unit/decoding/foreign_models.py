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
"""Tiny models of `transformers` with tokenizers trained on the test's text: `build(family, directory, texts)`."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import sentencepiece
import torch
import transformers

VOCABULARY = 120
LONGEST = 64
SIZES = {
    "d_model": 16,
    **{f"{side}_layers": 1 for side in ("encoder", "decoder")},
    **{f"{side}_attention_heads": 2 for side in ("encoder", "decoder")},
    **{f"{side}_ffn_dim": 32 for side in ("encoder", "decoder")},
    "max_position_embeddings": LONGEST,
    "init_std": 0.3,
}


def _pieces(texts: Sequence[str], path: Path, **options) -> list[str]:
    """Train a SentencePiece model; return its pieces that are no special ones."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_prefix=str(path.with_suffix("")), vocab_size=VOCABULARY, minloglevel=2,
        hard_vocab_limit=False, **options,
    )  # fmt: skip
    path.with_suffix(".model").rename(path)
    path.with_suffix(".vocab").unlink()
    processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    pieces = map(processor.id_to_piece, range(processor.vocab_size()))
    return [piece for piece in pieces if piece not in ("<s>", "</s>", "<unk>")]


def marian(directory: Path, texts: Sequence[str], languages: Sequence[str] = ()):
    """Return a Marian model and its tokenizer; `languages` are those it writes, where there are several."""
    pieces = _pieces(texts, directory / "source.spm")
    (directory / "target.spm").write_bytes((directory / "source.spm").read_bytes())
    tokens = ["</s>", "<unk>", *(f">>{code}<<" for code in languages), *pieces, "<pad>"]
    (directory / "vocab.json").write_text(json.dumps({token: id_ for id_, token in enumerate(tokens)}))
    tokenizer = transformers.MarianTokenizer(
        *(str(directory / name) for name in ("source.spm", "target.spm", "vocab.json")),
        source_lang="de",
        target_lang="en",
    )
    pad = len(tokens) - 1
    config = transformers.MarianConfig(
        vocab_size=len(tokens), pad_token_id=pad, eos_token_id=0, decoder_start_token_id=pad, bos_token_id=None,
        forced_eos_token_id=None, scale_embedding=True, activation_function="swish", **SIZES,
    )  # fmt: skip
    model = transformers.MarianMTModel(config)
    model.final_logits_bias[0, 0] = 9.0  # some hypotheses end
    model.generation_config.num_beams = 3
    return model, tokenizer


def m2m_100(directory: Path, texts: Sequence[str]):
    """Return an M2M-100 model and its tokenizer."""
    pieces = _pieces(texts, directory / "sentencepiece.bpe.model")
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *pieces]
    (directory / "vocab.json").write_text(json.dumps({token: id_ for id_, token in enumerate(tokens)}))
    tokenizer = transformers.M2M100Tokenizer(str(directory / "vocab.json"), str(directory / "sentencepiece.bpe.model"))
    size = len(tokens) + len(tokenizer.lang_token_to_id) + tokenizer.num_madeup_words
    return transformers.M2M100ForConditionalGeneration(transformers.M2M100Config(vocab_size=size, **SIZES)), tokenizer


def nllb(directory: Path, texts: Sequence[str]):
    """Return an NLLB model, whose architecture is that of M2M-100, and its tokenizer."""
    _pieces(texts, directory / "sentencepiece.bpe.model")
    tokenizer = transformers.NllbTokenizer(str(directory / "sentencepiece.bpe.model"))
    config = transformers.M2M100Config(vocab_size=len(tokenizer), **SIZES)
    return transformers.M2M100ForConditionalGeneration(config), tokenizer


def mbart(directory: Path, texts: Sequence[str], tokenizer_class: str = "MBartTokenizer"):
    """Return an mBART model of the first release, or of the second, and its tokenizer."""
    _pieces(texts, directory / "sentencepiece.bpe.model")
    tokenizer = getattr(transformers, tokenizer_class)(str(directory / "sentencepiece.bpe.model"), src_lang="de_DE")
    config = transformers.MBartConfig(vocab_size=len(tokenizer), decoder_start_token_id=2, **SIZES)
    config.forced_eos_token_id = None
    return transformers.MBartForConditionalGeneration(config), tokenizer


def mbart50(directory: Path, texts: Sequence[str]):
    """Return an mBART-50 model and its tokenizer."""
    return mbart(directory, texts, "MBart50Tokenizer")


def t5(directory: Path, texts: Sequence[str]):
    """Return a T5 model that translates German to English, and its tokenizer."""
    _pieces(texts, directory / "spiece.model", pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    tokenizer = transformers.T5Tokenizer(str(directory / "spiece.model"), extra_ids=10, legacy=True)
    config = transformers.T5Config(
        vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=0,
        feed_forward_proj="gated-gelu", tie_word_embeddings=False, n_positions=LONGEST,
        task_specific_params={"translation_de_to_en": {"prefix": "translate German to English: "}},
    )  # fmt: skip
    return transformers.T5ForConditionalGeneration(config), tokenizer


FAMILIES: dict[str, Callable] = {
    "marian": marian,
    "marian_to_many": lambda directory, texts: marian(directory, texts, ("deu", "fra")),
    "m2m_100": m2m_100,
    "nllb": nllb,
    "mbart": mbart,
    "mbart50": mbart50,
    "t5": t5,
}


def build(family: str, directory: Path, texts: Sequence[str]) -> Path:
    """Write a model of a family, always the same for the same texts; return its directory."""
    directory.mkdir()
    with torch.random.fork_rng([]):
        torch.manual_seed(1)
        model, tokenizer = FAMILIES[family](directory, texts)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory
