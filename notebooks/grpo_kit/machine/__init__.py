"""What runs here (chapter 01): the profile, the packages, the memory, the threads.

Importing it loads the standard library only, so that it comes before the packages are installed. Imported by their
own names, for they need those: `memory` plans a GPU's, `memory_here` plans and measures this machine's, `step_time` counts
seconds, `checkup` asks the machine, the versions and the hubs, `spare` what memory is free, and `limits` bounds what others' programs take.
"""

from .packages import REQUIREMENTS, Stop, fits, install_missing, nvidia_gpu
from .profile import PROFILES, choose_profile
