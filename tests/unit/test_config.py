"""Settings: read once, from the file and the environment; whatever is wrong is said in one sentence that names it."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest

from service.config import FIELDS, BadSetting, Settings
from service.providers import PROVIDERS

KEY = base64.b64encode(bytes(32)).decode()
INTERFACE = """CAISSE_MODE CAISSE_DATABASE_URL CAISSE_HOST CAISSE_PORT CAISSE_PUBLIC_URL CAISSE_MASTER_KEYS
CAISSE_ADMIN_PASSWORD CAISSE_TIMEZONE CAISSE_METRICS_TOKEN CAISSE_HEARTBEAT_URL CAISSE_SMTP_URL CAISSE_MAIL_FROM
CAISSE_ALLOW_PRIVATE_CIDRS CAISSE_STRIPE_SECRET_KEY CAISSE_STRIPE_WEBHOOK_SECRETS CAISSE_PAYSTACK_SECRET_KEYS
CAISSE_FEDAPAY_SECRET_KEY CAISSE_FEDAPAY_WEBHOOK_SECRETS CAISSE_MONETBIL_SERVICE_KEY CAISSE_MONETBIL_SERVICE_SECRETS
CAISSE_MONEROO_SECRET_KEY CAISSE_MONEROO_WEBHOOK_SECRETS CAISSE_EBILLING_USERNAME CAISSE_EBILLING_SHARED_KEY
CAISSE_EBILLING_CALLBACK_TOKENS CAISSE_EBILLING_SHAP_ID CAISSE_EBILLING_SHAP_SECRET
CAISSE_MONETBIL_ALLOW_UNSIGNED CAISSE_SIGNATURE_HEADER CAISSE_LOG_LEVEL
CAISSE_STRIPE_BASE_URL CAISSE_PAYSTACK_BASE_URL CAISSE_FEDAPAY_BASE_URL CAISSE_MONETBIL_BASE_URL
CAISSE_MONEROO_BASE_URL CAISSE_EBILLING_BASE_URL CAISSE_KEEP_DELIVERIES_DAYS CAISSE_KEEP_WORK_DAYS
CAISSE_KEEP_CALLBACK_BODIES_DAYS CAISSE_KEEP_CALLBACKS_DAYS CAISSE_KEEP_QUARANTINE_DAYS
CAISSE_ASK_FIRST CAISSE_DUPLICATES CAISSE_RETURN_ORIGINS CAISSE_BACKUP_DIR CAISSE_KEEP_BACKUPS""".split()  # noqa: SIM905


def read(directory: Path, text: str | None = None, **environment: str) -> Settings:
    if text is not None:
        (directory / "caisse.toml").write_text(text)
    return Settings.read(environment={f"CAISSE_{k.upper()}": v for k, v in environment.items()}, directory=directory)


def test_every_name_of_the_interface_is_there_and_no_other() -> None:
    """What the interface names keeps its name; each has a meaning, and no two share a name."""
    names = [field.environment for field in FIELDS]
    assert sorted(names) == sorted(INTERFACE)
    assert all(field.meaning for field in FIELDS)


def test_everything_has_a_default(tmp_path: Path) -> None:
    """With nothing set at all the service can start, with every provider off."""
    settings = read(tmp_path)
    assert (settings.mode, settings.host, settings.port) == ("development", "127.0.0.1", 8080)
    assert settings.database_url == "sqlite:///caisse.db"
    assert settings.timezone == "Europe/Paris"
    assert settings.default_accounts() == []
    assert settings.file is None
    assert [str(network) for network in settings.allow_private_cidrs] == ["127.0.0.0/8", "::1/128"]
    assert settings.base_urls == {name: provider.base_url for name, provider in PROVIDERS.items()}


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    """Each value says where it is from, and the environment has the last word."""
    settings = read(tmp_path, 'port = 9000\nmode = "staging"\n', port="9100")
    assert (settings.port, settings.mode) == (9100, "staging")
    shown = {row["name"]: row for row in settings.shown()}
    assert shown["CAISSE_PORT"]["from"] == "environment"
    assert shown["CAISSE_MODE"]["from"] == "file"
    assert shown["CAISSE_HOST"]["from"] == "default"


def test_lists_are_split_and_stripped_and_empty_items_dropped(tmp_path: Path) -> None:
    """A trailing comma is no empty secret: an empty secret would verify what anybody signs with nothing."""
    settings = read(tmp_path, stripe_webhook_secrets=" whsec_new , whsec_old,, ")
    assert settings.credentials["stripe"]["webhook_secrets"] == ("whsec_new", "whsec_old")
    assert read(tmp_path, stripe_webhook_secrets=" , ").default_accounts() == []


def test_the_file_has_a_table_for_each_provider(tmp_path: Path) -> None:
    """TOML's own lists, numbers and truth values are taken as they are; a comma inside a listed secret stays."""
    text = 'port = 8081\n[stripe]\nwebhook_secrets = ["a,b", "c"]\n[monetbil]\nallow_unsigned = true\n'
    settings = read(tmp_path, text)
    assert settings.port == 8081
    assert settings.credentials["stripe"]["webhook_secrets"] == ("a,b", "c")
    assert settings.monetbil_allow_unsigned


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("mode", "prod", "development, staging, production"),
        ("port", "80a", "whole number"),
        ("port", "70000", "65535"),
        ("port", "٨٠", "whole number"),
        ("public_url", "pay.example.com", "https://"),
        ("public_url", "https://user@pay.example.com", "without user"),
        ("public_url", "https://pay.example.com/?a=b", "without user, query"),
        ("public_url", "https://pay.example.com:99999", "https://"),
        ("database_url", "postgresql://u:hunter2@db/caisse", "PostgreSQL, which is not built yet"),
        ("database_url", "sqlite:///:memory:", "plain file"),
        ("database_url", "caisse.db", "sqlite:///caisse.db"),
        ("timezone", "Europe/Nowhere", "time zone"),
        ("timezone", "../../etc/passwd", "time zone"),
        ("allow_private_cidrs", "10.0.0.1/8", "networks"),
        ("allow_private_cidrs", "everything", "networks"),
        ("master_keys", "c2hvcnQ=", "32 random bytes"),
        ("master_keys", "hunter2", "32 random bytes"),
        ("signature_header", "webhook-id", "already"),
        ("signature_header", "X Caisse", "header's name"),
        ("heartbeat_url", "ftp://example.com/hunter2", "https://"),
        ("log_level", "loud", "debug"),
        ("monetbil_allow_unsigned", "perhaps", "true or false"),
        ("stripe_secret_key", "sk_live\nhunter2", "control characters"),
        ("ebilling_callback_tokens", "a/b", "part of an address"),
        ("stripe_base_url", "javascript:alert(1)", "https://"),
        ("mail_from", "nobody", "e-mail"),
    ],
)
def test_a_wrong_value_is_one_sentence_that_names_the_setting(
    tmp_path: Path, name: str, value: str, words: str
) -> None:
    """It names the setting, says what is wanted, and never repeats a secret."""
    with pytest.raises(BadSetting) as caught:
        read(tmp_path, **{name: value})
    sentence = str(caught.value)
    assert sentence.startswith(f"CAISSE_{name.upper()} ")
    assert words in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert "hunter2" not in sentence


