"""AWS KMS as key service: asked as its protocol wants, and each way it can fail told apart."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import kms_server
from tests.key_promises import ROOT, acme_under, opens_for_its_tenant_alone
from tests.kms_server import ARN, ARN_US, FOREIGN_ARN, Kms, slow, throttled
from veilstream.contracts.errors import ConfigError, RecordError, TenantError, VeilError, WorldError
from veilstream.keys import aws_kms
from veilstream.keys.aws_kms import AwsKms
from veilstream.keys.keyring import KeyRing
from veilstream.keys.providers import key_service
from veilstream.keys.service import KeyContext, LocalFile, make_master_key
from veilstream.settings import Settings

ACME = acme_under(ARN)


@pytest.fixture
def kms(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kms]:
    """A server, and credentials for it in the environment."""
    for name, value in kms_server.CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with kms_server.serving() as kms:
        yield kms


def service(kms: Kms, **keys: str) -> AwsKms:
    return AwsKms(keys or {"": ARN}, endpoint=kms.endpoint)


def test_a_key_wrapped_there_unwraps_in_its_context_alone(kms: Kms) -> None:
    """The request names key and context and is signed; what is wrapped for one tenant's key opens for no other."""
    one = service(kms)
    wrapped = one.wrap(ROOT, ACME)
    assert ROOT not in wrapped
    assert one.unwrap(wrapped, ACME) == ROOT
    assert [asked.call for asked in kms.asked] == ["Encrypt", "Decrypt"]
    for asked in kms.asked:
        assert asked.body["KeyId"] == ARN
        assert asked.body["EncryptionContext"] == {
            "tenant": "acme", "key_id": "acme/1", "purpose": "veil-root-key-v1",
        }  # fmt: skip
    opens_for_its_tenant_alone(one, wrapped, ARN, wrapped[:-1] + bytes([wrapped[-1] ^ 1]))


def test_operations_has_a_context_that_no_tenant_can_have(kms: Kms) -> None:
    """KMS takes no empty value; the word in its place is no tenant id."""
    service(kms).wrap(ROOT, KeyContext("operations/1", "", ARN))
    assert kms.asked[0].tenant == "(operations)"


@pytest.mark.parametrize(
    ("status", "code", "error", "reason"),
    [
        (400, "ThrottlingException", TenantError, "key_unavailable"),
        (400, "LimitExceededException", TenantError, "key_unavailable"),
        (400, "AccessDeniedException", TenantError, "key_unavailable"),
        (400, "DisabledException", TenantError, "key_unavailable"),
        (400, "KMSInvalidStateException", TenantError, "key_unavailable"),
        (500, "KeyUnavailableException", TenantError, "key_unavailable"),
        (400, "NotFoundException", TenantError, "key_unavailable"),
        (400, "InvalidCiphertextException", WorldError, "key_service_refused"),
        (400, "IncorrectKeyException", WorldError, "key_service_refused"),
        (500, "KMSInternalException", WorldError, "key_service_away"),
        (500, "DependencyTimeoutException", WorldError, "key_service_away"),
        (503, "ServiceUnavailableException", WorldError, "key_service_away"),
        (400, "ExpiredTokenException", WorldError, "key_service_away"),
        (400, "UnrecognizedClientException", WorldError, "key_service_away"),
        (400, "SomethingNewException", WorldError, "key_service_away"),
        (502, "<html> not & a code", WorldError, "key_service_away"),
    ],
)
def test_each_answer_is_somebody_s_fault(kms: Kms, status: int, code: str, error: type[VeilError], reason: str) -> None:
    """Of one key: its tenant's. Of the service, or of our credentials: the world's. What KMS says in words is not quoted."""
    one = service(kms)
    wrapped = one.wrap(ROOT, ACME)
    kms.misbehave = throttled("acme", code=code, status=status)
    for call in (lambda: one.unwrap(wrapped, ACME), lambda: one.wrap(ROOT, ACME)):
        with pytest.raises(error) as caught:
            call()
        assert (type(caught.value), caught.value.reason_code) == (error, reason)
        assert "principal" not in str(caught.value)
    assert len(kms.asked) == 3, "who waits decides whether it is asked again"


def test_nobody_there_is_the_worlds_fault(kms: Kms) -> None:
    """A connection that was open may be answered once more, with an error; a new one is refused."""
    one = service(kms)
    wrapped = one.wrap(ROOT, ACME)
    kms.down()
    for asked, said in ((one, "503|look at network"), (service(kms), "look at network")):
        with pytest.raises(WorldError, match=said) as caught:
            asked.unwrap(wrapped, ACME)
        assert caught.value.reason_code == "key_service_away"


