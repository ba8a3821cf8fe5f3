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

import matplotlib.mathtext
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from nemo_distill.support.quoting import code, duration, is_legible, markdown, plain_text, plot_text

HOSTILE = [
    "<script>alert(1)</script>",
    "[a](javascript:x)",
    "![a](http://x/y.png)",
    "a | b | c",
    "`rm -rf`",
    "``` x",
    "# heading",
    "1. list",
    "- list",
    "> quote",
    "*a* **b** _c_ __d__ ~~e~~",
    "&lt;b&gt;",
    "https://example.org",
    "www.example.org",
    "$x$",
    "a\nb\r\nc\u2028d",
    "\\`x\\`",
    "<https://example.org>",
    "a\\",
    "\u202eabc",
]
PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def shown(text: str) -> list[tuple[str, str]]:
    """Return what a Markdown reader sees: types and content of the inner parts."""
    (_, inline, _) = PARSER.parse(text)
    return [(part.type, part.content) for part in inline.children]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_text_is_shown_as_it_is(text):
    parts = shown(markdown(text))
    assert {kind for kind, _ in parts} <= {"text", "text_special"}
    assert "".join(content for _, content in parts) == plain_text(text).strip()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("ftp://a.b/c", "ftp\\://a.b/c"),
        ("Evil+1://x", "Evil+1\\://x"),
        ("WWW.a.b", "WWW\\.a.b"),
        ("@user and (@user)", "＠user and (＠user)"),
        ("mailto:a_b@c-d.org", "mailto:a_b＠c-d.org"),
        ("a@_b.c", "a＠\\_b.c"),
    ],
)
def test_what_renderers_make_links_of(text, wanted):
    assert markdown(text) == wanted


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.text(st.sampled_from("ab1 _*`[]()<>!#|&;~$\\-+=.:/\n\t"), min_size=1, max_size=20))
def test_any_text_in_a_paragraph_and_in_a_cell(text):
    wanted = plain_text(text).strip()
    if wanted:
        parts = shown(markdown(text).strip())
        assert "".join(content for _, content in parts) == wanted
    tokens = PARSER.parse(f"| a | b |\n| --- | --- |\n| {markdown(text)} | {code(text)} |")
    cells = [token for place, token in enumerate(tokens) if tokens[place - 1].type == "td_open"]
    assert len(cells) == 2
    assert "".join(part.content for part in cells[0].children) == wanted
    assert [part.type for part in cells[1].children] == ["code_inline"]


def test_names_stay_legible():
    for name in ("hybrid_2@seed1, 5 % (low-data) x.y", "plain@seed1", "a/b: c:d"):
        assert markdown(name) == name
    assert code("a_b") == "`a_b`"


@pytest.mark.parametrize("text", ["$x$", "$\\frac{$", "a$b", "\\$", "x^2_3"])
def test_a_plot_draws_the_characters(text):
    from matplotlib import cbook

    assert cbook.is_math_text(plot_text(text)) is False or not matplotlib.mathtext
    assert plot_text(text).replace(r"\$", "$") == text


def test_what_cannot_be_seen_goes():
    assert plain_text("a\0b\x1b[31mc\u200bd\ufeff") == "a b [31mc d "
    assert plain_text("a\u00adb\u061cc\U000e0041d\u2028e\ud800f\u200dg\ufff9") == "a b c d e f g "
    assert len(plain_text("a" * 1000)) == 203


def test_names_and_paths_are_legible():
    assert all(
        map(is_legible, ("a b", "コーパス\u3000一", "a\u00a0b", "می\u200cخواهم", "👩\u200d👧", "\U0001faf6", ""))
    )
    assert not any(is_legible(f"a{each}b") for each in "\0\n\x7f\x85\u2028\u2029\u202a\u202e\u2066\u2069\ud800\udfff")


def test_durations():
    assert [duration(each) for each in (0.4, 59.9, 60, 3600, 86399, None)] == [
        *("0 s", "59 s", "1 min 00 s", "1 h 00 min", "23 h 59 min", "")
    ]
