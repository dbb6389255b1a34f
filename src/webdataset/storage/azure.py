"""Azure's blobs: `az://CONTAINER/BLOB` of the account that the environment names, or with the account in the url:

    az://CONTAINER@ACCOUNT.blob.core.windows.net/BLOB       abfs://CONTAINER@ACCOUNT.dfs.core.windows.net/BLOB
    az://ACCOUNT.blob.core.windows.net/CONTAINER/BLOB       (abfs and abfss are the same as az)

Rules: the name of a blob is taken as it is written. Keys and SAS tokens of the environment go to the account that it
names and to no other. Shared keys are used by us; azure-identity looks for tokens where there is neither key nor SAS.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, unquote, urlencode

from .._optional import require
from ..errors import OpenError, printable
from . import pages, sharedkey
from .azure_upload import AzureSteps
from .exchange import request
from .options import StorageOptions
from .pages import all_pages, listing_of, xml_of
from .target import Entry, Headers, Target
from .upload import Upload

_URL = re.compile(
    r"(?P<base>(?:az|abfss?)://(?:(?P<first>[^/@]+)@)?(?P<host>[^/@]+))(?:/(?P<path>.*))?", re.IGNORECASE | re.DOTALL
)
_CONTAINER = re.compile(r"\$?[a-z0-9][a-z0-9-]{2,62}")
VERSION = "2021-12-02"
SCOPE = "https://storage.azure.com/.default"
NEEDS = "finding Azure's credentials (public containers need none: set the storage option anonymous)"
HOW = "write az://CONTAINER/BLOB or az://CONTAINER@ACCOUNT.blob.core.windows.net/BLOB"

_NO_CREDENTIALS = (
    "no credentials were found (AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN, AZURE_STORAGE_CONNECTION_STRING, az login, "
    "an identity of the machine), so none were sent; the container is not public, or there is no such blob"
)
_ANONYMOUS = "no credentials were sent, as was asked; the container is not public, or there is no such blob"
MEANINGS = {
    "ContainerNotFound": "there is no container of this name; check it, and the account",
    "BlobNotFound": "the container has no such blob; check its name and the range of shard numbers",
    "AuthenticationFailed": "the key, the SAS token or the clock of this machine is wrong, or the token has run out",
    "AuthorizationFailure": "the key, the SAS token or the clock of this machine is wrong, or the account's network "
    "rules keep this machine out",
    "AuthorizationPermissionMismatch": "these credentials may not do it; the role Storage Blob Data Reader may read, "
    "Storage Blob Data Contributor may write",
    "KeyBasedAuthenticationNotPermitted": "the account takes no keys; unset AZURE_STORAGE_KEY and log in (az login)",
    "PublicAccessNotPermitted": "the account lets nobody in without credentials",
    "AccountIsDisabled": "the account is disabled",
    "BlobArchived": "the blob is archived; bring it back online first",
    "ServerBusy": "too many requests; read with fewer workers, or try again later",
}
"""Azure's error code -> what it means and what to do."""


@dataclass(frozen=True)
class Account:
    """Whose blobs, and what to show for it.

    Attributes:
        name: the account, None where nobody says.
        endpoint: the address before "/CONTAINER/BLOB".
        key: shared key.
        sas: query that grants access, without "?".
    """

    name: str | None = None
    endpoint: str | None = None
    key: bytes | None = field(default=None, repr=False)
    sas: str | None = field(default=None, repr=False)


def target_of(url: str, options: StorageOptions) -> Target:
    """The blob.

    Raises:
        OpenError: the url names no container or no blob, or nobody says of which account.
    """
    _, _, container, blob = parts(url)
    if not blob:
        raise OpenError(f"this is a container; {HOW}", url=url)
    return _target(url, f"/{container}/{quote(blob, safe='/~')}", options)


def open_write(url: str, options: StorageOptions) -> Upload:
    """A stream that becomes the blob when it is closed, in parts if it is large."""
    return Upload(AzureSteps(target_of(url, options), options))


def entries(url: str, options: StorageOptions) -> Iterator[Entry]:
    """The blobs whose url begins with this one."""
    base, _, container, prefix = parts(url)

    def page(mark: str | None) -> tuple[list[Entry], str | None]:
        query = {"restype": "container", "comp": "list", "maxresults": str(pages.PAGE), "prefix": prefix}
        if mark is not None:
            query["marker"] = mark
        target = _target(url, f"/{container}?{urlencode(query, quote_via=quote)}", options)
        listed = listing_of(request(target, "GET", options).body, url)
        found = []
        for item in listed.iter("Blob"):
            named = item.find("Name")
            name = "" if named is None else named.text or ""
            if named is not None and named.get("Encoded") == "true":
                name = unquote(name)
            if item.findtext("Properties/ResourceType") == "directory":
                continue
            etag = item.findtext("Properties/Etag") or item.findtext("Properties/ETag")
            etag = etag if etag is None or etag.startswith('"') else f'"{etag}"'
            found.append(Entry(f"{base}/{name}", int(item.findtext("Properties/Content-Length") or 0), etag))
        return found, listed.findtext("NextMarker")

    yield from all_pages(url, page)


