"""Stand-ins, secrets, identifiers, the second look, the cache: what scrub does with what is found."""

import hashlib
import json
import pickle
import random
import re
import sqlite3
import stat
import time
import unicodedata
from collections import Counter
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import phonenumbers
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.common.errors import InputError
from stages.common.rows import ROW_SCHEMA, message
from stages.pii import Finding
from stages.pii.analyser import Analyser, countries
from stages.pii.cache import Cache, fingerprint_of
from stages.pii.escapes import read_escapes
from stages.pii.given import parse_deny, read_key, read_secrets
from stages.pii.numbers import is_luhn
from stages.pii.operators import listed, pseudonym, shift_date, surrogate
from stages.pii.params import Scrub
from stages.pii.residual import entropy, find_residuals, mask_shape
from stages.pii.scrubber import Scrubber
from stages.pii.spans import Allowed, Denied
from stages.pii.spelling import normalise_value
from stages.pii.worker import build_scrubber, make_worker, scrub_batch

SECRET = "a secret of forty characters for tests.."
FINGERPRINT = hashlib.sha256(SECRET.encode()).hexdigest()[:12]
KEY = b"k" * 32
ENTITIES = [
    "PERSON", "EMAIL_ADDRESS", "PHONE_NUMBER", "CREDIT_CARD", "IBAN_CODE", "US_SSN", "US_NPI", "MEDICAL_RECORD",
    "IP_ADDRESS", "DATE_OF_BIRTH", "SECRET", "ID_NUMBER", "NATIONAL_ID",
]  # fmt: skip


def params(action: str = "replace", **changes: Any) -> Scrub:
    given_values: dict[str, Any] = {
        "language": "en", "entities": dict.fromkeys(ENTITIES, action), "locales": ["us", "uk"], "threshold": 0.5,
        "names": "lists", "key_fingerprint": "public" if action in ("replace", "mask") else FINGERPRINT, "allow": [],
        "deny": [], "deny_file": None, "deny_fingerprint": None,
    }  # fmt: skip
    return Scrub(**given_values | changes)


@pytest.fixture(scope="module")
def analyser() -> Analyser:
    return Analyser("en", ENTITIES, 0.5, "lists", ["us", "uk"])


def scrubber(analyser: Any, action: str = "replace", **changes: Any) -> Scrubber:
    chosen = params(action, **changes)
    return Scrubber(chosen, analyser, read_secrets(chosen, {"PEDIGREE_KEY": SECRET}))


# Recognisers


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("my password: hunter2 and more", "my password: <SECRET> and more"),
        ("The password is required.", "The password is required."),
        ("Authorization: Bearer abc123def456ghi789jkl", "Authorization: Bearer <SECRET>"),
        ("use AKIAIOSFODNN7EXAMPLE here", "use <SECRET> here"),
        (f"token {'ghp_' + 'a1B2' * 9}", "token <SECRET>"),
        ("postgres://bob:s3cret@db/x", "postgres://bob:<SECRET>@db/x"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMII-abc\nx==\n-----END RSA PRIVATE KEY----- end", "<SECRET> end"),
        ("policy number HX-209915, order 12345", "policy number <ID_NUMBER>, order 12345"),
        ("NPI 1234567893 but 1234567890", "NPI <US_NPI> but 1234567890"),
        ("His NHS number is 943 476 5919.", "His NHS number is <NATIONAL_ID>."),
        ("Charge 2221 0000 0000 0009 now", "Charge <CREDIT_CARD> now"),
        ("Charge 2221 0000 0000 0008 now", "Charge 2221 0000 0000 0008 now"),
    ],
)
def test_secrets_and_identifiers(analyser: Analyser, text: str, clean: str) -> None:
    assert scrubber(analyser).scrub(text).text == clean


def test_check_digit_of_cards() -> None:
    assert is_luhn("79927398713")  # the example of ISO/IEC 7812-1's method in wide use
    assert not is_luhn("79927398710")


def test_countries_and_unknown_locale() -> None:
    assert {"us", "uk", "de"} <= set(countries())
    assert "UK_NHS" in countries()["uk"]
    with pytest.raises(InputError, match=r"nothing is known of xx; choose of au, ca"):
        Analyser("en", ["NATIONAL_ID"], 0.5, "none", ["xx"])


@pytest.mark.parametrize("names", ["gliner:some/model", "transformers:no/such-folder"])
def test_models_that_are_not_there_are_one_clear_error(names: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match=r"scrub.names: (gliner:some/model|transformers:no/such-folder)"):
        Analyser("en", ["PERSON"], 0.5, names)


