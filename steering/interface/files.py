"""Files that go from the page to a browser and back: copies handed out for download, uploads taken in."""

import shutil
import tempfile
from pathlib import Path

from gradio.processing_utils import save_file_to_cache
from gradio.utils import get_upload_folder

from steering.errors import SteeringError


def downloadable(path: Path) -> str:
    """Copy a file to where the server may hand it out from; the copy is deleted with gradio's other temporary files.

    Its folder is named after a hash of its content, so nobody finds it who does not have the file already.
    """
    try:
        return save_file_to_cache(path, get_upload_folder())
    except OSError as error:
        raise SteeringError(f"{path.name} cannot be handed out ({error.strerror or error}); try again.") from error


def take_upload(path: str, folder: Path) -> Path:
    """Move an uploaded file to a visitor's private folder, under its own name; the last one there is replaced."""
    source = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        target = Path(tempfile.mkdtemp(dir=folder)) / source.name
        for old in folder.iterdir():
            if old != target.parent:
                shutil.rmtree(old, ignore_errors=True)
        shutil.move(source, target)
    except OSError as error:
        raise SteeringError(f"{source.name}: the upload is no longer there; bring the file again.") from error
    return target
