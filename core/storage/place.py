"""Where a bucket is, and what it is asked with."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from core.settings import Settings
from core.storage.signing import Keys, presign


@dataclass(frozen=True)
class Place:
    """A prefix in a bucket. `keys` None: it is asked with a role that the machine has."""

    bucket: str
    prefix: str
    endpoint: str
    public_endpoint: str
    region: str
    keys: Keys | None

    @classmethod
    def of(cls, settings: Settings, environment: Mapping[str, str]) -> Place:
        """As the settings say, or else what AWS' own tools read from the environment."""
        where = urlsplit(settings.storage_url)
        region = settings.s3_region or environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")
        region = region or "us-east-1"
        named = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
        endpoint = (settings.s3_endpoint_url or named or f"https://s3.{region}.amazonaws.com").rstrip("/")
        public = (settings.s3_public_endpoint_url or endpoint).rstrip("/")
        return cls(where.netloc, where.path.strip("/"), endpoint, public, region, _keys(settings, environment))

    def key(self, key: str) -> str:
        """A key as the bucket has it, with the prefix."""
        return f"{self.prefix}/{key}" if self.prefix else key

    def signed(self, method: str, key: str, query: Mapping[str, str], *, seconds: int, is_public: bool = False) -> str:
        """The address of what the bucket has under this key, or of the bucket, signed with our keys."""
        if self.keys is None:
            raise ValueError("a role signs no addresses here")
        path = quote(f"{self.bucket}/{key}".rstrip("/"), safe="/-_.~")
        return presign(
            method,
            f"{self.public_endpoint if is_public else self.endpoint}/{path}",
            keys=self.keys,
            region=self.region,
            seconds=seconds,
            query=query,
            now=time.time(),
        )


def _keys(settings: Settings, environment: Mapping[str, str]) -> Keys | None:
    if settings.s3_access_key_id and settings.s3_secret_access_key:
        return Keys(settings.s3_access_key_id, settings.s3_secret_access_key.get_secret_value())
    if environment.get("AWS_ACCESS_KEY_ID") and environment.get("AWS_SECRET_ACCESS_KEY"):
        token = environment.get("AWS_SESSION_TOKEN")
        return Keys(environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"], token)
    return None
