"""pedigree catalogue: a run in the standard forms of data catalogues, OpenLineage events or a W3C PROV document.

Written to a file or the terminal; --emit sends OpenLineage events to a server such as Marquez. Names, digests, counts
and parameters leave, never a row, nor what may be personal in params.yaml (scrub.allow, scrub.deny, keys).
"""

import argparse
import logging
import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pedigree.runs import RunReader, StageRun
from pedigree.snapshot import Snapshot
from pedigree.trace import check_whole
from stages.common.errors import InputError
from stages.common.files import write_text

if TYPE_CHECKING:
    from openlineage.client import OpenLineageClient
    from openlineage.client.transport.http import HttpTransport

SCP_FORM = re.compile(r"(?:[\w.-]+@)?([\w.-]+\.[\w.-]+):(?!//)(.+)")  # git@host.org:team/project.git
WAIT_SECONDS = 60  # for a transport that sends in the background
RETRIES = {"total": 3, "connect": 3, "read": 3}


def repository_url() -> str | None:
    """Address of the git remote `origin` without user, password and .git; None where there is none, or a path."""
    done = subprocess.run(["git", "remote", "get-url", "origin"], capture_output=True, text=True, check=False)
    address = done.stdout.strip().removesuffix("/").removesuffix(".git")
    if found := SCP_FORM.fullmatch(address):
        return f"ssh://{found[1]}/{found[2]}"
    parts = urlsplit(address)
    if parts.scheme in ("http", "https", "ssh", "git") and parts.hostname:
        host = parts.hostname + (f":{parts.port}" if parts.port else "")
        return f"{parts.scheme}://{host}{parts.path}"
    return None


def choose_namespace(given: str | None, repository: str | None) -> str:
    """--namespace, else OPENLINEAGE_NAMESPACE, else the repository's host and path, else `pedigree`."""
    chosen = given or os.environ.get("OPENLINEAGE_NAMESPACE")
    if chosen is None:
        return repository.partition("://")[2] if repository else "pedigree"
    if not re.fullmatch(r"[\w:;=/.@+-]{1,1024}", chosen, re.ASCII):
        raise InputError(f"--namespace {chosen}: letters, digits and : ; = / . @ + _ - only, as catalogues allow")
    return chosen


def connect(address: str) -> "OpenLineageClient":
    """A client for one address, or by its own configuration where `address` is empty. Raises InputError."""
    from openlineage.client import OpenLineageClient

    for name in ("openlineage", "urllib3"):  # what they would warn of is said below, in one line
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        client = OpenLineageClient(transport=http_transport(address)) if address else OpenLineageClient()
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        raise InputError(f"--emit: OpenLineage's configuration cannot be used ({error})") from None
    if client.transport.kind == "noop":
        raise InputError("--emit: OPENLINEAGE_DISABLED is set, so nothing was sent")
    if client.transport.kind == "console":
        raise InputError("--emit: where to? Give an address, or set OPENLINEAGE_URL, or write an openlineage.yml")
    return client


def send(client: "OpenLineageClient", runs: list[StageRun], namespace: str, repository: str | None) -> None:
    """Send the events, one after the other. Raises InputError at the first that is not accepted."""
    from pedigree.openlineage import build_event

    for number, run in enumerate(runs):
        try:
            client.emit(build_event(run, namespace, repository))
        except Exception as error:  # each kind of transport raises its own
            reason = describe_failure(error)
            raise InputError(
                f"--emit: {number} of {len(runs)} events were sent, then {reason}; send them again when it is mended, "
                "the same run is the same event"
            ) from None
    if not client.close(WAIT_SECONDS):
        raise InputError("--emit: not every event was sent within a minute; send them again")
    print(f"{len(runs)} events sent, namespace {namespace}")


def http_transport(address: str) -> "HttpTransport":
    """To one address, with OPENLINEAGE_API_KEY where it is set. Raises InputError."""
    from openlineage.client.transport.http import HttpConfig, HttpTransport

    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError("--emit: expected the address of a server, such as http://localhost:5000")
    if parts.username or parts.password:
        raise InputError("--emit: no user or password in the address; set OPENLINEAGE_API_KEY or use openlineage.yml")
    key = os.environ.get("OPENLINEAGE_API_KEY")
    auth = {"auth": {"type": "api_key", "apiKey": key}} if key else {}
    endpoint = os.environ.get("OPENLINEAGE_ENDPOINT", "api/v1/lineage")
    return HttpTransport(HttpConfig.from_dict({"url": address, "endpoint": endpoint, "retry": RETRIES} | auth))


def describe_failure(error: Exception) -> str:
    response = getattr(error, "response", None)
    if response is not None:
        return f"the server answered {response.status_code} {response.reason}"
    return f"the server could not be reached ({type(error).__name__})"


def catalogue(arguments: argparse.Namespace) -> None:
    if arguments.emit is not None and (arguments.format != "openlineage" or arguments.output):
        raise InputError("--emit: sends OpenLineage events; leave out --output and --format")
    repository = repository_url()
    namespace = choose_namespace(arguments.namespace, repository)
    client = None if arguments.emit is None else connect(arguments.emit)
    snapshot = Snapshot(arguments.rev)
    runs = RunReader(snapshot, namespace).read()
    if client is not None:
        send(client, runs, namespace, repository)
    else:
        if arguments.format == "prov":
            from pedigree.provenance import document_text

            text = document_text(runs, namespace, repository)
        else:
            from pedigree.openlineage import build_event, event_text

            text = "".join(event_text(build_event(run, namespace, repository)) + "\n" for run in runs)
        if arguments.output:
            write_text(Path(arguments.output), text)
            print(f"{len(runs)} stages in {arguments.output}")
        else:
            print(text, end="")
    check_whole(snapshot)