def test_unknown_names_are_errors_and_the_nearest_is_named(tmp_path: Path) -> None:
    """A misspelt secret must not silently leave callbacks unverified."""
    with pytest.raises(BadSetting, match=r"CAISSE_STRIPE_WEBHOOK_SECRET is not .* CAISSE_STRIPE_WEBHOOK_SECRETS\."):
        read(tmp_path, stripe_webhook_secret="whsec_a")
    with pytest.raises(BadSetting, match=r"webhook_secret in \[stripe\] in .*caisse\.toml is not"):
        read(tmp_path, '[stripe]\nwebhook_secret = "a"\n')
    with pytest.raises(BadSetting, match=r"prot in .* nearest one is port"):
        read(tmp_path, "prot = 1\n")
    with pytest.raises(BadSetting, match=r"is not a setting"):
        read(tmp_path, "[stripes]\n")


def test_a_broken_file_is_one_sentence_that_quotes_nothing_of_it(tmp_path: Path) -> None:
    """A file that holds secrets is not repeated on the terminal."""
    with pytest.raises(BadSetting, match=r"not valid TOML \(line 2\)") as caught:
        read(tmp_path, '# first\nsecret_key = "sk_live_hunter2\n')
    assert "hunter2" not in str(caught.value)
    with pytest.raises(BadSetting, match="no such file"):
        Settings.read(tmp_path / "other.toml", environment={})
    with pytest.raises(BadSetting, match="must be a list of texts"):
        read(tmp_path, "[stripe]\nwebhook_secrets = [1]\n")
    with pytest.raises(BadSetting, match="must be a single value"):
        read(tmp_path, "host = ['a']\n")


