"""The browser that the tests and benchmarks of the page drive."""

import os
import shutil
import subprocess

CHROMIUM_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def chromium() -> str | None:
    """A Chromium on this machine, else playwright's download (None), else Debian's."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    if subprocess.run(["playwright", "install", "chromium"], capture_output=True).returncode == 0:
        return None
    if shutil.which("apt-get") and os.geteuid() == 0:
        subprocess.run(["apt-get", "update", "-q"], capture_output=True)
        subprocess.run(["apt-get", "install", "-y", "-q", "chromium"], capture_output=True)
    found = shutil.which("chromium")
    assert found, "the browser tests need Chromium: install Debian's `chromium`, or run `playwright install chromium`"
    return found
