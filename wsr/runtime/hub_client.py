"""Keeps the client of the Hugging Face hub from waiting for minutes on a hub that does not answer.

The client retries up to five times, with longer and longer pauses, and some of its requests have no time limit. Inside
``watched`` it still retries, but gives up once a request has failed for ``PATIENCE`` seconds.
"""

import importlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

PATIENCE = 5.0
"""Time for which failing requests are repeated, in seconds."""
SILENCE = 6.0
"""Longest wait for the next byte, in seconds."""
REPEATED = (429, 500, 502, 503, 504)
"""Answers after which a request is repeated: too many requests, and faults of the server."""
RESTARTS = 3
"""How often a broken download may begin again at its first byte."""


class HubUnavailable(Exception):
    """The hub does not answer, or only with errors. The message says which.

    Args:
      reason: what the hub did.
      passing: whether asking again in a few seconds may help.
    """

    def __init__(self, reason: str, *, passing: bool = False):
        super().__init__(reason)
        self.passing = passing


class Watch:
    """What the requests of the hub's client met.

    Retries happen in the thread of the first request, so each thread is judged by itself.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        """Why the client gave up; None if it did not."""
        self._thread = threading.local()

    def on_request(self, request: Any) -> None:
        """Gives up, or limits how long the request may wait."""
        since = self._since
        if since is not None and time.monotonic() - since > PATIENCE:
            self.give_up(getattr(self._thread, "status", None) or "it did not answer")
        if since is None:
            self._since = time.monotonic()
        request.extensions["timeout"] = dict.fromkeys(("connect", "read", "write", "pool"), SILENCE)

    def on_response(self, response: Any) -> None:
        """Notes a failure, or follows the body of the answer."""
        if response.status_code in REPEATED:
            told = unavailable(response)
            self._thread.status = str(told)
            if not told.passing:
                self.give_up(str(told))
            return
        if "Range" in response.request.headers and response.status_code == 200:
            restarts = self._thread.__dict__.setdefault("restarts", Counter())
            restarts[str(response.request.url)] += 1
            if restarts[str(response.request.url)] > RESTARTS:
                self.give_up("it broke off again and again in the middle of a file")
        self.heard()
        response.stream = _followed(response, self)

    def heard(self) -> None:
        """Notes that the hub is sending."""
        self._since, self._thread.status, self._thread.last = None, None, time.monotonic()

    def broke_off(self) -> None:
        """Notes that the hub stopped in the middle of an answer."""
        self._since, self._thread.status = self._thread.last, "it stopped in the middle of a file"

    def give_up(self, reason: str) -> None:
        """Ends the client's retries."""
        self.reason = reason
        raise HubUnavailable(reason)

    @property
    def _since(self) -> float | None:
        """Start of the requests that failed since the hub last sent something."""
        return getattr(self._thread, "since", None)

    @_since.setter
    def _since(self, value: float | None) -> None:
        self._thread.since = value


def unavailable(response: Any) -> HubUnavailable:
    """Returns in words what the hub answered in place of what was asked for."""
    told = f"it answered {response.status_code} {response.reason_phrase}".rstrip()
    wait = response.headers.get("Retry-After", "")
    if wait.isdecimal() and int(wait) > PATIENCE:
        return HubUnavailable(f"{told} and asked to wait {wait} seconds")
    return HubUnavailable(told, passing=response.status_code in REPEATED)


@contextmanager
def watched() -> Iterator[Watch]:
    """Makes the hub's client give up in seconds on a hub that does not answer.

    Yields:
      What the requests met.
    """
    import huggingface_hub

    watch = Watch()
    if not hasattr(huggingface_hub, "set_client_factory"):  # before version 1 its clients cannot be followed
        yield watch
        return
    from huggingface_hub.utils import _http

    usual = _http._GLOBAL_CLIENT_FACTORY

    def client() -> Any:
        made = usual()
        hooks = made.event_hooks
        made.event_hooks = {
            "request": [*hooks["request"], watch.on_request],
            "response": [*hooks["response"], watch.on_response],
        }
        return made

    # The client's faster protocol for large files passes all of this by.
    xet = huggingface_hub.constants.HF_HUB_DISABLE_XET
    huggingface_hub.constants.HF_HUB_DISABLE_XET = True
    huggingface_hub.set_client_factory(client)
    try:
        yield watch
    finally:
        huggingface_hub.constants.HF_HUB_DISABLE_XET = xet
        huggingface_hub.set_client_factory(usual)


def _followed(response: Any, watch: Watch) -> Any:
    """Returns the body of an answer that tells ``watch`` of each piece that arrives."""
    # The client's library is httpx or httpx2, depending on its version.
    library = importlib.import_module(type(response).__module__.partition(".")[0])
    body = response.stream

    class Followed(library.SyncByteStream):  # type: ignore[name-defined]
        def __iter__(self) -> Iterator[bytes]:
            try:
                for piece in body:
                    watch.heard()
                    yield piece
            except library.TransportError:
                watch.broke_off()
                raise

        def close(self) -> None:
            body.close()

    return Followed()
