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
import json
from pathlib import Path

import pytest

from nemo_distill import cli
from nemo_distill.config.mixture import ComponentConfig, MixtureConfig
from nemo_distill.data.checks import check_model_files
from nemo_distill.decoding.engine import Hypothesis, SearchSettings
from nemo_distill.errors import InputError
from nemo_distill.labels.checks import check_manifest
from nemo_distill.labels.choosing import Chooser
from nemo_distill.labels.filtering import FilterSettings
from nemo_distill.labels.labelling import label
from nemo_distill.labels.nbest import NBest, nbest_line, read_nbest
from nemo_distill.labels.selection import select
from nemo_distill.labels.settings import SelectionSettings, build_similarity
from nemo_distill.support import files, text_files

SOURCES = ["Die Lampe ist offen", "Das alte Fenster ist kaputt", "", "Der Motor"]
HYPOTHESES = [
    ["The light is on", "The lamp is open", "The lamp was open"],
    ["The old window", "The window is old and broken", "The old window is broken now"],
    [""],
    ["Engine", "The engine", "The motor"],
]
GOLD = ["The lamp is open", "The old window is broken", "", ""]


@pytest.fixture
def rows():
    """Four lines with one to three hypotheses, best first, whose scores fall by one nat."""
    return [
        NBest(
            line,
            source,
            tuple(Hypothesis(text, -float(place), len(text.split()) + 1) for place, text in enumerate(texts)),
        )
        for line, (source, texts) in enumerate(zip(SOURCES, HYPOTHESES, strict=True), start=1)
    ]


@pytest.fixture
def gold(tmp_path):
    path = tmp_path / "gold.en"
    path.write_text("".join(f"{line}\n" for line in GOLD))
    return path


@pytest.fixture
def labels(word_engine, tmp_path):
    """A finished directory of labels, three hypotheses each."""
    (tmp_path / "input.de").write_text("eine kurze Zeile\n\nHallo {name} da\nnoch eine lange Zeile\n")
    options = {"teacher": {"teachers": ["words"]}, "progress": False}
    label(word_engine, tmp_path / "input.de", tmp_path / "labels", SearchSettings(num_hypotheses=3), **options)
    return tmp_path / "labels"


def chosen(rows, settings) -> list[tuple[str, str | None]]:
    gold = text_files.read_lines(settings.target) if settings.target else [""] * len(rows)
    chooser = Chooser(settings)
    found = [chooser.choose(row, reference) for row, reference in zip(rows, gold, strict=True)]
    return [(kept[0].text if kept else "", reason) for kept, reason in found]


def test_best_is_the_first(rows):
    assert chosen(rows, SelectionSettings()) == [
        ("The light is on", None),
        ("The old window", None),
        ("", "empty source"),
        ("Engine", None),
    ]


def test_what_is_unknown_or_cut_is_passed_over_and_stays_in_the_file(tmp_path):
    good, cut = Hypothesis("The lamp", -2.0, 3), Hypothesis("The lamp the", -1.0, 3, cut=True)
    unknown = Hypothesis("The \u2047", -1.0, 3, unknown=1)
    rows = [
        NBest(1, "Die Lampe", (cut, unknown, good)),
        NBest(2, "Die Lampe", (unknown, cut)),
        NBest(3, "\u2603", (good,), unknown=True),
    ]
    files.write_lines_atomic(tmp_path / "nbest.jsonl", map(nbest_line, rows))
    assert list(read_nbest(tmp_path / "nbest.jsonl")) == rows
    reasons = [("The lamp", None), ("The \u2047", "unknown pieces"), ("The lamp", "source of unknown pieces")]
    assert chosen(rows, SelectionSettings()) == reasons
    kept = FilterSettings(drop_cut=False, drop_unknown=False)
    texts = [("The lamp the", None), ("The \u2047", None), ("The lamp", None)]
    assert chosen(rows, SelectionSettings(filters=kept)) == texts


@pytest.mark.parametrize("measure", ["closest-bleu", "closest-chrf"])
def test_closest_to_gold(rows, gold, measure):
    texts = [text for text, _ in chosen(rows, SelectionSettings(measure, gold))]
    assert texts == ["The lamp is open", "The old window is broken now", "", "Engine"]  # no gold: the likeliest


def test_equally_close_hypotheses_stay_in_their_order(tmp_path):
    (tmp_path / "gold.en").write_text("red\n")
    row = NBest(1, "rot", (Hypothesis("blue", -1, 2), Hypothesis("gray", -2, 2)))
    for measure in ("closest-bleu", "closest-chrf"):
        assert chosen([row], SelectionSettings(measure, tmp_path / "gold.en")) == [("blue", None)]