def test_secrets_are_in_no_repr_and_in_no_list(tmp_path: Path) -> None:
    """Printing the settings, or asking doctor for them, shows that a secret is set and not what it is."""
    secrets = {
        "stripe_secret_key": "sk_live_hunter2",
        "paystack_secret_keys": "hunter2",
        "ebilling_callback_tokens": "hunter2hunter2",
        "admin_password": "hunter2",
        "metrics_token": "hunter2",
        "smtp_url": "smtp://u:hunter2@mail",
        "heartbeat_url": "https://hc.example/hunter2",
        "master_keys": KEY,
    }
    settings = read(tmp_path, **secrets)
    shown = repr(settings) + repr(settings.default_accounts()) + repr(settings.shown())
    assert "hunter2" not in shown
    assert KEY not in shown
    assert repr(bytes(32)) not in shown
    assert {row["name"]: row["value"] for row in settings.shown()}["CAISSE_ADMIN_PASSWORD"] == "set"


def test_default_accounts_say_what_is_missing_and_are_live_in_production_alone(tmp_path: Path) -> None:
    """Half set is not off: it is refused and shown. Only production moves real money."""
    half = read(tmp_path, stripe_secret_key="sk_test_a", mode="staging").default_accounts()
    assert [(a.id, a.provider, a.live, a.missing) for a in half] == [
        ("acc_stripe", "stripe", False, ("webhook_secrets",))
    ]
    whole = read(tmp_path, stripe_webhook_secrets="whsec_a", mode="production").default_accounts()
    assert [(a.id, a.live, a.missing) for a in whole] == [("acc_stripe", True, ())]


@pytest.mark.parametrize("name", sorted(PROVIDERS))
def test_each_provider_can_be_set_whole(tmp_path: Path, name: str) -> None:
    """One setting per credential is enough for every provider, wherever its file says so."""
    values = {f"{name}_{credential.name}": "a-token-a-token-a-token" for credential in PROVIDERS[name].credentials}
    (account,) = read(tmp_path, **values).default_accounts()
    assert account.missing == ()
    assert re.fullmatch(r"https://\S+", account.base_url)


def test_an_empty_value_is_the_same_as_none(tmp_path: Path) -> None:
    """Compose files set variables to nothing; an empty list of networks really is empty."""
    settings = read(tmp_path, 'public_url = "https://a.example"\n', port="", public_url="", allow_private_cidrs="")
    assert settings.port == 8080
    assert settings.public_url is None
    assert settings.allow_private_cidrs == ()


def test_our_own_address_is_one_that_can_be_called(tmp_path: Path) -> None:
    """A program on this machine reaches a service that listens everywhere by loopback."""
    assert read(tmp_path, host="0.0.0.0").own_url == "http://127.0.0.1:8080"
    assert read(tmp_path, host="::").own_url == "http://[::1]:8080"
    assert read(tmp_path, host="::1", port="81").own_url == "http://[::1]:81"
