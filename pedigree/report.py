"""What the preflight found: facts, notes, mistakes."""

from dataclasses import dataclass, field

from stages.common.params import PARAMS_FILE


@dataclass
class Report:
    """What was found: facts as (subject, text), notes, mistakes."""

    facts: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)

    def wrong(self, key: str, text: str) -> None:
        self.mistakes.append(f"{PARAMS_FILE}, {key}: {text}")

    def note(self, key: str, text: str) -> None:
        self.notes.append(f"{PARAMS_FILE}, {key}: {text}")
