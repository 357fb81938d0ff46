"""Requests that outlast a shaky network, and errors that say what to do about the others.

Enters: URLs. Leaves: answers; or an error that tells a server that refuses from one that fails.
"""

import logging
import re
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.auth import AuthBase

from bm import __version__
from bm.core.messages import DataError
from bm.studies.downloads.credentials import Anonymous, check_safe

logger = logging.getLogger(__name__)

N_TRIES = 5
TIMEOUT = (20.0, 60.0)
"""To connect, and between two bytes."""
TRANSIENT = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
)
REFUSALS = (401, 403, 407, 451)
BUSY = (429, 500, 502, 503, 504)
LONGEST_WAIT = 3700.0
"""Some services count requests by the hour."""
PAGE = re.compile(rb"\s*(<!--.*?-->\s*)*<(!doctype html|html|head|body|script)\b", re.I | re.S)
TITLE = re.compile(rb"<title[^>]*>(.*?)</title", re.I | re.S)


class DownloadError(DataError):
    """Files could not be downloaded: which, why, and what to do."""


class Refused(DownloadError):
    """The source wants a login, a token, or a person in front of a browser."""


class Stopped(Exception):
    """Transfers are to end: another one failed for good, or the user said so."""


class Client:
    """What all transfers of a download share.

    Parameters
    ----------
    patience : scale of the waits between tries.
    """

    def __init__(self, patience: float = 1.0):
        self.patience = patience
        self.stop = threading.Event()
        self._of_thread = threading.local()  # requests doesn't promise that threads can share one
        self._sessions: list[requests.Session] = []

    def get(
        self,
        url: str,
        auth: AuthBase | None = None,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: str | None = None,
        stream: bool = False,
    ) -> requests.Response:
        """Answer to a request, tried again while the server is busy or out of reach.

        Raises
        ------
        Refused : the server wants a login, or doesn't take this one.
        DownloadError : it can't be reached, can't be trusted, or has no such thing.
        """
        auth = auth or Anonymous()
        check_safe(url, auth)
        fault, wait = "", 0.0
        for n_tried in range(N_TRIES):
            if n_tried:
                logger.warning("%s: %s. Next try in %.0f s.", _shown(url), fault, wait)
                self.pause(wait)
            wait = 2.0**n_tried
            try:
                response = self._session().request(
                    method,
                    url,
                    auth=auth,
                    headers={"Accept-Encoding": "identity", **(headers or {})},
                    data=body,
                    stream=stream,
                    timeout=TIMEOUT,
                )
            except requests.exceptions.SSLError as error:
                raise DownloadError(
                    f"{_shown(url)}: its certificate isn't trusted ({reason(error)}). Behind a "
                    "proxy of your institute, set REQUESTS_CA_BUNDLE to its certificates."
                ) from error
            except TRANSIENT as error:
                fault = reason(error)
                continue
            except requests.RequestException as error:
                raise DownloadError(f"{_shown(url)}: {reason(error)}.") from error
            if response.status_code not in BUSY:
                _check(response)
                return response
            response.close()
            fault = f"it answers {response.status_code} {response.reason}"
            wait = _retry_after(response, wait)
        raise DownloadError(f"{_shown(url)}: {fault}, {N_TRIES} times.")

    def json(self, url: str, auth: AuthBase | None = None) -> Any:
        """Content of a JSON answer.

        Raises
        ------
        Refused : a web page came instead.
        """
        response = self.get(url, auth, headers={"Accept": "application/json"})
        refuse_page(url, response.content)
        try:
            return response.json()
        except ValueError as error:
            raise DownloadError(f"{_shown(url)}: the answer is no JSON.") from error

    def pause(self, seconds: float) -> None:
        """Wait, unless all is to stop."""
        if self.stop.wait(seconds * self.patience):
            raise Stopped

    def close(self) -> None:
        """Close all connections."""
        for session in self._sessions:
            session.close()

    def _session(self) -> requests.Session:
        if not hasattr(self._of_thread, "session"):
            self._of_thread.session = _Session()
            self._sessions.append(self._of_thread.session)
        session: requests.Session = self._of_thread.session
        return session


class _Session(requests.Session):
    def __init__(self) -> None:
        super().__init__()
        self.headers["User-Agent"] = f"bm/{__version__}"

    def rebuild_auth(
        self, prepared_request: requests.PreparedRequest, response: requests.Response
    ) -> None:
        """Take the login off a request that is sent on to another server, and add none.

        Raises
        ------
        DownloadError : it would go on without encryption.
        """
        before, after = response.request.url or "", prepared_request.url or ""
        if before.startswith("https:") and not after.startswith("https:"):
            raise DownloadError(
                f"{_shown(before)}: it sends on to {_shown(after)}, without encryption: not asked."
            )
        if self.should_strip_auth(before, after):
            prepared_request.headers.pop("Authorization", None)


def refuse_page(url: str, content: bytes) -> None:
    """Raise Refused if the content, or its beginning, is a web page."""
    if PAGE.match(content):
        title = TITLE.search(content)
        text = " ".join(title[1].decode(errors="replace").split()) if title else "no title"
        raise Refused(f"{_shown(url)}: a web page came instead of data ({text!r}).")


def total_size(response: requests.Response) -> int | None:
    """Size of the whole file, of which a part may have been asked for; None if it isn't told."""
    text = response.headers.get("Content-Length", "")
    if response.status_code != requests.codes.ok:
        text = response.headers.get("Content-Range", "").rpartition("/")[2]
    if response.headers.get("Content-Encoding", "identity") != "identity":
        return None
    return int(text) if text.isdecimal() else None


def reason(error: BaseException) -> str:
    """What a network error comes down to, without URLs, which can hold signatures."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    return f"{type(error).__name__}: {re.sub(r'https?://[^ ]+', '...', str(error))}"


def _check(response: requests.Response) -> None:
    code = response.status_code
    if code < 400 or code == requests.codes.requested_range_not_satisfiable:
        return
    response.close()
    fault = f"{_shown(response.url)}: it answers {code} {response.reason}"
    if code in REFUSALS:
        raise Refused(f"{fault}.")
    raise DownloadError(f"{fault}. If the files were moved, ask for a new list: refresh=true.")


def _retry_after(response: requests.Response, otherwise: float) -> float:
    text = response.headers.get("Retry-After", "")
    return min(float(text), LONGEST_WAIT) if text.isdecimal() else otherwise


def _shown(url: str) -> str:
    """A URL without what could be secret in it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
