"""Writes the embedded word problems to files again, byte for byte from the seed.

    python -m grpo_kit.workshop.problem_files     # rewrites data/problems/*.jsonl
"""

import json
import os
from pathlib import Path

from grpo_kit.data.problems import FOLDER, SEED, SIZES, problems


def write(folder: Path = FOLDER, seed: int = SEED) -> None:
    """Writes train.jsonl, test.jsonl and held_out.jsonl, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    seen: set[str] = set()
    for split, count in SIZES.items():
        rows = problems(split, count, seed, avoid=seen)
        seen |= {row["question"] for row in rows}
        temporary = folder / f"{split}.jsonl.tmp"
        temporary.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        os.replace(temporary, folder / f"{split}.jsonl")


if __name__ == "__main__":
    write()
    print(f"wrote {', '.join(f'{count} {split}' for split, count in SIZES.items())} problems to {FOLDER}")
