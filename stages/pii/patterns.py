"""Our own recognisers beside Presidio's: numbers of telephones and cards as written, records, dates of birth, names."""

import sys
from collections.abc import Callable

import regex
from presidio_analyzer import EntityRecognizer, Pattern, PatternRecognizer, RecognizerResult
from presidio_analyzer.nlp_engine import NlpArtifacts
from presidio_analyzer.predefined_recognizers import IbanRecognizer, PhoneRecognizer

from stages.pii.identifiers import IN_CONTEXT, dates_of_birth, labelled_ids, labelled_ssns, medical_records
from stages.pii.names import ENTITY, find_names
from stages.pii.numbers import is_luhn
from stages.pii.secrets import secrets

WRITTEN = 0.6  # score; those of identifiers.py beside it
PHONE_DIGITS = 7  # of the national number; shorter ones are years and codes (in Germany 1640 is a valid number)
PHONE_WORDS = [
    "phone", "telephone", "tel", "cell", "cellphone", "mobile", "landline", "pager", "fax", "call", "dial", "ring",
    "reach", "contact", "text", "message", "sms", "whatsapp", "voicemail", "answering", "office",
]  # fmt: skip
NOT_A_DATE_OR_ZIP = r"(?!(?:(?:19|20)\d{2}-\d{2}-\d{2}|\d{5}-\d{4})(?!\d))"
CARD_WORDS = ["card", "credit", "debit", "visa", "mastercard", "amex", "maestro", "discover", "diners", "jcb", "cc"]

STREET = (
    r"(?:Street|St|Avenue|Ave|Road|Rd|Lane|Ln|Drive|Dr|Court|Ct|Boulevard|Blvd|Way|Place|Pl|Terrace|Square|Crescent|"
    r"Close)"
)


class PhoneNumbers(PhoneRecognizer):
    """Presidio's recogniser without its short numbers, and without the limit of tries that lets long texts through."""

    least_digits = PHONE_DIGITS
    most_tries = sys.maxsize


class ListedNames(EntityRecognizer):
    """PERSON by the lists and rules of names.py."""

    def load(self) -> None:
        find_names("")  # the lists are read once, on the first name

    def analyze(
        self, text: str, entities: list[str], nlp_artifacts: NlpArtifacts | None = None
    ) -> list[RecognizerResult]:
        return [RecognizerResult(found.entity, found.start, found.end, found.score) for found in find_names(text)]


def written_phones(language: str) -> PatternRecognizer:
    """Numbers in the forms of a telephone number, valid or not; any other run of digits only beside a context word."""
    return PatternRecognizer(
        "PHONE_NUMBER",
        name="WrittenPhones",
        supported_language=language,
        patterns=[
            Pattern(
                "North American",
                r"(?<![\w.-])(?:\+?1[-. ]?)?(?:\(\d{3}\)[-. ]?|\d{3}[-. ])\d{3}[-. ]\d{4}"
                r"(?: ?(?:x|ext\.?) ?\d{1,6})?(?![\w-])",
                WRITTEN,
            ),
            # 555-0133; where the second part does not begin with 0, it may be a range of numbers.
            Pattern("local", r"(?<![\w.-])[2-9]\d{2}-0\d{3}(?![\w-])", WRITTEN),
            # 020 7946 0123, 07700 900456, 01 99 00 12 34: a nought first, then the groups of a country at home.
            Pattern(
                "national",
                r"(?<![\w.,-])(?<!\d )0(?:\d{2} \d{4} \d{4}|\d{3} \d{3} \d{4}|\d{4} \d{5,6}|[1-9](?: \d\d){4})"
                r"(?![\w%-]|[.,]\d| \d)",
                WRITTEN,
            ),
            Pattern("international", r"(?<!\w)\+\d(?:[-. ()]{0,3}\d){6,14}(?!\w)", WRITTEN),
            Pattern(
                "digits",
                NOT_A_DATE_OR_ZIP + r"(?<![\w.,$€£+-])(?<!<<)\(?\d(?:[-. ()/]{0,3}\d){6,14}(?![\w%]|[.,]\d| ?= ?[$<])",
                IN_CONTEXT,
            ),
        ],
        context=PHONE_WORDS,
    )


