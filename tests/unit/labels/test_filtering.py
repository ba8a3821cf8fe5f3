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
import pytest
from default_filters import count_faults

from nemo_distill.data.words import compatible
from nemo_distill.decoding.engine import Hypothesis
from nemo_distill.errors import InputError
from nemo_distill.labels import filtering
from nemo_distill.labels.filtering import FilterSettings, PairFilter, find_fault, longest_run, placeholders
from nemo_distill.labels.leak_check import TestText

OFF = FilterSettings(
    max_length_ratio=None, max_repeats=None, max_repeated=None, drop_copies=False, check_placeholders=False
)
LONG = " ".join(f"Wort{number}" for number in range(90))
LOOP = " ".join(f"the man in the {number}. coat sees the man in the blue coat and" for number in range(8))

# reason, source, hypothesis, and the settings that switch it off
REFUSED = [
    (filtering.COPY, "Die Lampe.", "die  lampe", {"drop_copies": False}),
    (
        filtering.LENGTH_RATIO,
        "Die alte Lampe",
        "the old lamp on the wall of the house is so old that it went out",
        {"max_length_ratio": 4.0},
    ),
    (filtering.LENGTH_RATIO, "Ein langer Satz über die alte Lampe", "Lamp", {"max_length_ratio": 4.5}),
    (filtering.LENGTH_RATIO, "水泵今天修好了", "Pump", {"max_length_ratio": None}),
    (
        filtering.REPETITION,
        "Ein Mann und ein Hund sind da",
        "a dog dog dog dog is",
        {"max_repeats": 4, "max_repeated": None},
    ),
    (
        filtering.REPETITION,
        "Ein Mann und noch ein Mann",
        "a man and a man and a man and a man and",
        {"max_repeats": 4, "max_repeated": None},
    ),
    (filtering.REPETITION, LONG, LOOP, {"max_repeated": None}),
    (filtering.PLACEHOLDERS, "Hallo {name}!", "Hello Name!", {"check_placeholders": False}),
    (filtering.PLACEHOLDERS, "%s von %s", "%s of", {"check_placeholders": False}),
    (filtering.PLACEHOLDERS, "Seite %1$d", "page %2$d", {"check_placeholders": False}),
    (filtering.PLACEHOLDERS, "<b>neu</b>", "<b>new", {"check_placeholders": False}),
    (filtering.PLACEHOLDERS, "Hallo du", "hello {{you}}", {"check_placeholders": False}),
]


@pytest.mark.parametrize(("reason", "source", "hypothesis", "off"), REFUSED)
def test_each_filter_refuses_and_can_be_switched_off(reason, source, hypothesis, off):
    assert find_fault(source, hypothesis) == reason
    assert find_fault(source, hypothesis, settings=FilterSettings(**off)) is None
    assert find_fault(source, hypothesis, settings=OFF) is None


@pytest.mark.parametrize(
    ("source", "hypothesis"),
    [
        ("Die Lampe ist offen.", "The lamp is open."),
        ("Ein", "Switched on"),  # each side counts four letters more
        ("ja ja ja ja ja", "yes yes yes yes yes"),  # the source repeats as often
        ("{count} Fenster auf %(room)s", "{count} windows in %(room)s"),
        ("100%ig sicher bei 50%d", "100% certain at 50 percent"),
        ('<a href="hier">Hilfe</a>', '<a href="here">Help</a>'),
        ("{n, plural, one {# Tür} other {# Türen}}", "{n, plural, one {# door} other {# doors}}"),
        ("Wenn a < b und c > d", "If a < b and c > d"),
        ("水泵今天修好了", "The pump was repaired today"),
    ],
)
def test_good_pairs_pass(source, hypothesis):
    assert find_fault(source, hypothesis, score_per_token=-9.0) is None


def test_empty_hypothesis_is_always_refused():
    assert find_fault("Wort", " \u2028", settings=OFF) == filtering.EMPTY


