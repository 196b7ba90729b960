"""What `make` runs and no chapter imports."""
