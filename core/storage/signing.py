"""Addresses in an object storage that work for a while without any key: AWS Signature Version 4 in the query.

https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True)
class Keys:
    """What a request is signed with."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


def presign(
    method: str, address: str, *, keys: Keys, region: str, seconds: int, query: Mapping[str, str], now: float
) -> str:
    """The address, which has no query of its own, signed for this method and so many seconds from `now`."""
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    scope = f"{moment[:8]}/{region}/s3/aws4_request"
    told = {
        **query,
        "X-Amz-Algorithm": ALGORITHM,
        "X-Amz-Credential": f"{keys.access_key_id}/{scope}",
        "X-Amz-Date": moment,
        "X-Amz-Expires": str(seconds),
        "X-Amz-SignedHeaders": "host",
    }
    if keys.session_token:
        told["X-Amz-Security-Token"] = keys.session_token
    where = urlsplit(address)
    line = "&".join(sorted(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in told.items()))
    request = "\n".join([method, where.path, line, f"host:{where.netloc}", "", "host", "UNSIGNED-PAYLOAD"])
    to_sign = "\n".join([ALGORITHM, moment, scope, hashlib.sha256(request.encode()).hexdigest()])
    key = f"AWS4{keys.secret_access_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return f"{address}?{line}&X-Amz-Signature={hmac.digest(key, to_sign.encode(), 'sha256').hex()}"
