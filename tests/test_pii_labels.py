"""What a label announces: numbers in groups, labels behind, in keys and in tables, secrets with any sign in them."""

import json
from time import process_time
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stages.common.rows import message
from stages.pii.analyser import GATES, Analyser
from stages.pii.labels import labelled_cells, read_label
from stages.pii.params import Scrub
from stages.pii.patterns import OURS
from stages.pii.residual import find_residuals
from stages.pii.scrubber import Scrubber, no_counts
from stages.pii.search import Search

ENTITIES = {
    "EMAIL_ADDRESS": "replace", "PHONE_NUMBER": "replace", "CREDIT_CARD": "replace", "US_SSN": "replace",
    "MEDICAL_RECORD": "replace", "ID_NUMBER": "replace", "SECRET": "replace", "DATE_OF_BIRTH": "replace",
}  # fmt: skip


@pytest.fixture(scope="module")
def scrubber() -> Scrubber:
    given_values: dict[str, Any] = {
        "language": "en", "entities": ENTITIES, "locales": [], "threshold": 0.5, "names": "none",
        "key_fingerprint": "public", "allow": [], "deny": [], "deny_file": None, "deny_fingerprint": None,
    }  # fmt: skip
    return Scrubber(Scrub(**given_values), Analyser("en", list(ENTITIES), 0.5, "none"))


KEY = "aB3" * 100
PEM = "-----BEGIN RSA PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        # in groups
        ("policy number 1234 5678 9012", "policy number <ID_NUMBER>"),
        ("policy number: HX 209915 is old", "policy number: <ID_NUMBER> is old"),
        ("member ID AB-12-345-67-89-90-11", "member ID <ID_NUMBER>"),
        ("My Medicare number is 2345 67890 1.", "My Medicare number is <ID_NUMBER>."),
        ("passport no GB 123 456 789", "passport no <ID_NUMBER>"),
        ("MRN 0048 2913", "MRN <MEDICAL_RECORD>"),
        ("MRN: 123 456 789", "MRN: <MEDICAL_RECORD>"),
        ("MRN 00482913 2 weeks ago", "MRN <MEDICAL_RECORD> 2 weeks ago"),
        ("case number 48213 500 mg daily", "case number <ID_NUMBER> 500 mg daily"),
        ("claim # 482913", "claim # <ID_NUMBER>"),
        ("**MRN:** 00482913", "**MRN:** <MEDICAL_RECORD>"),
        ("patient_mrn=00482913", "patient_mrn=<MEDICAL_RECORD>"),
        ("SSN: 219099998", "SSN: <US_SSN>"),
        ("social security number 219 09 9998", "social security number <US_SSN>"),
        ("DOB: 1990-04-05T00:00:00Z", "DOB: <DATE_OF_BIRTH>"),
        ("Date of birth 19900405", "Date of birth <DATE_OF_BIRTH>"),
        ("They want the claim number; it is 482913.", "They want the claim number; it is <ID_NUMBER>."),
        ("He gave me his MRN, it's 00482913", "He gave me his MRN, it's <MEDICAL_RECORD>"),
        # the label behind
        ("00482913 is my claim number", "<ID_NUMBER> is my claim number"),
        ("It quotes CLM-1234 5678 as my claim number", "It quotes <ID_NUMBER> as my claim number"),
        ("HX-209915, my old policy number, ended", "<ID_NUMBER>, my old policy number, ended"),
        ("0048 2913 is the patient's MRN", "<MEDICAL_RECORD> is the patient's MRN"),
        ("219099998 was her SSN", "<US_SSN> was her SSN"),
        ("hunter2! is my password", "<SECRET> is my password"),
        # secrets
        ("password: abcd,efgh;1234", "password: <SECRET>"),
        ("password: ab<cd>e'f and more", "password: <SECRET> and more"),
        ("password: <hunter22", "password: <SECRET>"),
        ("I chose a password, it is hunter2", "I chose a password, it is <SECRET>"),
        ('the password is "two words"', 'the password is "<SECRET>"'),
        ("Server=x;Password=abc1;Database=y", "Server=x;Password=<SECRET>;Database=y"),
        ("login admin, password Quarry*x9, now", "login admin, password <SECRET>, now"),
        ("My PIN 4821.", "My PIN <SECRET>."),
        ("DB_PASSWORD=x7Gh!", "DB_PASSWORD=<SECRET>"),
        (f"secret key: {KEY}", "secret key: <SECRET>"),
        (f"use sk-{KEY} or hf_{KEY}", "use <SECRET> or <SECRET>"),
        (f"{PEM}\nMIIabc\n" + "Ab1/" * 15_000 + "\nThe end.", "<SECRET>\nThe end."),
        (f"{PEM}\nProc-Type: 4,ENCRYPTED\n\nMIIabc\nabcd==\n\nSo it is.", "<SECRET>\n\nSo it is."),
        # mail of networks that are nobody else's
        ("h.novak@ward.local, x@clinic.internal or bob@localhost.",
         "<EMAIL_ADDRESS>, <EMAIL_ADDRESS> or <EMAIL_ADDRESS>."),
        # as written at home
        ("If nobody answers, try 07700 900531 or 020 7946 0306.",
         "If nobody answers, try <PHONE_NUMBER> or <PHONE_NUMBER>."),
    ],
)  # fmt: skip
def test_the_whole_of_what_a_label_announces_goes(scrubber: Scrubber, text: str, clean: str) -> None:
    assert scrubber.scrub(text).text == clean


