"""Files stay short enough to be read in one go."""

from pathlib import Path

import eventful

FILES = sorted(Path(eventful.__file__).parent.rglob("*.py"))


def test_no_file_is_longer_than_400_lines():
    assert not [str(file) for file in FILES if len(file.read_text().splitlines()) > 400]
