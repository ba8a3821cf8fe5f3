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
"""The page that lies in every exported model: what it is, and how to translate with it."""

from collections.abc import Iterator, Sequence

from nemo_distill.decoding.export_record import EXPORT_NAME, PROGRAM_NAME, ExportPair, TextSide
from nemo_distill.support.quoting import code, markdown

_PACKAGES = {"yttm": "youtokentome", "sentencepiece": "sentencepiece"}
_MOSES = (("sacremoses",), ("sacremoses",))
_PROCESSORS = {
    "MosesProcessor": _MOSES,
    "EnJaProcessor": _MOSES,
    "IndicProcessor": ((), ("sacremoses",)),
    "ChineseProcessor": (("jieba", "opencc"), ("pangu",)),
    "JaMecabProcessor": (("mecab-python3", "ipadic"), ("pangu",)),
}
"""Packages that process a source, and those that process a target."""
_NONE = ((), ())


def page(name: str, source: TextSide, target: TextSide, quantization: str, pairs: Sequence[ExportPair] = ()) -> str:
    """Return the README.md of an exported model."""
    tokenizers = sorted({_PACKAGES[source.library], _PACKAGES[target.library]})
    processors = {(pair.source_processor, pair.target_processor) for pair in pairs}
    processors = processors or {(source.processor, target.processor)}
    found = {each for pair in processors for at, name in enumerate(pair) for each in _PROCESSORS.get(name, _NONE)[at]}
    packages = ["ctranslate2", *tokenizers, *sorted(found)]
    files = sorted({code(source.file), code(target.file)})
    paragraphs = [
        f"# {markdown(name)}",
        "A translation model for [CTranslate2](https://opennmt.net/CTranslate2), its weights in "
        f"{quantization}: `model.bin`, `config.json` and the vocabularies; {' and '.join(files)} for "
        f"{' and '.join(tokenizers)}; `{PROGRAM_NAME}`, which translates; `{EXPORT_NAME}`, which says to programs "
        "what the model needs, with the SHA-256 of each file.",
        _installation(packages),
    ]
    for side, verb in ((source, "reads"), (target, "writes")):
        if side.processor is not None:
            paragraphs.append(
                f"The model {verb} text processed by NeMo's {code(side.processor)} (language {code(side.language)}); "
                "the program takes care of that."
            )
    if pairs:
        paragraphs += list(_pair_paragraphs(pairs))
    paragraphs += [
        "Run this in this directory; it translates standard input line by line as lines come, raw text in, raw text "
        "out:",
        f"    python {PROGRAM_NAME} < source.txt > target.txt",
        "`--n-best 4` writes JSON lines with that many hypotheses and their scores, `--beam-size` searches with "
        "another beam, `--device cuda` on a GPU. From Python, with this directory on the path:",
        '```python\nfrom translate import Model\n\nmodel = Model()\nprint(model.translate("..."))\n'
        'print(model.hypotheses(["...", "..."], n_best=2))\n```',
        "Give `hypotheses` many lines at once for speed: it makes the batches.",
    ]
    return "\n\n".join(paragraphs) + "\n"


def _installation(packages: Sequence[str]) -> str:
    """Return the paragraph that installs packages; YouTokenToMe is compiled, and does not say with what."""
    if _PACKAGES["yttm"] not in packages:
        return f"    pip install {' '.join(packages)}"
    return (
        "YouTokenToMe is compiled while it is installed, which takes a C++ compiler and the headers of Python:\n\n"
        '    pip install "setuptools<81" wheel cython\n'
        f"    pip install --no-build-isolation {' '.join(packages)}"
    )


def _pair_paragraphs(pairs: Sequence[ExportPair]) -> Iterator[str]:
    """Yield what a model of several languages needs to be told."""
    listed = ", ".join(f"{code(str(pair.source))} to {code(str(pair.target))}" for pair in pairs)
    yield f"The model translates {listed}; text that NeMo's processors tokenize is processed by the program."
    if len(pairs) > 1:
        side = "target" if len({pair.target for pair in pairs}) > 1 else "source"
        example = getattr(pairs[0], side)
        yield (
            f"The program is told the {side} language: `--{side}-lang {example}` behind `{PROGRAM_NAME}`, or "
            f'`Model().translate("...", {side}_language="{example}")`.'
        )
