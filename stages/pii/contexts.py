"""What stands before and after a name in English, as regular expressions for names.py."""

import regex

_WORD = r"\p{Lu}[\p{L}\p{M}]*(?:(?:['’](?=\p{Lu})|-)[\p{L}\p{M}]+)*+"
_PARTICLE = r"(?:d[aeiou]|de[lnr]|des|dos|das|la|le|van|von|ter|ten|bin|ibn|al|el|y)"
RUN = regex.compile(
    rf"(?<![\w@.-])(?:\p{{Lu}}\.|{_WORD})(?:[ \t\xa0]{{1,2}}(?:{_PARTICLE}[ \t]){{0,2}}(?:\p{{Lu}}\.|{_WORD}))*+"
)
"""Words with capitals and initials side by side: "so J. R. van der Berg said" has the run "J. R. van der Berg"."""
TOKEN = regex.compile(
    rf"(?P<initial>\p{{Lu}}\.|\p{{Lu}}(?![\w'’-]))|(?P<word>{_WORD})|(?P<particle>{_PARTICLE})(?=[ \t])"
)
INNER_CAPITAL = regex.compile(r"\p{Ll}\p{Lu}(?!\p{Ll}{2})")  # IgE, not McDonald

TITLES = "[Mm]r|[Mm]rs|[Mm]s|[Mm]x|[Dd]r|DR|[Pp]rof|Messrs|Mme|Frau|Herr|Señor|Señora|Sra?"  # not MS, the disease
RANKS = (
    "Doctor|Nurse|Professor|Miss|Madam|Sir|Aunt|Auntie|Uncle|Grandma|Grandpa|Counselor|Counsellor|Pharmacist|"
    "Dietitian|Physiotherapist|Therapist|Midwife|Officer|Captain|Sergeant|Detective|Judge|Coach|Reverend|Rev|"
    "Pastor|Rabbi|Sister|Senator|President|Minister|Secretary"
)
RELATIVES = (
    "son|daughter|husband|wife|spouse|fiance|fiancee|partner|boyfriend|girlfriend|mother|father|mom|mum|dad|"
    "mommy|daddy|brother|sister|uncle|aunt|auntie|cousin|nephew|niece|grandson|granddaughter|grandmother|"
    "grandfather|grandma|grandpa|nana|baby|toddler|boy|girl|child|kid|twins|friend|neighbor|neighbour|roommate|"
    "colleague|coworker|boss|manager|patient|client|carer|caregiver|stepson|stepdaughter|mother-in-law|"
    "father-in-law|sister-in-law|brother-in-law|teacher|coach|landlord"
)
OTHER_LAST_WORDS = (
    "mr|mrs|ms|mx|dr|prof|messrs|mme|frau|herr|señor|señora|sr|sra|"
    "me|called|named|him|her|nicknamed|am|i'm|i’m|it's|it’s|name's|name’s|hi|hello|hey|dear|morning|afternoon|"
    "evening|greetings|welcome|back|thanks|thank|you|much|again|writing|calling|asking|cheers|bye|goodbye|sorry|yes|ok|okay|regards|"
    "wishes|sincerely|yours|truly|faithfully|best|love|care|respectfully|signed|told|asked|met|thanked|phoned|"
    "emailed|texted|visited|married|said|says|replied|customer|caller|guardian|parent|contact|kin|attn|attention|"
    "name|surname"
)
LAST_PAIRS = (
    "last name|first name|family name|name is|name was|this is|it is|here is|ask for|speak to|talk to|speak with|"
    "goes by|behalf of"
)
ENDS = frozenset(
    "|".join(
        (
            RANKS,
            RELATIVES,
            OTHER_LAST_WORDS,
            LAST_PAIRS,
        )
    )
    .lower()
    .split("|")
)
"""The last word or two of every context. They are looked at first: a search of BEFORE costs microseconds, and nearly
all words with a capital letter have no context."""
PUNCTUATION = " \t\n\r\xa0.,:;!?=\"“”'([{<>-–—~"
DASHES = frozenset("-–—~")
LENGTH = 48  # characters before a name that a context may take

