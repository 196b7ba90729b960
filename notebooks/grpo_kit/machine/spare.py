"""What memory this process may still take (standard library only)."""

from pathlib import Path


def available_memory(cgroup="/sys/fs/cgroup", meminfo="/proc/meminfo"):
    """Bytes that this machine has free, or gives away when asked (caches); fewer where a container's limit comes first."""
    rooms = [1024 * int(line.split()[1]) for line in Path(meminfo).read_text().splitlines() if line.startswith("MemAvailable")]
    # Version 2 of the control groups, then version 1.
    for limit, used in (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")):
        limit, used = Path(cgroup, limit), Path(cgroup, used)
        if limit.is_file() and (most := limit.read_text().strip()) != "max":
            stat = dict(line.split() for line in (limit.parent / "memory.stat").read_text().splitlines())
            cached = int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))
            rooms.append(int(most) - int(used.read_text()) + cached)
    return max(0, min(rooms))
