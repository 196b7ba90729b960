"""Paths as they are shown to others (standard library only)."""

import re
from pathlib import Path


def short(text):
    """A text, or a path, with ~ for the home folder; as it is for a user without one, whose home is /."""
    home = re.escape(str(Path.home()))
    return str(text) if home == "/" else re.sub(rf"(?<![\w.~/-]){home}(?![\w-]|\.\w)", "~", str(text))
