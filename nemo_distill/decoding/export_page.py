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
"""The page that lies in every exported model: what it is, and a program that translates with it alone."""

from dataclasses import dataclass

from nemo_distill.decoding.engine import SearchSettings


@dataclass(frozen=True)
class TextSide:
    """How an exported model reads or writes text."""

    library: str
    """`yttm` or `sentencepiece`."""
    file: str
    """Name of the tokenizer's file."""
    language: str | None
    """As the model's archive says."""
    processor: str | None
    """Class of NeMo's text processor; None for raw text."""
    right_to_left: bool
    special_ids: list[int]
    """Ids that stand for no text."""


_IMPORTS = {"yttm": "import youtokentome", "sentencepiece": "import sentencepiece"}
_PACKAGES = {"yttm": "youtokentome", "sentencepiece": "sentencepiece"}
_OPEN = {
    "yttm": 'youtokentome.BPE("{file}")',
    "sentencepiece": 'sentencepiece.SentencePieceProcessor(model_file="{file}")',
}
_ENCODE = {
    "yttm": """\
    numbers = source_tokenizer.encode([text]{reverse})[0]
    pieces = [source_tokenizer.id_to_subword(number) for number in numbers]""",
    "sentencepiece": """\
    pieces = source_tokenizer.encode(text, out_type=str)""",
}
_DECODE = {
    "yttm": """\
    numbers = [target_tokenizer.subword_to_id(piece) for piece in best]{reverse}
    text = target_tokenizer.decode([numbers], ignore_ids={special})[0]""",
    "sentencepiece": """\
    text = target_tokenizer.decode([target_tokenizer.piece_to_id(piece) for piece in best])""",
}


def is_moses(side: TextSide) -> bool:
    """True if the side's text goes through the Moses tokenizer."""
    return side.processor == "MosesProcessor"


def program(
    source: TextSide, target: TextSide, search: SearchSettings, longest_source: int, longest_target: int
) -> str:
    """Return a Python program that translates raw text with CTranslate2 and the tokenizers alone."""
    moses = ["MosesDetokenizer"] if is_moses(target) else []
    moses += ["MosesPunctNormalizer", "MosesTokenizer"] if is_moses(source) else []
    lines = ["import ctranslate2", *sorted({_IMPORTS[source.library], _IMPORTS[target.library]})]
    if moses:
        lines.append(f"from sacremoses import {', '.join(moses)}")
    lines += [
        "",
        'translator = ctranslate2.Translator(".", device="cpu")',
        f"source_tokenizer = {_OPEN[source.library].format(file=source.file)}",
        f"target_tokenizer = {_OPEN[target.library].format(file=target.file)}",
        "",
        "",
        "def translate(text: str) -> str:",
    ]
    if is_moses(source):
        language = f'lang="{source.language}"'
        lines += [
            f"    text = MosesPunctNormalizer({language}).normalize(text)",
            f"    text = MosesTokenizer({language}).tokenize(text, escape=False, return_str=True)",
        ]
    lines += [
        _ENCODE[source.library].format(reverse=", reverse=True" if source.right_to_left else ""),
        f"    pieces = pieces[:{longest_source - 2}]  # start and end token come to these",
        "    [result] = translator.translate_batch(",
        "        [pieces],",
        f"        beam_size={search.beam_size},",
        f"        num_hypotheses={search.beam_size},",
        "        length_penalty=0,",
        "        return_scores=True,",
        f"        max_decoding_length=min(len(pieces) + {2 + search.max_length_delta}, {longest_target}),",
        "        min_decoding_length=0,",
        "        max_input_length=0,",
        "    )",
        '    best, best_rank = [], float("-inf")',
        "    for hypothesis, score in zip(result.hypotheses, result.scores):",
        f"        rank = score / ((7 + len(hypothesis)) / 6) ** {search.length_penalty}  # NeMo's length penalty",
        "        if rank > best_rank:",
        "            best, best_rank = hypothesis, rank",
        _DECODE[target.library].format(
            reverse="[::-1]" if target.right_to_left else "", special=sorted(target.special_ids)
        ),
    ]
    if is_moses(target):
        lines.append(f'    text = MosesDetokenizer(lang="{target.language}").detokenize(text.split(" "))')
    return "\n".join([*lines, "    return text", "", "", "print(translate(input()))"])


def page(name: str, source: TextSide, target: TextSide, quantization: str, code: str) -> str:
    """Return the README.md of an exported model."""
    tokenizers = sorted({_PACKAGES[source.library], _PACKAGES[target.library]})
    packages = ["ctranslate2", *tokenizers]
    if is_moses(source) or is_moses(target):
        packages.append("sacremoses")
    files = sorted({f"`{source.file}`", f"`{target.file}`"})
    paragraphs = [
        f"# {name}",
        "A translation model for [CTranslate2](https://opennmt.net/CTranslate2), its weights in "
        f"{quantization}: `model.bin`, `config.json` and the vocabularies; {' and '.join(files)} for "
        f"{' and '.join(tokenizers)}; `export.json`, which says to programs what this page says.",
        f"    pip install {' '.join(packages)}",
    ]
    for side, verb, advice in ((source, "reads", "give it such text"), (target, "writes", "undo that yourself")):
        if is_moses(side):
            paragraphs.append(
                f"The model {verb} text tokenized by Moses (language `{side.language}`); the program below takes care "
                "of that with sacremoses."
            )
        elif side.processor is not None:
            paragraphs.append(
                f"The model {verb} text processed by NeMo's `{side.processor}` (language `{side.language}`); the "
                f"program below does not: {advice}."
            )
    paragraphs += [
        "Run this in this directory; it translates one line of standard input:",
        f"```python\n{code}\n```",
        "For speed, give `translate_batch` many sentences of similar length at once. "
        '`ctranslate2.Translator(".", device="cuda")` uses a GPU.',
    ]
    return "\n\n".join(paragraphs) + "\n"
