"""What the tests in a browser share: where Chromium is, and what is missing if it is not there."""

import os
import shutil
from importlib.util import find_spec

__all__ = ["CHROMIUM", "MISSING_BROWSER"]

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
MISSING_BROWSER = [
    name
    for name, there in (
        ("Chromium (Debian: apt-get install chromium)", CHROMIUM),
        ("Playwright (pip install playwright)", find_spec("playwright")),
    )
    if not there
]
