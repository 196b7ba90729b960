"""What memory this process may still take (standard library only)."""

from pathlib import Path


def available_memory(cgroup="/sys/fs/cgroup", meminfo="/proc/meminfo"):
    """Bytes that the machine has available, or that its container may take if those are fewer."""
    [line] = [line for line in Path(meminfo).read_text().splitlines() if line.startswith("MemAvailable")]
    files = [Path(cgroup, name) for name in ("memory.max", "memory/memory.limit_in_bytes")]  # version 2, version 1
    limits = [file.read_text().strip() for file in files if file.is_file()]
    return min([int(line.split()[1]) * 1024, *(int(limit) for limit in limits if limit != "max")])
