"""A visitor who signed in with a Hugging Face account: the shelf is the account's, in every browser."""

import hashlib
import json
import time
from base64 import b64encode
from collections.abc import Iterator

import pytest
from itsdangerous import TimestampSigner

from steering.interface import app as app_module
from steering.limits import Limits
from tests.generation.test_stream import vector
from tests.interface.public_page import PublicPage, public_page
from tests.raw_client import RawClient
from tests.tiny_models import tiny_model


@pytest.fixture
def page(tmp_path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PublicPage]:
    """A page that offers to sign in, as on a Space with hf_oauth; the Hub itself is not asked."""
    monkeypatch.setattr(app_module, "is_space", lambda: True)
    monkeypatch.setenv("OAUTH_CLIENT_ID", "an id")
    monkeypatch.setattr("gradio.oauth._get_mocked_oauth_info", lambda: {})  # off a Space it asks the Hub who we are
    with public_page(tiny_model(), tmp_path, Limits.public()) as page:
        yield page


def signed_in(address: str, sub: str, name: str) -> RawClient:
    """A browser with the cookie that gradio sets once the Hub has vouched for somebody (gradio/oauth.py, 6.31)."""
    userinfo = {"sub": sub, "name": name, "preferred_username": name, "profile": "", "picture": ""}
    token = {"userinfo": userinfo, "access_token": "t", "scope": "openid", "expires_at": time.time() + 3600}
    secret = hashlib.sha256(b"-v4").hexdigest()
    cookie = TimestampSigner(secret).sign(b64encode(json.dumps({"oauth_info": token}).encode())).decode()
    client = RawClient(address)
    client.http.headers["cookie"] = f"session={cookie}"
    return client.enter()


def test_an_account_finds_its_shelf_in_any_browser_and_no_other_account_does(page: PublicPage) -> None:
    first, second = signed_in(page.address, "12", "ada"), signed_in(page.address, "12", "ada")
    other, nobody = signed_in(page.address, "34", "bob"), RawClient(page.address).enter()
    visitors = [page.app.visitors.of_session(each.session) for each in (first, second, other, nobody)]
    assert visitors[0] is visitors[1] and len({each.id for each in visitors}) == 3
    visitors[0].library.add(vector(1, name="of ada"))
    listed = [str(each.call(each.named("list_vectors"), [])) for each in (first, second, other, nobody)]
    assert ["of-ada" in text for text in listed] == [True, True, False, False]
    assert first.component("login")


def test_a_forged_cookie_is_nobody(page: PublicPage) -> None:
    owner = signed_in(page.address, "12", "ada")
    forged = RawClient(page.address)
    forged.http.headers["cookie"] = "session=" + b64encode(b'{"oauth_info": {"userinfo": {"sub": "12"}}}').decode()
    forged.enter()
    visitors = page.app.visitors
    assert visitors.of_session(forged.session) is not visitors.of_session(owner.session)