@pytest.mark.parametrize(
    ("flags", "reason", "off"),
    [
        ({"cut": True}, filtering.CUT, {"drop_cut": False}),
        ({"mark": "no end token"}, filtering.CUT, {"drop_cut": False}),  # as earlier releases wrote it
        ({"unknown": 1}, filtering.UNKNOWN, {"drop_unknown": False}),
        ({"mark": "unknown pieces"}, filtering.UNKNOWN, {"drop_unknown": False}),
        ({}, None, {}),
    ],
)
def test_what_engines_say_of_a_hypothesis(flags, reason, off):
    hypothesis = Hypothesis("the lamp here", -2.0, 4, **flags)
    assert PairFilter(FilterSettings()).fault("die Lampe hier", hypothesis) == reason
    assert PairFilter(FilterSettings(**off)).fault("die Lampe hier", hypothesis) is None


def test_unknown_pieces_in_text():
    assert find_fault("die Lampe hier", "the \u2047 here") == filtering.UNKNOWN
    assert find_fault("die Lampe hier", "the <UNK> here") == filtering.UNKNOWN
    assert find_fault("wirklich\u2047 die Lampe", "really\u2047 the lamp") is None  # a character of the source
    assert find_fault("die Lampe hier", "the \u2047 here", settings=FilterSettings(drop_unknown=False)) is None


def test_score_per_token():
    settings = FilterSettings(min_score=-1.0)
    assert find_fault("Wort hier", "word here", -1.01, settings) == filtering.LOW_SCORE
    assert find_fault("Wort hier", "word here", -1.0, settings) is None
    assert find_fault("Wort hier", "word here", None, settings) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{0:.2f} {} ${x} { y }", {"{0:.2f}": 1, "{}": 1, "{x}": 1, "{ y }": 1}),
        ("%s%s %-5d %.1f %@", {"%s": 2, "%-5d": 1, "%.1f": 1, "%@": 1}),
        ("[%key:common::save%] 5 % davon, 100 %", {"[%key:common::save%]": 1}),
        ("<br/>x<br>", {"<br": 2}),
        ("<3 Personen und > 2", {}),
    ],
)
def test_placeholders(text, found):
    assert dict(placeholders(text)) == found


@pytest.mark.parametrize(
    ("text", "times"), [("", 0), ("a", 1), ("a b", 1), ("a a", 2), ("x a b a b a b y", 3), ("a b c a b", 1)]
)
def test_longest_run(text, times):
    assert longest_run(text.split()) == times


