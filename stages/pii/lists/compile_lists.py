"""Compile first.txt, family.txt, words.txt and places.txt from the packages named below, and from our own words.

    python -m venv /some/where && /some/where/bin/pip install faker==40.54.0 mnemonic==0.21
    /some/where/bin/python stages/pii/lists/compile_lists.py

first, family: the person providers of Faker, every locale written in Latin letters but is_IS (patronymics without end).
words: Faker's English placeholder words and the English list of mnemonic, and ours below: a name that is also a word
counts as a name only where something else says so. places: Faker's countries and US states, and ours.
NOTICE beside this file holds both licences (MIT).
"""

import importlib
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import faker.providers.person
import mnemonic
from faker.providers.address.en import Provider as EnglishAddress
from faker.providers.address.en_US import Provider as AmericanAddress
from faker.providers.lorem.en_US import Provider as EnglishWords

FOLDER = Path(__file__).parent
SKIPPED_LOCALES = {"is_IS", "en_TH"}
LATIN_NAME = re.compile(r"[A-Za-zÀ-ÖØ-öø-ɏḀ-ỿ]{2,}(?:['’-][A-Za-zÀ-ÖØ-öø-ɏḀ-ỿ]+)*")

# Our own: names on the lists that are as often a word, a month, a medicine, a rank or a brand; words that stand
# beside names with a capital letter; particles.
NEVER_NAMES = """
an and are as at be but by can do don for from had has have he her him his how if in is it its my no not of off on
one or our out over she so some such than that the their them then there these they this those to too two up us was
we were what when where which who why siri alexa cortana with you your yes ok hello hi hey dear thanks thank please
sorry welcome yours among back else ever each i more per
"""  # on no list of names
OUR_FIRST = """
will matt ned ed walt chuck hank rich jen rahul gabe russ doug jess abby allie bobby cindy deb dez fran gus jo kenny
lexi lou manny mel moira nan peggy phil ravi roz shane stu trish wendell winston imani darnell deshawn lakisha
tanisha terrell marquis demetrius reggie trevon kendrick rashad hakeem tamika opal hattie lucille rosalind irving
irwin kermit lester luther lyle myron orville randolph rufus seymour sheldon sherman sidney virgil wallace wilbur
willard woodrow refugio priyanka deepak sanjay vijay anil sunita kavita rekha shilpa suresh venkat kenji takeshi
thuy xiaoming ling hyun jisoo oluwaseun temitope tariq oksana
"""  # short forms and others that Faker lacks
OUR_FAMILY = """
achebe adebayo baptiste castellano goldberg goldfarb hamid hwang kowalski langley mehta najjar silverstein truong
weinstein
"""
OUR_WORDS = """
monday tuesday wednesday thursday friday saturday sunday january february march april may june july august september
october november december spring summer autumn winter christmas easter noel sep oct nov dec jan mon tue wed thu fri
sat cases made parts lung said bones cord ray de gay colon killer carrier weeks rob jail held gore cop pop pages
gang iris sales lips li lies woods chin powers org arts gray grey convey aura server miles dick golden glasses banks
du stack walls reader par mayor min ants cant lord mile martial fields na moles neu roots bond le cares suits eco
max vera flowers el peer raid vara marks bore bor gut char indie chambers ham heck burns butcher hoop angel ties ha
bury tan coca sole pan del hunter ban pier rivers moody font walker ward sue camps brands harmony riddle bitten bare
divine vain gardner hug una meta sang cousins hare alas bir downs nazi butler bent hay graves diver tailor rust
rails macho ole monk pastor sellers watts rush penny las bull fu spies saga grill kern champagne fry boner richer
kung mas freely bush pal sane loot feline bender sung stark sa neo jet hung bud mo ma rosin ferry ti albino holt pi
darling lavender ou violet holder savage mucha ruby cis bigot yoga bridges gravel creed soot ni ivy veer booth
sparks combs knox danish chia villa bana mahi monks marina steer til mans lane hoes gong ale wan marsh arch art ash
aster basil bay berry bishop blossom bonnie buddy buck candy carol cat cash chance chip cliff colt crew daisy dale
dean doc dolly dot drake duke dusty earl earth ember eden ebony echo faithful fawn fern fleur flint flora forest
fortune frank gale garnet gem genesis gin ginger glen haven hazel heath heather heaven herb holly honey hop hyacinth
jade jasmine jay jewel joyful juniper justice kale kit knight lace lake lamb lark laurel lee leaf legend levy
liberty lily lotus lynx maple marigold maverick medic merit mint misty myrtle nash nick nova oasis ocean opal pansy
pat patch patron pearl peg pepper petal petunia phoenix piper pixie poppy precious presley prince princess prudence
psyche queenie rain ranger reed reef rex rhyme rife river robin rocket roman rosemary rowan royalty sage saffron
sandy scarlet scout senior serenity sherry shiloh sienna sky skip sol sonny star stella sterling sunny sylvan talon
tawny temperance terra terry theory thyme tiger tiny topaz trace tracker trinity trip tripp true truth unity valor
venus viola virtue wade wilder willow winner woody wren zen zephyr gehrig will mercedes lexus nissan ford bentley
porsche lincoln tesla apple google microsoft amazon facebook does did doing done is was were been being shall should
could might cannot about after before during since until because while though although once again please maybe
perhaps everyone someone anyone nobody nurse practitioner physiotherapist dietitian pharmacist counselor counsellor
midwife receptionist therapist director management staff team bible koran torah disease syndrome disorder test sign
scale score type vitamin factor protein gene cell virus bacteria cancer therapy center centre clinic hospital
university college school institute foundation association society department agency company inc corp llc ltd street
avenue road drive court square park mount mountain valley island beach county city state north south east west
northern southern eastern western national international american british german french spanish italian english
chinese japanese indian european african asian latin christian jewish muslim jesus god saint pope king queen
president doctor professor mister captain general colonel sergeant officer mom mum dad mother father mama papa
brother sister son daughter uncle aunt grandma grandpa grandfather grandmother act bill law code rule section
chapter table figure page part step note appendix version volume series question answer input output user assistant
system human bot model data file name email phone address number date time today tomorrow yesterday tonight morning
evening night week month year mild severe chronic acute juvenile adult familial congenital primary secondary early
late common rare lupus polio candida salmonella celiac lyme measles mumps rubella cholera ebola zika malaria
medicare medicaid covid aids hiv dna rna mri ct nih nord fda cdc omim ghr gard pubmed medlineplus kelvin celsius
newton pascal hertz joule watt ampere faraday pay ask call sit stand stop start go went gone come came get got give
gave take took make see saw seen say know knew think thought want need use used try tell told find found feel felt
leave left let keep kept show turn run ran move live believe hold bring happen write wrote lose lost meet met
include set learn change lead understand watch follow create speak read spend grow open walk win offer remember
consider appear buy serve die send build fall cut reach kill raise pass sell decide return explain hope develop
carry break receive agree support hit produce eat everybody folks guys friends customer valued colleagues readers
world kitty
"""
# Names on the lists that are as often a place: they need a family name beside them.
OUR_PLACES = """
adelaide africa alexandria america asia athens atlanta austin australia barcelona beijing berlin berkeley bethlehem
boston brazil brisbane bristol brooklyn brussels buffalo california cambridge camden canton carolina charlotte chelsea
cheyenne chicago china cleveland cologne columbia columbus congo cordoba dakota dallas dayton delaware delhi denver
derby devon dover dublin durham eton europe florence florida france georgia geneva germany greece hamburg hamilton
hampton havana hawaii houston hudson india indiana ireland israel italy jackson jamaica japan java jersey jordan
kansas kent kenya korea lancaster lisbon london lourdes lyon madison madrid mali malta maryland melbourne memphis
mexico miami milan mobile montana moscow munich naples nevada newcastle norfolk normandy norway odessa ohio orleans
orlando oslo oxford panama paris persia perth peru phoenix pittsburgh plymouth portland prague preston princeton
quebec raleigh richmond rio rochester rome salem samoa san santa santiago santos savannah scotland seattle seville
shanghai sierra somerset spain stanford stockholm surrey sydney syria tennessee texas tokyo toledo trenton troy tulsa
turkey utah valencia venice verona victoria vienna virginia wales walton washington wellington windsor winchester york
zealand zurich los angeles
"""


