"""Where files are kept between runs: the user's cache folder."""

import os
from pathlib import Path

import platformdirs

__all__ = ["cache_dir"]


def cache_dir() -> Path:
    """The folder everything is kept in: `SPECDEC_CACHE`, else the platform's cache folder for `specdec`."""
    chosen = os.environ.get("SPECDEC_CACHE")
    return Path(chosen).expanduser().absolute() if chosen else platformdirs.user_cache_path("specdec", appauthor=False)
