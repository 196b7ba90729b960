"""The pins of the CPU lock with the hashes of their files, so that pip refuses a file that is another: a part of `make lock`.

    python -m grpo_kit.workshop.lock pylock.311.toml pylock.312.toml …

Each argument is a lock as uv writes it for one version of Python: packages, and of each the wheels that fit this kind of machine.
"""

import sys
import tomllib
from pathlib import Path


def pins(locks):
    """The lines of a requirements file, `name==version --hash=sha256:…`, with a hash for each wheel that pip may choose.

    `locks`: texts of pylock.toml, one a version of Python. ValueError where a package has no wheel for one of them.
    """
    found = {}
    for lock in locks:
        for package in tomllib.loads(lock)["packages"]:
            pin, wheels = f"{package['name']}=={package['version']}", package.get("wheels", [])
            if not wheels:
                raise ValueError(f"{pin} has no wheel for one of the Pythons: pin another version in requirements.txt.")
            found.setdefault(pin, set()).update(wheel["hashes"]["sha256"] for wheel in wheels)
    return [" ".join([pin, *(f"--hash=sha256:{one}" for one in sorted(found[pin]))]) for pin in found]


if __name__ == "__main__":
    print("\n".join(pins(Path(file).read_text("utf-8") for file in sys.argv[1:])))
