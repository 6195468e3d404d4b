"""What a public page tells its visitors: whose is what, how long it is kept, what they may ask for. Empty on others."""

from html import escape

from steering.interface import html
from steering.interface.app_state import AppState
from steering.limits import duplicate_address, is_space

LOCAL = "Everything runs on this machine; nothing is sent anywhere."
PUBLIC = """Everything runs on {here}. What you upload, train and save there is yours alone: no other visitor sees it.
It is deleted {hours} hours after your last visit, or when {here} {ends}, so download what you want to keep. What you
write is answered and not stored. One visitor may have {limits}."""


def masthead_note(app: AppState) -> str:
    """Say in a line that others use the page, too."""
    if not app.is_public:
        return ""
    alone = f"what you make is yours alone, and kept for {_hours(app)} hours"
    return f'<p class="note">Shared page: {alone}.{_duplicate_link()}</p>'


def where_it_runs(app: AppState) -> str:
    """Say in Markdown where the page runs, what is kept there, and the limits."""
    if not app.is_public:
        return LOCAL
    ends = "falls asleep or is started anew" if is_space() else "stops sharing it"
    return PUBLIC.format(here=_here(), ends=ends, hours=_hours(app), limits=app.limits.words())


def training_note(app: AppState) -> str:
    """Say in HTML what one training may have."""
    limits = app.limits
    if not app.is_public or limits.pairs is None or limits.training_seconds is None:
        return ""
    words = f"{limits.pairs:,} pairs and {html.duration(limits.training_seconds)}; then the best so far is kept."
    return f'<p class="note">On this shared page a training may have {words}{_duplicate_link()}</p>'


def keeping_note(app: AppState) -> str:
    """Say in HTML how long a saved vector is kept, and what to do."""
    if not app.is_public:
        return ""
    ends = "or until this Space falls asleep" if is_space() else "or until the page is closed"
    return html.note(
        f"It is kept for {_hours(app)} hours after your last visit, {ends}: download it on the Vectors tab."
    )


def _here() -> str:
    return "this Space" if is_space() else "the machine of whoever shares this page"


def _hours(app: AppState) -> str:
    return f"{app.limits.visitor_hours or 0:g}"


def _duplicate_link() -> str:
    address = escape(duplicate_address())
    return f' <a href="{address}" target="_blank">Duplicate this Space</a> for one without limits.' if address else ""