@pytest.mark.parametrize(
    "text",
    [
        "The patient record for the course is 1204 days.",
        "In 2019, the case number rose, and 12 of 300 patients number among the cured.",
        "The passport was issued in 2019. Group number 4 of 1234 took 500 mg.",
        "NCT01234567 (PMID 12345678, doi 10.1000/182) ran from 03/05/2018.",
        "We need 1300 - 520 = $<<1300-520=780>>780 and 60000/1200 = <<60000/1200=50>>50 phones.",
        "The password must have twelve characters; passwords 2 and 3 are password-protected.",
        "password: <your password>, api_key: ${API_KEY}, password: ********",
        "RETRIEVE YOUR PASSWORD NOW! Connect pin 13 of the 184-Pin (32x64) module.",
        f"The file begins with {PEM}.",
        "@media print { a@b } and x@y.z",
        "The draw was 03 06 26 39 48 12, the bytes 01 01 00 00 00 00.",
        "(Postfix, from userid 500) id 4F57189D",
    ],
)
def test_other_numbers_and_words_stay(scrubber: Scrubber, text: str) -> None:
    assert scrubber.scrub(text).text == text


@pytest.mark.parametrize(
    ("key", "above", "label"),
    [
        ("dateOfBirth", "", "date Of Birth"),
        ("patientSSN", "", "patient SSN"),
        ("SSNNumber", "", "SSN Number"),
        ("patient_ssn", "", "patient ssn"),
        ("x-api-key", "", "x api key"),
        ("number", "phone", "phone number"),
        ("city", "address", "city"),
    ],
)
def test_keys_in_words(key: str, above: str, label: str) -> None:
    assert read_label(key, above) == label


