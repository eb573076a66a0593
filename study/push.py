"""`run_bench.py push`: an exported model, or a method that is exported first, to the hub in one commit."""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from fusebench.benchmarks.redaction import redacted
from fusebench.errors import InputError
from fusebench.study.model_usage import hub_card
from fusebench.study.screen import Screen

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_CARD = "README.md"
_MODELS = ("modules.json", "model.onnx")  # what tells an exported folder from others


def show(flags: argparse.Namespace) -> int:
    """Sends a folder of `export`, or exports a method and sends that; says what was or would be sent.

    Args:
        flags: `model` (a folder or a method), `repo`, `private`, `dry_run`, and those of `export`.

    Raises:
        InputError: the model, its name or the token cannot be used, or the hub refuses.
    """
    _require_name(flags.repo)
    folder = Path(flags.model)
    if any((folder / name).is_file() for name in _MODELS):
        return _push(folder, flags)
    # Before the work of an export, not after it.
    token = None if flags.dry_run else _token()
    with tempfile.TemporaryDirectory(prefix="fusebench-push-") as place:
        from fusebench.study.export import export_as_asked

        folder = Path(place) / flags.repo.rsplit("/", 1)[-1]
        difference = export_as_asked(flags.model, folder, flags)
        return _push(folder, flags, token) if difference.passed else 1


def _push(folder: Path, flags: argparse.Namespace, token: str | None = None) -> int:
    files = files_of(folder)
    card = hub_card((folder / _CARD).read_text(encoding="utf-8"), flags.repo)
    _describe(files, card, flags)
    if flags.dry_run:
        return 0
    from huggingface_hub import HfApi

    address = send(HfApi(token=token or _token()), flags.repo, files, card, private=flags.private)
    Screen().print(f"sent: {address}", highlight=False, markup=False, soft_wrap=True)
    return 0


def files_of(folder: Path) -> dict[str, Path]:
    """The files of an exported model by their place in it.

    Raises:
        InputError: it has no model card, or a link in it leads elsewhere.
    """
    if not (folder / _CARD).is_file():
        raise InputError(f"{folder} has no {_CARD}, so nobody could tell what it is; export the method anew.")
    found = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    for path in found.values():
        if not path.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"{path} is a link that leads out of {folder}; only what lies there is sent.")
    return {name: path for name, path in found.items() if not any(part[0] == "." for part in name.split("/"))}


def send(api: HfApi, repo: str, files: dict[str, Path], card: str, *, private: bool) -> str:
    """Makes the repository if it is not there and commits all files at once; its address.

    Raises:
        InputError: the hub refuses or cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd

    contents: dict[str, Path | bytes] = {**files, _CARD: card.encode()}
    operations = [CommitOperationAdd(name, content) for name, content in contents.items()]
    try:
        address = api.create_repo(repo, private=private or None, exist_ok=True)
        api.create_commit(repo, operations, commit_message=f"Upload {card_title(card)}, exported by FuseBench")
    except Exception as error:  # of whichever HTTP library huggingface_hub uses
        reason = redacted((str(error).strip().splitlines() or [type(error).__name__])[0])
        raise InputError(
            f"the hub did not take {repo}: {reason}; check its name, the network, and what your token allows."
        ) from error
    return str(address)


def card_title(card: str) -> str:
    """The first heading of a model card."""
    found = re.search(r"^# (.+)$", card, re.MULTILINE)
    return found[1] if found else "a model"


def _describe(files: dict[str, Path], card: str, flags: argparse.Namespace) -> None:
    screen = Screen()
    visible = "private" if flags.private else "public, where the organisation has no other default"
    verb = "would send" if flags.dry_run else "sends"
    lines: Iterable[str] = [
        f"{verb} {len(files)} files to {flags.repo} ({visible}), in one commit:",
        *(f"{path.stat().st_size:>12,}  {name}" for name, path in files.items()),
        *(["", f"{_CARD}:", card.rstrip()] if flags.dry_run else []),
    ]
    for line in lines:
        screen.print(line, highlight=False, markup=False, soft_wrap=True)


def _require_name(repo: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # it is documented

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise InputError(f"--repo {repo} is no name on the hub: {error}") from error
    if repo.count("/") != 1:
        raise InputError(f"--repo {repo} should name an account and a model, as in my-account/{repo}.")


def _token() -> str:
    from huggingface_hub import get_token

    token = get_token()
    if token is None:
        raise InputError(
            "the hub takes models from accounts, and there is no access token: run `hf auth login`, or set HF_TOKEN."
        )
    return token
