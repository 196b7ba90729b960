"""Folders that are whole or absent: filled under a name of their own, then put in place in one instant (standard library only)."""

import ctypes
import fcntl
import os
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def locked(folder):
    """Whether this process could take `folder` for itself while the block runs; the system lets go when a process ends."""
    handle, taken = os.open(folder, os.O_RDONLY), False
    try:
        with suppress(OSError):  # another has it, or a network disk that locks no folders
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            taken = True
        yield taken
    finally:
        os.close(handle)


@contextmanager
def whole(target):
    """An empty folder to fill, which takes `target`'s place when the block ends; after an error it is gone, and `target` as it was.

    A link stays one: what it points to is replaced. What a killed process left of such a folder is cleared away.
    """
    target = Path(target).resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(f".{target.name}-making-*"):
        with suppress(FileNotFoundError), locked(left) as ended:
            if ended:
                shutil.rmtree(left)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-making-") as work, locked(work):
        new = Path(work, target.name)
        new.mkdir()
        yield new
        put_in_place(new, target)


def put_in_place(new, target):
    """Gives the folder `new` the name `target`; a folder of that name is then called `new`.

    In one instant, wherever the file system can exchange two names. Where it cannot (some network disks; the folder that this
    process stands in), file by file.
    """
    if not target.exists():
        new.rename(target)
        return
    at, exchange = -100, 2  # Linux's AT_FDCWD and RENAME_EXCHANGE
    inside = Path.cwd().is_relative_to(target)
    if inside or ctypes.CDLL(None).renameat2(at, os.fsencode(new), at, os.fsencode(target), exchange):
        names = sorted((file.name for file in new.iterdir()), reverse=True)  # weights before the config that says they are there
        for name in names:
            if (target / name).is_dir():
                shutil.rmtree(target / name)
            os.replace(new / name, target / name)
        for file in [file for file in target.iterdir() if file.name not in names]:
            shutil.rmtree(file) if file.is_dir() else file.unlink()


def save_whole(save, folder):
    """`save(folder)`, whole or not at all: at every instant `folder` holds what it held or what is new. Other files in it stay.

    `save` is given the name of an empty folder: `save_whole(model.save_lora, "grpo_saved_lora")`.
    """
    def link(one, other):
        try:
            os.link(one, other)
        except OSError:  # a file system without hard links
            shutil.copy2(one, other)

    folder = Path(folder)
    with whole(folder) as new:
        save(str(new))
        if folder.is_dir():
            saved = {file.name for file in new.iterdir()} - {"README.md"}  # PEFT writes a form to fill in over a card
            new_ones = lambda at, names: saved if Path(at) == folder else ()  # noqa: E731
            shutil.copytree(folder, new, symlinks=True, ignore=new_ones, copy_function=link, dirs_exist_ok=True)
