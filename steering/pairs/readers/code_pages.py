"""Tell the encodings of older programs apart: Windows, DOS and Macintosh code pages, and those of East Asia.

Any bytes make some text in most of them. The text is right in which the letters are those of one language, and stand
where letters stand. Detectors that count pairs of letters want a page of text; a file of pairs may hold a few words.
"""

import re
import unicodedata
from collections.abc import Callable

SAMPLE_BYTES = 16_000
"""Of the lines that are not ASCII."""
LEAST_SCORE = 0.75
"""Below it no encoding fits: the right one has 0.85 and more for text, and noise has less than 0.6."""
SEVERAL_LANGUAGES = 0.9
RARE = 0.6
"""Scores of a letter that another Western language has, and of one that is rare in its language."""

CAPITALS = 0.8
"""Factor for a capital after another: text in capitals is rare, and KOI8 has them where others have small letters."""

WESTERN = {
    "German": "äöüß",
    "French": "éèàêçâîôûùëï",
    "Spanish": "áéíóúñü",
    "Portuguese": "ãõçáéíóúâêôà",
    "Italian": "àèéìòù",
    "Scandinavian and Finnish": "åäöæøé",
    "Icelandic": "áðéíóúýþæö",
    "Dutch and English": "éëïóöüèêç",
}
CENTRAL = {
    "Polish": "ąćęłńóśźż",
    "Czech and Slovak": "áčďéěíňóřšťúůýžľĺŕäô",
    "Hungarian": "áéíóöőúüű",
    "Romanian": "ăâîşţ",
    "Croatian and Slovene": "čćđšž",
}
TURKISH = {"Turkish": "çğıöşüi̇"}
BALTIC = {"Lithuanian": "ąčęėįšųūž", "Latvian": "āčēģīķļņšūž", "Estonian": "äöüõšž"}
LATIN = {
    "cp1252": WESTERN,
    "cp1250": CENTRAL,
    "cp1254": TURKISH,
    "cp1257": BALTIC,
    "iso8859-15": WESTERN,
    "iso8859-2": CENTRAL,
    "mac_roman": WESTERN,
    "cp850": WESTERN,
}
"""Code page -> the letters beyond ASCII of the languages that it is used for. Of equal scores the first one counts."""
WESTERN_RARE = "æœšžÿ"
"""Letters that Western European languages have, but seldom."""
CYRILLIC = "оеаинтсрвлкмдпуяыьі"
SCRIPTS = {
    "cp1251": ("CYRILLIC", CYRILLIC),
    "cp1253": ("GREEK", "αοιετσνηυρπκμλςάίόέή"),
    "cp1255": ("HEBREW", "יוהלאמרתבשנםכח"),
    "cp1256": ("ARABIC", "اليمونرتبةعدسفهكقأ"),
    "cp874": ("THAI", "านรอกเงมยลวดทสต่้ัีิ"),
    "koi8-r": ("CYRILLIC", CYRILLIC),
    "cp866": ("CYRILLIC", CYRILLIC),
}
"""Code page -> its script, as in Unicode's names of letters, and the letters that make up most of a text."""
MARKS = "“”„‘’‚‹›«»–—…•€£§°©®™¿¡½¼¾²³ªº´·×\u00a0"
"""Characters beyond ASCII that are no letters, and that texts have in any language."""
INSIDE_WORDS = "’´·\u00a0\u00ad"
"""Those of them that stand between letters."""


def code_page(data: bytes) -> str | None:
    """Return the encoding of a text that is not UTF-8 and has no byte order mark; None if none fits."""
    sample = bytearray()
    for line in data.splitlines():
        if not line.isascii():
            # Spaces and quotes are never half of a character.
            end = len(line) if len(line) <= SAMPLE_BYTES else max(line.rfind(mark, 0, SAMPLE_BYTES) for mark in b'" ')
            sample += line[: end + 1] + b"\n"
        if len(sample) >= SAMPLE_BYTES:
            break
    scores = {}
    for page in (*LATIN, *SCRIPTS, *EAST_ASIAN):
        try:
            text = sample.decode(page)
        except UnicodeDecodeError:
            continue
        if not any(unicodedata.category(each) in ("Cc", "Co", "Cn") for each in set(text) - set("\t\n\f")):
            scores[page] = _score(page, text)
    for page, score in sorted(scores.items(), key=lambda one: -one[1]):
        if score < LEAST_SCORE:
            break
        try:
            data.decode(page)
        except UnicodeDecodeError:
            continue
        return page
    return None


def _score(page: str, text: str) -> float:
    if page in LATIN:
        return _latin(text, LATIN[page])
    if page in SCRIPTS:
        return _script(text, *SCRIPTS[page])
    return EAST_ASIAN[page](text)


