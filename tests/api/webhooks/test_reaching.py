"""Where webhooks may go: every address of a name is checked at the moment of connecting, and nothing is followed."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from api.webhooks.reaching import MOST_BYTES, Reach, Unreached, is_public
from core.errors import InvalidRequest
from tests.api.receiver import Receiver

NAME = "hooks.example"
HIDDEN = [
    *("0.0.0.0", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254", "168.63.129.16"),
    *("169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.168.0.1", "198.18.0.1"),
    *("203.0.113.7", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::", "::1", "::127.0.0.1"),
    *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:8.8.8.8", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe"),
    *("64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1", "2002:7f00:1::1", "2002:a9fe:a9fe::1", "3fff::1"),
    *("5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%lo", "fec0::1", "ff02::1"),
]
SEEN = [
    *("1.1.1.1", "8.8.8.8", "100.63.255.255", "172.15.255.255", "172.32.0.1", "192.0.1.1", "2001:200::1"),
    *("2606:4700::1111", "2a00:1450::1"),
]


class Names:
    """A resolver whose answers change from look-up to look-up; the last one stays."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append((host, port))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver().serving() as receiver:
        yield receiver


def post(url: str, *, seconds: float = 5.0, allow_private: bool = True, **options) -> int | str:
    """The status, or why there is none."""

    async def ask() -> int | str:
        reach = Reach(allow_private=allow_private, seconds=seconds, **options)
        try:
            return await reach.post(url, headers={"content-type": "application/json"}, body=b"{}")
        except Unreached as why:
            return str(why)
        finally:
            await reach.close()

    return asyncio.run(ask())


def check(url: str, **options) -> InvalidRequest | None:
    """What is wrong with a URL."""

    async def ask() -> InvalidRequest | None:
        reach = Reach(allow_private=False, seconds=5.0, **options)
        try:
            await reach.check(url)
        except InvalidRequest as error:
            return error
        finally:
            await reach.close()
        return None

    return asyncio.run(ask())


def test_only_addresses_of_the_internet_are_public() -> None:
    assert [address for address in HIDDEN if is_public(address)] == []
    assert [address for address in SEEN if not is_public(address)] == []


