"""What scrub is given beside params.yaml: the key of stand-ins in the environment, and the deny file."""

import hashlib
import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stages.common.errors import InputError
from stages.common.files import digest_text
from stages.pii.params import Scrub

LEAST_KEY = 16  # characters of the secret; one of fewer is found by trying


def read_key(fingerprint: str, environment: Mapping[str, str]) -> bytes | None:
    """The key of pseudonyms, derived from PEDIGREE_KEY; None for `public`. Raises InputError where the environment does
    not hold the secret with that fingerprint, or a short one."""
    if fingerprint == "public":
        return None
    secret = environment.get("PEDIGREE_KEY", "").encode()
    found = hashlib.sha256(secret).hexdigest()[:12] if secret else "nothing"
    if found != fingerprint:
        raise InputError(
            f"params.yaml, scrub.key_fingerprint asks for the key {fingerprint}, PEDIGREE_KEY holds {found}; set the "
            "right key in the environment, or the new fingerprint, in quotes: every stand-in then changes"
        )
    if len(secret) < LEAST_KEY:
        raise InputError(
            f"PEDIGREE_KEY has {len(secret)} characters, stand-ins need one of at least {LEAST_KEY}: a shorter one is "
            "found by trying; make one with `openssl rand -hex 32` and put its fingerprint into scrub.key_fingerprint"
        )
    return hmac.new(secret, b"scrub", hashlib.sha256).digest()


def read_deny(params: Scrub) -> list[str]:
    """All entries of deny and deny_file. Raises InputError where the file is not the one that params.yaml knows."""
    if params.deny_file is None:
        return params.deny
    path = Path(params.deny_file)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: cannot be read ({type(error).__name__}); params.yaml, scrub.deny_file names it"
        ) from None
    if digest_text(text, 12) != params.deny_fingerprint:
        raise InputError(
            f"{path}: has the fingerprint {digest_text(text, 12)}, params.yaml, scrub.deny_fingerprint says "
            f"{params.deny_fingerprint}; get the right file, or write the new fingerprint, in quotes"
        )
    return [*params.deny, *parse_deny(text)]


def parse_deny(text: str) -> list[str]:
    """The entries of a deny file: its lines but for those that begin with #. A first backslash is dropped, so that an
    entry may begin with # too."""
    lines = [line.strip() for line in text.splitlines()]
    return [line.removeprefix("\\") for line in lines if line and not line.startswith("#")]


@dataclass(frozen=True, repr=False)
class Secrets:
    """What the environment and deny_file hold, read where the stage runs: another machine has neither."""

    key: bytes | None
    deny: list[str]


def read_secrets(params: Scrub, environment: Mapping[str, str] = os.environ) -> Secrets:
    """Raises InputError."""
    return Secrets(read_key(params.key_fingerprint, environment), read_deny(params))
