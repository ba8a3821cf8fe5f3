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
"""The tokenizer by which sacreBLEU scores a text: asked for, of its language, or of the script that it is written in.

sacreBLEU's default, 13a, splits at spaces and punctuation. Of a script without spaces it makes one word of each
clause, so that BLEU is 0.0 whatever a model writes.
"""

import re
import socket
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from sacrebleu.metrics import BLEU

from nemo_distill.errors import InputError
from nemo_distill.support.warned import warn

TOKENIZERS = BLEU.TOKENIZERS
"""Names that sacreBLEU knows."""
DEFAULT = "13a"
SAMPLE_LINES = 10_000
"""So many lines of a long text tell its script."""
_ANSWER_SECONDS = 20
_BY_SPACES = ("13a", "intl", "none")
_LANGUAGES = {"zh": "zh", "zho": "zh", "cmn": "zh", "ja": "ja-mecab", "jpn": "ja-mecab", "ko": "ko-mecab"}
_LANGUAGES["kor"] = "ko-mecab"
_SCRIPTS = {
    "Han": "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff",
    "Kana": "\u3041-\u30ff\u31f0-\u31ff\uff66-\uff9f",
    "Hangul": "\u1100-\u11ff\u3131-\u318e\ua960-\ua97f\uac00-\ud7ff",
    "Thai": "\u0e01-\u0e7f",
    "Lao": "\u0e80-\u0eff",
    "Tibetan": "\u0f00-\u0fff",
    "Burmese": "\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f",
    "Khmer": "\u1780-\u17ff",
}
_OF_SCRIPT = {"Han": "zh", "Kana": "ja-mecab", "Hangul": "ko-mecab"}  # all else: characters
_UNITS = re.compile(
    "|".join(f"(?P<{name}>[{characters}])" for name, characters in _SCRIPTS.items())
    + f"|(?P<word>(?:(?![{''.join(_SCRIPTS.values())}])[^\\W\\d_])+)"
)
_LEAST_SHARE, _LEAST_KANA = 1 / 3, 0.05


def tokenizer_of_language(language: str | None) -> str | None:
    """Return the tokenizer that sacreBLEU's command line takes for a language; None for all that it gives 13a.

    Args:
        language: as models, NeMo's processors and test sets name it: `zh`, `zh-CN`, `zho_Hans`, `ja-mecab`.

    Example:
        >>> tokenizer_of_language("zh_CN"), tokenizer_of_language("de")
        ('zh', None)
    """
    return _LANGUAGES.get(re.split("[-_]", language or "")[0].lower())


def script_of(lines: Iterable[str]) -> str | None:
    """Return the script of a text where 13a does not split it into words, or it is Korean; else None.

    A third of the text is enough, each of its characters counted as a word of the rest. Kana beside Han is Japanese.

    Example:
        >>> script_of(["点击 OK 导出。"]), script_of(["Click OK to export it (导出)."])
        ('Han', None)
    """
    counts = Counter(found.lastgroup for line in lines for found in _UNITS.finditer(line))
    words = counts.pop("word", 0)
    if not counts or counts.total() < _LEAST_SHARE * (counts.total() + words):
        return None
    east = counts.pop("Han", 0) + (kana := counts.pop("Kana", 0))
    if east >= max(counts.values(), default=0):
        return "Kana" if kana > _LEAST_KANA * east else "Han"
    return counts.most_common(1)[0][0]


def choose_bleu_tokenizer(
    asked: str | None, language: str | None, references: Iterable[str], option: str, what: str | None
) -> str:
    """Return the tokenizer for a text: what is asked for, else by its language, else by its script.

    Args:
        asked: its name; None: choose.
        language: of the text, as far as it is known.
        references: the text.
        option: what asks for a tokenizer, for messages.
        what: the text's name, for the log, which says which tokenizer and why; None: no log.

    Raises:
        InputError: sacreBLEU has no such tokenizer.
    """
    if asked is not None and asked not in BLEU.TOKENIZERS:
        raise InputError(f"{option}: got {str(asked)[:80]!r}; sacreBLEU has {', '.join(map(str, BLEU.TOKENIZERS))}")
    script = script_of(references)
    name, reason = asked, "as asked for"
    if name is None and (name := tokenizer_of_language(language)):
        reason = f"the language is {language}"
    elif name is None and script:
        name, reason = _OF_SCRIPT.get(script, "char"), f"the references are written in {script}"
    elif name is None:
        name, reason = DEFAULT, "the references have spaces"
    if what is None:
        return name
    from nemo.utils import logging  # which takes seconds; what chooses among labels needs it not

    logging.info(f"{what}: BLEU with sacreBLEU's tokenizer {name} ({reason})")
    if name in _BY_SPACES and script not in (None, "Hangul"):
        warn(
            f"{what}: the references are written in {script}, which sacreBLEU's tokenizer {name} does not split into "
            f"words: BLEU says nothing; give {option} {_OF_SCRIPT.get(script, 'char')}"
        )
    return name


def build_bleu(name: str, option: str, **settings) -> BLEU:
    """Return sacreBLEU's metric with a tokenizer.

    Args:
        name: of the tokenizer, one that sacreBLEU has.
        option: what asks for a tokenizer, for messages.
        settings: further arguments of the metric.

    Raises:
        InputError: the tokenizer is not installed, or cannot be downloaded.
    """
    with sacrebleu_call(f"sacreBLEU's tokenizer '{name}' is not installed", f"or give {option} char"):
        return BLEU(tokenize=name, **settings)


@contextmanager
def sacrebleu_call(fault: str, fix: str) -> Iterator[None]:
    """Context of a call to sacreBLEU that may download something; a server that is silent is given up soon.

    Raises:
        InputError: whatever went wrong, in one line between `fault` and `fix`.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_ANSWER_SECONDS)
    try:
        yield
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # of sacreBLEU, its parsers and archives, or the network
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{fault}: {reason[:500]}; {fix}") from error
    finally:
        socket.setdefaulttimeout(before)
