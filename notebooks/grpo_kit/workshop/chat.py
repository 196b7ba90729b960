"""`make chat`: talk on the terminal to the model that chapter 07 exported."""

import contextlib
import sys
from pathlib import Path

from grpo_kit.export.gguf import GGUFModel
from grpo_kit.export.merge import EXPORTS


def chat(file, system_prompt, context, reply):
    """Read questions from the terminal and let the GGUF `file` answer, each on its own; an empty line ends it."""
    with GGUFModel(file, context) as model:
        while question := input("\nyour question (empty: stop): ").strip():
            messages = [{"role": "system", "content": system_prompt}, {"role": "user", "content": question}]
            for piece in model.llama.create_chat_completion(messages, temperature=0.0, max_tokens=reply, stream=True):
                print(piece["choices"][0]["delta"].get("content", ""), end="", flush=True)
            print()


if __name__ == "__main__":
    from grpo_kit.data.rows import SYSTEM_PROMPT
    from grpo_kit.machine.profile import choose_profile

    files = sorted(Path(__file__).parents[2].glob(f"{EXPORTS}/gguf/*.Q8_0.gguf"))
    if not files:
        sys.exit("make chat: there is no exported model yet: run notebooks/07_export.ipynb first.")
    settings = choose_profile()
    print(f"{files[0].name} answers on this machine. It knows the world of its problems: ask one.")
    with contextlib.suppress(KeyboardInterrupt, EOFError):
        chat(files[0], SYSTEM_PROMPT, settings.max_seq_length, settings.max_completion_length)
