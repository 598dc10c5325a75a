r"""Numbers that a label announces: medical records, numbers of policies and accounts, social security, dates of birth.

A label stands before its number (MRN: 0048 2913) or behind it (HX-209915 is my policy number). `\K` leaves it outside
the finding. The whole number belongs to the finding, also where it is written in groups: a half would give it away.
"""

from typing import Any

import regex
from presidio_analyzer import EntityRecognizer, Pattern, PatternRecognizer, RecognizerResult

LABELLED, IN_CONTEXT = 0.85, 0.2  # scores; a context word before the finding adds 0.35 (Presidio)
LABELLED_SSN = 0.9  # above LABELLED: the same digits may be called an ID number too
RECORD_WORDS = ["mrn", "patient", "chart", "record"]
BIRTH_WORDS = ["born", "birth", "birthday", "birthdate", "birthdays", "dob"]

_MONTH = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?|"
    r"Nov(?:ember)?|Dec(?:ember)?)\.?"
)
_YEAR = r"(?:19|20)\d{2}"
DATE = (
    rf"(?<![\w/.-])(?:\d{{1,2}}(?P<mark>[/.-])\d{{1,2}}(?P=mark)(?:{_YEAR}|\d{{2}})|{_YEAR}(?P<dash>[/.-])\d{{1,2}}(?P=dash)\d{{1,2}}"
    r"(?:T\d\d:\d\d(?::[\d.]{2,9})?(?:Z|[+-]\d\d:?\d\d)?)?"
    rf"|{_MONTH} \d{{1,2}}(?:st|nd|rd|th)?,? {_YEAR}|\d{{1,2}}(?:st|nd|rd|th)?(?: of)? {_MONTH},? {_YEAR})(?![\w/-])"
)

_NUMBER = r"(?:(?:number|no|id|num|code|identifier)\b|#)"
RECORD = (
    rf"(?<![a-z0-9])(?:MRN\b|(?:medical|health|hospital|patient|chart)[ _-]?record(?:\b|[ _-]?{_NUMBER})|"
    rf"(?:patient|chart|hospital)['’]?s?[ _-]?{_NUMBER})"
)
_KINDS = (  # `from userid 500` stands in the header of mails: no person's
    r"(?:account|acct|policy|member(?:ship)?|claim|customer|client|case|employee|student|passport|visa|insurance|"
    r"subscriber|group|license|licence|permit|registration|badge|tax|national|identity|identification|id|reference|"
    r"prescription|rx|authorization|referral|enrollment|(?<!from )user|medicare|medicaid|file)"
)
ID = (  # the end of a label is sought first: it stands in a text less often than the words it may begin with
    rf"(?:{_NUMBER}(?<=(?<![a-z0-9]){_KINDS}(?:[ _-]?card)?[ _-]?{_NUMBER})(?<!(?:reference|id) ?#)|"
    r"\b(?:passport|medicare|medicaid)\b)"
)
SSN = rf"(?<![a-z0-9])(?:(?:SSN|social[ _-]?security|soc\.? sec\.?)(?:\b|[ _-]?{_NUMBER}))"
BIRTH = r"(?<![a-z0-9])(?:D\.? ?O\.? ?B|date[ _-]?of[ _-]?birth|birth[ _-]?da(?:te|y))\b"

_BEFORE = (  # between a label and its number
    r"\.?(?: on (?:file|record)\b)?[.:#=]*"
    r"(?:[,;.]?(?: (?:which|that|it))?(?: (?:is|was|are|being|reads|shows)\b|(?<=it)['’]s\b)(?: now)?)?"
    r"[\s:#=\"'`(*]{0,5}"
)
_OWNER = r"(?:my|our|his|her|their|your|\w{1,30}['’]s)"
_BEHIND = (  # between a number and its label
    rf"[\"'`)*]{{0,3}}(?:,? (?:is|was|as|for) (?:{_OWNER}|the|this)|, {_OWNER})"
    r"(?: (?!and\b|or\b)[\w’']{1,20}){0,2}? "
)

