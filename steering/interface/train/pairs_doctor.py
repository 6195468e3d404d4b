"""The doctor of step 1: what may be wrong with pairs that were read, and the setting that corrects it, on a button."""

import logging
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import gradio as gr

from steering.interface import html
from steering.interface.app_state import AppState
from steering.interface.train.setting_control import SettingControl, Values
from steering.interface.train.settings_step import SettingsStep
from steering.pairs.dataset import Pairs
from steering.pairs.lint import Finding, lint
from steering.pairs.schema import PreferencePair

MOST_BUTTONS = 3
"""Findings with a setting that get a button; few kinds of them have one."""
MOST_ROWS_NAMED, MOST_PAIRS_SHOWN = 8, 5
MOST_SHOWN = 120
"""Characters of each text of a pair that a finding shows."""

logger = logging.getLogger(__name__)


class PairsDoctor:
    """The list of findings with its buttons, laid out in the container that is open when it is made.

    Attributes:
        findings: the list (HTML).
        buttons: each takes over the settings of one finding; hidden while there is none.
        offered: the settings of each button (state).
    """

    def __init__(self) -> None:
        self.findings = gr.HTML(elem_id="pairs-findings", padding=False)
        with gr.Row(elem_id="doctor-buttons", visible=False) as self.row:
            self.buttons = [
                gr.Button(f"Correct {i}", size="sm", visible=False, elem_id=f"use-setting-{i}", min_width=120)
                for i in range(1, MOST_BUTTONS + 1)
            ]
        self.taken = gr.HTML(elem_id="setting-taken", padding=False)
        self.offered = gr.State(())

    @property
    def outputs(self) -> list[Any]:
        """All components that `examine` changes."""
        return [self.findings, self.row, *self.buttons, self.taken, self.offered]

    def examine(self, pairs: Pairs | None, app: AppState, settings_step: SettingsStep) -> dict[Any, Any]:
        """Return the updates that show what is found in the pairs."""
        found: list[Finding] = []
        try:
            found = list(lint(pairs, app.model)) if pairs else []
        except Exception:  # advice only: whatever goes wrong here, the pairs can be trained on
            logger.exception("the pairs could not be examined")
        offers = [(finding.settings, label) for finding in found if (label := _offer(finding.settings, settings_step))]
        offers = list({label: (settings, label) for settings, label in offers}.values())[:MOST_BUTTONS]
        labels = [label for _, label in offers] + [""] * (MOST_BUTTONS - len(offers))
        shown: dict[Any, Any] = {
            button: gr.update(value=label or "none", visible=bool(label))
            for button, label in zip(self.buttons, labels, strict=True)
        }
        return shown | {
            self.findings: findings_html(found, pairs) if pairs else "",
            self.row: gr.update(visible=bool(offers)),
            self.taken: "",
            self.offered: tuple(settings for settings, _ in offers),
        }

    def take(
        self, number: int, offered: Sequence[Mapping[str, Any]], settings_step: SettingsStep, values: Values
    ) -> dict[Any, Any]:
        """Put the settings of button `number` (from 0) into the controls of the chosen method."""
        if not number < len(offered):
            return {self.taken: ""}
        method = settings_step.chosen_method(values)
        controls = settings_step.controls[method.name]
        wanted = offered[number]
        if missing := [name for name in wanted if name not in controls]:
            lacking = missing[0].replace("_", " ")
            return {self.taken: html.problem(f"{method.label} has no setting {lacking}; choose another method first.")}
        said = ", ".join(f"{controls[name].spec.label} is now {_shown(value)}" for name, value in wanted.items())
        note = html.note(f"{said} (step 2, Advanced settings).")
        updates = {controls[name].component: _control_value(controls[name], value) for name, value in wanted.items()}
        return updates | {self.taken: note}


def findings_html(findings: Sequence[Finding], pairs: Pairs) -> str:
    """Render the findings, warnings first, each with the pairs it is about."""
    if not findings:
        return html.note("Checked for duplicates, answers of unequal length and the like: nothing found.")
    by_line = {pair.line: (row, pair) for row, pair in enumerate(pairs, start=1)}
    ordered = sorted(findings, key=lambda finding: finding.severity != "warning")
    items = "".join(_finding_html(finding, by_line) for finding in ordered)
    return f"<ul class='findings' aria-label='What may be wrong with the pairs'>{items}</ul>"


def _finding_html(finding: Finding, by_line: Mapping[int, tuple[int, PreferencePair]]) -> str:
    about = [by_line[line] for line in finding.lines if line in by_line]
    severity = "warning" if finding.severity == "warning" else "note"
    label = "Warning" if severity == "warning" else "Note"
    return (
        f"<li class='{severity}'><span class='severity'>{label}</span> {escape(finding.text)}{_pairs_html(about)}</li>"
    )


def _pairs_html(about: Sequence[tuple[int, PreferencePair]]) -> str:
    """Name the table's rows, and show the first pairs when unfolded."""
    if not about:
        return ""
    rows = ", ".join(str(row) for row, _ in about[:MOST_ROWS_NAMED])
    more = f" and {len(about) - MOST_ROWS_NAMED:,} more" if len(about) > MOST_ROWS_NAMED else ""
    shown = "".join(_table_row(row, pair) for row, pair in about[:MOST_PAIRS_SHOWN])
    head = "<thead><tr><th>row</th><th>prompt</th><th>chosen</th><th>rejected</th></tr></thead>"
    return (
        f"<details><summary>row{'s' * (len(about) > 1)} {rows}{more}</summary>"
        f"<div class='found-pairs'><table>{head}<tbody>{shown}</tbody></table></div></details>"
    )


def _table_row(row: int, pair: PreferencePair) -> str:
    texts = (pair.prompt, pair.chosen, pair.rejected)
    cells = "".join(f"<td dir='auto'>{escape(_short(text))}</td>" for text in texts)
    return f"<tr><th scope='row'>{row}</th>{cells}</tr>"


def _short(text: str) -> str:
    text = " ".join(text[: 4 * MOST_SHOWN].split())
    return text if len(text) <= MOST_SHOWN else text[:MOST_SHOWN].rstrip() + " …"


def _offer(settings: Mapping[str, Any], settings_step: SettingsStep) -> str:
    """Label the button for these settings; empty where no method on the page has them."""
    if not settings:
        return ""
    for controls in settings_step.controls.values():
        if all(name in controls for name in settings):
            parts = [f"“{controls[name].spec.label}” {_shown(value)}" for name, value in settings.items()]
            return f"Use {' and '.join(parts)}"
    return ""


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float | int) and not isinstance(value, bool) else str(value)


def _control_value(control: SettingControl, value: Any) -> Any:
    """Return the value in the form its control holds it in: a text box holds numbers as text."""
    if isinstance(control.component, gr.Textbox):
        return _shown(value)
    if isinstance(value, bool) and not isinstance(control.component, gr.Checkbox):
        return "yes" if value else "no"
    return value
