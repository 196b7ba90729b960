"""What `make` runs and no chapter imports."""

from . import sentences
