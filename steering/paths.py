"""Folders: of files that ship with the project, of the cache, and of the user's data."""

import os
from pathlib import Path

import platformdirs

APP_NAME = "steering-playground"
PACKAGE = Path(__file__).resolve().parent


def shipped(folder: str) -> Path:
    """Return the folder of files that ship with the project: `assets` or `vectors`.

    They lie at the top of a checkout, and inside the package once it is built into a wheel.
    """
    beside = PACKAGE.parent / folder
    return beside if beside.is_dir() else PACKAGE / "shipped" / folder


def cache_dir() -> Path:
    """Return the folder for what can be made again (the converted model); `STEERING_CACHE_DIR` moves it."""
    return _ensured(os.environ.get("STEERING_CACHE_DIR") or platformdirs.user_cache_dir(APP_NAME, appauthor=False))


def data_dir() -> Path:
    """Return the folder for what the user made (vectors); `STEERING_DATA_DIR` moves it."""
    return _ensured(os.environ.get("STEERING_DATA_DIR") or platformdirs.user_data_dir(APP_NAME, appauthor=False))


def _ensured(folder: str) -> Path:
    path = Path(folder).expanduser()
    path.mkdir(parents=True, exist_ok=True)
    return path
