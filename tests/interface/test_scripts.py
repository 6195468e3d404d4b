"""The scripts in assets/: what they say to each other is declared in events.js."""

import re

from steering import paths

SCRIPTS = {path.name: path.read_text(encoding="utf-8") for path in paths.shipped("assets").glob("*.js")}


def uses(call: str) -> set[str]:
    return {name for text in SCRIPTS.values() for name in re.findall(rf"\b{call}\(EVENTS\.(\w+)", text)}


def test_every_declared_event_is_sent_and_heard_and_no_other() -> None:
    declared = set(re.findall(r"^  (\w+): '[a-z-]+',$", SCRIPTS["events.js"], re.MULTILINE))
    assert len(declared) == 8
    assert uses("emit") == uses("listen") == declared
    for name, text in SCRIPTS.items():
        if name != "events.js":
            assert "steering:" not in text.replace("'steering: the", ""), name


def test_a_script_says_what_it_is_for_in_its_first_line() -> None:
    assert all(text.startswith("// ") for text in SCRIPTS.values())
