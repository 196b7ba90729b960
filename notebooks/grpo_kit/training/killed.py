"""A second process that is killed on purpose: does a training survive it?"""

import subprocess
import sys
import time


def killed(code, when, wait=0.05):
    """Runs `code` in a second Python process and kills it as soon as `when()` is true; returns how it ended, -9 for the kill.

    `when` is asked every `wait` seconds. RuntimeError where the process ends by itself before.
    """
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        try:
            while not when():
                if child.poll() is not None:
                    raise RuntimeError(f"The process ended by itself, with {child.returncode}: run its lines in notebooks/ to see why.\n{code}")
                time.sleep(wait)
        finally:
            child.kill()
    return child.returncode