def _marks(text: str) -> list[float]:
    """Score the characters beyond ASCII that are no letters: known ones that stand where they can."""
    found = [place for place, each in enumerate(text) if each > "\x7f" and not _is_letter(each)]
    scores = []
    for place in found:
        between = text[max(place - 1, 0) : place].isalpha() and text[place + 1 : place + 2].isalpha()
        scores.append(float(text[place] in MARKS and (not between or text[place] in INSIDE_WORDS)))
    return scores


def _is_letter(character: str) -> bool:
    return character not in MARKS and unicodedata.category(character)[0] in "LM"


def _words(text: str) -> list[str]:
    return [word for word in re.findall(r"[^\W\d_ªº]+", text) if not word.isascii()]


def _latin(text: str, languages: dict[str, str]) -> float:
    """Score a text as one of a language that has a few letters beyond ASCII's."""
    letters, in_foreign = [], []
    for word in _words(text):
        foreign = len(word) > 2 and not any(map(str.isascii, word))  # rare; the rule for other scripts read as Latin
        for before, each in zip("\0" + word, word, strict=False):
            if each > "\x7f":
                letters.append("" if before.islower() and each.isupper() else each.lower())
                in_foreign.append(foreign)
    rare = WESTERN_RARE if languages is WESTERN else ""
    known = [[1.0 if each and each in own else _rare(each, rare) for each in letters] for own in languages.values()]
    every = "".join(languages.values())
    mixed = [
        0.0 if not each or foreign else SEVERAL_LANGUAGES if each in every else _rare(each, rare)
        for each, foreign in zip(letters, in_foreign, strict=True)
    ]
    marks = _marks(text)
    return (max(map(sum, [*known, mixed])) + sum(marks)) / max(len(letters) + len(marks), 1)


def _rare(letter: str, rare: str) -> float:
    return RARE if letter and letter in rare else 0.0


def _script(text: str, script: str, common: str) -> float:
    """Score a text as one of a script whose words hold no other letters."""
    scores = _marks(text)
    for word in re.findall(r"(?:[^\W\d_]|[\u0e30-\u0e4e])+", text):
        if word.isascii():
            continue
        pure = not any(each.isascii() for each in word)
        for before, each in zip("\0" + word, word, strict=False):
            if each.isascii():
                continue
            if not pure or not unicodedata.name(each, "").startswith(script) or (before.islower() and each.isupper()):
                scores.append(0.0)
            else:
                capitals = CAPITALS if before.isupper() and each.isupper() else 1.0
                scores.append(capitals * (1.0 if each.lower() in common else RARE))
    return sum(scores) / max(len(scores), 1)


def _of_bytes(encoding: str, common: range, seldom: float) -> Callable[[str], float]:
    """Make the score of an encoding by two bytes whose common characters begin with one of these bytes."""

    def score(text: str) -> float:
        scores = []
        for each in text:
            if each > "\x7f":
                try:
                    lead = each.encode(encoding)[0]
                except UnicodeEncodeError:  # one that only extensions of the encoding have
                    scores.append(0.0)
                else:
                    kana = "\u3040" <= each <= "\u30ff"
                    scores.append(0.2 if kana else 1.0 if lead in common or lead in range(0xA1, 0xA4) else seldom)
        return sum(scores) / max(len(scores), 1)

    return score


def _japanese(text: str) -> float:
    """Score a text as Japanese, which always has syllables between its other characters."""
    beyond = [each for each in text if each > "\x7f"]
    kana = sum("\u3040" <= each <= "\u30ff" for each in beyond)
    known = sum("\u3000" <= each <= "\u9fff" or "\uff00" <= each <= "\uff60" for each in beyond)
    return known / max(len(beyond), 1) if kana >= 0.15 * len(beyond) else 0.0


def _korean(text: str) -> float:
    """Score a text as Korean, which has hardly any Chinese characters any more."""
    beyond = [each for each in text if each > "\x7f"]
    known = sum("\uac00" <= each <= "\ud7a3" or each in MARKS or "\u3000" <= each <= "\u3015" for each in beyond)
    return known / max(len(beyond), 1)


EAST_ASIAN: dict[str, Callable[[str], float]] = {
    "cp932": _japanese,
    "euc_jp": _japanese,
    "cp949": _korean,
    "gb18030": _of_bytes("gb2312", range(0xB0, 0xD8), 0.3),
    "big5": _of_bytes("big5", range(0xA4, 0xC7), 0.3),
}
"""Encoding -> how well a text fits it. Common characters have the lower numbers in GB 2312 and in Big5."""
