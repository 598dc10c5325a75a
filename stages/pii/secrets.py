"""SECRET: keys of services by their public forms, private keys, tokens, and what is labelled a password.

The forms of keys are those that their issuers publish, so that scanners can find a key that leaked: a fixed beginning,
then a length and an alphabet. Capitals count in them.
"""

import regex
from presidio_analyzer import EntityRecognizer, Pattern, PatternRecognizer

from stages.pii.identifiers import LABELLED, LabelsBehind

SECRET = "SECRET"
SURE = 0.95  # score of a form that nothing else has
KEYS = {
    "AWS": r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}",
    "GitHub": r"gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{22,}",
    "GitLab": r"gl(?:pat|dt|rt|ptt|soat)-[\w-]{20,}",
    "Slack": r"xox[abeoprs]-[A-Za-z0-9-]{10,}|xapp-\d-[A-Za-z0-9-]{10,}",
    "Stripe": r"(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,}|whsec_[A-Za-z0-9]{24,}",
    "OpenAI, Anthropic": r"sk-[A-Za-z0-9_-]{20,}",
    "Google": r"AIza[\w-]{35}|GOCSPX-[\w-]{28}|ya29\.[\w-]{20,}",
    "Hugging Face": r"hf_[A-Za-z0-9]{30,}",
    "PyPI": r"pypi-[A-Za-z0-9_-]{16,}",
    "npm": r"npm_[A-Za-z0-9]{36}",
    "SendGrid": r"SG\.[\w-]{16,32}\.[\w-]{16,64}",
    "Twilio": r"(?:AC|SK)[0-9a-f]{32}",
    "Discord": r"[MNO][A-Za-z\d_-]{23,27}\.[\w-]{6}\.[\w-]{27,38}",
    "Telegram": r"\d{8,10}:AA[\w-]{33}",
    "JSON Web Token": r"eyJ[\w-]{8,4000}\.eyJ[\w-]{8,8000}\.[\w-]{8,4000}",
}
_END = r"-----END (?P=kind)-----"
PRIVATE_KEY = (  # up to its END line; where that is missing, as far as its lines of base64 go
    r"-----BEGIN (?P<kind>[A-Z0-9 ]{0,24}PRIVATE KEY(?: BLOCK)?)-----"
    rf"(?:(?:[^-]|-(?!----(?:END|BEGIN))){{1,200000}}+{_END}"
    r"|(?:\s*[A-Za-z-]{4,20}: [^\n]{1,200}(?=\n))*+(?:(?:[\s>]|\\[nr])++[A-Za-z0-9+/=]{4,}+)+)"
)
_PIN = r"(?<![a-z0-9-])pin(?: ?(?:code|number))?"
PASSWORD = rf"(?:pass ?(?:word|code)|passwd|pwd|{_PIN})"
KEY = (
    r"(?:key|token|secret)(?<=(?<![a-z0-9])(?:(?:secret|api|access|private|encryption|account)[ _-]?key|"
    r"(?:auth|access|refresh|api|security|bearer)[ _-]?token|(?:client|api)[ _-]?secret))"
)
_NEXT_KEY = r"[,;&]\w{1,32}[=:]"  # of password=abc;user=x
_TAG = r"</?(?:a|b|br|code|div|em|font|h\d|i|li|p|pre|span|strong|t[dhr])\b[^<>\n]{0,60}>"
_VALUE = (  # as far as no space comes, without the signs that end a sentence; quotes and brackets inside belong to it
    rf"(?:(?!{_NEXT_KEY}|[.,;:)?]+(?:\s|\Z)|{_TAG})(?:[^\s\"'`>]|[\"'`>](?=\w))){{4,4096}}+"
)
_NO_PLACEHOLDER = r"(?!\*{3}|<[^<>\n]{1,60}>|\$\{|\{\{|%\()"
_SIGN = r"[\"']?\s{0,3}[:=]>?\s{0,3}"
_QUOTED = rf"(?P<quote>[\"'`])\K{_NO_PLACEHOLDER}(?:(?!(?P=quote))[^\n]){{3,4096}}+(?=(?P=quote))"
_NO_WORD = r"(?=[^\s\"'`]*[\d!@#$%^&*_])"
_NO_PROSE = r"(?=[^\s\"'`]*(?:\d|[!@#$%^&*]\w))(?=[^\s\"'`]*[a-z]|\d)(?!(?:19|20)\d\d\b)"


def labelled(label: str) -> dict[str, str]:
    """The ways in which a secret stands behind its label: its name → an expression."""
    return {
        "sign": rf"{label}{_SIGN}(?:is\s)?\K{_NO_PLACEHOLDER}(?![\"'`]){_VALUE}",
        "quotes": rf"{label}(?:{_SIGN}|\s(?:(?:is|was|to)\s)?){_QUOTED}",
        "is": rf"{label}(?:[,;.]? (?:it|which|that))?\s(?:is|was|to)[:\s]\s?\K{_NO_WORD}{_VALUE}",
        "alone": rf"{label}[ \t](?<!pin )\K(?!<){_NO_PROSE}{_VALUE}",
    }


PASSWORDS = labelled(PASSWORD) | {
    "pin": rf"{_PIN}[ \t]\K(?!(?:19|20)\d\d\b)\d{{4,8}}(?!\w|[.,-]\d)",
    "passphrase": r"pass ?phrase[\"']?\s{0,3}[:=]\s{0,3}[\"'`]?\K\w[^\n\"'`.]{3,400}",
}
LABELLED_KEYS = labelled(KEY) | {
    "secret": rf"(?<![a-z0-9])secret[\"']?\s{{0,3}}[:=]>?\s{{0,3}}[\"'`]?\K{_NO_PLACEHOLDER}{_NO_WORD}{_VALUE}",
    "bearer": r"\b(?:bearer|basic|token)\s\K(?=[^\s]*\d)[A-Za-z0-9._~+/-]{16,8000}=*",
}
IN_ADDRESS = r"(?<=://[^\s/:@]{1,256}:)[^\s/@]{1,256}(?=@)"


def secrets(language: str) -> list[EntityRecognizer]:
    """The recognisers of SECRET."""
    capitals_count = regex.MULTILINE | regex.ASCII
    keys = {name: rf"(?<![A-Za-z0-9])(?:{form})(?![A-Za-z0-9])" for name, form in KEYS.items()}
    kinds = [
        ("Keys", keys, SURE, capitals_count),
        ("PrivateKeys", {"private key": PRIVATE_KEY}, SURE, regex.DOTALL),
        ("Passwords", PASSWORDS, LABELLED, regex.IGNORECASE),
        ("LabelledKeys", LABELLED_KEYS, LABELLED, regex.IGNORECASE),
        ("AddressSecrets", {"in a web address": IN_ADDRESS}, LABELLED, regex.IGNORECASE),
    ]
    behind = rf"(?<!\S){_NO_WORD}[^\s\"'`<>]{{4,256}}"
    return [
        *(
            PatternRecognizer(
                SECRET,
                name=name,
                supported_language=language,
                patterns=[Pattern(way, form, score) for way, form in forms.items()],
                global_regex_flags=flags,
            )
            for name, forms, score, flags in kinds
        ),
        LabelsBehind(SECRET, "PasswordsBefore", language, behind, PASSWORD, LABELLED),
        LabelsBehind(SECRET, "KeysBefore", language, behind, KEY, LABELLED),
    ]
