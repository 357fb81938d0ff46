"""Logins and tokens, from the environment or ``~/.netrc``: never from a command line or a URL."""

import os
from urllib.parse import urlsplit

from requests import PreparedRequest
from requests.auth import AuthBase, HTTPBasicAuth
from requests.utils import get_netrc_auth

from bm.core.messages import DataError

LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Anonymous(AuthBase):
    """No login: without it, requests sends what ``~/.netrc`` has for the server."""

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Leave the request as it is."""
        return request


class Token(AuthBase):
    """A bearer token."""

    def __init__(self, token: str):
        self._header = f"Bearer {token}"

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Add the token to a request."""
        request.headers["Authorization"] = self._header
        return request


def find_token(variable: str) -> Token | None:
    """Token in an environment variable, if it is set.

    Raises
    ------
    DataError : it can't be a token. Its value isn't shown.
    """
    token = os.environ.get(variable, "").strip()
    if not token:
        return None
    if not token.isascii() or not token.isprintable() or " " in token:
        raise DataError(f"The environment variable {variable} holds no token: blanks or worse.")
    return Token(token)


def find_login(user_variable: str, password_variable: str, url: str) -> HTTPBasicAuth | None:
    """User and password from two environment variables or, for this server, ``~/.netrc``."""
    user, password = os.environ.get(user_variable), os.environ.get(password_variable)
    if not (user and password):
        user, password = get_netrc_auth(url) or (None, None)
    if not (user and password):
        return None
    return HTTPBasicAuth(user.encode(), password.encode())


def check_safe(url: str, auth: AuthBase) -> None:
    """Raise a DataError if credentials would travel in the open, or stand in a URL."""
    parts = urlsplit(url)
    if parts.username or parts.password:
        raise DataError(
            f"The URL for {parts.hostname} holds a login, which would end up in logs. Leave it "
            "out, and use the environment or ~/.netrc (docs/downloads.md)."
        )
    is_open = parts.scheme != "https" and parts.hostname not in LOOPBACK
    if is_open and not isinstance(auth, Anonymous):
        raise DataError(f"No login is sent to {parts.hostname} without encryption: use https.")
