"""The BiPO authors' files: `torch.save` of one bare tensor [hidden_size], the layer only in the file's name.

Layer 15 there is the output of block 15 counted from 0, as here, and the tensor is added unscaled, so multiplier 1
means the same. The file is a pickle; it is read with `weights_only=True`, which runs nothing and takes only tensors.
"""

import io
import pickle
import re
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from steering.errors import SteeringError
from steering.vectors.action import FLOATS
from steering.vectors.formats.registry import Format
from steering.vectors.native_file import read_limited
from steering.vectors.vector import SteeringVector

MAX_BYTES = 2_000_000
"""Of the file, unpacked. A float32 direction of width 16,384 (Llama-3.1-405B) takes 66 kB; unpickling
can take 60 times the file's size in memory."""


def read_bipo(path: str | Path, *, layer: int | None = None, name: str | None = None) -> SteeringVector:
    """Read a `.pt` vector; without `layer`, the layer is taken from the file's name (`..._layer15.pt`).

    Raises SteeringError if neither says the layer, or the file holds anything but one bare tensor [hidden_size].
    """
    path = Path(path)
    tensor = _bare_tensor(path)
    if layer is None and (match := re.search(r"layer[_-]?([0-9]{1,5})(?![0-9])", path.stem)):
        layer = int(match[1])
    if layer is None:
        raise SteeringError(f"{path.name}: the file does not say which layer it steers; give the layer.")
    try:
        method = {"name": "bipo", "imported_from": path.name}
        return SteeringVector({layer: tensor}, name=name or path.stem, method=method)
    except SteeringError as error:
        raise SteeringError(f"{path.name}: {error}") from error


def _bare_tensor(path: Path) -> Tensor:
    """Load the file's one tensor [hidden_size], of any float type, running none of its code."""
    data = read_limited(path, MAX_BYTES)
    if len(data) > MAX_BYTES or _unpacked_size(data) > MAX_BYTES:
        raise SteeringError(f"{path.name}: larger than {MAX_BYTES // 10**6} MB, so it is no single direction.")
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise SteeringError(
            f"{path.name}: damaged, or holds more than a plain tensor (such as code), so nothing was run or taken."
        ) from error
    except Exception as error:  # torch.load raises almost anything on a damaged file
        raise SteeringError(f"{path.name}: not a sound .pt file; export or download it anew.") from error
    if not isinstance(content, Tensor) or content.is_nested:  # asking a nested tensor for its shape raises
        kind = "nested tensor" if isinstance(content, Tensor) else type(content).__name__
        raise SteeringError(f"{path.name}: holds a {kind}; a BiPO vector file is one bare tensor.")
    # A few bytes can describe a tensor of any size (stride 0, no storage), so nothing is computed before this.
    is_dense_float = content.layout == torch.strided and content.device.type == "cpu" and content.dtype in FLOATS
    if not is_dense_float or content.dim() != 1 or content.numel() * content.element_size() > MAX_BYTES:
        kind = f"{list(content.shape)} of {str(content.dtype).removeprefix('torch.')}"
        raise SteeringError(f"{path.name}: holds a tensor {kind}; a BiPO vector is [hidden_size] of float32.")
    return content


def _unpacked_size(data: bytes) -> int:
    """Sum the unpacked sizes in bytes of the zip archive `data`; 0 if it is none (files from before PyTorch 1.6)."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return sum(item.file_size for item in archive.infolist())
    except Exception:  # noqa: BLE001 - on a damaged archive zipfile raises almost anything; torch.load says what is wrong
        return 0


FORMAT = Format("bipo", "BiPO, .pt", (".pt", ".pth"), read=read_bipo, says_layer=False)