def test_values_are_read_behind_their_keys(scrubber: Scrubber) -> None:
    value = {
        "dateOfBirth": "1990-04-05", "phoneNumber": "0490 75 40 81", "medicalRecordNumber": "00482913",
        "patient_ssn": 219099998, "apiKey": "aB3dE5gH7jK9", "phone": {"number": "0490 75 40 81"},
        "patient": {"id": "JS-20417", "visits": 12345678}, "accounts": [{"accountNumber": "0021 4455 8891"}],
    }  # fmt: skip
    call = json.dumps([{"name": "save", "arguments": value}])
    done = scrubber.scrub_message(message("assistant", None, tool_calls=call), no_counts())
    assert json.loads(done["tool_calls"])[0]["arguments"] == {
        "dateOfBirth": "<DATE_OF_BIRTH>", "phoneNumber": "<PHONE_NUMBER>", "medicalRecordNumber": "<MEDICAL_RECORD>",
        "patient_ssn": "<US_SSN>", "apiKey": "<SECRET>", "phone": {"number": "<PHONE_NUMBER>"},
        "patient": {"id": "<MEDICAL_RECORD>", "visits": 12345678}, "accounts": [{"accountNumber": "<ID_NUMBER>"}],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "cells"),
    [
        ("| no. | MRN | status |\n|---|:-:|---|\n| 1 | 00482913 | open |\n| 2 | | 77 |\nEnd.", ["MRN 00482913"]),
        ('name,mrn,dob\n"Lee, Ann",00482913,4/5/1990\nBo,77,', ["mrn 00482913", "dob 4/5/1990", "mrn 77"]),
        ("patientSSN;x\r\n219099998;1\r", ["patient SSN 219099998"]),
        ("| MRN | 00482913 |\n| DOB | 4/5/1990 |", ["MRN 00482913", "DOB 4/5/1990"]),
        ("| Field | Value |\n|---|---|\n| **Policy number** | HX-1 |", ["Policy number HX-1"]),
        ("MRN\tdob\n1\t2\n\nMRN\n3", ["MRN 1", "dob 2"]),
        ("| password | status |\n|---|---|\n| x | open |", ["password x"]),
        ("| order | size |\n|---|---|\n| 00482913 | 12 |", []),
        ("The date of birth, which nobody knew for years, was lost, and\nso, she said, was he", []),
        ("", []),
    ],
)
def test_cells_have_the_label_of_their_column_or_row(text: str, cells: list[str]) -> None:
    assert [f"{cell.label} {text[cell.start : cell.end]}" for cell in labelled_cells(text)] == cells


def test_tables_are_scrubbed(scrubber: Scrubber) -> None:
    text = "| no. | claim number | password |\n|---|---|---|\n| 12345678 | 9912345 | Quarry*x9 |"
    assert scrubber.scrub(text).text.endswith("| 12345678 | <ID_NUMBER> | <SECRET> |")
    assert scrubber.scrub("id,mrn,dob\n12345678,00482913,1990-04-05").text == (
        "id,mrn,dob\n12345678,<MEDICAL_RECORD>,<DATE_OF_BIRTH>"
    )


RECOGNISERS = [found for entity in ENTITIES for found in OURS[entity]("en") if entity != "PHONE_NUMBER"]
GATED, OPEN = Search(RECOGNISERS, 0.5, gates=GATES), Search(RECOGNISERS, 0.5)
LABELS = """
    MRN|medical record no.|patient_id|chart #|hospital number|policy number|acct no|case #|user id|identity card number
    passport|Medicare|SSN|soc. sec. no|social security|D.O.B.|date of birth|birthday|password|pass word|pwd|PIN|DB_PIN
    passphrase|api key|client_secret|secret|access-token|bearer|basic|paſſport|caſe number|birthdate|born
"""
VALUES = """
    00482913|0048 2913|HX-209915|219-09-9998|219 09 9998|1990-04-05|4/5/1990|March 4, 1990|19900405|hunter2!|4821
    abcd,efgh|"two words"|a1B2c3d4e5f6g7h8|ftp://bob:x@y|://a:b@c|12 345 678|x@ward.local
"""
pieces = st.sampled_from([piece.strip() for piece in f"{LABELS}|{VALUES}".replace("\n", "|").split("|")])
links = st.sampled_from([" ", ": ", " is ", "=", " is my ", " as her ", ", my ", "\n", "", " | "])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(pieces, links), max_size=6).map(lambda parts: "".join(sum(parts, ()))))
@example("My PIN 4821. paſſport 12345678 ftp://bob:x@y")
def test_gates_lose_nothing_of_ours(text: str) -> None:
    assert GATED.find(text) == OPEN.find(text)


def test_time_of_the_second_look_grows_with_the_text() -> None:
    """40,000 characters of base64 before an address took 2.4 s when every character could begin one."""
    start = process_time()
    found = find_residuals("aA" * 50_000 + " x@ward", [])
    assert process_time() - start < 1
    assert [item.kind for item in found] == ["at_sign"]
