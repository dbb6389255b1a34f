"""Amazon S3 and the servers that speak its language: `s3://BUCKET/KEY`, signed anew for each request.

Rules: a key is taken as it is written, `?` and `%` too. Without credentials requests go out unsigned, as public
buckets allow. The region of a bucket is learned from the answer that says the request came to the wrong one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from urllib.parse import quote, unquote_plus, urlencode, urlsplit

from ..errors import OpenError, printable
from . import aws, pages, sigv4
from .exchange import request
from .options import StorageOptions
from .pages import all_pages, listing_of, xml_of
from .s3_upload import S3Steps
from .target import Entry, Headers, Target
from .upload import Upload

_URL = re.compile(r"s3://(?P<bucket>[A-Za-z0-9][A-Za-z0-9._-]{1,254})(?:/(?P<key>.*))?", re.IGNORECASE | re.DOTALL)
_REGION = re.compile(r"[a-z]{2,}(-[a-z0-9]+)+")
_HOST_WITH_REGION = re.compile(r"\bs3[.-](?:dualstack\.)?([a-z]{2,}-[a-z0-9-]+-\d+)\.amazonaws\.com")
_NAME_OF_A_HOST = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
USUAL_REGION = "us-east-1"

_NEW_KEYS = "get new ones (aws sso login, a new AWS_SESSION_TOKEN, ...)"
_UNSIGNED = (
    "no credentials were found (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, a role), so the request was "
    "not signed"
)
MEANINGS = {
    "ExpiredToken": f"the credentials have run out; {_NEW_KEYS}",
    "TokenRefreshRequired": f"the credentials have run out; {_NEW_KEYS}",
    "InvalidToken": f"the session token (AWS_SESSION_TOKEN) is not accepted; {_NEW_KEYS}",
    "InvalidAccessKeyId": "the access key is not known; check AWS_ACCESS_KEY_ID or the profile, and the endpoint",
    "SignatureDoesNotMatch": "the secret key is not the one of this access key; check AWS_SECRET_ACCESS_KEY",
    "RequestTimeTooSkewed": "the clock of this machine is wrong; set it",
    "NoSuchBucket": "there is no bucket of this name; check it, and the endpoint",
    "NoSuchKey": "the bucket has no such object; check the key and the range of shard numbers",
    "AccessDenied": "these credentials may not read it, or may not learn that it is not there; check the policy, or "
    "set the storage option anonymous for a public bucket",
    "AllAccessDisabled": "the bucket is closed for everybody",
    "InvalidObjectState": "the object is archived; restore it first",
    "SlowDown": "too many requests; read with fewer workers, or try again later",
}
"""Code of S3's error -> what it means and what to do."""


def target_of(url: str, options: StorageOptions) -> Target:
    """The object.

    Raises:
        OpenError: the url names no bucket, or no key.
    """
    bucket, key = _parts(url)
    if not key:
        raise OpenError("this is a bucket; write s3://BUCKET/KEY", url=url)
    return Bucket(url, bucket, options).target(quote(key, safe="/~"))


def open_write(url: str, options: StorageOptions) -> Upload:
    """A stream that becomes the object, in parts if it is large."""
    return Upload(S3Steps(target_of(url, options), options))


def entries(url: str, options: StorageOptions) -> Iterator[Entry]:
    """The objects whose url begins with this one, by ListObjectsV2."""
    name, prefix = _parts(url)
    bucket = Bucket(url, name, options)
    scheme = url[: len("s3")]

    def page(mark: str | None) -> tuple[list[Entry], str | None]:
        query = {"list-type": "2", "encoding-type": "url", "max-keys": str(pages.PAGE), "prefix": prefix}
        if mark is not None:
            query["continuation-token"] = mark
        listed = listing_of(request(bucket.target(query=query), "GET", options).body, url)
        coded = listed.findtext("EncodingType") == "url"
        found = []
        for item in listed.iter("Contents"):
            key = item.findtext("Key") or ""
            key = unquote_plus(key) if coded else key
            found.append(Entry(f"{scheme}://{name}/{key}", int(item.findtext("Size") or 0), item.findtext("ETag")))
        return found, listed.findtext("NextContinuationToken")

    yield from all_pages(url, page)


