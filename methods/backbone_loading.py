"""Loads configuration, tokenizer and weights of a backbone from its folder, and refuses what is not whole."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import torch
import transformers
from tokenizers import normalizers

from fusebench.errors import InputError
from fusebench.methods.backbone_source import Source
from fusebench.methods.sentence_bert_config import stated_lower_case


def load_config_and_tokenizer(source: Source, remote_code: bool) -> tuple[Any, Any]:
    """Both by transformers' Auto classes.

    Raises:
        InputError: if the folder lacks one of them, or needs code that may not run.
    """
    kwargs: dict[str, Any] = {"trust_remote_code": remote_code, "local_files_only": True}
    try:
        config = transformers.AutoConfig.from_pretrained(source.folder, **kwargs)
        tokenizer = transformers.AutoTokenizer.from_pretrained(source.folder, **kwargs)
    except Exception as error:  # garbled files raise whatever their parser meets first
        raise InputError(_unloadable(source, error, remote_code)) from error
    _check_vocabulary(source, tokenizer)
    if stated_lower_case(source.folder) and tokenizer.is_fast:
        backend = tokenizer.backend_tokenizer
        own = [backend.normalizer] if backend.normalizer is not None else []
        backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])
    return config, tokenizer


def _check_vocabulary(source: Source, tokenizer: Any) -> None:
    """Without any vocabulary file transformers makes up a tokenizer that knows its special tokens only."""
    names = {"tokenizer.json", "tekken.json", *tokenizer.vocab_files_names.values()}
    found = any((source.folder / name).is_file() for name in names) or any(source.folder.glob("*.model"))
    if tokenizer.vocab_files_names and not found:
        raise InputError(f"--backbone {source.name} has no tokenizer files (such as tokenizer.json); fetch it again.")


def load_model(source: Source, config: Any, dtype: torch.dtype, remote_code: bool) -> Any:
    """The model with every weight from safetensors.

    Raises:
        InputError: if weights are missing, of another shape, or cannot be read.
    """
    # Of an encoder-decoder only the encoder is a backbone; saved alone, only its class name says what it is.
    alone = any(name.endswith("EncoderModel") for name in config.architectures or ())
    encoder = config.is_encoder_decoder or alone
    auto = transformers.AutoModelForTextEncoding if encoder else transformers.AutoModel
    if hasattr(config, "use_cache"):
        config.use_cache = False  # keys and values serve generation only, and are as large as the states
    try:
        with quiet_transformers():
            model, report = auto.from_pretrained(
                source.folder,
                config=config,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=remote_code,
                local_files_only=True,
                output_loading_info=True,
            )
    except Exception as error:  # garbled weights raise SafetensorError, which has no base of its own
        raise InputError(_unloadable(source, error, remote_code)) from error
    # The pooler is not used; any other weight that the file lacks would be random.
    absent = sorted(key for key in report["missing_keys"] if "pooler" not in key)
    wrong = sorted(str(key) for key in report["mismatched_keys"])
    if absent or wrong:
        raise InputError(
            f"--backbone {source.name}: its weights do not fit {type(model).__name__} "
            f"({len(absent)} missing, {len(wrong)} of another shape, the first is {(absent + wrong)[0]}), and random "
            "ones would be meaningless; fetch the model again."
        )
    return model


def _unloadable(source: Source, error: Exception, remote_code: bool) -> str:
    reason = str(error).strip().split("\n")[0]
    if "trust_remote_code" in str(error) and not remote_code:
        return f"--backbone {source.name} needs Python code of its own; if you trust it, add --trust-remote-code."
    return f"--backbone {source.name} cannot be loaded ({type(error).__name__}: {reason}); fetch it again."


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keeps the load report and its progress bar off the screen: the checks above say what matters."""
    from transformers.utils import logging as their_logging

    level = their_logging.get_verbosity()
    bars = their_logging.is_progress_bar_enabled()
    their_logging.set_verbosity(logging.ERROR)
    their_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        their_logging.set_verbosity(level)
        if bars:
            their_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
