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
"""What the default filters say of human pairs and of typical faults, in many scripts.

`python tests/default_filters.py` counts the same over the pairs of a whole corpus.
"""

import pytest

from nemo_distill.labels.filtering import LENGTH_RATIO, REASONS, REPETITION, find_fault
from tests.default_filters import count_faults

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
    assert {reason: counts[reason] for reason in (*REASONS, None) if counts[reason]} == {None: 2 * len(pairs)}


@pytest.mark.parametrize("language", HUMAN)
def test_pairs_of_two_foreign_languages_pass(language):
    others = [texts for code, texts in HUMAN.items() if code != language]
    counts = [count_faults(zip(HUMAN[language], texts, strict=True)) for texts in others]
    assert counts == [{None: len(ENGLISH)}] * (len(HUMAN) - 1)


@pytest.mark.parametrize("language", HUMAN)
def test_a_tenth_of_a_sentence_is_refused_both_ways(language):
    for source, target in [(ENGLISH[1], HUMAN[language][1]), (HUMAN[language][1], ENGLISH[1])]:
        assert find_fault(source, target[: len(target) // 10]) == LENGTH_RATIO
        assert find_fault(source, "".join((target, *HUMAN[language], *ENGLISH))) == LENGTH_RATIO


@pytest.mark.parametrize("language", HUMAN)
def test_loops_are_refused_both_ways(language):
    source = " ".join(ENGLISH)  # long enough that the loop has the right length
    for phrase, number in [(HUMAN[language][1], 3), (HUMAN[language][0], 4)]:
        assert find_fault(source, phrase * number) == REPETITION
        assert find_fault("".join(HUMAN[language]), ENGLISH[1] * 3) == REPETITION


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
    assert find_fault(source, near_loop) == REPETITION
