"""The folder of a Hugging Face model, whatever kind of model it holds: checked, opened, copied, compared.

Opens local files only, never runs code that a folder brings along, and reads weights from safetensors alone, since a
pickle can run anything.
"""

import filecmp
import json
import shutil
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoTokenizer
from transformers.utils import logging as transformers_logging

from policies.errors import ModelFolderError

# A bar for each of the many folders that a campaign opens would bury what stderr has to say.
transformers_logging.disable_progress_bar()

COMPANIONS: Final = {".json", ".txt", ".model", ".jinja", ".tiktoken"}
"""Suffixes of what stands beside weights: tokenizers and settings. Weights of other formats would be stale copies."""


def open_model(folder: Path, auto: Any, kind: str) -> tuple[Any, Any]:
    """Give the model, its weights in float32, and its tokenizer.

    Args:
        auto: transformers' class that opens models of this kind, `AutoModelForCausalLM` for one.
        kind: in a few words, without an article.

    Raises:
        ModelFolderError: if the folder lacks a configuration, a tokenizer or safetensors weights, if its weights do
            not fill a model of this kind, or if it needs code of its own.
    """
    require_files(folder)
    try:
        model, info = auto.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        raise ModelFolderError(f"{folder} does not open as a {kind}: {error}") from error
    # transformers fills absent weights with random numbers and only warns.
    if info["missing_keys"] or info["mismatched_keys"]:
        absent = sorted(str(key) for key in [*info["missing_keys"], *info["mismatched_keys"]])
        raise ModelFolderError(f"{folder} lacks {len(absent)} weights of a {kind}, first {absent[0]}")
    return model, tokenizer


def require_files(folder: Path) -> None:
    """Look at the configuration and at the heads of the weights' files; no weight is read.

    Raises:
        ModelFolderError: the folder holds no model that could be opened here.
    """
    if not folder.is_dir():
        raise ModelFolderError(f"{folder} is not a folder; give the local folder of a Hugging Face model")
    if not (folder / "config.json").is_file():
        raise ModelFolderError(f"{folder} has no config.json; it is not the folder of a Hugging Face model")
    weights = sorted(folder.glob("model*.safetensors"))
    if not weights:
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt")) or any(folder.glob("*.pth"))
        reason = "only pickled weights, which can run code" if pickled else "no weights"
        raise ModelFolderError(f"{folder} has {reason}; save the model with safetensors (model.safetensors)")
    for file in weights:
        try:
            # Compares the sizes and places of all tensors with the file's length.
            with safe_open(file, framework="pt"):
                pass
        except (OSError, SafetensorError) as error:
            raise ModelFolderError(
                f"{folder} does not open: {file.name} is damaged, or no safetensors file: {_first_line(error)}"
            ) from error
    index = folder / "model.safetensors.index.json"
    if index.is_file() and (absent := sorted(_named_in(index) - {file.name for file in weights})):
        raise ModelFolderError(f"{index} names {absent[0]}, which is not there; copy the whole folder")
    _read_object(folder / "config.json")
    try:
        AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelFolderError(f"{folder} does not open: config.json: {_first_line(error)}") from error


def _named_in(index: Path) -> set[str]:
    """The files that hold weights, by the index of a model in several."""
    places = _read_object(index).get("weight_map")
    if not isinstance(places, dict):
        raise ModelFolderError(f"{index} is damaged: it has no weight_map")
    return {str(name) for name in places.values()}


def _read_object(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFolderError(f"{file} is damaged: {_first_line(error)}") from error
    if not isinstance(value, dict):
        raise ModelFolderError(f"{file} is damaged: it holds no JSON object")
    return value


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def same_model(folder: Path, other: Path) -> bool:
    """Say whether two folders hold the same files of a model, byte for byte."""
    names, others = (
        {path.name for path in here.iterdir() if path.match("model*.safetensors") or path.suffix in COMPANIONS}
        for here in (folder, other)
    )
    return names == others and all(filecmp.cmp(folder / name, other / name, shallow=False) for name in names)


def copy_companions(folder: Path, out_dir: Path) -> None:
    """Copy what stands beside a model's weights, unless `out_dir` has a file of that name."""
    for source in sorted(folder.iterdir()):
        if source.is_file() and _is_companion(source.name) and not (out_dir / source.name).exists():
            shutil.copyfile(source, out_dir / source.name)


def _is_companion(name: str) -> bool:
    return Path(name).suffix in COMPANIONS and not name.endswith(".index.json") and not name.startswith("trainer_state")