def test_sentence_bleu_counts_only_the_orders_that_a_short_text_has(tmp_path):
    """Without effective order a perfect translation of three words scores next to nothing."""
    from sacrebleu.metrics import BLEU

    (tmp_path / "gold.en").write_text("the red cat\n")
    texts = ["a red cat sat on the mat", "the red cat"]
    row = NBest(1, "die rote Katze", tuple(Hypothesis(text, -1, 2) for text in texts))
    assert chosen([row], SelectionSettings("closest-bleu", tmp_path / "gold.en")) == [("the red cat", None)]
    similarity = build_similarity(SelectionSettings("closest-bleu", tmp_path / "gold.en"))
    assert similarity("the red cat", "the red cat") == pytest.approx(100)
    assert BLEU().sentence_score("the red cat", ["the red cat"]).score < 1


def test_refused_hypotheses_are_passed_over():
    first, second = Hypothesis("Hello", -1.0, 2), Hypothesis("Hello {name}", -2.0, 4)
    assert chosen([NBest(1, "Hallo {name}", (first, second))], SelectionSettings()) == [("Hello {name}", None)]
    copy = NBest(1, "Hallo {name}", (Hypothesis("hallo {name}", -1.0, 2), first))
    assert chosen([copy], SelectionSettings()) == [("hallo {name}", "copy of the source")]
    low = SelectionSettings(filters=FilterSettings(min_score=-0.5))
    assert chosen([NBest(1, "Hallo", (first, second))], low) == [("Hello", None)]
    low = SelectionSettings(filters=FilterSettings(min_score=-0.4))
    assert chosen([NBest(1, "Hallo", (first, second))], low) == [("Hello", "low score")]


def kept(hypotheses, source="Die Lampe", **settings) -> tuple[list[str], str | None]:
    found, reason = Chooser(SelectionSettings(**settings)).choose(NBest(1, source, tuple(hypotheses)))
    return [one.text for one in found], reason


def test_several_hypotheses_of_a_line(tmp_path):
    first, second, third = (Hypothesis(text, -1.0, 3) for text in ("The lamp", "A lamp", "The light"))
    copy, same = Hypothesis("die lampe", -1.0, 3), Hypothesis("The lamp", -1.5, 4, processed="The lam@@ p")
    assert kept([first, second, third], keep=2) == (["The lamp", "A lamp"], None)
    assert kept([copy, first, same, copy, second], keep=3) == (["The lamp", "A lamp"], None)
    assert kept([copy, copy], keep=2) == (["die lampe"], "copy of the source")
    assert kept([first, second], source=" ", keep=2) == (["The lamp"], "empty source")
    (tmp_path / "gold.en").write_text("a light\n")
    settings = SelectionSettings("closest-chrf", tmp_path / "gold.en", keep=2)
    found, _ = Chooser(settings).choose(NBest(1, "Die Lampe", (first, second, third)), "the light")
    assert [one.text for one in found] == ["The light", "The lamp"]


def test_of_several_those_that_training_reads_as_others_are_left_out():
    good, marked = Hypothesis("The lamp", -1.0, 3), Hypothesis("A lamp", -1.0, 3, mark="other segmentation")
    filters = FilterSettings(round_trip=True)
    assert kept([marked, good], keep=2, filters=filters) == (["The lamp"], None)
    assert kept([marked, good], keep=1, filters=filters) == (["The lamp"], None)
    assert kept([marked, Hypothesis("A lamp", -1.0, 3)], keep=1, filters=filters) == (["A lamp"], None)
    assert kept([marked], keep=2, filters=filters) == (["A lamp"], "read as other tokens")


def test_several_are_counted_as_pairs_and_can_be_trained_on(labels, tmp_path):
    settings = SelectionSettings(keep=2, filters=FilterSettings(check_placeholders=False))
    manifest, _ = select(labels, tmp_path / "two", settings, progress=False)
    assert manifest["counts"] == {"lines": 4, "kept": 3, "dropped": {"empty source": 1}, "pairs": 6}
    assert text_files.read_lines(tmp_path / "two/source.txt") == [
        *["eine kurze Zeile"] * 2,
        *["Hallo {name} da"] * 2,
        *["noch eine lange Zeile"] * 2,
    ]
    assert text_files.read_lines(tmp_path / "two/hypotheses.txt")[-2:] == ["hcon enie egnal elieZ", "hcon enie egnal"]
    assert select(labels, tmp_path / "two", settings, progress=False) == (manifest, True)
    mixture = MixtureConfig(components={"pseudo": ComponentConfig(directory=str(tmp_path / "two"))})
    check_model_files({}, mixture)
    for wrong in ({"pairs": 7}, {"kept": 7, "lines": 8}, {"kept": 2, "lines": 3, "pairs": 6}):
        changed = json.loads(json.dumps(manifest))
        changed["counts"].update(wrong)
        with pytest.raises(InputError, match="its counts are not those of the files"):
            check_manifest(changed, tmp_path / "two", list(manifest["files"]))