def test_an_answer_that_does_not_come_is_waited_for_so_long(kms: Kms, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread comes back."""
    monkeypatch.setattr(aws_kms, "ANSWER_S", 0.2)
    one = service(kms)
    wrapped = one.wrap(ROOT, ACME)
    kms.misbehave = slow(1.0)
    with pytest.raises(WorldError, match="ReadTimeoutError"):
        one.unwrap(wrapped, ACME)


@pytest.mark.parametrize("broken", ["secret", "none"])
def test_wrong_and_missing_credentials_are_the_worlds_fault(
    kms: Kms, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, broken: str
) -> None:
    """Nothing is refused to tenants because of our credentials; the message has none of them."""
    if broken == "secret":
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "guessed")
    else:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(WorldError) as caught:
        service(kms).wrap(ROOT, ACME)
    assert caught.value.reason_code == "key_service_away"
    assert "guessed" not in str(caught.value)
    assert kms.unsigned == (broken == "secret")


def test_a_region_has_its_own_key(kms: Kms) -> None:
    """New keys of a tenant are wrapped in its region; all regions' keys open; one that is not named is refused."""
    both = service(kms, eu=ARN, us=ARN_US)
    us = both.for_region("us")
    assert (both.key, us.key) == (ARN, ARN_US)
    wrapped = us.wrap(ROOT, KeyContext("globex/1", "globex", us.key))
    assert kms.asked[-1].body["KeyId"] == ARN_US
    assert both.unwrap(wrapped, KeyContext("globex/1", "globex", ARN_US)) == ROOT
    with pytest.raises(RecordError) as caught:
        both.for_region("asia")
    assert caught.value.reason_code == "no_key_for_region"
    assert AwsKms({"": ARN, "us": ARN_US}).for_region("asia").key == ARN


def test_a_key_of_somebody_else_is_not_asked(kms: Kms) -> None:
    """An entry on veil.keys that names another KMS key is refused before any request."""
    with pytest.raises(WorldError, match="does not name") as caught:
        service(kms).unwrap(b"x" * 60, KeyContext("acme/1", "acme", FOREIGN_ARN))
    assert caught.value.reason_code == "key_service_refused"
    assert kms.asked == []


@pytest.mark.parametrize(
    "text", [None, "", "alias/veil", "arn:aws:s3:eu:1:key/1", f"{ARN},{ARN_US}", f"eu={ARN},eu={ARN}"]
)
def test_settings_that_name_no_key_end_the_process_at_start(text: str | None) -> None:
    """With the variable's name."""
    settings = Settings(key_service="aws-kms", aws_kms_key=text)
    with pytest.raises(ConfigError, match="VEIL_AWS_KMS_KEY"):
        key_service(settings)


def test_settings_choose_the_service(tmp_path: Path) -> None:
    """The local file unless told otherwise; ARNs by region, spaces allowed."""
    make_master_key(tmp_path)
    assert isinstance(key_service(Settings(keys_dir=tmp_path)), LocalFile)
    chosen = key_service(Settings(key_service="aws-kms", aws_kms_key=f"eu={ARN}, us={ARN_US}"))
    assert chosen.for_region("us").key == ARN_US


def test_who_uses_the_local_file_does_not_load_the_aws_library() -> None:
    """It is 30 MB and optional."""
    code = (
        "import sys; sys.modules['botocore'] = None\n"
        "import agents.wiring\n"
        "from veilstream.keys.aws_kms import AwsKms\n"
        "from veilstream.contracts.errors import ConfigError\n"
        f"try: AwsKms({{'': '{ARN}'}})\n"
        "except ConfigError as exc: print(exc)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert "pip install 'veilstream[aws]'" in done.stdout, done.stderr


def test_the_ring_s_tools_may_ask_it_at_once(kms: Kms) -> None:
    """A tool that may block opens keys by lookups alone."""
    from veilstream.keys.keyring import new_key

    one = service(kms)
    entry, keys = new_key(one, tenant="acme", key_id="acme/1", scope="tenant", created_ms=0)
    assert (entry.service, entry.service_key) == ("aws-kms", ARN)
    ring = KeyRing(one)
    ring.apply(entry)
    assert ring.of_tenant("acme") == keys
