"""Settings, read from the environment as WEIGHTWORKS_<NAME>, or from files of these names in a folder of secrets.

docs/settings.md holds the same table.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

SECRETS = Path("/run/secrets")  # where Docker puts them, unless WEIGHTWORKS_SECRETS_DIR names another folder


class Settings(BaseSettings):
    """Everything that can be set from outside, with defaults for one machine."""

    model_config = SettingsConfigDict(env_prefix="WEIGHTWORKS_", frozen=True, extra="ignore")

    database_url: str = Field(
        "sqlite:///weightworks.sqlite3", description="Where the jobs table lives: sqlite:///PATH or postgresql://..."
    )
    database_password: SecretStr | None = Field(None, description="The database's password, if its URL holds none.")
    redis_url: str = Field(
        "redis://127.0.0.1:6379/0", description="Redis for wake-ups and live events: redis://..., or unix://PATH."
    )
    redis_password: SecretStr | None = Field(None, description="The password of Redis, if its URL holds none.")
    storage_url: str = Field(
        "storage", description="For data sets, checkpoints and weights: a folder, file:// URL, or s3://BUCKET/PREFIX."
    )
    scratch_path: Path = Field(
        Path("scratch"),
        description="With S3: a folder on each machine for what is on its way; nothing in it is missed.",
    )
    scratch_cache_bytes: int = Field(
        20 * 2**30, ge=0, description="With S3: bytes of copies in the scratch folder that jobs share."
    )
    s3_endpoint_url: str | None = Field(
        None, description="Where S3 is; none: AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, or AWS itself."
    )
    s3_public_endpoint_url: str | None = Field(
        None, description="Where clients that download find the same S3; none: at the same address as the server."
    )
    s3_region: str | None = Field(None, description="S3's region; none: AWS_REGION, AWS_DEFAULT_REGION, or us-east-1.")
    s3_access_key_id: str | None = Field(
        None, description="A key for S3; none: AWS_ACCESS_KEY_ID, or the role that the machine has."
    )
    s3_secret_access_key: SecretStr | None = Field(None, description="Its secret; none: AWS_SECRET_ACCESS_KEY.")
    s3_retry_seconds: float = Field(
        45.0, ge=0, description="How long a worker asks again when S3 does not answer; API processes: 5 at most."
    )
    s3_redirects: bool = Field(
        True, description="With S3: send those who download there; false: pass everything through the API."
    )
    s3_presigned_seconds: int = Field(
        900, ge=1, le=604800, description="How long the address that a download is sent to can be asked."
    )
    admin_key: SecretStr | None = Field(
        None, description="An API key with role admin in the project `default`, made at start if it does not exist."
    )
    lease_seconds: float = Field(60.0, gt=0, description="How long a worker owns a job without renewing.")
    renew_seconds: float = Field(2.0, gt=0, description="How often a worker renews its lease and looks for requests.")
    sweep_seconds: float = Field(5.0, gt=0, description="How often each API process looks for lost jobs.")
    stop_seconds: float = Field(8.0, gt=0, description="Grace between telling a trainer to stop and killing it.")
    max_attempts: int = Field(3, ge=1, description="Attempts at a job whose worker or trainer dies.")
    retry_seconds: float = Field(
        2.0, ge=0, description="Pause after the first failed attempt; it doubles with each, up to a minute."
    )
    max_upload_bytes: int = Field(64 * 2**30, gt=0, description="Largest file that may be uploaded.")
    hub_url: str | None = Field(
        None, description="The hub that base models are fetched from by name: https://...; none: nothing is fetched."
    )
    hub_token: SecretStr | None = Field(None, description="A token for what the hub does not give to everybody.")
    hub_seconds: float = Field(21600.0, gt=0, description="Longest that fetching a model may take.")
    max_part_bytes: int = Field(64 * 2**20, gt=0, description="Largest part of an upload in parts.")
    upload_expiry_seconds: float = Field(86400.0, gt=0, description="How long an upload in parts may take.")
    collect_seconds: float = Field(600.0, gt=0, description="How often each API process removes what may go.")
    collect_grace_seconds: float = Field(
        3600.0, gt=0, description="How long something lies still in storage before it may be taken for an orphan."
    )
    keep_submissions_seconds: float = Field(
        86400.0, gt=0, description="How long a repeat of a submission finds what the first made."
    )
    keep_events_days: float = Field(
        0.0, ge=0, description="How long after a job's end its metrics, logs and samples are kept; 0: for ever."
    )
    keep_checkpoints_days: float = Field(
        30.0, ge=0, description="How long after a job's end its checkpoints are kept; 0: for ever."
    )
    keep_artifacts_days: float = Field(
        0.0, ge=0, description="How long after a job's end its model and artifacts are kept; 0: for ever."
    )
    keep_deliveries_days: float = Field(
        30.0, ge=0, description="How long after its last try a webhook's delivery is kept; 0: for ever."
    )
    max_unpacked_bytes: int = Field(256 * 2**30, gt=0, description="Largest size an archive may unpack to.")
    max_request_bytes: int = Field(8 * 2**20, gt=0, description="Largest JSON body.")
    requests_per_second: float = Field(
        100.0, ge=0, description="Requests that a key may make, of each API process; 0: no limit."
    )
    request_burst: int = Field(2000, ge=1, description="Requests that a key which was quiet may make at once.")
    refusals_per_second: float = Field(
        5.0, ge=0, description="Requests without a key that is known that an address may make; 0: no limit."
    )
    head_seconds: float = Field(10.0, gt=0, description="How long a client may take for a request's headers.")
    body_seconds: float = Field(
        30.0,
        gt=0,
        description="How long a client may keep us waiting for its body, and a second more for each 4,096 bytes of it.",
    )
    inspection_seconds: int = Field(3600, gt=0, description="Longest that reading an upload may take.")
    inspection_memory_bytes: int = Field(2 * 2**30, gt=0, description="Most memory that reading an upload may take.")
    check_seconds: int = Field(
        60,
        gt=0,
        description="Longest that a submission waits while its conversations or pairs are read with the base's "
        "tokenizer: what takes longer is read in part.",
    )
    preview_seconds: float = Field(60.0, gt=0, description="Longest that a preview may measure a job's first steps.")
    serving_models: int = Field(
        3, ge=1, description="Models that are tried out which stay open; the one used longest ago goes first."
    )
    serving_memory_bytes: int = Field(
        4 * 2**30, gt=0, description="Memory that models which are tried out may take together."
    )
    serving_threads: int = Field(1, ge=1, description="CPU threads that try models out.")
    serving_nice: int = Field(
        19, ge=0, le=19, description="How far trying models out gives way to all else on the machine; 19: wholly."
    )
    serving_device: str = Field("cpu", description="Where models are tried out: cpu, cuda, or cuda:0.")
    serving_idle_seconds: float = Field(
        600.0, gt=0, description="How long nobody may ask before the process that tries models out is ended."
    )
    serving_queue: int = Field(
        32,
        ge=1,
        description="Answers that are written at once, and for a project as many as it leaves free; more are refused "
        "for a while.",
    )
    serving_tokens: int = Field(
        1024, ge=1, description="Most tokens of a chat's answer, where no other limit is asked."
    )
    project_max_running_jobs: int = Field(0, ge=0, description="Jobs of a project that may run at once; 0: no limit.")
    project_max_unfinished_jobs: int = Field(
        0, ge=0, description="Jobs of a project that may wait, run or be paused; 0: no limit."
    )
    project_max_stored_bytes: int = Field(
        0, ge=0, description="Bytes of files, checkpoints and artifacts that a project may have; 0: no limit."
    )
    project_max_gpu_seconds: int = Field(
        0, ge=0, description="Seconds on GPUs that a project may use in 30 days; 0: no limit."
    )
    webhook_private_addresses: bool = Field(
        False, description="Whether webhooks may go to loopback, private and link-local addresses."
    )
    webhook_seconds: float = Field(10.0, gt=0, description="Longest that a webhook's receiver may take to answer.")
    webhook_poll_seconds: float = Field(
        1.0, gt=0, description="How often each API process looks for webhooks that are to be sent."
    )
    webhook_pause_factor: float = Field(
        1.0, ge=0, description="What the pauses between a webhook's tries are multiplied by: less than 1 for tests."
    )
    ready_file: Path | None = Field(None, description="A file that a worker makes once its trainer is warm.")
    trainer_memory_bytes: int = Field(
        0,
        ge=0,
        description="Memory that a trainer may take; 0: its part of nine tenths of the machine's or the container's.",
    )
    threads: int = Field(0, ge=0, description="CPU threads a trainer uses; 0: as many as there are cores.")

    @model_validator(mode="before")
    @classmethod
    def _passwords_into_urls(cls, given: dict[str, Any]) -> dict[str, Any]:
        """So that a URL may stand where everybody reads it, and the password in a file of its own."""
        urls = {}
        for name in ("database", "redis"):
            if password := given.get(f"{name}_password"):
                url = given.get(f"{name}_url", cls.model_fields[f"{name}_url"].default)
                urls[f"{name}_url"] = _with_password(url, password, f"WEIGHTWORKS_{name.upper()}")
        return {**given, **urls}

    @field_validator("storage_url")
    @classmethod
    def _names_a_place(cls, url: str) -> str:
        scheme, separator, rest = url.partition("://")
        if separator and scheme not in ("file", "s3"):
            raise ValueError(f"a storage is a folder, file://FOLDER, or s3://BUCKET/PREFIX, and not {scheme}://")
        if scheme == "s3" and not rest.partition("/")[0]:
            raise ValueError("name the bucket: s3://BUCKET, or s3://BUCKET/PREFIX")
        return url

    @field_validator("hub_url")
    @classmethod
    def _is_an_address(cls, url: str | None) -> str | None:
        if url is not None and (urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname):
            raise ValueError("a hub is an address: https://HOST")
        return None if url is None else url.rstrip("/")

    @property
    def storage_path(self) -> Path:
        """The storage folder, where storage is a disk."""
        return Path(self.storage_url.removeprefix("file://")).expanduser().absolute()


@cache
def settings() -> Settings:
    """The settings of this process, read once: the environment's come before those of the folder of secrets."""
    named = os.environ.get("WEIGHTWORKS_SECRETS_DIR")
    if named and not Path(named).is_dir():
        raise ValueError(f"WEIGHTWORKS_SECRETS_DIR names {named}, which is no folder")
    folder = Path(named) if named else SECRETS
    return Settings(_secrets_dir=folder if folder.is_dir() else None)


def _with_password(url: str, password: str | SecretStr, name: str) -> str:
    """The URL with a password, unless it holds one."""
    parts = urlsplit(url)
    if parts.scheme.startswith("sqlite"):
        raise ValueError(f"{name}_PASSWORD is set, but {name}_URL names SQLite, which has none: unset it")
    account, _, host = parts.netloc.rpartition("@")
    if ":" in account:
        return url
    plain = password.get_secret_value() if isinstance(password, SecretStr) else password
    return parts._replace(netloc=f"{account}:{quote(plain, safe='')}@{host}").geturl()