def test_more_than_there_are_cannot_be_kept(labels, tmp_path):
    with pytest.raises(InputError, match="keep: got 4, but num_hypotheses is 3; decode as many"):
        select(labels, tmp_path / "out", SelectionSettings(keep=4), progress=False)
    with pytest.raises(InputError, match="keep: got 0; give at least 1"):
        SelectionSettings(keep=0)
    assert not (tmp_path / "out").exists()


def test_sources_cut_short_and_test_sentences_are_dropped(tmp_path):
    (tmp_path / "test.de").write_text("Der Motor läuft im alten Keller\n")
    hypotheses = (Hypothesis("The motor runs", -1.0, 4),)
    rows = [
        NBest(1, "der motor läuft, im alten Keller!", hypotheses),
        NBest(2, "Er sagt, der Motor läuft im Hof", hypotheses),
        NBest(3, "Der Motor läuft nicht", hypotheses, cut=True),
        NBest(4, "Der Motor ist aus", ()),
    ]
    settings = SelectionSettings(tests=[tmp_path / "test.de"])
    reasons = [reason for _, reason in chosen(rows, settings)]
    assert reasons == ["in test set", None, "source too long", "empty hypothesis"]
    settings = SelectionSettings(tests=[tmp_path / "test.de"], ngram=4)
    assert chosen(rows, settings)[1] == ("The motor runs", "in test set")


def test_select_decodes_nothing_and_leaves_the_labels_alone(labels, tmp_path):
    (tmp_path / "gold.en").write_text("enie ezruk\n\nx\nhcon enie\n")
    before = {path.name: path.read_bytes() for path in labels.iterdir()}
    settings = SelectionSettings(
        "closest-bleu", tmp_path / "gold.en", filters=FilterSettings(check_placeholders=False)
    )
    manifest, was_finished = select(labels, tmp_path / "other", settings, progress=False)
    assert not was_finished
    assert manifest["counts"] == {"lines": 4, "kept": 3, "dropped": {"empty source": 1}}
    assert manifest["engine"] == "words"
    assert text_files.read_lines(tmp_path / "other/source.txt") == [
        "eine kurze Zeile",
        "Hallo {name} da",
        "noch eine lange Zeile",
    ]
    hypotheses = text_files.read_lines(tmp_path / "other/hypotheses.txt")
    assert (hypotheses[0], hypotheses[2]) == ("enie ezruk", "hcon enie")
    assert {path.name: path.read_bytes() for path in labels.iterdir()} == before
    assert select(labels, tmp_path / "other", settings, progress=False) == (manifest, True)
    with pytest.raises(InputError, match=r"made with bleu_tokenizer .*max_repeats 3 \(now 5\)"):
        select(labels, tmp_path / "other", SelectionSettings(filters=FilterSettings(max_repeats=5)), progress=False)


def test_the_bleu_tokenizer_fits_the_gold_text(gold, tmp_path):
    (tmp_path / "gold.zh").write_text("电脑坏了。\n窗户开着。\n", "utf-8")

    def tokenizer(path: Path, **settings) -> str | None:
        return SelectionSettings("closest-bleu", path, **settings).request()["bleu_tokenizer"]

    assert [tokenizer(gold), tokenizer(tmp_path / "gold.zh")] == ["13a", "zh"]
    assert tokenizer(tmp_path / "gold.zh", target_language="ja") == "ja-mecab"
    assert tokenizer(tmp_path / "gold.zh", target_language="ja", bleu_tokenizer="char") == "char"
    assert SelectionSettings("closest-chrf", gold).request()["bleu_tokenizer"] is None
    similarity = build_similarity(SelectionSettings("closest-bleu", tmp_path / "gold.zh"))
    assert similarity("电脑坏掉了。", "电脑坏了。") > similarity("窗户开着。", "电脑坏了。")


def test_select_with_the_same_settings_gives_the_same_files(labels, tmp_path):
    select(labels, tmp_path / "again", progress=False)
    for name in ("source.txt", "hypotheses.txt", "dropped.tsv"):
        assert (tmp_path / "again" / name).read_bytes() == (labels / name).read_bytes()


