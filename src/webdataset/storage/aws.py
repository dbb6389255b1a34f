"""What AWS's own tools know here: credentials, region, endpoint, way of addressing; botocore looks them up.

Rules: one account for each process and each state of the AWS_... variables. Sessions that renew their credentials do so
when `keys` is asked, which is before each request. Without botocore the variables of the environment count alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from .._optional import require
from ..errors import MissingDependencyError, OpenError
from .sigv4 import Keys

NEEDS = "finding AWS credentials (public buckets need none: set the storage option anonymous)"


class Account(NamedTuple):
    """Who asks S3, and where.

    Attributes:
        credentials: what botocore gives, `Keys` from the environment, or None.
        region: None where nobody says.
        endpoint: server instead of Amazon's, None for that.
        style: "path" or "virtual" where the profile says so, else "auto".
    """

    credentials: Any = None
    region: str | None = None
    endpoint: str | None = None
    style: str = "auto"


_accounts: dict[tuple[Any, ...], Account] = {}


def account(anonymous: bool) -> Account:
    """The account of this process, looked up once; without credentials if it is to be anonymous.

    Raises:
        MissingDependencyError: there are no keys in the environment, and no botocore to look elsewhere.
        OpenError: botocore cannot make sense of what it finds.
    """
    state = sorted(item for item in os.environ.items() if item[0].startswith("AWS_"))
    key = (os.getpid(), anonymous, tuple(state))
    found = _accounts.get(key)
    if found is None:
        for other in [other for other in _accounts if other[0] != key[0]]:
            _accounts.pop(other, None)  # inherited through a fork: its locks may be held by threads of the parent
        found = _accounts.setdefault(key, _look_up(anonymous))
    return found


def forget() -> None:
    """Look everything up anew: the files that the credentials came from may hold others by now."""
    _accounts.clear()


def keys(of: Account, url: str) -> Keys | None:
    """The keys to sign with now, renewed where they run out; None where there are none.

    Raises:
        OpenError: they cannot be renewed: a sign-on has ended, a service does not answer.
    """
    if of.credentials is None or isinstance(of.credentials, Keys):
        return of.credentials
    exceptions = require("botocore.exceptions", "botocore", NEEDS)
    try:
        frozen = of.credentials.get_frozen_credentials()
    except exceptions.BotoCoreError as exn:
        raise OpenError(f"the AWS credentials cannot be renewed: {_one_line(exn)}", url=url) from None
    return Keys(frozen.access_key, frozen.secret_key, frozen.token)


def _look_up(anonymous: bool) -> Account:
    environment = _from_environment()
    try:
        session = require("botocore.session", "botocore", NEEDS).get_session()
    except MissingDependencyError:
        if anonymous or environment.credentials is not None:
            return environment._replace(credentials=None) if anonymous else environment
        raise
    exceptions = require("botocore.exceptions", "botocore", NEEDS)
    try:
        profile = session.get_scoped_config()
        return Account(
            None if anonymous else session.get_credentials(),
            environment.region or profile.get("region"),
            environment.endpoint or _configured_endpoint(profile, session.full_config),
            _section(profile, "s3").get("addressing_style", "auto"),
        )
    except exceptions.BotoCoreError as exn:
        raise OpenError(f"the AWS configuration cannot be used: {_one_line(exn)}") from None


def _from_environment() -> Account:
    """What the variables of the environment say."""
    access, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    found = Keys(access, secret, os.environ.get("AWS_SESSION_TOKEN") or None) if access and secret else None
    region = os.environ.get("AWS_DEFAULT_REGION") or os.environ.get("AWS_REGION") or None
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None
    return Account(found, region, None if _endpoints_ignored() else endpoint)


def _configured_endpoint(profile: Mapping[str, Any], whole: Mapping[str, Any]) -> str | None:
    """`endpoint_url` of the profile's section for S3, else of the profile."""
    if _endpoints_ignored() or profile.get("ignore_configured_endpoint_urls", "").lower() == "true":
        return None
    services = _section(whole.get("services", {}), profile.get("services", ""))
    return _section(services, "s3").get("endpoint_url") or profile.get("endpoint_url")


def _section(of: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = of.get(name)
    return found if isinstance(found, Mapping) else {}


def _endpoints_ignored() -> bool:
    return os.environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() == "true"


def _one_line(exn: Exception) -> str:
    return " ".join(str(exn).split())
