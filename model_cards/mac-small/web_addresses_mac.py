"""Addresses as people write them, made into requests: letters of any language, spaces, a name with its password."""

import base64
import re
import string
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urlsplit, urlunsplit


USER_AGENT = "mamba-audio-captioning"
OF_OTHER_PARTS = re.compile(r"[\s/?#@\\:]")  # characters that would end a host, or begin another part


def is_web_address(source: str) -> bool:
    """Whether a source is looked for on a web server."""
    return source.lower().startswith(("http://", "https://"))


def make_request(url: str) -> urllib.request.Request:
    """
    Make the request for an `http://` or `https://` address, which is written as browsers do (hosts by IDNA 2003).

    A name and its password go into a header that urllib sends to this address alone.

    Raises:
        ValueError: The address names no host, or no port; the message does not repeat the address.
    """
    parts = urlsplit(url)
    request = urllib.request.Request(quote_address(parts), headers={"User-Agent": USER_AGENT})
    if parts.username is not None:
        account = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        request.add_unredirected_header("Authorization", f"Basic {base64.b64encode(account.encode()).decode()}")
    return request


def quote_address(parts: SplitResult) -> str:
    """Write an address in ASCII without its account; what is quoted already (`%20`) stays as it is."""
    name = unquote(parts.hostname or "")
    try:
        host = name.encode("idna").decode()
    except UnicodeError:
        host = ""
    in_brackets = "[" in parts.netloc  # as an IPv6 address is, with colons of its own
    if not host or (not in_brackets and OF_OTHER_PARTS.search(host)):
        raise ValueError(f"{name!r} is no name of a host")
    place = (f"[{host}]" if in_brackets else host) + ("" if parts.port is None else f":{parts.port}")
    # A name of a file may be bytes that are no UTF-8.
    path, query = (
        quote(part, safe=string.punctuation, errors="surrogateescape") for part in (parts.path, parts.query)
    )
    return urlunsplit((parts.scheme, place, path, query, ""))


class Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to addresses such as `make_request` takes; a password is sent on to its own server alone."""

    def redirect_request(self, request: Any, file: Any, code: int, message: str, headers: Any, url: str) -> Any:
        try:
            onward = make_request(url)
        except ValueError as error:
            raise urllib.error.URLError(f"a redirect: {error}") from error
        account = request.get_header("Authorization")
        # Not by `type` and `host`, which are a proxy's where there is one.
        if account and not onward.has_header("Authorization") and origin(onward) == origin(request):
            onward.add_unredirected_header("Authorization", account)
        return onward


def origin(request: urllib.request.Request) -> tuple[str, str]:
    """The scheme of the address that is asked for, and its host and port."""
    parts = urlsplit(request.full_url)
    return parts.scheme.lower(), parts.netloc.lower()


def hide_password(source: str) -> str:
    """Put stars for the password of an address, for messages; anything else is returned unchanged."""
    return re.sub(r"^(https?://[^/?#:]*):[^/?#]*@", r"\1:***@", source, flags=re.IGNORECASE)


__all__ = ["Redirects", "hide_password", "is_web_address", "make_request"]