def test_select_refuses(labels, gold, tmp_path):
    with pytest.raises(InputError, match="holds no finished n-best lists"):
        select(tmp_path, tmp_path / "out")
    with pytest.raises(InputError, match="holds the n-best lists themselves"):
        select(labels, labels, overwrite=True)
    short = tmp_path / "short.en"
    short.write_text("one\ntwo\n")
    with pytest.raises(InputError, match=r"short.en' has 2 lines but the input has 4"):
        select(labels, tmp_path / "out", SelectionSettings("closest-chrf", short))
    with pytest.raises(InputError, match="bleu_tokenizer: got '14a'; sacreBLEU has none, zh"):
        select(labels, tmp_path / "out", SelectionSettings("closest-bleu", gold, bleu_tokenizer="14a"))
    with pytest.raises(InputError, match="absent' does not exist"):
        select(labels, tmp_path / "out", SelectionSettings(tests=[tmp_path / "absent"]))
    (labels / "nbest.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match="nbest.jsonl' has changed"):
        select(labels, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("worst",), "select: got 'worst'; give one of best, closest-bleu, closest-chrf, mbr"),
        (("closest-bleu",), "target: got None with select closest-bleu; give the gold translations"),
        (("best", None, None, FilterSettings(), (), 8), "ngram: got 8 without a test set"),
        (("best", "gold.en"), "target: got 'gold.en' with select best; leave it out, or select closest-bleu"),
    ],
)
def test_bad_settings(arguments, message):
    with pytest.raises(InputError, match=message):
        SelectionSettings(*arguments)


def test_an_interrupted_run_is_not_shut_out(labels, word_engine, tmp_path):
    """Its directory got what was selected, and then was that of another verb, whatever its shards had cost."""

    class Stopped(word_engine):
        def translate(self, *arguments):
            raise KeyboardInterrupt

    def go_on(engine):
        options = {"teacher": {"teachers": ["words"]}, "progress": False}
        return label(engine, tmp_path / "input.de", tmp_path / "other", SearchSettings(beam_size=2), **options)

    with pytest.raises(KeyboardInterrupt):
        go_on(Stopped)
    with pytest.raises(InputError, match="other' holds an interrupted run; give another output directory, or --over"):
        select(labels, tmp_path / "other", progress=False)
    assert go_on(word_engine)[0]["counts"]["lines"] == 4


def test_a_single_hypothesis_leaves_no_choice(gold):
    with pytest.raises(InputError, match="num_hypotheses is 1; decode several"):
        SelectionSettings("closest-bleu", gold).check(4, num_hypotheses=1)


@pytest.mark.parametrize("select", ["best", "mbr"])
def test_a_tokenizer_for_bleu_where_there_is_none(select):
    with pytest.raises(InputError, match=f"bleu_tokenizer: got char with select {select}, which has no BLEU"):
        SelectionSettings(select, bleu_tokenizer="char")


@pytest.mark.parametrize("words", ["--select best", "--select closest-bleu --target {} --bleu-tokenizer char"])
def test_a_language_that_chooses_no_tokenizer(gold, tmp_path, capsys, words):
    command = ["select", "--nbest", str(tmp_path), "--output-dir", str(tmp_path / "out"), "--target-lang", "ja"]
    assert cli.main([*command, *words.format(gold).split()]) == 2
    assert "--target-lang: chooses the tokenizer of --select closest-bleu where no" in capsys.readouterr().err


def test_nbest_round_trip(rows, tmp_path):
    rows[3] = NBest(4, "Tab\tund \u00a0", (Hypothesis('"x"', -0.1 - 0.2, 2),), cut=True)
    files.write_lines_atomic(tmp_path / "nbest.jsonl", map(nbest_line, rows))
    assert list(read_nbest(tmp_path / "nbest.jsonl")) == rows
    first = json.loads(text_files.read_lines(tmp_path / "nbest.jsonl")[0])
    assert first["hypotheses"][1] == {"text": "The lamp is open", "score": -1.0, "length": 5}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1: not an n-best record"),
        ("[]", "line 1: not an n-best record"),
        ('{"line": 1, "source": "x"}', "line 1: not an n-best record .*hypotheses"),
        ('{"line": 2, "source": "x", "hypotheses": []}', "holds input line 2 where 1 belongs"),
    ],
)
def test_bad_nbest(tmp_path, line, message):
    (tmp_path / "nbest.jsonl").write_text(line + "\n")
    with pytest.raises(InputError, match=message):
        list(read_nbest(tmp_path / "nbest.jsonl"))


def test_processed_gold_is_compared_with_processed_hypotheses():
    gold = "L' homme n' a pas d' eau ."
    exact = Hypothesis("L'homme n'a pas d'eau.", -2.0, 9, processed=gold)
    other = Hypothesis("homme a pas eau.", -1.0, 5, processed="homme a pas eau .")
    row = NBest(1, "Der Mann hat kein Wasser.", (other, exact))
    settings = SelectionSettings("closest-chrf", "train.fr")
    assert Chooser(settings, gold_processed=True).choose(row, gold)[0] == [exact]
    assert Chooser(settings).choose(row, "L'homme n'a pas d'eau.")[0] == [exact]
