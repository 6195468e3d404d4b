"""Folders: of files that ship with the project, of the cache, and of the user's data."""

import os
from pathlib import Path

import platformdirs

APP_NAME = "steering-playground"
PACKAGE = Path(__file__).resolve().parent


def shipped(name: str) -> Path:
    """Return a folder or file that ships with the project: `assets`, `vectors`, `README.md` ...

    They lie at the top of a checkout, and inside the package once it is built into a wheel.
    """
    inside = PACKAGE / "shipped" / name
    return inside if inside.exists() else PACKAGE.parent / name


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