@pytest.mark.parametrize("answers", [["10.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["2606:4700::1111", "::ffff:10.0.0.1"]])
def test_a_name_with_one_hidden_address_is_refused_when_made_and_when_sent_to(answers: list[str]) -> None:
    error = check(f"https://{NAME}/x", resolve=Names(answers))
    assert error is not None
    assert (error.param, error.code) == ("url", "address_refused")
    assert "WEIGHTWORKS_WEBHOOK_PRIVATE_ADDRESSES" in error.message
    assert not [address for address in answers if address in error.message]
    assert post(f"https://{NAME}/x", allow_private=False, resolve=Names(answers)) == error.message


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.1/", "http://localhost/", "http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://0/"),
        *("http://2130706433/", "http://0x7f.1/", "http://017700000001/", "http://127.1:6379/", "http://[::]/"),
        *("http://169.254.169.254/latest/meta-data/", "http://[fe80::1%25lo]/"),
    ],
)
def test_this_machines_own_addresses_are_refused_however_they_are_written(url: str) -> None:
    """By the machine's own resolver, which asks nobody for these."""
    error = check(url)
    assert error is not None
    assert error.code == "address_refused"


def test_a_name_that_becomes_hidden_after_the_check_is_not_connected_to(receiver: Receiver) -> None:
    names = Names(["8.8.8.8"], ["127.0.0.1"])
    url = receiver.url("rebound", host=NAME)
    assert check(url, resolve=names) is None
    assert "is not on the internet" in str(post(url, allow_private=False, resolve=names))
    assert names.asked == [(NAME, receiver.port)] * 2
    assert not [one for one in receiver.requests if one.path == "/rebound"]


def test_it_is_looked_up_once_and_connected_to_under_its_name(receiver: Receiver) -> None:
    names = Names(["127.0.0.1"], ["10.255.255.1"])
    assert post(receiver.url("named?a=b%20c", host=NAME), resolve=names) == 200
    (received,) = receiver.at("named?a=b%20c")
    assert received.headers["host"] == f"{NAME}:{receiver.port}"
    assert names.asked == [(NAME, receiver.port)]


def test_the_next_address_is_tried_where_one_does_not_answer(receiver: Receiver) -> None:
    assert post(receiver.url("second", host=NAME), resolve=Names(["::1", "127.0.0.1"])) == 200


def test_a_redirect_is_an_answer_and_is_not_followed(receiver: Receiver) -> None:
    assert post(receiver.url("redirect")) == 302
    assert not [one for one in receiver.requests if one.path == "/redirected"]


def test_an_endless_answer_is_cut_off(receiver: Receiver) -> None:
    assert post(receiver.url("endless")) == 200
    assert receiver.hung_up.wait(60)
    assert MOST_BYTES < receiver.sent_bytes < 8 * 2**20  # what is in the kernel's buffers was sent, too


def test_an_endless_head_and_silence_end_with_the_time(receiver: Receiver) -> None:
    assert post(receiver.url("silent"), seconds=0.3) == "no answer within 0.3 seconds"
    assert post(receiver.url("endless_head"), seconds=0.5) == "no answer within 0.5 seconds"

    async def never(host: str, port: int) -> Sequence[str]:
        await asyncio.sleep(60)
        return []

    assert post(receiver.url("x"), seconds=0.2, resolve=never) == "no answer within 0.2 seconds"


def test_why_there_is_no_answer_is_told() -> None:
    assert post(f"http://{NAME}/", resolve=Names([])) == f"there is no host '{NAME}'"
    with Receiver().serving() as closed:
        url = closed.url("x")
    assert post(url) == "no connection could be made: refused, or the host is not reached"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("ftp://hooks.example/", "https://HOST/PATH"),
        ("hooks.example/x", "https://HOST/PATH"),
        ("http:///x", "https://HOST/PATH"),
        ("https://me:secret@hooks.example/", "no user name or password"),
        ("https://hooks.example/#part", "leave it out"),
        ("https://hooks.example:0/", "no port 0"),
        ("https://hooks.example:65536/", "no port 65536"),
        ("https://hooks.example/\r\nhost: other", "no URL"),
        ("https://[::1/", "no URL"),
        (f"https://{'a' * 64}.example/", "there is no host"),
        ("https://hooks..example/", "there is no host"),
    ],
)
def test_a_url_that_cannot_be_sent_to_is_refused(url: str, told: str) -> None:
    error = check(url)
    assert error is not None
    assert error.param == "url"
    assert told in error.message
    assert "secret" not in error.message


def certificate(folder: Path, name: str) -> Path:
    """A certificate of this name that signs itself, with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / f"{name}.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(secret + made.public_bytes(serialization.Encoding.PEM))
    return file


def test_tls_is_spoken_with_the_name_and_its_certificate_is_verified(tmp_path: Path) -> None:
    file = certificate(tmp_path, NAME)
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(file)
    told: list[str | None] = []
    served.sni_callback = lambda connection, name, context: told.append(name)
    with Receiver().serving(served) as receiver:
        trusted = ssl.create_default_context(cafile=file)
        here, options = Names(["127.0.0.1"]), {"ssl_context": trusted}
        assert post(receiver.url("tls", host=NAME, scheme="https"), resolve=here, **options) == 200
        assert told == [NAME]
        for url, context in (
            (receiver.url("tls", host="other.example", scheme="https"), trusted),
            (receiver.url("tls", host=NAME, scheme="https"), ssl.create_default_context()),
        ):
            assert str(post(url, resolve=here, ssl_context=context)).startswith("no TLS connection could be made")
        assert len(receiver.requests) == 1
