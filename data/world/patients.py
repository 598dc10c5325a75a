"""Whose message each patient question is, and the personal data that some patients write into it. All of it invented:
telephone numbers in 555-01xx, e-mail addresses at example.*, social security numbers in areas that are never issued."""

import datetime
import re
from typing import Any

from entries import Entry, draw, pick, shuffled, shuffled_entries

ENTITIES = {
    "name": "PERSON",
    "lower_name": "PERSON",
    "first": "PERSON",
    "last": "PERSON",
    "phone": "PHONE_NUMBER",
    "email": "EMAIL_ADDRESS",
    "street": "STREET_ADDRESS",
    "birth_date": "DATE_OF_BIRTH",
    "record_number": "MEDICAL_RECORD",
    "card": "CREDIT_CARD",
    "social": "US_SSN",
}
MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
          "December"]  # fmt: skip
FIRST_DAY = datetime.date(2025, 1, 6)
DAYS = 330
MOST_DEALT = 6  # messages of one patient, before what is sent twice


def identity(patient: int, mess: dict[str, Any], relative: str = "") -> dict[str, str]:
    """Who an invented patient is, or a relative of theirs with the same family name."""
    last = mess["last_names"][patient % len(mess["last_names"])]
    first = pick(mess["first_names"], "first name", patient, relative)
    born = datetime.date(1938, 1, 1) + datetime.timedelta(days=draw("birth", patient, relative) % 24_000)
    area, line = ("720", "719", "970")[patient % 3], f"{100 + patient // 3 * 37 % 100:04d}"
    phones = [f"({area}) 555-{line}", f"{area}-555-{line}", f"{area}.555.{line}", f"555-{line}"]
    mailboxes = [f"{first}.{last}", f"{first[0]}{last}{born:%y}", f"{last}_{first}"]
    domains = ["example.com", "example.org", "example.net"]
    written = f"{MONTHS[born.month - 1]} {born:%d, %Y}"  # not %B, which speaks the machine's language
    birth_dates = [f"{born:%m/%d/%Y}", written, born.isoformat(), f"{born:%m-%d-%y}"]
    return {
        "name": f"{first} {last}",
        "lower_name": f"{first} {last}".lower(),
        "first": first,
        "last": last,
        "phone": pick(phones, "phone", patient),
        "email": f"{pick(mailboxes, 'mailbox', patient)}@{pick(domains, 'domain', patient)}".lower(),
        "street": f"{draw('house', patient) % 900 + 12} {pick(mess['streets'], 'street', patient)}",
        "birth_date": pick(birth_dates, "date form", patient),
        "record_number": f"{draw('record', patient, relative) % 9_000_000 + 1_000_000}",
        "card": pick(mess["cards"], "card", patient),
        "social": f"9{draw('area', patient) % 100:02d}-{draw('group', patient) % 40 + 10}-"
        f"{draw('serial', patient) % 9000 + 1000}",
    }


def assign_patients(entries: list[Entry], mess: dict[str, Any], twins: dict[str, str]) -> list[Entry]:
    """Give each row its patient (1 to 8 messages each) and its date, in the order of the dates.

    `twins`: a row → the row that the same patient had sent earlier that day.
    """
    count = mess["counts"]["patients"]
    owner: dict[str, int] = {}
    dealt = [0] * count
    for number, entry in enumerate(shuffled_entries([row for row in entries if row.key not in twins], "patients")):
        patient = number if number < count else draw("patient", entry.key) % count
        while dealt[patient] == MOST_DEALT:
            patient = (patient + 1) % count
        owner[entry.key] = patient
        dealt[patient] += 1
    rows = []
    for entry in entries:
        first = twins.get(entry.key, entry.key)
        date = FIRST_DAY + datetime.timedelta(days=draw("date", first) % DAYS)
        rows.append(Entry(entry.key, {"patient": owner[first], "date": date.isoformat(), **entry.record}))
    return sorted(rows, key=lambda row: (row.record["date"], row.key in twins, draw("hour", row.key)))


def add_personal_data(entries: list[Entry], mess: dict[str, Any], keys: set[str]) -> tuple[list[Entry], dict[str, Any]]:
    """Personal data in the messages of `keys`, each form about equally often; some replies repeat a name.

    Returns the rows, and for each of `keys` what its row holds now: [{column, type, text}].
    """
    forms = {key: index % len(mess["personal"]) for index, key in enumerate(shuffled(keys, "personal forms"))}
    found: dict[str, Any] = {}
    rows = []
    for entry in entries:
        if entry.key in forms:
            entry, found[entry.key] = _with_personal_data(entry, mess, mess["personal"][forms[entry.key]])
        rows.append(entry)
    return rows, found


def _with_personal_data(entry: Entry, mess: dict[str, Any], form: dict[str, Any]) -> tuple[Entry, list[dict[str, str]]]:
    other = form.get("other", False)
    who = identity(entry.record["patient"], mess, entry.key if other else "")
    before, after = form.get("before", ""), form.get("after", "")
    message, reply = entry.record["message"], entry.record["reply"]
    found = [("message", name) for name in re.findall(r"{(\w+)}", before + after)]
    if before:
        message = f"{before.format(**who)} {message}"
    if after:
        gap = "" if after.startswith("\n") else " " if message[-1] in ".?!" else ". "
        message = f"{message}{gap}{after.format(**who)}"
    named = not other and any(name in ("name", "first") for _, name in found)
    if named and not entry.key.startswith("g") and draw("greeting", entry.key) % 2:  # an emergency needs no greeting
        reply = f"{pick(mess['greetings'], 'greetings', entry.key).format(**who)} {reply}"
        found.append(("reply", "first"))
    entities = [{"column": column, "type": ENTITIES[name], "text": who[name]} for column, name in found]
    return Entry(entry.key, entry.record | {"message": message, "reply": reply}), entities


def patient_rows(
    entries: list[Entry], mess: dict[str, Any], twins: dict[str, str], clean: set[str]
) -> tuple[list[Entry], dict[str, Any]]:
    """The rows of patient_questions in the order of the file, and the personal data by key.

    Personal data goes into a share of the rows, chosen among `clean` (rows that nothing else is planted on), but not
    where a message speaks of an age or a day that a date of birth could contradict.
    """
    rows = assign_patients(entries, mess, twins)
    count = round(mess["counts"]["personal_share"] * len(rows))
    free = [row.key for row in rows if row.key in clean and not re.search(r"\d", row.record["message"])]
    rows, found = add_personal_data(rows, mess, set(shuffled(free, "personal")[:count]))
    numbers = sorted(shuffled(range(20_000, 30_000), "patient numbers")[: mess["counts"]["patients"]])
    columns = [
        {
            "id": f"m{index:04d}",
            "patient_id": f"JS-{numbers[row.record['patient']]}",
            "message": row.record["message"],
            "reply": row.record["reply"],
            "date": row.record["date"],
        }
        for index, row in enumerate(rows, 1)
    ]
    return [Entry(row.key, record) for row, record in zip(rows, columns, strict=True)], found