_UNIT = r"(?:[mk]?g|mcg|m?l|[cmk]?m|lbs?|mmHg|[A-Z]{3}|dollars|euros|(?:second|minute|hour|day|week|month|year|time)s?)"
_GROUP = rf" (?=[A-Z]*\d)(?-i:[A-Z0-9]{{3,8}})(?![\w%]|[.,]\d| (?-i:{_UNIT})\b)"
_GROUPS = (
    r"(?=(?:[A-Z -]{0,6}\d){5})(?-i:(?:[A-Z]{1,5}-)?[A-Z]{0,4}\d[A-Z0-9]{1,6}+)"
    rf"(?:{_GROUP}){{1,6}}+(?: \d{{1,2}}(?=[^\w ]|\Z| ?\n))?"
)
_RUN = r"[A-Z0-9]{1,64}(?:[-/_][A-Z0-9]{1,64}|\.\d{1,64}){0,30}+"
_THREE_DIGITS = r"(?=[\w/.-]*\d{3})"  # in a row: a gate of analyser.py asks for them
_LETTERS = r"(?:(?-i:[A-Z]{1,5}) )?"
_NEITHER = rf"(?!(?:\d{{1,2}}([/.-])\d{{1,2}}\1{_YEAR}|{_YEAR}([/.-])\d{{1,2}}\2\d{{1,2}}|1-8\d\d-\w+)\b)"
_FOUR_DIGITS = r"(?=[A-Z]{0,5}[-/]?\d)(?=(?:[-/.]?[A-Z]{0,5}\d){4})"
RECORD_NUMBER = rf"{_NEITHER}{_LETTERS}(?:{_GROUPS}|{_FOUR_DIGITS}{_THREE_DIGITS}{_RUN})(?!\w)"
ID_NUMBER = rf"{_NEITHER}{_LETTERS}(?:{_GROUPS}|{_THREE_DIGITS}{_RUN})(?!\w)"
SSN_NUMBER = r"(?!000|666)\d{3}[- .]?(?!00)\d{2}[- .]?(?!0000)\d{4}(?![\w-])"
FARTHEST = 256  # characters of a value whose label stands behind it
ALONE = rf"(?<![\w/.@:$€£#-])(?!{_YEAR}\Z)"  # before a number whose label follows


class LabelsBehind(EntityRecognizer):
    """HX-209915 is my policy number: `value` as far as a label, an expression, stands behind it. What stands between
    is sought first, and the value from there backwards, since more words may be a value than be followed by a label."""

    def __init__(self, entity: str, name: str, language: str, value: str, label: str, score: float) -> None:
        self.link = regex.compile(_BEHIND + label, regex.IGNORECASE)
        self.value = regex.compile(rf"{value}\Z", regex.IGNORECASE)
        self.score = score
        super().__init__([entity], name=name, supported_language=language)

    def load(self) -> None:
        pass

    def analyze(self, text: str, entities: list[str], nlp_artifacts: Any = None) -> list[RecognizerResult]:
        found = []
        for link in self.link.finditer(text):
            end = link.start()
            if value := self.value.search(text, max(0, end - FARTHEST), end):
                found.append(RecognizerResult(self.supported_entities[0], value.start(), end, self.score))
        return found


def medical_records(language: str) -> list[EntityRecognizer]:
    """MRN 00482913, patient ID: JS-20417, 00482913 is her patient number."""
    return [
        PatternRecognizer(
            "MEDICAL_RECORD",
            name="MedicalRecords",
            supported_language=language,
            patterns=[
                Pattern("labelled", rf"{RECORD}{_BEFORE}\K{RECORD_NUMBER}", LABELLED),
                Pattern("lettered", r"(?<![\w-])[A-Z]{2,4}-\d{5,8}(?![\w-])", IN_CONTEXT),
            ],
            context=RECORD_WORDS,
        ),
        LabelsBehind("MEDICAL_RECORD", "RecordsBefore", language, ALONE + RECORD_NUMBER, RECORD, LABELLED),
    ]


def labelled_ids(language: str) -> list[EntityRecognizer]:
    """Policy number HX-209915, account no. 0021-4455: whatever is called somebody's number or ID."""
    return [
        PatternRecognizer(
            "ID_NUMBER",
            name="LabelledIds",
            supported_language=language,
            patterns=[Pattern("labelled", rf"{ID}{_BEFORE}\K{ID_NUMBER}", LABELLED)],
        ),
        LabelsBehind("ID_NUMBER", "IdsBefore", language, ALONE + ID_NUMBER, ID, LABELLED),
    ]


def labelled_ssns(language: str) -> list[EntityRecognizer]:
    """SSN 219099998: nine digits, which without a label may be anything."""
    return [
        PatternRecognizer(
            "US_SSN",
            name="LabelledSsns",
            supported_language=language,
            patterns=[Pattern("labelled", rf"{SSN}{_BEFORE}\K{SSN_NUMBER}", LABELLED_SSN)],
        ),
        LabelsBehind("US_SSN", "SsnsBefore", language, ALONE + SSN_NUMBER, SSN, LABELLED_SSN),
    ]


def dates_of_birth(language: str) -> list[EntityRecognizer]:
    """A full date after a word of birth."""
    plain = rf"(?:{_YEAR}[01]\d[0-3]\d|[0-3]\d[0-3]\d{_YEAR})(?!\w)"
    return [
        PatternRecognizer(
            "DATE_OF_BIRTH",
            name="DatesOfBirth",
            supported_language=language,
            patterns=[
                Pattern("labelled", rf"{BIRTH}{_BEFORE}\K(?:{DATE}|{plain})", LABELLED),
                Pattern("date", DATE, IN_CONTEXT),
            ],
            context=BIRTH_WORDS,
        )
    ]
