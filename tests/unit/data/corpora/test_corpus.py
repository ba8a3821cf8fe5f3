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
import itertools

import pytest

from nemo_distill.data.corpora import corpus
from nemo_distill.data.corpora.corpus import Pair
from nemo_distill.errors import InputError


def test_squeeze_gives_one_composed_line():
    assert corpus.squeeze(" a\n\n1. b\tc\u2028d\r\re\u00a0f\x85g ") == "a 1. b c d e f g"
    assert corpus.squeeze("u\u0308ber") == "\u00fcber"
    assert corpus.squeeze("{count} of [%key:common::x%] `id`") == "{count} of [%key:common::x%] `id`"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Lost {count} packets.", "lost 3 packets"),
        ("STRASSE", "Straße"),
        ("Add  the [%key:common::device%]!", "add the"),
        ("Zone 1", "Zone {number}"),
        ("ﬁle", "file"),
        ("IŞIĞI AÇ", "Işığı aç"),
        ("İPTAL", "iptal"),
        ("ΑΚΥΡΩΣΗ {count}", "Ακύρωση 3"),
    ],
)
def test_fold_is_the_same_for_near_copies(one, other):
    assert corpus.fold(one) == corpus.fold(other)


def test_fold_keeps_words_apart():
    assert corpus.fold("not a lamp") != corpus.fold("nota lamp")
    assert corpus.fold("कि") != corpus.fold("का")


def test_near_keys_see_one_changed_word_in_four():
    def near(one: str, other: str) -> bool:
        return bool(corpus.near_keys(one) & corpus.near_keys(other))

    assert near("Connect the Acme bridge", "Connect the Other bridge!")
    assert not near("Connect the Acme bridge", "Remove the Other bridge")
    assert not near("Connect the bridge", "Remove the bridge")
    assert near("Connect the bridge", "connect the bridge 2")


@pytest.mark.parametrize(
    ("text", "near", "far"),
    [
        # one word of five or more is another; two are
        ("画像エンティティを更新できません", "最新エンティティを更新できません", "最新カメラを更新できません"),
        ("打开设备的声音设置", "打开设备的灯光设置", "关闭设备的灯光设置"),
        ("เชื่อมต่ออุปกรณ์ของคุณแล้ว", "เชื่อมต่ออุปกรณ์ของเราแล้ว", "ตัดต่ออุปกรณ์ของเราแล้ว"),
        ("Hueのブリッジを接続してください", "Acmeのブリッジを接続してください", "Acmeのランプを接続してください"),
    ],
)
def test_near_keys_see_one_changed_word_where_no_space_stands_between_them(text, near, far):
    def shared(other: str) -> bool:
        return bool(corpus.near_keys(text) & corpus.near_keys(other))

    assert shared(near)
    assert not shared(far)


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("この デバイスは {count} 台です。", "このデバイスは3台です"),
        ("หน้า ต่าง", "หน้าต่าง"),
        ("设置 音乐 模式", "设置音乐模式"),
    ],
)
def test_fold_passes_over_spaces_in_scripts_without_them(text, other):
    assert corpus.fold(text) == corpus.fold(other)


def test_short_texts_without_spaces_are_near_only_where_they_fold_alike():
    for one, other in (("打开", "关闭"), ("打开窗户", "打开门户"), ("电源", "电流"), ("ランプ", "ポンプ")):
        assert not corpus.near_keys(one) & corpus.near_keys(other)


def test_clean_counts_each_reason():
    pairs = [
        Pair("a", "  ", "text"),
        Pair("a", "Radio", "Radio"),
        Pair("a", "Ein Knopf", "A button"),
        Pair("a", "Das ist gut", "That is\ngood"),
        Pair("b", "Das ist gut", "This is good"),
        Pair("c", "Das ist gut", "This is good"),
        Pair("d", "Datenintervall", "Interval of data"),
    ]
    kept, dropped = corpus.clean(pairs, min_words=3)
    assert kept == [pairs[4], pairs[5], pairs[6]]
    assert dropped == {"empty": 1, "copy": 1, "short": 1, "other_translation": 1}


