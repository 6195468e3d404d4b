"""The BiPO authors' files: `torch.save` of one bare tensor [hidden_size], the layer only in the file's name.

Layer 15 there is the output of block 15 counted from 0, as here, and the tensor is added unscaled, so multiplier 1 means
the same. The file is a pickle; it is read with `weights_only=True`, which refuses anything but tensors.
"""

import pickle
import re
import zipfile
from pathlib import Path

import torch

from steering.errors import SteeringError
from steering.vectors import MAX_FILE_BYTES, SteeringVector


def read_bipo(path: str | Path, *, layer: int | None = None, name: str | None = None) -> SteeringVector:
    """Read a `.pt` vector. `layer` is taken from the file's name (`..._layer15.pt`) if not given."""
    path = Path(path)
    if layer is None and (found := re.search(r"layer[_-]?(\d{1,4})", path.stem)):
        layer = int(found.group(1))
    if layer is None:
        raise SteeringError(f"{path.name}: the file does not say which layer it steers; give the layer.")
    if layer < 0:
        raise SteeringError(f"Layer {layer} does not exist; layers count from 0.")
    tensor = _bare_tensor(path)
    if tensor.dim() != 1 or not tensor.is_floating_point() or tensor.layout != torch.strided:
        raise SteeringError(
            f"{path.name}: holds a tensor of shape {list(tensor.shape)}, {tensor.dtype}; a BiPO vector is [hidden_size]."
        )
    try:
        return SteeringVector(
            {layer: tensor}, name=name or path.stem, method={"name": "bipo", "imported_from": path.name}
        )
    except SteeringError as error:
        raise SteeringError(f"{path.name}: {error}") from error


def _bare_tensor(path: Path) -> torch.Tensor:
    too_large = SteeringError(f"{path.name}: larger than {MAX_FILE_BYTES // 1024**2} MB, so it is no single vector.")
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise too_large
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if sum(item.file_size for item in archive.infolist()) > MAX_FILE_BYTES:
                    raise too_large
        content = torch.load(path, map_location="cpu", weights_only=True)
    except SteeringError:
        raise
    except pickle.UnpicklingError as error:
        raise SteeringError(
            f"{path.name}: holds more than a plain tensor (it may hold code), so it was refused and nothing was run."
        ) from error
    except Exception as error:  # torch.load lets almost anything escape on a damaged file
        raise SteeringError(f"{path.name}: not a sound .pt file ({type(error).__name__}); export it anew.") from error
    if not isinstance(content, torch.Tensor):
        raise SteeringError(f"{path.name}: holds a {type(content).__name__}; a BiPO vector file is one bare tensor.")
    return content
