"""Exports that are whole or absent, and what is checked before them: files, and whose adapter it is."""

import contextlib
import errno
import re
import shutil
from pathlib import Path

from grpo_kit.model.identity import check_adapter, check_safetensors  # noqa: F401  what an export begins with
from grpo_kit.model.whole import whole

EXPORTS = Path("outputs/07_export")


@contextlib.contextmanager
def new_export(target, replace=False):
    """A folder to fill, which becomes `target` when the `with` block ends.

    After an error it is gone, and an older `target` is untouched. FileExistsError where `target` exists, unless
    `replace` is said and it holds an export; OSError (ENOSPC), one sentence, when the disk is full.
    """
    target = Path(target)
    if target.exists() and not (replace and (any(target.glob("*.safetensors")) or any(target.glob("*.gguf")))):
        raise FileExistsError(f"{target} exists: delete it or choose another folder{'' if replace else ', or say replace=True'}.")
    with whole(target) as new:
        try:
            yield new
        except Exception as error:
            if disk_full(error, new):
                text = f"{target.parent} has no room for this export, and nothing was written: free some space and try again"
                raise OSError(errno.ENOSPC, text) from None
            raise


def disk_full(error, folder):
    """Whether `error` came from a full disk under `folder`; Unsloth says so in words, and llama-quantize not at all."""
    if shutil.disk_usage(folder).free < 10**6:
        return True
    seen = []
    while error and error not in seen:  # an error may be raised from itself
        seen.append(error)
        said = re.search(r"no space left|disk full|not enough free|requested and \d+ written|iostream error", str(error), re.I)
        if said or getattr(error, "errno", None) == errno.ENOSPC:
            return True
        error = error.__cause__ or error.__context__
    return False


def end_engine(model):
    """End the vLLM engine beside `model` on a GPU, whose memory the next one needs; without one, loading the next does it."""
    if not hasattr(model, "cpu_engine"):
        from unsloth_zoo.vllm_utils import delete_vllm

        model.fast_generate = None
        model.vllm_engine = delete_vllm(model.vllm_engine)