_BREAK = r"""(?:^|(?<=[.!?:;|,(\[{"“'>\n][ \t]?))"""
BEFORE = regex.compile(
    rf"""(?:
    (?P<title>(?<!\w)(?:{TITLES})\b\.?)
    |(?P<rank>\b(?:{RANKS})\.?)
    |(?P<intro>(?i:\b(?:my|his|her|their|your|full|first|last|maiden|family|patient['’]s|child['’]s|son['’]s|daughter['’]s)
        \ name(?:\ is|\ was|['’]s)|\b(?:they|you\ can|please)\ call\ me|\b(?:i\ am|i['’]m)\ called|\bnamed\ (?:him|her)
        |\bon\ behalf\ of|\b(?:last|first|family)\ name,?))
    |(?P<known>(?i:\bname(?:\ is|\ was|['’]s)|\bgoes\ by|\bnamed|\bnicknamed|{_BREAK}name\s?[:=]\s?["']?))
    |(?P<self>(?i:\b(?:i\ am|i['’]m|(?:hi|hello|hey|morning|afternoon|evening)[,.!]?\ this\ is)))
    |(?P<soft>(?i:\b(?:this\ is|it['’]s|it\ is|here\ is|ask\ for|speak\ (?:to|with)|talk\ to|call\ me)))
    |(?P<relative>(?i:\b(?:my|his|her|our|their|your|the|a|an|old|year-old|late)\ (?:{RELATIVES}),?))
    |(?P<verb>\b(?:told|asked|met|thanked|phoned|emailed|texted|visited|married|said|says|replied))
    |(?P<greeting>(?i:{_BREAK}(?:hi|hello|hey|dear|good\ (?:morning|afternoon|evening)|greetings|welcome(?:\ back)?
        |thank(?:s|\ you)(?:\ so\ much|\ very\ much|\ again|\ for\ \w+)?|cheers|bye|goodbye|sorry|yes|ok|okay),?))
    |(?P<signoff>(?i:{_BREAK}(?:(?:(?:with\ )?(?:kind(?:est)?|best|warm(?:est)?|many)\ )?(?:regards|wishes|thanks)
        |thank\ you|sincerely(?:\ yours)?|yours(?:\ (?:truly|sincerely|faithfully))?|best|love|take\ care
        |respectfully|cheers|signed)[,.!]?\s*[-–—~]?))
    |(?P<dash>(?<=\s)[-–—~]{{1,2}})
    |(?P<label>(?i:{_BREAK}(?:patient|client|customer|caller|guardian|parent|mother|father|spouse|contact
        |emergency\ contact|next\ of\ kin|attn|attention|(?:\w+\ )?name|surname)\s?[:=]\s?["']?))
    )\s*\Z""",
    regex.VERBOSE | regex.MULTILINE | regex.REVERSE,  # from the name backwards: ten times as fast
)
"""What may stand before a name; the group's name is the kind of the context."""
SMALL_LETTERS = regex.compile(
    r"\b(?:[Mm]y name is|[Mm]y name['’]?s|(?:[Hh]i|[Hh]ello|[Hh]ey),? (?:it['’]?s|this is|i['’]?m|i am))"
    r" (?P<first>[a-z]{2,})(?: (?P<family>[a-z]{2,}))?\b"
)
"""A name in small letters, only after the plainest of introductions."""

NAME_ENDS = regex.compile(
    r"\s*(?:[,.!?;:)\]\"”(\n–—-]|$)|\s+(?:and|from|here|calling|speaking|again|with|at)\b", regex.MULTILINE
)
HERE = regex.compile(r"\s+(?:from\b[^.!?\n]{1,40}\s)?here\b")  # Nadia from the bakery here
LINE_ENDS = regex.compile(r"\.?[ \t]*(?:\n|\Z)")
AFTER = regex.compile(
    rf"""
    ,?\s+(?:said|says|asked|asks|replied|wrote|writes|told|tells|answered|explained|here|lives|works|was\ born)\b
    |,\ (?:my|his|her|our|their|your|aged|age)\ |,?\ \(?(?:\d{{1,2}}(?:\ years\ old|\ y/?o\b)|age\ \d)|\s*:(?=\s)
    |['’]s\ (?:(?:phone|home|mobile|cell|e-?mail|date|next|last|new|old|own)\ )?(?:{RELATIVES}|number|address|e-?mail
        |birthday|birth|appointments?|chart|results?|records?|medications?|prescriptions?|insurance|blood|visit|house
        |room)\b""",
    regex.VERBOSE,
)
"""What may stand after a first name, and says that it is one."""

EPONYM = regex.compile(
    r"""
    (?:['’]s?)?[- ](?i:(?:\w+[- ])?(?:syndromes?|diseases?|disorders?|anomal(?:y|ies)|deformit(?:y|ies)|malformations?
        |phenomenon|sign|palsy|dystrophy|myopathy|neuropathy|anemia|ataxia|chorea|dementia|lymphoma|sarcoma|tumou?rs?
        |carcinoma|cysts?|types?|body|bodies|cells?|gland|duct|ligament|reflex|test|scale|score|index|procedure
        |operation|method|criteria|law|theorem|equation|effect|constant|virus|ultrasound))\b
    |[- ](?:\p{Lu}\w+[- ])?(?:University|College|School|Hospital|Clinic|Institutes?|Foundation|Cent(?:er|re)|Society
        |Association|Museum|Library|Prize|Award|Medal|Act|Street|St|Road|Rd|Avenue|Ave|Lane|Drive|Way|Boulevard|Square
        |Park|Bridge|Airport|Station|County|Islands?|River|Lake|Bay|Beach|Valley|Springs|Falls|Company|Corporation|Inc
        |Ltd|LLC|GmbH|Group|Bank|Press|Journal|Magazine|Band|Orchestra|Cup|Stadium|Church|Cathedral|House|Hotel|Dock
        |Building|Family)\b""",
    regex.VERBOSE,
)
"""What stands after the name of something else: a disease, a test, a place, a company."""
PLACE_BEFORE = regex.compile(
    r"(?:\b(?:St\.?|Saint|San|Santa|Santo|Mount|Mt\.?|Fort|Ft\.?|Port|Lake|Cape|New|University of|Bay of"
    r"|Rue|Rua|Via|Calle|Avenida|Plaza|Piazza|ul\.)|\d) \Z"
)
LANDSCAPE = regex.compile(r"park|street|road|river|lake|hills?|beach|falls|springs|county|city|valley|house|way")
"""Second words that make a place of a first name: Virginia Beach."""