class Bucket:
    """A bucket, as one reader or writer asks for it.

    Attributes:
        region: the one that signatures name; learned where it was wrong.
    """

    def __init__(self, url: str, name: str, options: StorageOptions) -> None:
        self.url, self.name = url, name
        self._anonymous = options.anonymous
        self._account = aws.account(options.anonymous)
        endpoint = options.endpoint or self._account.endpoint
        self._endpoint = endpoint if endpoint is None or "://" in endpoint else f"https://{endpoint}"
        self.region = _regions.get((self._endpoint, name)) or self._account.region or USUAL_REGION
        self._signed = False

    def target(self, path: str = "", query: dict[str, str] | None = None) -> Target:
        """The bucket itself, or the object of a quoted path, with a query such as {"uploads": ""}."""
        address = f"{self._base()}/{path}"
        if query:
            address += "?" + urlencode(query, quote_via=quote, safe="-_.~")
        return Target(self.url, address, self.sign, self.explain, self.learn, redirected=self._endpoint is not None)

    def sign(self, method: str, address: str, headers: Headers) -> tuple[str, Headers]:
        """The request at the server of the region that is known now, signed if there are credentials."""
        parts = urlsplit(address)
        base = urlsplit(self._base())
        address = parts._replace(netloc=base.netloc).geturl()
        keys = aws.keys(self._account, self.url)
        self._signed = keys is not None
        if keys is None:
            return address, headers
        return address, sigv4.signed(keys, self.region, method, address, headers, datetime.now(UTC))

    def explain(self, status: int, headers: Headers, body: bytes) -> str | None:
        """What S3's refusal means."""
        told = xml_of(body)
        code, said = ("", "") if told is None else (told.findtext(name) or "" for name in ("Code", "Message"))
        region = _region_in(headers, body)
        if region is not None and region != self.region:
            return f"the bucket is in the region {region}, not {self.region}; set AWS_DEFAULT_REGION={region}"
        if status in (401, 403) and not self._signed:
            asked = "the request was not signed, as the option anonymous asks" if self._anonymous else _UNSIGNED
            return f"{asked}; the bucket is not public, or there is no such object"
        if code in MEANINGS or status in (412, 416):
            return MEANINGS.get(code)
        if code:
            return f"S3 says {printable(code, 60)}: {printable(said, 200)}"
        return _WITHOUT_WORDS.get(status)

    def learn(self, status: int, headers: Headers, body: bytes) -> bool:
        """Take the region from a refusal; look for newer credentials where these are not accepted."""
        region = _region_in(headers, body) if status in (301, 307, 400) else None
        if region is not None and region != self.region:
            self.region = _regions[self._endpoint, self.name] = region
            return True
        told = xml_of(body)
        code = None if told is None else told.findtext("Code")
        if not self._signed or not (code in _OLD_KEYS or (not body and status in (400, 403))):
            return False
        old = aws.keys(self._account, self.url)
        aws.forget()
        self._account = aws.account(self._anonymous)
        return aws.keys(self._account, self.url) != old

    def _base(self) -> str:
        """The address of the bucket, without a slash at its end."""
        ending = "amazonaws.com.cn" if self.region.startswith("cn-") else "amazonaws.com"
        endpoint = (self._endpoint or f"https://s3.{self.region}.{ending}").rstrip("/")
        style = self._account.style
        if style == "auto":
            style = "virtual" if self._endpoint is None and _NAME_OF_A_HOST.fullmatch(self.name) else "path"
        return f"{endpoint}/{self.name}" if style == "path" else endpoint.replace("://", f"://{self.name}.", 1)


_regions: dict[tuple[str | None, str], str] = {}
"""(endpoint, bucket) -> region, where it was learned."""

_OLD_KEYS = {"ExpiredToken", "InvalidToken", "TokenRefreshRequired", "InvalidAccessKeyId"}
_WITHOUT_WORDS = {
    400: "the request is not accepted: the credentials may have run out, or the region may be another",
    403: MEANINGS["AccessDenied"],
}
"""Status -> meaning, for answers to HEAD, which have no body."""


def _parts(url: str) -> tuple[str, str]:
    """Bucket and key; the key may be empty."""
    match = _URL.fullmatch(url)
    if match is None:
        raise OpenError("write s3://BUCKET/KEY; credentials come from the environment, not from the url", url=url)
    return match["bucket"], match["key"] or ""


def _region_in(headers: Headers, body: bytes) -> str | None:
    """The region of the bucket, as a refusal tells it."""
    told = xml_of(body)
    said = headers.get("x-amz-bucket-region") or (told.findtext("Region") if told is not None else None)
    if not said:
        endpoint = (told.findtext("Endpoint") if told is not None else None) or headers.get("Location", "")
        match = _HOST_WITH_REGION.search(endpoint)
        said = match[1] if match else None
    return said if said and _REGION.fullmatch(said) else None  # it becomes part of a host's name
