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
"""The tokenizer of BLEU: asked for, of the language as sacreBLEU's command line has it, or of the script."""

import logging as python_logging
import socket

import pytest
import sacrebleu
from sacrebleu.metrics import BLEU
from sacrebleu.tokenizers import tokenizer_ja_mecab, tokenizer_ko_mecab

from nemo_distill.data import bleu_tokenizer
from nemo_distill.data.bleu_tokenizer import (
    build_bleu,
    choose_bleu_tokenizer,
    sacrebleu_call,
    script_of,
    tokenizer_of_language,
)
from nemo_distill.errors import InputError

TEXTS = {
    "de": "Dieses Gerät wird nicht unterstützt.",
    "ru": "Это устройство не поддерживается.",
    "hi": "यह उपकरण समर्थित नहीं है।",
    "ar": "هذا الجهاز غير مدعوم.",
    "vi": "Thiết bị này không được hỗ trợ.",
    "zh": "点击 OK，将 3 个图层导出为 PNG 文件。",
    "ja": "このデバイスはサポートされていません。",
    "ja-han": "接続を確認して、再試行。",
    "ko": "이 장치는 지원되지 않습니다.",
    "th": "โปรดตรวจสอบการเชื่อมต่ออินเทอร์เน็ตของคุณแล้วลองอีกครั้ง",
    "lo": "ອຸປະກອນນີ້ບໍ່ຮອງຮັບ",
    "km": "ឧបករណ៍នេះមិនត្រូវបានគាំទ្រទេ",
    "my": "ဤစက်ကို မပံ့ပိုးပါ",
}


@pytest.fixture
def log(caplog):
    """What NeMo's logger says."""
    logger = python_logging.getLogger("nemo_logger")
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


def test_languages_are_those_of_the_command_line_of_sacrebleu():
    languages = ("en", "de", "zh", "ja", "ko", "th", "vi")
    expected = {language: BLEU._TOKENIZER_MAP.get(language) for language in languages}
    assert {language: tokenizer_of_language(language) for language in languages} == expected
    assert [
        tokenizer_of_language(code) for code in ("zh-CN", "zho_Hans", "ja-mecab", "jpn_Jpan", "ignore", "", None)
    ] == [
        *("zh", "zh", "ja-mecab", "ja-mecab"),
        *(None, None, None),
    ]


def test_scripts():
    assert {name: script_of([text]) for name, text in TEXTS.items()} == {
        **dict.fromkeys(("de", "ru", "hi", "ar", "vi")),
        **{"zh": "Han", "ja": "Kana", "ja-han": "Kana", "ko": "Hangul"},
        **{"th": "Thai", "lo": "Lao", "km": "Khmer", "my": "Burmese"},
    }
    assert script_of(["", "123 !?", "\n"]) is None
    assert script_of(["The sign says 出口 to those who can read it."]) is None
    assert script_of(["好。"] + ["nothing but English words here"] * 5) is None


@pytest.mark.parametrize(
    ("asked", "language", "text", "name"),
    [
        (None, None, "de", "13a"),
        (None, "ignore", "zh", "zh"),
        (None, None, "ja", "ja-mecab"),
        (None, None, "ko", "ko-mecab"),
        (None, "th", "th", "char"),
        (None, "en", "zh", "zh"),
        (None, "zh", "de", "zh"),
        ("char", "zh", "zh", "char"),
        ("13a", "ko", "ko", "13a"),
    ],
)
def test_option_before_language_before_script(asked, language, text, name, log):
    assert choose_bleu_tokenizer(asked, language, [TEXTS[text]], "--bleu-tokenizer", "t") == name
    assert f"t: BLEU with sacreBLEU's tokenizer {name} (" in log.text
    assert "says nothing" not in log.text


def test_a_tokenizer_that_does_not_split_is_warned_of(log):
    """sacreBLEU's 13a takes such a sentence for one word: another last word is a score of 0."""
    hypothesis = TEXTS["th"] + "ครับ"
    assert sacrebleu.corpus_bleu([hypothesis], [[TEXTS["th"]]], tokenize="13a").score == 0
    assert build_bleu("char", "x").corpus_score([hypothesis], [[TEXTS["th"]]]).score > 80
    for asked in ("13a", "intl", "none"):
        log.clear()
        assert choose_bleu_tokenizer(asked, "th", [TEXTS["th"]], "--bleu-tokenizer", "t") == asked
        assert f"written in Thai, which sacreBLEU's tokenizer {asked} does not split" in log.text
        assert "give --bleu-tokenizer char" in log.text


def test_what_sacrebleu_has_not(monkeypatch):
    with pytest.raises(InputError, match=r"^data.x: got '14a'; sacreBLEU has none, zh, 13a"):
        choose_bleu_tokenizer("14a", None, [], "data.x", None)
    monkeypatch.setattr(tokenizer_ja_mecab, "MeCab", None)
    monkeypatch.setattr(tokenizer_ko_mecab, "MeCab", None)
    message = (
        r"^sacreBLEU's tokenizer 'ja-mecab' is not installed: .*pip install sacrebleu\[ja\].*; or give data.x char$"
    )
    with pytest.raises(InputError, match=message):
        build_bleu("ja-mecab", "data.x")
    with pytest.raises(InputError, match=r"'ko-mecab' is not installed: .*pip install sacrebleu\[ko\].* data.x char$"):
        build_bleu("ko-mecab", "data.x")


def test_japanese_by_mecab():
    pytest.importorskip("MeCab")
    metric = build_bleu("ja-mecab", "x")
    assert metric.corpus_score([TEXTS["ja"]], [[TEXTS["ja"]]]).score == pytest.approx(100)


def test_a_silent_server_is_given_up_soon(monkeypatch):
    monkeypatch.setattr(bleu_tokenizer, "_ANSWER_SECONDS", 0.2)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(InputError, match="^no: timed out; do it$"),
        sacrebleu_call("no", "do it"),
    ):
        socket.create_connection(silent.getsockname()).recv(1)
    assert socket.getdefaulttimeout() is None
    with pytest.raises(KeyboardInterrupt), sacrebleu_call("no", "do it"):
        raise KeyboardInterrupt