def test_transformers_model_of_the_user(tmp_path: Path) -> None:
    """A token classifier that takes one word for a person: its first layer's weights are the words themselves."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertForTokenClassification, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "came", "late", ".", "Zzyx"]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    labels = {0: "O", 1: "PER"}
    config = BertConfig(
        vocab_size=len(words), hidden_size=4, num_hidden_layers=0, num_attention_heads=1, intermediate_size=4,
        id2label=labels, label2id={label: number for number, label in labels.items()},
    )  # fmt: skip
    model = BertForTokenClassification(config)
    with torch.no_grad():
        for weights in model.parameters():
            weights.zero_()
        model.bert.embeddings.LayerNorm.weight.fill_(1)
        model.bert.embeddings.word_embeddings.weight[5, 0] = 1
        model.classifier.weight[1, 0] = 20
        model.classifier.bias[0] = 10
    model.save_pretrained(tmp_path)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", model_max_length=64
    )
    fast.save_pretrained(tmp_path)
    analyser = Analyser("en", ["PERSON", "EMAIL_ADDRESS"], 0.5, f"transformers:{tmp_path}")
    found = analyser.find("Zzyx came late. tom@example.com")
    assert [(item.start, item.end, item.entity) for item in found] == [(0, 4, "PERSON"), (16, 31, "EMAIL_ADDRESS")]
    assert "PERSON" not in analyser.not_covered


# Stand-ins


def test_pseudonym_is_the_same_for_spellings_of_one_person() -> None:
    tokens = {
        pseudonym(KEY, "PERSON", name) for name in ("Helen Novák", "HELEN  NOVAK", "Dr. Helen Novak", "mrs helen novak")
    }
    assert len(tokens) == 1
    assert re.fullmatch(r"<PERSON_[0-9a-f]{12}>", tokens.pop())
    assert pseudonym(KEY, "PERSON", "Helen Novak") != pseudonym(b"l" * 32, "PERSON", "Helen Novak")
    assert pseudonym(KEY, "PHONE_NUMBER", "(720) 555-0188") == pseudonym(KEY, "PHONE_NUMBER", "720.555.0188")
    assert normalise_value("EMAIL_ADDRESS", "Tom@Example.com ") == "tom@example.com"


@pytest.mark.parametrize(
    ("entity", "same", "others"),
    [
        ("PHONE_NUMBER",
         ["+1 303-555-0199", "(303) 555-0199", "1.303.555.0199", "٣٠٣٥٥٥٠١٩٩", "３０３−５５５−０１９９"],
         ["303-555-0199 x12", "303-555-0198", "٣٠٣٥٥٥٠١٩٧", "+44 30 3555 0199"]),
        ("PHONE_NUMBER", ["+44 (0)20 7946 0958", "+44 20 79460958"], ["+44 20 7946 0959"]),
        ("IP_ADDRESS", ["192.168.1.11"], ["192.168.11.1", "1921.68.1.11"]),
        ("IP_ADDRESS", ["2001:DB8::1", "2001:db8:0:0:0:0:0:1"], ["2001:db8::11"]),
        ("MEDICAL_RECORD", ["0048-2913", "00482913", "0048 2913", "٠٠٤٨٢٩١٣"], ["٠٠٤٨٢٩١٤"]),
        ("SECRET", ["aB3$x"], ["ab3$x", "aB3x"]),
        ("PERSON", ["Jo\u00adse\u0301 Diaz", "José Díaz", "Dr. José Díaz"], ["Josef Diaz"]),
        ("PERSON", ["がき", "か\u3099き"], ["かき"]),  # a sign on a kana is no accent
        ("LOCATION", ["Straße 5", "STRASSE  5"], ["Straße 55"]),
    ],
)  # fmt: skip
def test_spellings_of_one_value_count_as_one_and_no_others(entity: str, same: list[str], others: list[str]) -> None:
    assert len({pseudonym(KEY, entity, text) for text in same}) == 1
    assert len({pseudonym(KEY, entity, text) for text in (same[0], *others)}) == 1 + len(others)


def test_surrogates_have_the_form_of_the_value() -> None:
    for number in ("4111-1111 1111 1111", "378282246310005"):
        new = surrogate(KEY, "CREDIT_CARD", number)
        assert mask_shape(new) == mask_shape(number)
        assert is_luhn(re.sub(r"\D", "", new))
        assert new[0] == number[0]
    iban = surrogate(KEY, "IBAN_CODE", "GB33 BUKB 2020 1555 5555 55")
    assert re.fullmatch(r"GB\d\d [A-Z]{4} \d{4} \d{4} \d{4} \d\d", iban)
    plain = iban.replace(" ", "")
    assert int("".join(str(int(character, 36)) for character in plain[4:] + plain[:4])) % 97 == 1  # ISO 13616
    assert re.fullmatch(r"[12]\d{9}", npi := surrogate(KEY, "US_NPI", "1234567893"))
    assert is_luhn("80840" + npi)
    assert re.fullmatch(r"\(\d{3}\) 555-01\d\d", surrogate(KEY, "PHONE_NUMBER", "(720) 415-0188"))
    assert re.fullmatch(r"9\d\d-\d\d-\d{4}", surrogate(KEY, "US_SSN", "536-22-8726"))
    assert re.fullmatch(r"[a-z]+\.[a-z]+\d+@example\.org", surrogate(KEY, "EMAIL_ADDRESS", "tom@mail.de"))
    assert re.fullmatch(r"[А-Яа-я]+ [А-Яа-я]+", surrogate(KEY, "PERSON", "Иван Петров"))
    assert surrogate(KEY, "IP_ADDRESS", "10.1.2.3").startswith(("192.0.2.", "198.51.100.", "203.0.113."))


def test_surrogate_names_are_consistent_part_by_part() -> None:
    first, family = surrogate(KEY, "PERSON", "Helen Novak").split()
    assert surrogate(KEY, "PERSON", "Dr. NOVAK") == f"Dr. {family.upper()}"
    assert surrogate(KEY, "PERSON", "helen") == first.lower()
    assert {first, family}.isdisjoint({"Helen", "Novak"})


@pytest.mark.parametrize(
    ("number", "form"),
    [
        ("(720) 415-0188", r"\([2-9]\d\d\) 555-01\d\d"),
        ("+1 720-415-0188 ext. 77", r"\+1 [2-9]\d\d-555-01\d\d ext\. 00"),
        ("415-0188", r"555-01\d\d"),
        ("٧٢٠٤١٥٠١٨٨", r"[2-9]\d\d55501\d\d"),
        ("+44 20 7946 0958", r"\+44 0\d \d555 01\d\d"),
        ("+44 (0)20 7946 0958", r"\+44 \(0\)0\d \d555 01\d\d"),
        ("+49 30 1234567", r"\+49 0\d 55501\d\d"),
        ("+354 415 0188", "<PHONE_NUMBER>"),  # seven digits: what could be put there may be somebody's
        ("1-800-FLOWERS", "<PHONE_NUMBER>"),
        ("12345", "<PHONE_NUMBER>"),
    ],
)
def test_surrogates_of_telephone_numbers_are_nobodys(number: str, form: str) -> None:
    for seed in range(30):
        new = surrogate(bytes([seed]) * 32, "PHONE_NUMBER", number)
        assert re.fullmatch(form, new), new
        if new[0] != "<" and "+1" not in form:
            parsed = phonenumbers.parse(new, "US")
            assert parsed.country_code == 1 or not phonenumbers.is_valid_number(parsed), new
        area = re.match(r"\+?1?\D*(\d)(\d)(\d)\D*555", new)
        assert area is None or area[2] != area[3], new  # 800, 888, 911


def test_no_surrogate_is_the_value_itself() -> None:
    for seed in range(200):
        key = bytes([seed]) * 32
        assert surrogate(key, "MEDICAL_RECORD", "7") in set("012345689")
        assert surrogate(key, "PERSON", "K.") != "K."
        assert surrogate(key, "PHONE_NUMBER", "555-0142") != "555-0142"
        assert surrogate(key, "STREET_ADDRESS", "5 The Close") != "5 The Close"
    for name in listed("family")[:2000]:
        assert surrogate(KEY, "PERSON", name) != name
    assert surrogate(KEY, "ORGANIZATION", "The Bank of the Clinic") == "<ORGANIZATION>"
    assert surrogate(KEY, "STREET_ADDRESS", "The Close") == "<STREET_ADDRESS>"
    assert surrogate(KEY, "MEDICAL_RECORD", "--") == "<MEDICAL_RECORD>"


def test_nothing_of_a_name_stays_in_its_surrogate() -> None:
    assert "Nurse" not in surrogate(KEY, "PERSON", "Rebecca Nurse")  # a title only before the name
    assert surrogate(KEY, "PERSON", "Dr. Rebecca Nurse").startswith("Dr. ")
    assert surrogate(KEY, "PERSON", "हेलेन नोवाक") == "<PERSON>"  # no letters are known for it
    assert surrogate(KEY, "OTHER", "हेलेन") == "<OTHER>"
    assert re.fullmatch(r"[가-힣]{3}", surrogate(KEY, "PERSON", "김철수"))
    assert re.fullmatch(r"[а-я]+", surrogate(KEY, "PERSON", "ёж"))
    assert surrogate(KEY, "PERSON", "Jose\u0301") == surrogate(KEY, "PERSON", "José")
    assert re.fullmatch(r"9\d\d-0\d-\d{4}", surrogate(KEY, "US_SSN", "536-22-8726"))


@pytest.mark.parametrize(
    ("text", "moved"),
    [
        ("03/14/1972", "03/24/1972"), ("25/12/1999", "04/01/2000"), ("1972-12-30", "1973-01-09"), ("3.4.72", "3.14.72"),
        ("March 30, 1972", "April 09, 1972"), ("30 Mar 1972", "09 Apr 1972"), ("14", None), ("99/99/1972", None),
    ],
)  # fmt: skip
def test_dates_shift_in_their_own_layout(text: str, moved: str | None) -> None:
    assert shift_date(text, timedelta(days=10)) == moved


def test_all_dates_shift_by_the_same_days() -> None:
    days = {(int(surrogate(KEY, "DATE_OF_BIRTH", f"2001-0{month}-10")[5:7]) - month) % 12 for month in range(1, 10)}
    assert len(days) <= 2  # months of 30 and 31 days


def test_key_must_be_the_one_of_params() -> None:
    assert read_key("public", {}) is None
    key = read_key(FINGERPRINT, {"PEDIGREE_KEY": SECRET})
    assert key is not None
    assert key != SECRET.encode()
    with pytest.raises(InputError, match="PEDIGREE_KEY holds nothing"):
        read_key(FINGERPRINT, {})
    with pytest.raises(InputError, match=r"asks for the key 0{12}"):
        read_key("0" * 12, {"PEDIGREE_KEY": SECRET})
    short = "fifteen letters"
    with pytest.raises(InputError, match="PEDIGREE_KEY has 15 characters, stand-ins need one of at least 16") as caught:
        read_key(hashlib.sha256(short.encode()).hexdigest()[:12], {"PEDIGREE_KEY": short})
    assert short not in str(caught.value)
    assert read_key(hashlib.sha256(b"sixteen letters!").hexdigest()[:12], {"PEDIGREE_KEY": "sixteen letters!"})


# What must go


def test_deny_entries_go_with_or_without_a_type(analyser: Analyser, tmp_path: Path) -> None:
    assert Denied(["MEDICAL: night  sweats", "Zzyx"], ["MEDICAL"]).find("He, ZZYX, has Night sweats") == [
        Finding(4, 8, "OTHER", 1.0), Finding(14, 26, "MEDICAL", 1.0),
    ]  # fmt: skip
    file = tmp_path / "deny.txt"
    file.write_text("# ours\nPERSON: Oru Vell\n")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:12]
    work = scrubber(analyser, deny=["Zzyx Ltd"], deny_file=str(file), deny_fingerprint=digest)
    assert work.scrub("oru  vell of Zzyx Ltd, Zzyx").text == "<PERSON> of <OTHER>, Zzyx"
    with pytest.raises(InputError, match="has the fingerprint"):
        scrubber(analyser, deny_file=str(file), deny_fingerprint="0" * 12)
    with pytest.raises(InputError, match="cannot be read"):
        scrubber(analyser, deny_file=str(tmp_path / "no"), deny_fingerprint=digest)


@pytest.mark.parametrize(
    ("entry", "before", "value"),
    [
        ("Müller", "Herr ", unicodedata.normalize("NFD", "Müller")),
        (unicodedata.normalize("NFD", "Müller"), "Herr ", "MÜLLER"),
        ("Helen Novak", "so ", "Hel\u200ben\u00a0No\u00advak"),
        ("Straße 5", "in ", "STRASSE 5"),
        ("O'Brien", "Mrs ", "O’BRIEN"),
        ("Zyx-Wab", "the ", "Zyx\u2011Wab"),
        ("Novak", "\u200b", "Ｎｏｖａｋ"),
        ("Novak", "é ", "Nоvak"),  # with a Cyrillic о
    ],
)
def test_deny_entries_go_in_every_spelling_that_looks_the_same(entry: str, before: str, value: str) -> None:
    (found,) = Denied([entry], []).find(f"{before}{value}.")
    assert (found.start, found.end) == (len(before), len(before) + len(value))
    assert not Denied([entry], []).find("Muller O Brien ZyxWab Novák Nova\u0301k Helen Nováková")


def test_lines_of_a_deny_file() -> None:
    text = "# 00ff\n\n  PERSON: Oru Vell \n\\#5 Mill Lane\n\\\\server\n#old\n"
    assert parse_deny(text) == ["PERSON: Oru Vell", "#5 Mill Lane", "\\server"]


# The second look


def test_second_look_sees_what_was_left_and_not_what_was_put_in(analyser: Analyser) -> None:
    text = "Mr Zzyx wrote zzyx@localhost, 12 34 56 78 9, key a8Fh3kLq9ZpT2vXc7RnB5m, my DOB: 1972"
    kinds = [item.kind for item in find_residuals(text, [])]
    assert sorted(kinds) == ["at_sign", "digits", "labelled", "long_code", "titled_name"]
    assert find_residuals("aaaaaaaaaaaaaaaaaaaa1 /a/b.c?d=1234567890123456789a", []) == []
    assert entropy("abab") == 1.0
    clean = scrubber(analyser, "surrogate").scrub("I am Tom Baker, tom@example.com, SSN 536-22-8726.")
    assert "tom@" not in clean.text
    assert clean.residuals == []
    assert mask_shape("Helen 42!") == "Xxxxx 00!"


# Invariants

PLANTED = {
    "EMAIL_ADDRESS": st.from_regex(r"[a-z]{3,9}\.[a-z]{3,9}@(mail|example)\.(com|org)", fullmatch=True),
    "US_SSN": st.from_regex(r"[1-5][1-9]{2}-[1-9]{2}-[1-9]{4}", fullmatch=True).filter(lambda text: len(set(text)) > 2),
    "PHONE_NUMBER": st.from_regex(r"\([2-9][0-8][1-9]\) [2-9][0-9]{2}-[0-9]{4}", fullmatch=True),
    "IP_ADDRESS": st.builds(lambda *parts: ".".join(map(str, parts)), *[st.integers(11, 254)] * 4),
    "CREDIT_CARD": st.integers(0, 10**14 - 1).map(lambda number: luhn(f"4{number:014d}")),
    "US_NPI": st.integers(0, 10**8 - 1).map(lambda number: luhn(f"1{number:08d}", "80840")),
    "IBAN_CODE": st.integers(0, 10**18 - 1).map(lambda number: german_iban(f"{number:018d}")),
    "SECRET": st.from_regex(r"ghp_[A-Za-z0-9]{36}", fullmatch=True),
}


def luhn(digits: str, before: str = "") -> str:
    return next(digits + check for check in "0123456789" if is_luhn(before + digits + check))


def german_iban(account: str) -> str:
    return f"DE{98 - int(account + '131400') % 97:02d}{account}"


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(["replace", "mask", "pseudonym", "surrogate"]))
def test_scrubbed_text_holds_none_of_the_planted_values(data: st.DataObject, action: str) -> None:
    values = {entity: data.draw(strategy) for entity, strategy in PLANTED.items()}
    text = "; ".join(f"item {number} {value}" for number, value in enumerate(values.values()))
    clean = scrubber(ANALYSER, action).scrub(text).text
    for entity, value in values.items():
        assert value not in clean, entity


ANALYSER = Analyser("en", ENTITIES, 0.5, "lists", ["us", "uk"])


def make_row(number: int, text: str) -> dict[str, Any]:
    empty: dict[str, Any] = dict.fromkeys(ROW_SCHEMA)
    return empty | {"row_id": f"{number}", "source": "s", "kind": "sft", "messages": [message("user", text)]}


@settings(max_examples=15, deadline=None)
@given(st.randoms(use_true_random=False))
def test_order_of_rows_and_size_of_batches_are_irrelevant(shuffle: random.Random) -> None:
    names = ["Helen Novak", "Tom Baker", "Ana Silva"]
    texts = [f"My name is {names[number % 3]}, mail p{number % 4}@example.com" for number in range(9)]
    rows = pl.DataFrame([make_row(number, text) for number, text in enumerate(texts)], ROW_SCHEMA)
    order = list(range(9))
    shuffle.shuffle(order)
    whole = scrub_batch(rows, scrubber(ANALYSER, "pseudonym"))
    parts = pl.concat([scrub_batch(part, scrubber(ANALYSER, "pseudonym")) for part in rows[order].iter_slices(4)])
    assert parts.sort("row_id").equals(whole)
    contents = [row[0]["content"] for row in whole["messages"].to_list()]
    tokens = [re.findall(r"<PERSON_\w+>", content)[0] for content in contents]
    assert tokens == tokens[:3] * 3
    assert len(set(tokens)) == 3


# The cache


class Counting:
    """An analyser that counts how often it is asked."""

    not_covered: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()

    def find(self, text: str) -> list[Finding]:
        self.asked[text] += 1
        return [Finding(0, 5, "PERSON", 0.1 + 0.2)]


def test_cache_remembers_across_runs_and_holds_no_text(tmp_path: Path) -> None:
    text, analyser = "Helen Novak came on Monday, at nine o'clock.", Counting()
    cache: Any = Cache(analyser, "f" * 16, tmp_path)  # type: ignore[arg-type]
    assert cache.find(text) == cache.find(text) == [Finding(0, 5, "PERSON", 0.1 + 0.2)]
    cache.save()
    again: Any = Cache(analyser, "f" * 16, tmp_path)  # type: ignore[arg-type]
    assert again.find(text) == [Finding(0, 5, "PERSON", 0.1 + 0.2)]
    assert analyser.asked[text] == 1
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    assert not [file for file in tmp_path.iterdir() if b"Novak" in file.read_bytes()]
    assert hashlib.sha256(text.encode()).digest()[:8] not in (tmp_path / f"{'f' * 16}.sqlite").read_bytes()
    Cache(analyser, "0" * 16, tmp_path)  # type: ignore[arg-type]
    assert not (tmp_path / f"{'f' * 16}.sqlite").exists()


@pytest.mark.parametrize("broken", [b"", b"no database", b"SQLite format 3\0" + b"x" * 5000])
def test_broken_cache_is_begun_anew(tmp_path: Path, broken: bytes) -> None:
    text, path = "Helen Novak came on Monday, at nine o'clock.", tmp_path / f"{'f' * 16}.sqlite"
    path.write_bytes(broken)
    for _ in range(2):
        cache: Any = Cache(Counting(), "f" * 16, tmp_path)  # type: ignore[arg-type]
        assert len(cache.find(text)) == 1
        cache.save()
    again = Counting()
    Cache(again, "f" * 16, tmp_path).find(text)  # type: ignore[arg-type]
    assert not again.asked


def test_fingerprint_follows_what_decides_the_findings() -> None:
    first = fingerprint_of(params())
    assert first == fingerprint_of(params(allow=["x"]))
    assert first != fingerprint_of(params(threshold=0.4))
    assert fingerprint_of(params(names="spacy:/some/model")) is None


# Workers


def test_worker_of_params_scrubs_and_fills_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = pl.DataFrame(
        [make_row(number, f"I am Tom Baker, of p{number}@example.com") for number in range(4)], ROW_SCHEMA
    )
    work = make_worker(params().model_dump())
    first = work(rows)
    assert first["messages"].to_list()[3][0]["content"] == "I am <PERSON>, of <EMAIL_ADDRESS>"
    (cache,) = Path(".pedigree/cache/scrub").glob("*.sqlite")
    assert b"Baker" not in cache.read_bytes()
    monkeypatch.setattr(Analyser, "find", lambda *_: pytest.fail("looked at again"))
    assert make_worker(params().model_dump())(rows).equals(first)


def test_a_worker_elsewhere_needs_neither_the_key_nor_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("deny.txt").write_text("Ward Seven\n")
    deny = {"deny_file": "deny.txt", "deny_fingerprint": hashlib.sha256(b"Ward Seven\n").hexdigest()[:12]}
    chosen = params("pseudonym", **deny)
    secrets = read_secrets(chosen, {"PEDIGREE_KEY": SECRET})
    assert secrets.key is not None
    assert SECRET.encode() not in secrets.key  # derived
    assert "Ward" not in repr(secrets)
    assert repr(secrets.key) not in repr(secrets)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.delenv("PEDIGREE_KEY", raising=False)
    rows = pl.DataFrame([make_row(0, "I am Tom Baker of Ward Seven.")], ROW_SCHEMA)
    work = pickle.loads(pickle.dumps(partial(make_worker, chosen.model_dump(), secrets)))()
    text = work(rows)["messages"].to_list()[0][0]["content"]
    assert text == f"I am {pseudonym(secrets.key, 'PERSON', 'Tom Baker')} of <OTHER>."


# What once passed unread


def scrubbed_row(scrubber: Scrubber, message_: dict[str, Any], tools: str | None = None) -> tuple[str, str | None]:
    """The messages and tools after scrub as JSON, and why the row failed."""
    row = make_row(1, "Hello") | {"messages": [message("user", "Hello"), message_], "tools": tools}
    done = scrub_batch(pl.DataFrame([row], ROW_SCHEMA), scrubber).row(0, named=True)
    return json.dumps([done["messages"], done["tools"]]), done["failed"]


CONTROL = "SSN 219-09-9998, helen.novak@gmail.com"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("content", json.dumps({"patient": "X"}).replace("{", '{"patient": "' + CONTROL + '", ')),  # a key twice
        ("content", json.dumps({"name": CONTROL, "arguments": "none"})),
        ("content", "[" * 3000 + CONTROL),
        ("tool_call_id", CONTROL),
        ("name", CONTROL),
    ],
)
def test_no_place_of_a_tool_message_passes_unread(field: str, value: str) -> None:
    scrubber = build_scrubber(
        params(entities={"US_SSN": "replace", "EMAIL_ADDRESS": "replace"}, names="none", locales=[])
    )
    written, failed = scrubbed_row(scrubber, message("tool", "{}") | {field: value})
    assert failed or ("219-09-9998" not in written and "helen.novak@" not in written)


def test_half_of_a_surrogate_pair_drops_the_row() -> None:
    scrubber = build_scrubber(params(entities={"EMAIL_ADDRESS": "replace"}, names="none", locales=[]))
    _, failed = scrubbed_row(scrubber, message("tool", '{"a": "\\ud83d ok, mail helen.novak@gmail.com"}'))
    assert failed


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"name": {"description": f"e.g. {CONTROL}", "enum": [CONTROL]}}},
        {"required": [CONTROL]},
        {"properties": {"card": {"default": 4111111111111111}}},
        {"helen.novak@gmail.com": {}},
    ],
)
def test_no_place_of_a_tool_definition_passes_unread(schema: dict[str, Any]) -> None:
    entities = {"US_SSN": "replace", "EMAIL_ADDRESS": "replace", "CREDIT_CARD": "replace"}
    scrubber = build_scrubber(params(entities=entities, names="none", locales=[]))
    tools = json.dumps([{"name": "book", "parameters": {"type": "object"} | schema}])
    written, failed = scrubbed_row(scrubber, message("assistant", "Done"), tools)
    assert failed or not any(value in written for value in ("219-09-9998", "helen.novak@", "4111111111111111"))
    plain = json.dumps(
        [
            {
                "name": "Get Weather",
                "parameters": {"type": ["object", "null"], "required": ["day"], "examples": [{"name": "Green tea"}]},
                "returns": {"type": "List[str], optional"},
            }
        ]
    )
    assert scrubbed_row(scrubber, message("assistant", "Done"), plain) == (
        json.dumps([[message("user", "Hello"), message("assistant", "Done")], plain]),
        None,
    )


def test_a_label_that_is_no_entity_names_none() -> None:
    denied = Denied(["NOVAK: 4471 Zyxw"], ["PERSON"])
    found = denied.find("NOVAK: 4471 Zyxw, once more 4471 Zyxw")
    assert [(item.start, item.end, item.entity) for item in found if item.start != 7] == [
        (0, 16, "OTHER"),
        (28, 37, "OTHER"),
    ]


def test_deny_goes_though_its_type_is_kept() -> None:
    scrubber = build_scrubber(
        params(
            entities={"URL": "keep"}, names="none", locales=[], deny=["URL: Helens Cottage", "Novak Smith", "Ann Novak"]
        )
    )
    assert scrubber.scrub("See Helens Cottage.").text == "See <URL>."
    assert "Smith" not in scrubber.scrub("Ann Novak Smith came.").text


def test_public_streets_and_staff_make_no_patient_public() -> None:
    allowed = Allowed(["Mill Lane", "Lucia Bell"])

    def stays(text: str, name: str) -> bool:
        start = text.index(name)
        return not allowed.drop([Finding(start, start + len(name), "PERSON", 0.9)], text)

    assert stays("Ask Dr. Bell.", "Bell")
    assert stays("We are in Mill Lane.", "Mill Lane")
    assert not stays("Mr Lane called.", "Lane")
    assert not stays("Mrs Bell has a fever.", "Bell")
    assert not stays("Dr. Lucia called.", "Lucia")


def test_a_broken_entry_of_the_cache_is_none(tmp_path: Path) -> None:
    text = "Helen Novak came on Monday, at nine o'clock."
    cache: Any = Cache(Counting(), "f" * 16, tmp_path)  # type: ignore[arg-type]
    cache.find(text)
    cache.fresh = dict.fromkeys(cache.fresh, "[[")
    cache.save()
    assert len(cache.find(text)) == 1
    (tmp_path / f"{'f' * 16}.sqlite").unlink()  # another run with other parameters
    cache.save()


def test_a_cache_that_cannot_be_written_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".pedigree").mkdir()
    Path(".pedigree/cache").touch()  # no folder can be made there
    found = build_scrubber(params(entities={"EMAIL_ADDRESS": "replace"}, names="none", locales=[]))
    assert found.scrub("Please write to tom@example.com today.").text == "Please write to <EMAIL_ADDRESS> today."


def test_a_locked_cache_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.pii.cache.WAIT_SECONDS", 0.05)
    text, path = "Helen Novak came on Monday, at nine o'clock.", tmp_path / f"{'f' * 16}.sqlite"
    cache: Any = Cache(Counting(), "f" * 16, tmp_path)  # type: ignore[arg-type]
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    file = path.stat().st_ino
    assert len(cache.find(text)) == 1
    cache.save()
    with pytest.raises(sqlite3.OperationalError):
        Cache(Counting(), "f" * 16, tmp_path)  # type: ignore[arg-type]
    other.execute("ROLLBACK")
    assert path.stat().st_ino == file
    cache.find(text)
    cache.save()
    assert other.execute("SELECT count(*) FROM found").fetchone() == (1,)


def test_a_cache_that_breaks_and_cannot_be_begun_anew_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "Helen Novak came on Monday, at nine o'clock."
    cache: Any = Cache(Counting(), "f" * 16, tmp_path)  # type: ignore[arg-type]
    cache.find(text)
    cache.save()
    monkeypatch.setattr(cache, "open", lambda: (_ for _ in ()).throw(sqlite3.OperationalError("locked")))
    cache.begin_anew()
    assert len(cache.find(text)) == 1
    cache.save()
    assert len(cache.find(text)) == 1


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ('OK {"mail": "tom.baker\\u0040example.com"}', 'OK {"mail": "<EMAIL_ADDRESS>"}'),
        ("SSN:\\n219-09-9998\\r\\nnext", "SSN:\\n<US_SSN>\\r\\nnext"),
        ("https://x.org/?to=tom%40example.com&x=1%41", "https://<EMAIL_ADDRESS>&x=1%41"),
        (
            "write to tom&#64;example.com, tom&commat;example.com &amp; co",
            "write to <EMAIL_ADDRESS>, <EMAIL_ADDRESS> &amp; co",
        ),
        ("Card 4111%201111%201111%201111.", "Card <CREDIT_CARD>."),
        ("50% off \\alpha R&D &nosuch; \\u00e9", "50% off \\alpha R&D &nosuch; \\u00e9"),
        ("Z\\u00fcrich\\nLtd", "<OTHER>"),
    ],
)
def test_escapes_hide_nothing(analyser: Analyser, text: str, clean: str) -> None:
    assert scrubber(analyser, deny=["Zürich Ltd"]).scrub(text).text == clean


def test_places_in_what_a_text_reads_are_places_in_the_text() -> None:
    text = r"a\u00e9\u00e8b%41&#38;c"  # éè, A, &
    (reading,) = read_escapes(text)
    assert reading.text == "aéèbA&c"
    spans = {}
    for start in range(7):
        found = reading.locate(Finding(start, start + 1, "X", 1.0))
        spans[reading.text[start]] = text[found.start : found.end]
    escaped = {"é": r"\u00e9\u00e8", "è": r"\u00e9\u00e8", "A": "%41", "&": "&#38;"}  # side by side they go together
    assert spans == {"a": "a", "b": "b", "c": "c"} | escaped
    whole = reading.locate(Finding(0, 7, "X", 1.0))
    assert (whole.start, whole.end) == (0, len(text))
    assert read_escapes("plain, 50% & more \\ less &amp; &nosuch;") == []
    far = "word " * 100 + "a%41 " + "word " * 100 + "Tom&#32;Baker"
    (_, last) = read_escapes(far)
    assert last.text.endswith("word Tom Baker")
    assert len(last.text) < 130
    begin = last.text.index("Tom")
    found = last.locate(Finding(begin, begin + 9, "X", 1.0))
    assert far[found.start : found.end] == "Tom&#32;Baker"


@pytest.mark.parametrize(
    ("entity", "text"),
    [
        ("PHONE_NUMBER", "Helen 303-555-0199"),
        ("CREDIT_CARD", "4111 1111 1111 1111 Helen"),
        ("US_SSN", "Helen 219-09-9998"),
        ("DATE_OF_BIRTH", "Helen 03/14/1972"),
        ("DATE_OF_BIRTH", "Marlene 14 1972"),
        ("IBAN_CODE", "DE89370400440532013000 Ä"),
    ],
)
def test_a_finding_over_a_name_leaves_nothing_of_it(entity: str, text: str) -> None:
    assert surrogate(KEY, entity, text) == f"<{entity}>"


def test_time_grows_with_the_number_of_findings_and_not_with_its_square() -> None:
    """Kept ones beside replaced ones, and public facts beside both."""

    class Planted:
        not_covered: ClassVar[list[str]] = []

        def find(self, text: str) -> list[Finding]:
            places = [Finding(start, start + 3, "URL", 1.0) for start in range(0, len(text), 8)]
            return sorted(
                places + [item._replace(start=item.end + 1, end=item.end + 4, entity="US_SSN") for item in places]
            )

    scrubber = Scrubber(params(entities={"URL": "keep", "US_SSN": "replace"}, locales=[], allow=["zzz"]), Planted(), {})
    result = scrubber.scrub("abc def zzz ghi ")
    assert (result.text, len(result.kept), len(result.replaced)) == ("abc <US_SSN> zzz <US_SSN> ", 1, 2)
    text = "abc def " * 20_000
    start = time.perf_counter()
    assert scrubber._scrub(text, "").text == "abc <US_SSN> " * 20_000
    assert time.perf_counter() - start < 10  # the square took minutes
