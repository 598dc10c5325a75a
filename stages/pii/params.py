"""The block `scrub` of params.yaml. It stands here, and not in the stage, because worker processes read it too."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from stages.common.params import Params, Share

KEYED = ("pseudonym", "surrogate")  # actions that need a key nobody else has
Action = Literal["replace", "pseudonym", "surrogate", "mask", "keep"]


class Scrub(Params):
    """Which personal data is looked for, and what becomes of it."""

    language: Annotated[str, Field(pattern="^[a-z]{2}$")]
    """Of the texts, two letters; context words and lists of names are made for `en`."""
    entities: Annotated[dict[str, Action], Field(min_length=1)]
    """An entity of Presidio's or of ours → replace (<TYPE>), pseudonym (<TYPE_7f3a9c21b04e>, the same for the same
    value), surrogate (a made-up value of the same form), mask (****) or keep (count only)."""
    locales: list[Annotated[str, Field(pattern="^[a-z]{2}$")]]
    """Countries, two letters, whose identifiers NATIONAL_ID stands for."""
    threshold: Share
    """Presidio's score in [0, 1] from which a finding counts."""
    names: Annotated[str, Field(pattern=r"^(model|lists|none|(spacy|transformers|gliner):.+)$")]
    """Where names come from: model (trained for Pedigree, in the repository), lists, none, spacy:MODEL (installed or a
    folder), transformers:NAME or gliner:NAME (a folder, or in the hub's cache)."""
    key_fingerprint: Annotated[str, Field(pattern=r"^(public|[0-9a-f]{12})$")]
    """`public`: no key, no pseudonyms and surrogates; else the fingerprint of the secret in the environment variable
    PEDIGREE_KEY, of 16 characters at least: the first 12 hex digits of its sha256, in quotes."""
    allow: list[Annotated[str, Field(pattern=r"\S")]]
    """Public facts that stay, in any case of letters; of a person's full name also `Dr. FAMILY NAME` and the
    family name after other titles of staff."""
    deny: list[Annotated[str, Field(pattern=r"\S")]]
    """What must go wherever it stands, in every spelling that looks the same: a text (then of type OTHER) or
    `ENTITY: text`."""
    deny_file: str | None
    """More of the same, one a line, in a file outside git: what must go is personal data. Lines that begin with # are
    comments; before an entry that does stands a backslash. null: none."""
    deny_fingerprint: Annotated[str, Field(pattern="^[0-9a-f]{12}$")] | None
    """First 12 hex digits of the sha256 of deny_file, in quotes: so a changed file reruns scrub, and nobody runs
    without it unawares. `pedigree review` writes it."""

    @model_validator(mode="after")
    def _fits_together(self) -> "Scrub":
        if self.names in ("lists", "model") and self.language != "en":
            raise ValueError(f"names: {self.names} knows English only, not {self.language}; take spacy:MODEL or none")
        keyed = [entity for entity, action in self.entities.items() if action in KEYED]
        if keyed and self.key_fingerprint == "public":
            raise ValueError(
                f"entities: {keyed[0]} is to become a {self.entities[keyed[0]]}, which needs a key: with a public one "
                "anybody finds the value by trying; set PEDIGREE_KEY and its key_fingerprint, or take replace"
            )
        if (self.deny_file is None) != (self.deny_fingerprint is None):
            raise ValueError("deny_file and deny_fingerprint: give both or neither")
        if self.locales and "NATIONAL_ID" not in self.entities:
            raise ValueError("locales: nothing is done with them; give entities a line for NATIONAL_ID")
        return self