def fold(name: str) -> str:
    """Lower case without accents, as stages/pii/spelling.py does; no part of Pedigree is installed here."""
    table: dict[str, str | int | None] = {
        "ø": "o",
        "ł": "l",
        "đ": "d",
        "ð": "d",
        "ı": "i",
        "ß": "ss",
        "æ": "ae",
        "’": "'",
    }
    letters = unicodedata.normalize("NFD", name.lower().translate(str.maketrans(table)))
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


def person_names(prefix: str) -> set[str]:
    """Names of all used locales from the provider's lists whose own name begins with `prefix`."""
    names: set[str] = set()
    for folder in sorted(Path(next(iter(faker.providers.person.__path__))).iterdir()):
        if "_" not in folder.name or folder.name.startswith("__") or folder.name in SKIPPED_LOCALES:
            continue
        provider = importlib.import_module(f"faker.providers.person.{folder.name}").Provider
        for key in dir(provider):
            given = getattr(provider, key)
            if key.startswith(prefix) and isinstance(given, Iterable) and not isinstance(given, str):
                entries = [str(entry[0] if isinstance(entry, tuple) else entry) for entry in given]
                names |= {fold(entry) for entry in entries if LATIN_NAME.fullmatch(entry)}
    return names


def write(name: str, entries: set[str]) -> None:
    text = "\n".join(sorted(entry for entry in entries if len(entry) > 1)) + "\n"
    (FOLDER / name).write_text(text, encoding="utf-8")


def main() -> None:
    words = set(NEVER_NAMES.split()) | set(OUR_WORDS.split())
    words |= {fold(word) for word in EnglishWords.word_list}
    for part in EnglishWords.parts_of_speech.values():
        words |= {fold(word) for word in part}
    words |= set((Path(mnemonic.__file__).parent / "wordlist" / "english.txt").read_text(encoding="utf-8").split())
    places = set(OUR_PLACES.split())
    for place in (*EnglishAddress.countries, *AmericanAddress.states):
        places |= {fold(part) for part in LATIN_NAME.findall(place)}
    names = person_names("first_") | person_names("last_")
    write("first.txt", (person_names("first_") | set(OUR_FIRST.split())) - set(NEVER_NAMES.split()))
    write("family.txt", (person_names("last_") | set(OUR_FAMILY.split())) - set(NEVER_NAMES.split()))
    write("words.txt", {word for word in words if LATIN_NAME.fullmatch(word)})
    write("places.txt", places - (words - names))


if __name__ == "__main__":
    main()
