"""Encodings of older programs: told apart by the letters of the languages that they are used for."""

import json

import pytest

from steering.errors import SteeringError
from steering.pairs.dataset import read_pairs

TEXTS = {
    "Natürlich, größere Äpfel schmecken süß.": ["cp1252", "iso8859-15", "mac_roman", "cp850"],
    "Le garçon préfère la forêt, où l’été s’achève à peine.": ["cp1252", "mac_roman"],
    "Cœur léger, tête froide : ça marche à 5 €.": ["cp1252", "iso8859-15"],
    "¿Mañana? Sí, el pingüino vendrá también.": ["cp1252", "mac_roman"],
    "Então não há razão para tanta confusão, você verá.": ["cp1252", "mac_roman"],
    "“Fine” – that’s it, isn’t it?": ["cp1252", "mac_roman"],
    "Við förum þangað í kvöld, það er víst.": ["cp1252"],
    "Çiçekler açtı, güneş ışığı şehre düştü.": ["cp1254"],
    "Zażółć gęślą jaźń, a później odpocznij.": ["cp1250", "iso8859-2"],
    "Příliš žluťoučký kůň úpěl ďábelské ódy.": ["cp1250"],
    "Az őszi eső hűvös, de a tűz melegít.": ["cp1250"],
    "Čovjek čeka, ali đak neće doći noćas.": ["cp1250"],
    "Žąsys skrenda į šiltus kraštus, ačiū.": ["cp1257"],
    "Съешь ещё этих мягких булок, да выпей чаю.": ["cp1251", "koi8-r", "cp866"],
    "Η γρήγορη αλεπού πηδάει πάνω από το σκυλί.": ["cp1253"],
    "השועל המהיר קופץ מעל הכלב העצלן": ["cp1255"],
    "الثعلب السريع يقفز فوق الكلب الكسول": ["cp1256"],
    "สุนัขจิ้งจอกกระโดดข้ามสุนัขขี้เกียจ": ["cp874"],
    "きつねがのろまな犬を飛び越える。": ["cp932", "euc_jp"],
    "敏捷的狐狸跳过了那只懒狗，然后回家睡觉。": ["gb18030"],
    "敏捷的狐狸跳過了那隻懶狗，然後回家睡覺。": ["big5"],
    "날쌘 여우가 게으른 개를 뛰어넘습니다.": ["euc_kr"],
}


@pytest.mark.parametrize("text, encoding", [(text, each) for text, pages in TEXTS.items() for each in pages])
@pytest.mark.parametrize("english", [0, 9])
def test_one_text_tells_its_encoding(tmp_path, text, encoding, english):
    rows = [{"prompt": f"Question {n}?", "chosen": "An answer.", "rejected": "Another one."} for n in range(english)]
    rows.append({"prompt": text, "chosen": "Yes.", "rejected": f"No: {text}"})
    (tmp_path / "a.jsonl").write_bytes("\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode(encoding))
    pairs = read_pairs(tmp_path / "a.jsonl")
    assert pairs[-1].prompt == text and pairs[-1].rejected == f"No: {text}"
    note = pairs.report.notes[0]
    assert note.startswith("a.jsonl is not in UTF-8; it was read as ") and "it reads" in note


def test_a_long_line_tells_it_too(tmp_path):
    text = "貴方の犬はどこですか。" * 30
    rows = [{"prompt": f"{n}{text}", "chosen": "c", "rejected": "r"} for n in range(200)]
    (tmp_path / "a.json").write_bytes(json.dumps(rows, ensure_ascii=False).encode("cp932"))
    assert read_pairs(tmp_path / "a.json")[199].prompt == f"199{text}"


@pytest.mark.parametrize(
    "noise", [bytes(range(128, 256)), b"\x81\x8d\xff\xfe\x90" * 9, "naïve café".encode() + b"\xff"]
)
def test_what_is_no_text_in_any_encoding_is_refused(tmp_path, noise):
    (tmp_path / "a.csv").write_bytes(b"prompt,chosen,rejected\na,b," + noise)
    with pytest.raises(SteeringError, match="a.csv, line 2: the text is not UTF-8 at byte"):
        read_pairs(tmp_path / "a.csv")