class NetworkCards(PatternRecognizer):
    """Numbers of the networks that Presidio does not know, by their beginnings, lengths and check digit: Mastercard's 2
    series, and Maestro, UnionPay and others of 12 to 19 digits."""

    def validate_result(self, pattern_text: str) -> bool:
        return is_luhn(regex.sub(r"\D", "", pattern_text))


def network_cards(language: str) -> NetworkCards:
    return NetworkCards(
        "CREDIT_CARD",
        supported_language=language,
        patterns=[
            Pattern("Mastercard", r"(?<![\w.-])2[2-7][0-9]{2}(?:[ -]?[0-9]{4}){3}(?![\w-])", WRITTEN),
            Pattern("Maestro", r"(?<![\w.-])(?:5[06-9]|6[0-9])(?:[ -]?[0-9]){10,17}(?![\w-])", WRITTEN),
        ],
        context=CARD_WORDS,
    )


def written_cards(language: str) -> PatternRecognizer:
    """12 to 19 digits beside a word of cards: Presidio knows neither 12, 18 and 19 digits nor Mastercard's 2 series."""
    return PatternRecognizer(
        "CREDIT_CARD",
        name="WrittenCards",
        supported_language=language,
        patterns=[Pattern("digits", r"(?<![\w.-])(?:\d[- ]?){11,18}\d(?![\w-])", IN_CONTEXT)],
        context=CARD_WORDS,
    )


def ibans(language: str) -> IbanRecognizer:
    """Presidio's, for small letters too."""
    flags = regex.DOTALL | regex.MULTILINE | regex.IGNORECASE
    return IbanRecognizer(supported_language=language, regex_flags=flags)


def intranet_emails(language: str) -> PatternRecognizer:
    """ward7@clinic.local: Presidio knows the domains of the public internet alone. The names are those kept for
    private networks and for examples (RFC 2606, RFC 6761, RFC 6762 appendix G)."""
    return PatternRecognizer(
        "EMAIL_ADDRESS",
        name="IntranetEmails",
        supported_language=language,
        patterns=[
            Pattern(
                "intranet",
                r"(?<![\w.+-])\w[\w.!#$%&'*+/=?^`{|}~-]{0,63}@(?:[\w-]{1,63}\.){0,8}"
                r"(?:localhost|localdomain|(?<=\.)(?:local|internal|intranet|private|corp|home|lan|test|example|invalid))"
                r"(?![\w-]|\.\w)",
                WRITTEN,
            )
        ],
    )


def street_addresses(language: str) -> PatternRecognizer:
    """693 Saddler Street, 12 Old Mill Rd., Apt 4b."""
    return PatternRecognizer(
        "STREET_ADDRESS",
        name="StreetAddresses",
        supported_language=language,
        patterns=[
            Pattern(
                "number and street",
                rf"(?<![\w.-])\d{{1,5}}[A-Za-z]? (?:[NSEW]\.? )?(?:[A-Z0-9][\w'’]*+ ){{1,3}}{STREET}\b"
                r"(?:\.?,? (?:Apt|Unit|Suite|Ste|#)\.? ?\w{1,5}\b)?",
                WRITTEN,
            )
        ],
        global_regex_flags=regex.MULTILINE,  # capitals count
    )


def listed_names(language: str) -> ListedNames:
    return ListedNames([ENTITY], name="ListedNames", supported_language=language)


OURS: dict[str, Callable[[str], list[EntityRecognizer]]] = {
    "EMAIL_ADDRESS": lambda language: [intranet_emails(language)],
    "PHONE_NUMBER": lambda language: [PhoneNumbers(supported_language=language), written_phones(language)],
    "CREDIT_CARD": lambda language: [network_cards(language), written_cards(language)],
    "IBAN_CODE": lambda language: [ibans(language)],
    "US_SSN": labelled_ssns,
    "MEDICAL_RECORD": medical_records,
    "ID_NUMBER": labelled_ids,
    "SECRET": secrets,
    "DATE_OF_BIRTH": dates_of_birth,
    "STREET_ADDRESS": lambda language: [street_addresses(language)],
}
"""Entity → our recognisers of it in a language."""
BESIDE_STOCK = ("CREDIT_CARD", "EMAIL_ADDRESS", "US_SSN")  # entities whose recognisers of Presidio's look too
