"""pedigree COMMAND: what can be asked of the pipeline beside `dvc repro`.

A command is a module with a function of its name that takes the parsed arguments. It is imported when it is called, so
that `pedigree --help` answers at once.
"""

import argparse
import importlib
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from stages.common.errors import InputError


class Parser(argparse.ArgumentParser):
    """argparse whose errors are ours: one line, exit 1."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; `{self.prog} --help` shows the usage")


def build_parser() -> Parser:
    parser = Parser(
        prog="pedigree",
        description="Recipes, preflight, summary and schema of the pipeline. `dvc repro` runs it.",
        epilog="Each command has its own --help.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)

    recipe = commands.add_parser("recipe", help="named sets of parameters: list, show, use, diff")
    actions = recipe.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=Parser)
    actions.add_parser("list", help="the recipes, and which one params.yaml is")
    show = actions.add_parser("show", help="print a recipe")
    show.add_argument("name")
    use = actions.add_parser(
        "use",
        help="write a recipe into params.yaml",
        description="Write the default values with the recipe's differences into params.yaml; its comments stay.",
    )
    use.add_argument("name")
    own = use.add_mutually_exclusive_group()
    own.add_argument("--keep", action="store_true", help="keep your own values where the recipe does not set them")
    own.add_argument("--force", action="store_true", help="overwrite your own values")
    diff = actions.add_parser("diff", help="the keys in which params.yaml differs from a recipe")
    diff.add_argument("name", nargs="?", default="default", help="the recipe (default: default)")

    commands.add_parser(
        "check",
        help="validate params.yaml and what it names before anything runs",
        description="Validate every block of params.yaml, the data and evaluation files, packages and disk: a second.",
    )
    commands.add_parser("summary", help="what the stages did: rows, losses, scores, time and memory")
    review = commands.add_parser(
        "review",
        help="look at a sample of what scrub decided; corrections go into params.yaml",
        description="Show a sample of replacements and of what the second look still sees; verdicts become entries of "
        "scrub.allow and of the deny file. Values are shown as their form, such as Xxxxx 00, unless --show-values.",
    )
    review.add_argument("--count", type=int, default=20, help="decisions of each kind (default: 20)")
    review.add_argument("--seed", type=int, default=1, help="another seed is another sample (default: 1)")
    review.add_argument("--show-values", action="store_true", help="show the values themselves")
    way = review.add_mutually_exclusive_group()
    way.add_argument("--export", metavar="FILE", help="write the sample as JSON lines instead of asking")
    way.add_argument("--import", metavar="FILE", dest="import_file", help="take the verdicts of an exported file")
    trace = commands.add_parser(
        "trace",
        help="the journey of rows from raw file to models, and of a model back to its rows",
        description="Follow rows through every stage: where they come from, what was changed, why they were dropped, "
        "which optimiser steps saw them, which models carry them. No text of a row is printed.",
    )
    add_selection(trace)
    trace.add_argument("--model", choices=("base", "sft", "align", "quantized"), help="rows that trained a model")
    trace.add_argument("--rev", help="as a git revision recorded it, instead of the workspace")
    trace.add_argument("--json", action="store_true", help="one JSON object a row")
    trace.add_argument("--output", metavar="FILE", help="write .parquet (a line an event) or .jsonl (a line a row)")
    diff = commands.add_parser(
        "diff",
        help="two versions side by side: rows, rates, lengths, parameters, scores, and what may have moved them",
    )
    diff.add_argument("before", help="a git revision, tag, branch or experiment")
    diff.add_argument("after", nargs="?", help="another one (default: the workspace)")
    diff.add_argument("--json", action="store_true", help="print the comparison as one JSON object")
    diff.add_argument("--output", metavar="FILE", help="write .json (the comparison) or .parquet (the changed rows)")
    forget = commands.add_parser(
        "forget",
        help="a request for deletion: what it reaches, the exclusion list, the proof of absence",
        description="List the rows, duplicates and models that a request for deletion reaches; with --write put them "
        "onto data/raw/exclusions.jsonl, which pool honours; after `dvc repro` --prove writes the report.",
    )
    add_selection(forget)
    forget.add_argument("--request", required=True, type=request_name, help="the name of the request, such as 2026-014")
    forget.add_argument("--keep-duplicates", action="store_true", help="leave duplicates that are other records")
    forget.add_argument("--write", action="store_true", help="put the rows onto the exclusion list")
    forget.add_argument("--add", action="store_true", help="with --write: to a request that is on the list already")
    forget.add_argument("--prove", action="store_true", help="show that the rows are gone, and what remains")
    forget.add_argument("--purge", action="store_true", help="with --prove: delete what earlier runs left on this disk")
    forget.add_argument("--dry-run", action="store_true", help="with --purge: tell what would be deleted, no more")
    forget.add_argument("--yes", action="store_true", help="with --purge: delete without asking at the terminal")
    verify = commands.add_parser(
        "verify",
        help="dvc.lock, files, packages, ledgers, models and the card agree; for CI",
        description="Hash every input and output anew, compare parameters, packages, ledgers and models with what "
        "dvc.lock recorded, and render the card once more. Exit code 1 where something does not agree.",
    )
    verify.add_argument("--rerun", metavar="STAGE", help="run a stage again in a clean copy; writes a certificate")
    catalogue = commands.add_parser(
        "catalogue",
        help="the run for a data catalogue: OpenLineage events or a W3C PROV document",
        description="One OpenLineage event for each stage of dvc.lock, as JSON lines: datasets with versions, columns "
        "and row counts, jobs, parameters. Nothing is sent without --emit.",
    )
    catalogue.add_argument("--format", choices=("openlineage", "prov"), default="openlineage")
    catalogue.add_argument("--rev", help="as a git revision recorded it, instead of the workspace")
    catalogue.add_argument("--namespace", help="of jobs and datasets (default: host and path of the git remote origin)")
    catalogue.add_argument("--output", metavar="FILE", help="write a file")
    catalogue.add_argument(
        "--emit", metavar="URL", nargs="?", const="", help="send the events; without URL to OPENLINEAGE_URL"
    )
    schema = commands.add_parser("schema", help="write params.schema.json, with which editors complete params.yaml")
    schema.add_argument("--check", action="store_true", help="write nothing; fail where the file is out of date")
    return parser


def add_selection(parser: argparse.ArgumentParser) -> None:
    """The ways to name rows."""
    parser.add_argument("row_ids", nargs="*", metavar="ROW_ID", help="the id of a row, or its beginning")
    parser.add_argument("--source", help="rows of a source")
    parser.add_argument("--file", help="rows of a raw file, named as in the tables")
    parser.add_argument("--record", type=int, help="of that source or file: the record's number, from 0")
    parser.add_argument("--text", help="rows that hold a text; - reads it from standard input")
    parser.add_argument("--near", type=float, default=1.0, help="with --text: this share of its word 3-grams suffices")
    parser.add_argument("--subject", help="rows of a person, by the value in the raw column; - reads standard input")


def request_name(text: str) -> str:
    """A name that may be part of a file's."""
    if not re.fullmatch(r"[\w.-]{1,64}", text):
        raise argparse.ArgumentTypeError("letters, digits, - _ and . only")
    return text


def enter_root() -> None:
    """Change to the repository's root, which may be a folder above. Raises InputError where there is none."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "dvc.yaml").is_file():
            os.chdir(folder)
            return
    raise InputError("there is no dvc.yaml here or above; run from a clone of the repository")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit: 0, or 1 with one line for each mistake of the user."""
    try:
        parsed = build_parser().parse_args(arguments)
        enter_root()
        getattr(importlib.import_module(f"pedigree.{parsed.command}"), parsed.command)(parsed)
        sys.stdout.flush()
    except InputError as error:
        sys.stdout.flush()
        for line in str(error).splitlines():
            print(f"pedigree: error: {line}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:  # `pedigree recipe show default | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