def test_pair_filter_on_sources(tmp_path):
    (tmp_path / "test.de").write_text("Die Pumpe läuft.\n")
    pairs = PairFilter(FilterSettings(), TestText([tmp_path / "test.de"]))
    assert pairs.source_fault("\u2028 ") == filtering.EMPTY_SOURCE
    assert pairs.source_fault("die pumpe LÄUFT") == filtering.IN_TEST_SET
    assert pairs.source_fault("Die Pumpe") is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_length_ratio": 0.5}, "max_length_ratio: got 0.5; give a number of at least 1"),
        ({"max_length_ratio": float("nan")}, "max_length_ratio: got nan"),
        ({"max_repeats": 0}, "max_repeats: got 0; give at least 1"),
        ({"max_repeated": 1.0}, "max_repeated: got 1.0; give a share of the text"),
        ({"min_score": float("nan")}, "min_score: got nan; give a number"),
        ({"min_score": -float("inf")}, "to switch a filter off, leave its limit out"),
        ({"max_repeats": 0, "max_repeated": 1.0}, "max_repeats.*max_repeated"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(InputError, match=message):
        FilterSettings(**settings)


# Human pairs in many scripts; `python tests/default_filters.py` counts the same over the pairs of a whole corpus.
ENGLISH = (
    "This device is not supported.",
    "Please check your internet connection and try again.",
    "The pump in the cellar was repaired yesterday.",
    "Open the window when {name} is at home.",
)
HUMAN = {
    "ar": (
        "هذا الجهاز غير مدعوم.",
        "يرجى التحقق من اتصال الإنترنت والمحاولة مرة أخرى.",
        "تم إصلاح المضخة في القبو أمس.",
        "افتح النافذة عندما يكون {name} في المنزل.",
    ),
    "de": (
        "Dieses Gerät wird nicht unterstützt.",
        "Bitte prüfe deine Internetverbindung und versuche es noch einmal.",
        "Die Pumpe im Keller wurde gestern repariert.",
        "Öffne das Fenster, wenn {name} zu Hause ist.",
    ),
    "el": (
        "Αυτή η συσκευή δεν υποστηρίζεται.",
        "Ελέγξτε τη σύνδεσή σας στο διαδίκτυο και δοκιμάστε ξανά.",
        "Η αντλία στο υπόγειο επισκευάστηκε χθες.",
        "Άνοιξε το παράθυρο όταν ο χρήστης {name} είναι στο σπίτι.",
    ),
    "fi": (
        "Tätä laitetta ei tueta.",
        "Tarkista internetyhteytesi ja yritä uudelleen.",
        "Kellarin pumppu korjattiin eilen.",
        "Avaa ikkuna, kun {name} on kotona.",
    ),
    "he": (
        "מכשיר זה אינו נתמך.",
        "בדוק את החיבור לאינטרנט ונסה שוב.",
        "המשאבה במרתף תוקנה אתמול.",
        "פתח את החלון כאשר {name} בבית.",
    ),
    "hi": (
        "यह उपकरण समर्थित नहीं है।",
        "कृपया अपना इंटरनेट कनेक्शन जाँचें और फिर से प्रयास करें।",
        "तहखाने का पंप कल ठीक किया गया।",
        "जब {name} घर पर हो तो खिड़की खोलें।",
    ),
    "ja": (
        "このデバイスはサポートされていません。",
        "インターネット接続を確認して、もう一度お試しください。",
        "地下室のポンプは昨日修理されました。",
        "{name}さんが家にいるときは窓を開けてください。",
    ),
    "ka": (
        "ეს მოწყობილობა არ არის მხარდაჭერილი.",
        "შეამოწმეთ ინტერნეტკავშირი და სცადეთ ხელახლა.",
        "სარდაფში ტუმბო გუშინ შეკეთდა.",
        "გააღეთ ფანჯარა, როცა {name} სახლშია.",
    ),
    "km": (
        "ឧបករណ៍នេះមិនត្រូវបានគាំទ្រទេ។",
        "សូមពិនិត្យការតភ្ជាប់អ៊ីនធឺណិតរបស់អ្នក ហើយព្យាយាមម្តងទៀត។",
        "ស្នប់នៅក្រោមដីត្រូវបានជួសជុលកាលពីម្សិលមិញ។",
        "បើកបង្អួចពេល {name} នៅផ្ទះ។",
    ),
    "ko": (
        "이 기기는 지원되지 않습니다.",
        "인터넷 연결을 확인하고 다시 시도하세요.",
        "지하실 펌프는 어제 수리되었습니다.",
        "{name} 님이 집에 있을 때 창문을 여세요.",
    ),
    "ru": (
        "Это устройство не поддерживается.",
        "Проверьте подключение к интернету и повторите попытку.",
        "Насос в подвале вчера починили.",
        "Откройте окно, когда {name} дома.",
    ),
    "ta": (
        "இந்தச் சாதனம் ஆதரிக்கப்படவில்லை.",
        "உங்கள் இணைய இணைப்பைச் சரிபார்த்து மீண்டும் முயலவும்.",
        "அடித்தளத்தில் உள்ள பம்பு நேற்று பழுதுபார்க்கப்பட்டது.",
        "{name} வீட்டில் இருக்கும்போது ஜன்னலைத் திறக்கவும்.",
    ),
    "th": (
        "ไม่รองรับอุปกรณ์นี้",
        "โปรดตรวจสอบการเชื่อมต่ออินเทอร์เน็ตของคุณแล้วลองอีกครั้ง",
        "ปั๊มน้ำในห้องใต้ดินซ่อมเสร็จเมื่อวานนี้",
        "เปิดหน้าต่างเมื่อ {name} อยู่ที่บ้าน",
    ),
    "vi": (
        "Thiết bị này không được hỗ trợ.",
        "Vui lòng kiểm tra kết nối internet của bạn và thử lại.",
        "Máy bơm dưới tầng hầm đã được sửa hôm qua.",
        "Mở cửa sổ khi {name} ở nhà.",
    ),
    "zh": (
        "不支持此设备。",
        "请检查您的互联网连接，然后重试。",
        "地下室的水泵昨天修好了。",
        "{name}在家时请打开窗户。",
    ),
}


@pytest.mark.parametrize("language", HUMAN)
def test_every_human_pair_passes_both_ways(language):
    pairs = list(zip(ENGLISH, HUMAN[language], strict=True))
    counts = count_faults([*pairs, *((target, source) for source, target in pairs)])
    by_reason = {reason: counts[reason] for reason in (*filtering.REASONS, None)}
    assert by_reason == {**dict.fromkeys(filtering.REASONS, 0), None: 2 * len(pairs)}


@pytest.mark.parametrize("language", HUMAN)
def test_pairs_of_two_foreign_languages_pass(language):
    others = [texts for code, texts in HUMAN.items() if code != language]
    counts = [count_faults(zip(HUMAN[language], texts, strict=True)) for texts in others]
    assert counts == [{None: len(ENGLISH)}] * (len(HUMAN) - 1)


@pytest.mark.parametrize("language", HUMAN)
def test_a_tenth_of_a_sentence_is_refused_both_ways(language):
    for source, target in [(ENGLISH[1], HUMAN[language][1]), (HUMAN[language][1], ENGLISH[1])]:
        assert find_fault(source, target[: len(target) // 10]) == filtering.LENGTH_RATIO
        assert find_fault(source, "".join((target, *HUMAN[language], *ENGLISH))) == filtering.LENGTH_RATIO


@pytest.mark.parametrize("language", HUMAN)
def test_loops_are_refused_both_ways(language):
    source = " ".join(ENGLISH)  # long enough that the loop has the right length
    for phrase, number in [(HUMAN[language][1], 3), (HUMAN[language][0], 4)]:
        assert find_fault(source, phrase * number) == filtering.REPETITION
        assert find_fault("".join(HUMAN[language]), ENGLISH[1] * 3) == filtering.REPETITION


@pytest.mark.parametrize(
    ("source", "near_loop"),
    [
        (
            "Ein Mann im roten Mantel geht heute früh mit dem Hund in den Park",
            "the man in the red coat and the man in the blue coat and the man in the green coat",
        ),
        (
            "A man in a red coat walks his dog in the park this morning",
            "穿红衣服的男人和穿蓝衣服的男人和穿绿衣服的男人和穿",
        ),
    ],
)
def test_near_repetition_is_refused(source, near_loop):
    assert find_fault(source, near_loop) == filtering.REPETITION


@pytest.mark.parametrize(
    ("source", "hypothesis"), [("C++", "C#"), ("\N{GRINNING FACE}", "\N{CRYING FACE}"), ("+1", "-1"), ("!!!", "???")]
)
def test_symbols_make_a_difference(source, hypothesis):
    assert find_fault(source, hypothesis) is None
    assert find_fault(source, f" {source} ") == filtering.COPY


@pytest.mark.parametrize("pair", [("eine Milliarde", "1,000,000,000"), ("lol", "hahahaha")])
def test_a_few_repeated_letters_are_no_loop(pair):
    assert find_fault(*pair) is None


def test_an_unknown_piece_that_is_kept_is_no_placeholder():
    keeping = FilterSettings(drop_unknown=False)
    assert find_fault("Das ist ein Haus", "This is a <unk>", settings=keeping) is None
    assert find_fault("Das ist ein <b>Haus</b>", "This is a house", settings=keeping) == filtering.PLACEHOLDERS


def test_marks_without_end_take_no_quadratic_time():
    """Of which no language has more than a few on one letter: all that Unicode asks to be kept are 30."""
    marks = "a" + "\u0301\u0316" * 500
    assert compatible(marks) == compatible(marks * 3)[: len(compatible(marks))]
    assert len(compatible("b" + marks[1:])) <= 31
    assert compatible("ein Cafe\u0301 in 東京 \ufb01n") == "ein Café in 東京 fin"
