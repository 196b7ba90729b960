"""What runs here (chapter 01): the profile, the packages, the memory, the threads.

Importing it loads the standard library only, so that it comes before the packages are installed. `memory` counts with
torch and is imported by its own name.
"""

from .packages import REQUIREMENTS, Stop, fits, install_missing, nvidia_gpu
from .profile import PROFILES, choose_profile
