"""What files and people bring is escaped before it reaches the page."""

from steering.interface import html
from steering.pairs.dataset import parse_pairs

EVIL = "<img src=x onerror=alert(1)>"


def test_html_in_files_stays_text() -> None:
    text = f'prompt,chosen,rejected\n{EVIL},a,b\n"{EVIL}",a,b\nq,{EVIL},{EVIL}\n'
    page = html.report(parse_pairs(text, source=EVIL).report)
    assert "<img" not in page and "&lt;img" in page
    assert "<img" not in html.problem(EVIL) and "<img" not in html.note(EVIL)
    assert "<img" not in html.progress_bar(0.5, EVIL)


def test_a_table_of_somebody_elses_making_does_no_harm() -> None:
    assert html.results_table([{"multiplier": EVIL}, {}, {"multiplier": 1}]) == ""
    row = {"multiplier": 1, "preference_accuracy": 0.5, "preference_margin": -2.0}
    assert "<th scope='row'>+1</th>" in html.results_table([row]) and "50 %" in html.results_table([row])


def test_durations_read_well() -> None:
    assert [html.duration(s) for s in (4, 89, 600, 7500)] == ["4 s", "89 s", "10 min", "2 h 5 min"]
    assert [html.roughly(s) for s in (3, 47, 84, 87, 150)] == ["10 s", "50 s", "80 s", "2 min", "2 min"]
