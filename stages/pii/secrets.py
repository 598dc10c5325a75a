"""SECRET: keys of services by their public forms, private keys, tokens, and what is labelled a password.

The forms of keys are those that their issuers publish, so that scanners can find a key that leaked: a fixed beginning,
then a length and an alphabet. Capitals count in them.
"""

import regex
from presidio_analyzer import EntityRecognizer, Pattern, PatternRecognizer

SECRET = "SECRET"
SURE, LABELLED = 0.95, 0.85  # scores: a form that nothing else has; a label before it
KEYS = {
    "AWS": r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}",
    "GitHub": r"gh[pousr]_[A-Za-z0-9]{36,251}|github_pat_[A-Za-z0-9_]{22,255}",
    "GitLab": r"gl(?:pat|dt|rt|ptt|soat)-[\w-]{20,64}",
    "Slack": r"xox[abeoprs]-[A-Za-z0-9-]{10,250}|xapp-\d-[A-Za-z0-9-]{10,250}",
    "Stripe": r"(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,247}|whsec_[A-Za-z0-9]{24,64}",
    "OpenAI, Anthropic": r"sk-(?:[a-z]+\d*-)*[A-Za-z0-9_-]{20,250}",
    "Google": r"AIza[\w-]{35}|GOCSPX-[\w-]{28}|ya29\.[\w-]{20,250}",
    "Hugging Face": r"hf_[A-Za-z0-9]{30,64}",
    "PyPI": r"pypi-[A-Za-z0-9_-]{16,250}",
    "npm": r"npm_[A-Za-z0-9]{36}",
    "SendGrid": r"SG\.[\w-]{16,32}\.[\w-]{16,64}",
    "Twilio": r"(?:AC|SK)[0-9a-f]{32}",
    "Discord": r"[MNO][A-Za-z\d_-]{23,27}\.[\w-]{6}\.[\w-]{27,38}",
    "Telegram": r"\d{8,10}:AA[\w-]{33}",
    "JSON Web Token": r"eyJ[\w-]{8,4000}\.eyJ[\w-]{8,8000}\.[\w-]{8,1000}",
}
PRIVATE_KEY = (
    r"-----BEGIN (?P<kind>[A-Z0-9 ]{0,24}PRIVATE KEY(?: BLOCK)?)-----"
    r"(?:[^-]|-(?!----END)){1,20000}?(?:-----END (?P=kind)-----|\Z)"
)
_LABEL = (
    r"(?:pass ?(?:word|phrase|code)|passwd|pwd|pin(?: code)?|secret(?: key)?|(?:api|access|private|encryption)[ _-]?key"
    r"|(?:auth|access|refresh|api|security|bearer)[ _-]?token|client[ _-]?secret)"
)
_VALUE = r"[^\s\"'`,;<>]{4,200}"
LABELLED_VALUES = {
    "password and a sign": rf"\b{_LABEL}[\"']?\s{{0,3}}[:=]>?\s{{0,3}}(?:is\s)?[\"'`]?\K(?![<*]){_VALUE}(?<![.)])",
    "password is": (rf"\b{_LABEL}\s(?:is|was|to)[:\s]\s?[\"'`]?\K(?=[^\s\"'`]*[\d!@#$%^&*_]){_VALUE}(?<![.)?!])"),
    "bearer": r"\b(?:bearer|basic|token)\s\K(?=[^\s]*\d)[A-Za-z0-9._~+/-]{16,4000}=*",
    "in a web address": r"://[^\s/:@]{1,64}:\K[^\s/@]{1,64}(?=@)",
}


def secrets(language: str) -> list[EntityRecognizer]:
    """The recognisers of SECRET."""
    keys = [Pattern(name, rf"(?<![A-Za-z0-9])(?:{form})(?![A-Za-z0-9])", SURE) for name, form in KEYS.items()]
    return [
        PatternRecognizer(
            SECRET,
            name="Keys",
            supported_language=language,
            patterns=keys,
            global_regex_flags=regex.MULTILINE | regex.ASCII,
        ),
        PatternRecognizer(
            SECRET,
            name="PrivateKeys",
            supported_language=language,
            patterns=[Pattern("private key", PRIVATE_KEY, SURE)],
            global_regex_flags=regex.DOTALL,
        ),
        PatternRecognizer(
            SECRET,
            name="LabelledSecrets",
            supported_language=language,
            patterns=[Pattern(name, form, LABELLED) for name, form in LABELLED_VALUES.items()],
        ),
    ]
