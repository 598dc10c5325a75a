"""pedigree schema: params.schema.json, with which editors complete and check params.yaml.

Generated from the classes that validate the blocks; the descriptions are their attributes' docstrings.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from pydantic.json_schema import models_json_schema

from pedigree.blocks import BLOCKS, LISTS, block_class
from stages.common.errors import InputError

SCHEMA_FILE = Path("params.schema.json")


def build_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of params.yaml."""
    classes = {name: block_class(name) for name in BLOCKS}
    references, shared = models_json_schema([(block, "validation") for block in classes.values()])
    properties = {}
    for name, block in classes.items():
        reference = references[block, "validation"]
        properties[name] = {"type": "array", "items": reference} if name in LISTS else reference
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "params.yaml",
        "description": "Parameters of the pipeline. Written by `pedigree schema`; do not edit.",
        "type": "object",
        "properties": properties,
        "required": list(BLOCKS),
        "additionalProperties": False,
        "$defs": shared["$defs"],
    }


def schema_text() -> str:
    return json.dumps(build_schema(), indent=1, ensure_ascii=False) + "\n"


def schema(arguments: argparse.Namespace) -> None:
    text = schema_text()
    current = SCHEMA_FILE.is_file() and SCHEMA_FILE.read_text(encoding="utf-8") == text
    if arguments.check:
        if not current:
            raise InputError(f"{SCHEMA_FILE}: is out of date; `pedigree schema` writes it anew")
        print(f"{SCHEMA_FILE} is up to date")
        return
    if not current:
        from stages.common.files import write_text

        write_text(SCHEMA_FILE, text)
    print(f"{SCHEMA_FILE} {'was' if current else 'is now'} up to date")