def parts(url: str) -> tuple[str, str | None, str, str]:
    """The url up to the container, the host of the account (None: that of the environment), container and blob.

    >>> parts("az://data/a.tar"), parts("abfs://data@acc.dfs.core.windows.net/x/a.tar")[1:]
    (('az://data', None, 'data', 'a.tar'), ('acc.blob.core.windows.net', 'data', 'x/a.tar'))

    Raises:
        OpenError: it names no container.
    """
    match = _URL.fullmatch(url)
    if match is None:
        raise OpenError(HOW, url=url)
    base, container, host, path = match["base"], match["first"], match["host"], match["path"] or ""
    if container is None and "." not in host and ":" not in host:
        container, account = host, None
    else:
        account = re.sub(r"\.dfs\.", ".blob.", host, count=1)
        if container is None:
            container, _, path = path.partition("/")
            base = f"{base}/{container}"
    if not _CONTAINER.fullmatch(container):
        raise OpenError(f"{printable(container, 80)!r} is no name of a container; {HOW}", url=url)
    return base, account, container, path


def account_of(url: str, options: StorageOptions) -> Account:
    """The account of a url, with the credentials of the environment if they are that account's.

    Raises:
        OpenError: nobody says which account, or what the environment says makes no sense.
    """
    known = _account_of_environment(url)
    host = parts(url)[1]
    if host is not None:
        name = host.partition(".")[0]
        mine = known.name in (None, name)
        known = replace(known if mine else Account(), name=name, endpoint=f"https://{host}")
    endpoint = options.endpoint or known.endpoint
    if endpoint is None:
        if known.name is None:
            raise OpenError(f"set AZURE_STORAGE_ACCOUNT to the account of the container, or {HOW}", url=url)
        endpoint = f"https://{known.name}.blob.core.windows.net"
    known = replace(known, endpoint=endpoint.rstrip("/"))
    return replace(known, key=None, sas=None) if options.anonymous else known


def _account_of_environment(url: str) -> Account:
    """What AZURE_STORAGE_... say; a connection string wins."""
    given = os.environ.get
    told = dict(
        part.split("=", 1) for part in (given("AZURE_STORAGE_CONNECTION_STRING") or "").split(";") if "=" in part
    )
    if told:
        name, key, sas = told.get("AccountName"), told.get("AccountKey"), told.get("SharedAccessSignature")
        endpoint = told.get("BlobEndpoint")
        if endpoint is None and name is not None:
            suffix = told.get("EndpointSuffix", "core.windows.net")
            endpoint = f"{told.get('DefaultEndpointsProtocol', 'https')}://{name}.blob.{suffix}"
    else:
        name, key = given("AZURE_STORAGE_ACCOUNT"), given("AZURE_STORAGE_KEY")
        sas, endpoint = given("AZURE_STORAGE_SAS_TOKEN"), given("AZURE_STORAGE_SERVICE_ENDPOINT")
    try:
        decoded = base64.b64decode(key, validate=True) if key else None
    except binascii.Error:
        raise OpenError("the key of the storage account (AZURE_STORAGE_KEY) is no base64", url=url) from None
    return Account(name or None, endpoint or None, decoded, (sas or "").lstrip("?") or None)


def _target(url: str, path: str, options: StorageOptions) -> Target:
    account = account_of(url, options)
    name = account.name

    def sign(method: str, address: str, headers: Headers) -> tuple[str, Headers]:
        sent = {**headers, "x-ms-version": VERSION}
        if account.key is not None and name is not None:
            return address, sharedkey.signed(name, account.key, method, address, sent, datetime.now(UTC))
        if account.sas is not None:
            return f"{address}{'&' if '?' in address else '?'}{account.sas}", sent
        token = None if options.anonymous else _token(url)
        return address, sent if token is None else {**sent, "Authorization": f"Bearer {token}"}

    def explain(status: int, headers: Headers, body: bytes) -> str | None:
        told = xml_of(body)
        code = headers.get("x-ms-error-code") or (told.findtext("Code") if told is not None else None) or ""
        unsigned = account.key is None and account.sas is None and (options.anonymous or _token(url) is None)
        if unsigned and (status in (401, 403, 409) or code in ("ResourceNotFound", "PublicAccessNotPermitted")):
            return _ANONYMOUS if options.anonymous else _NO_CREDENTIALS
        if code in MEANINGS or status in (412, 416):
            return MEANINGS.get(code)
        return f"Azure says {printable(code, 60)}" if code else None

    return Target(url, f"{account.endpoint}{path}", sign, explain)


_tokens: dict[tuple[Any, ...], Any] = {}
"""(process, state of the environment) -> [credential of azure-identity, its last token], or None: it found nothing."""


def _token(url: str) -> str | None:
    """A token that is good for the next minutes, None where azure-identity finds no credentials."""
    names = ("AZURE_", "IDENTITY_", "MSI_", "IMDS_", "HOME", "PATH")
    key = (os.getpid(), *sorted(item for item in os.environ.items() if item[0].startswith(names)))
    if key not in _tokens:
        for other in [other for other in _tokens if other[0] != key[0]]:
            _tokens.pop(other, None)  # inherited through a fork
        identity = require("azure.identity", "azure-identity", NEEDS)
        _tokens[key] = [identity.DefaultAzureCredential(), None]
    found = _tokens[key]
    if found is None:
        return None
    credential, token = found
    if token is None or token.expires_on < time.time() + 300:
        exceptions = require("azure.core.exceptions", "azure-identity", NEEDS)
        try:
            found[1] = fresh = credential.get_token(SCOPE)
        except exceptions.AzureError as exn:
            if token is None:
                _tokens[key] = None
                return None
            if token.expires_on > time.time():
                return str(token.token)
            text = " ".join(str(exn).split())
            raise OpenError(f"Azure's credentials cannot be renewed: {printable(text, 200)}", url=url) from None
        token = fresh
    return str(token.token)
