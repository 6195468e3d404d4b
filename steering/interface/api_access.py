"""Which visitor a program or an agent is, and what it may do on a public page.

A program keeps its own shelf for as long as it keeps its session (gradio_client does). Agents reach the page through
one client inside the server (gradio/mcp.py), whose session they share, so they see what everybody sees and keep
nothing, unless they show the owner's token, with which they have a shelf of their own.
"""

import hmac
import os
from typing import Any

import gradio as gr

from steering.errors import SteeringError
from steering.interface.public_visitors import Visitors
from steering.interface.runs import session_of
from steering.interface.visitors import OneVisitor, Visitor
from steering.limits import is_space

TOKEN_VARIABLE = "STEERING_API_TOKEN"
TOKEN_HEADER = "x-steering-token"
AGENT_HEADER, AGENT = "x-gradio-user", "mcp"
"""What gradio's own client sends with an agent's calls."""


def visitor_of_program(visitors: OneVisitor | Visitors, request: gr.Request | None) -> Visitor:
    """Return the visitor that a call of an endpoint belongs to."""
    if has_token(request):
        return visitors.of_program("token holder")
    if is_agent(request):
        return visitors.nobody()
    return visitors.of_program(session_of(request))


def check_may_train(visitors: OneVisitor | Visitors, request: gr.Request | None) -> None:
    """Raise SteeringError for an agent that would train on a public page without the owner's token."""
    if visitors.is_public and is_agent(request) and not has_token(request):
        raise SteeringError(
            f"Agents train here only with the owner's token in the header {TOKEN_HEADER!r}; use the page, or a "
            "playground of your own."
        )


def is_agent(request: gr.Request | None) -> bool:
    """Tell whether a call came through the Model Context Protocol."""
    return _header(request, AGENT_HEADER) == AGENT


def has_token(request: gr.Request | None) -> bool:
    """Tell whether a call shows the token that the page's owner set as STEERING_API_TOKEN."""
    token, shown = os.environ.get(TOKEN_VARIABLE, ""), _header(request, TOKEN_HEADER)
    return bool(token) and hmac.compare_digest(shown.encode(), token.encode())


def address_of(request: gr.Request | None) -> str:
    """Return the network address that a call comes from; empty where it is not known."""
    client = getattr(request, "client", None)
    forwarded = _header(request, "x-forwarded-for").partition(",")[0].strip() if is_space() else ""
    return forwarded or str(getattr(client, "host", "") or "")


def _header(request: Any, name: str) -> str:
    headers = getattr(request, "headers", None) or {}
    return str(headers.get(name, ""))