def test_clean_prefers_the_first_of_equally_frequent_translations():
    pairs = [Pair("a", "gut", "good"), Pair("b", "gut", "fine")]
    assert corpus.clean(pairs)[0] == pairs[:1]


def test_clean_can_keep_copies():
    kept, dropped = corpus.clean([Pair("a", "Radio", "Radio")], keep_copies=True)
    assert len(kept) == 1
    assert dropped["copy"] == 0


def texts_by_group(groups: int = 50) -> dict[str, list[str]]:
    words = ["".join(letters) for letters in itertools.product("abcdefgh", repeat=3)]
    return {f"g{number}": words[number * 5 : number * 5 + 5] for number in range(groups)}


def test_assign_groups_reaches_the_sizes_and_depends_on_the_seed_alone():
    texts = texts_by_group()
    splits = corpus.assign_groups(texts, valid_size=20, test_size=33, seed=1)
    sizes = {split: sum(len(texts[group]) for group in texts if splits[group] == split) for split in corpus.SPLITS}
    assert sizes == {"test": 35, "valid": 20, "train": 195}
    backwards = dict(reversed(texts.items()))
    assert corpus.assign_groups(backwards, valid_size=20, test_size=33, seed=1) == splits
    assert corpus.assign_groups(texts, valid_size=20, test_size=33, seed=2) != splits


def test_assign_groups_leaves_big_groups_in_training():
    texts = texts_by_group(40) | {"big": ["".join(word) for word in itertools.product("xyz", repeat=4)]}
    for seed in range(20):
        assert corpus.assign_groups(texts, valid_size=50, test_size=50, seed=seed)["big"] == "train"


def test_assign_groups_refuses_more_than_there_is():
    with pytest.raises(InputError, match="200 test and 100 validation texts are more than this corpus can spare"):
        corpus.assign_groups(texts_by_group(), valid_size=100, test_size=200)


def test_split_pairs_lets_no_near_copy_cross():
    groups = {"a": "train", "b": "valid", "c": "test"}
    pairs = [
        Pair("a", "Die Pumpe läuft", "The pump runs"),
        Pair("d", "Die Pumpe läuft", "The pump runs"),
        Pair("a", "Die Tür klemmt {count} mal!", "A door is stuck"),
        Pair("a", "Etwas ganz anderes", "the window is open"),
        Pair("a", "Verbinde jetzt die Acme Brücke", "Link it"),
        Pair("b", "die tür klemmt 5 mal", "The door sticks"),
        Pair("b", "Das Radio spielt", "The radio plays"),
        Pair("c", "Das Fenster ist offen", "The window is open."),
        Pair("c", "DAS FENSTER IST OFFEN", "The window: open"),
        Pair("c", "das Radio spielt 2", "Music"),
        Pair("c", "Verbinde jetzt die andere Brücke", "Connect the other bridge now"),
    ]
    splits, dropped = corpus.split_pairs(pairs, groups)
    assert splits == {"train": [pairs[0]], "valid": [pairs[5]], "test": [pairs[7], pairs[9], pairs[10]]}
    assert dropped == {"duplicate": 1, "alike_in_held_out_set": 1, "near_copy_of_test": 3, "near_copy_of_valid": 1}


def test_corpus_files_hold_one_sentence_a_line():
    splits = {
        "train": [Pair("a", "eins", "one"), Pair("a", "zwei", "two")],
        "valid": [],
        "test": [Pair("b", "ü", "u")],
    }
    contents = corpus.corpus_files(splits, "de", "en")
    assert contents["train.de"] == b"eins\nzwei\n"
    assert contents["train.en"] == b"one\ntwo\n"
    assert contents["test.de"] == "ü\n".encode()
    assert sorted(contents) == ["test.de", "test.en", "train.de", "train.en", "valid.de", "valid.en"]


@pytest.mark.parametrize("code", ["", "../en", "de.en", "de/en", "-de"])
def test_bad_language_codes(code):
    with pytest.raises(InputError, match="is not a language code"):
        corpus.check_languages("de", code)


def test_the_same_language_twice():
    with pytest.raises(InputError, match="both 'de'; give two languages"):
        corpus.check_languages("de", "de")
