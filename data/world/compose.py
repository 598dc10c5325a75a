"""Authored text → records in the forms of their sources, and the evaluation items. Nothing is planted here."""

import json
import uuid
from typing import Any

from entries import Entry, Sources, draw, pick, shuffled, shuffled_entries, words

FAQ_SHARE = 0.45  # of the facts' questions; the others come from patients
NAMESPACE = uuid.UUID("6c1e7b52-9a0d-5a44-8f65-2f4d1c3b7a90")  # any fixed one: ids of trees and messages


def pair_answers(questions: list[str], answers: list[str]) -> list[str]:
    """An answer for each question, every answer about equally often.

    Two questions that share an answer are a short and a long one, and the pair with the fewest words has the shortest
    answer: so that no two rows become near duplicates by accident.
    """
    order = sorted(range(len(questions)), key=lambda index: len(words(questions[index])))
    groups = [sorted({order[index], order[-1 - index]}) for index in range((len(order) + 1) // 2)]
    groups.sort(key=lambda group: sum(len(words(questions[index])) for index in group))
    by_length = sorted(answers, key=lambda answer: len(words(answer)))
    chosen = {index: by_length[rank] for rank, group in enumerate(groups) for index in group}
    return [chosen[index] for index in range(len(questions))]


def fact_rows(facts: list[dict[str, Any]]) -> tuple[list[Entry], list[Entry]]:
    """Every question of every fact once: (clinic_faq, patient_questions)."""
    rows = [
        Entry(f"{fact['id']}.{index}", (question, answer))
        for fact in facts
        for index, (question, answer) in enumerate(
            zip(fact["questions"], pair_answers(fact["questions"], fact["answers"]), strict=True)
        )
    ]
    rows = shuffled_entries(rows, "split")
    cut = round(FAQ_SHARE * len(rows))
    faq = [Entry(row.key, {"instruction": row.record[0], "input": "", "output": row.record[1]}) for row in rows[:cut]]
    patients = [Entry(row.key, {"message": row.record[0], "reply": row.record[1]}) for row in rows[cut:]]
    return faq, patients


def card_rows(facts: list[dict[str, Any]]) -> list[Entry]:
    """The desk cards of every fact: a question on the front, one short sentence on the back."""
    return [
        Entry(f"card.{fact['id']}.{index}", {"topic": fact["id"], "front": card["front"], "back": card["back"]})
        for fact in facts
        for index, card in enumerate(fact["cards"])
    ]


def dialogue(turns: list[str]) -> dict[str, Any]:
    """ShareGPT: speakers take turns, the patient first."""
    return {"conversations": [{"from": ("human", "gpt")[i % 2], "value": turn} for i, turn in enumerate(turns)]}


def tool_definition(name: str, desk: dict[str, Any]) -> dict[str, Any]:
    tool = desk["tools"][name]
    parameters = {"type": "object", "properties": tool["parameters"], "required": list(tool["parameters"])}
    function = {"name": name, "description": tool["description"], "parameters": parameters}
    return {"type": "function", "function": function}


def _typed(value: Any, kind: str) -> Any:
    """The texts of YAML as what a call or a result holds: whole numbers, truth values, text, lists."""
    if kind == "integer":
        return int(value)
    return value == "true" if value in ("true", "false") else value


def tool_chat(index: int, chat: dict[str, Any], desk: dict[str, Any]) -> dict[str, Any]:
    """A chat in the form of OpenAI's API: the patient, the call, its result, the answer, and at times one turn more."""
    name = chat["call"]["name"]
    types = {key: value["type"] for key, value in desk["tools"][name]["parameters"].items()}
    arguments = {key: _typed(value, types[key]) for key, value in chat["call"]["arguments"].items()}
    result = {key: _typed(value, "string") for key, value in chat["result"].items() if value != ""}
    identity = f"call_{index:04d}"
    call = {"id": identity, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
    messages = [
        {"role": "user", "content": chat["user"]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": identity, "name": name, "content": json.dumps(result)},
        {"role": "assistant", "content": chat["reply"]},
    ]
    if chat["followup"]:
        messages += [
            {"role": "user", "content": chat["followup"]},
            {"role": "assistant", "content": chat["followup_reply"]},
        ]
    if index % 2:
        messages.insert(0, {"role": "system", "content": pick(desk["systems"], "system", index)})
    other = pick([tool for tool in desk["tools"] if tool != name], "other tool", index)
    tools = [tool_definition(tool, desk) for tool in sorted([name, other])]
    return {"messages": messages, "tools": tools}


def message_tree(index: int, authored: dict[str, Any]) -> dict[str, Any]:
    """A tree as Open Assistant exports it: each reply has its parent, rank and quality."""

    def identity(path: str) -> str:
        return str(uuid.uuid5(NAMESPACE, f"{index}/{path}"))

    def node(item: dict[str, Any], path: str, parent: str | None, role: str) -> dict[str, Any]:
        rank = {"rank": int(item["rank"])} if "rank" in item else {}
        labels = {"labels": {"quality": {"value": float(item["quality"]), "count": 3}}} if "quality" in item else {}
        other = "assistant" if role == "prompter" else "prompter"
        replies = [node(reply, f"{path}.{i}", identity(path), other) for i, reply in enumerate(item.get("replies", []))]
        head = {"message_id": identity(path)} | ({"parent_id": parent} if parent else {})
        text = item["text"] if parent else item["prompt"]
        return (
            head | {"text": text, "role": role, "lang": "en", "deleted": False} | rank | labels | {"replies": replies}
        )

    return {
        "message_tree_id": identity("0"),
        "tree_state": "ready_for_export",
        "prompt": node(authored, "0", None, "prompter"),
    }


def preference_rows(preferences: list[dict[str, Any]]) -> tuple[list[Entry], list[Entry]]:
    """Two pairs of every prompt, both in the same source: (clinic_preferences, reviewed_replies)."""
    halves: tuple[list[Entry], list[Entry]] = ([], [])
    for position, (index, item) in enumerate(shuffled(enumerate(preferences), "half", lambda pair: str(pair[0]))):
        for number, worse in enumerate(item["worse"]):
            pair = {"prompt": item["prompt"], "chosen": item["chosen"], "rejected": worse["reply"]}
            if position % 2:
                pair |= {"reason": worse["reason"], "reviewer": f"r{draw('reviewer', index, number) % 6 + 1}"}
            halves[position % 2].append(Entry(f"preference.{index}.{number}", pair))
    return halves


def compose_sources(world: dict[str, Any]) -> Sources:
    """Every source, clean, in no particular order."""
    faq, patients = fact_rows(world["facts"])
    transcripts, reviewed = preference_rows(world["preferences"])
    return {
        "clinic_faq": faq,
        "patient_questions": patients,
        "desk_cards": card_rows(world["facts"]),
        "dialogues": [Entry(f"dialogue.{i}", dialogue(item["turns"])) for i, item in enumerate(world["dialogues"])],
        "desk_tools": [Entry(f"tools.{i}", tool_chat(i, chat, world["desk"])) for i, chat in enumerate(world["tools"])],
        "community": [Entry(f"tree.{i}", message_tree(i, tree)) for i, tree in enumerate(world["trees"])],
        "general_skills": [
            Entry(f"general.{i}", {key: item[key] for key in ("instruction", "input", "output")})
            for i, item in enumerate(world["instructions"])
        ],
        "clinic_preferences": transcripts,
        "reviewed_replies": reviewed,
    }


def choice_items(task: str, authored: list[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Items with shuffled choices; the right one (the first as authored) is at each place equally often."""
    items = []
    for position, (identity, item) in enumerate(shuffled(authored, f"{task} items", lambda pair: pair[0])):
        wrong = shuffled(item["options"][1:], f"{task} choices {identity}")
        label = position % len(item["options"])
        choices = [*wrong[:label], item["options"][0], *wrong[label:]]
        items.append({"id": identity, "question": item["question"], "choices": choices, "label": label})
    return shuffled(items, f"{task} order", lambda item: item["id"])


def compose_tasks(world: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    clinic = [(f"{fact['id']}-{i}", item) for fact in world["facts"] for i, item in enumerate(fact["items"], 1)]
    numbers: dict[str, int] = {}
    general = []
    for item in world["items"]:
        numbers[item["subject"]] = numbers.get(item["subject"], 0) + 1
        general.append((f"{item['subject']}-{numbers[item['subject']]}", item))
    return {"clinic": choice_items("clinic", clinic), "general": choice_items("general", general)}
