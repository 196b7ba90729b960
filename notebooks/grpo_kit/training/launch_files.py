"""Reading the files of `launch/` with the parsers that will read them on a cluster; chapter 14 and its tests do.

Each function gives what the parser makes of a file or a command, and ValueError where it knows a word not.
"""

import os
import shlex
import subprocess
from pathlib import Path

from .launch import NOTEBOOKS

SCRIPT = NOTEBOOKS / "launch/train.py"
ON_A_CPU = ["--use_cpu", "true", "--bf16", "false"]  # else a machine without a GPU refuses the settings of one
STAND_INS = """
for name in trl accelerate python; do eval "$name() { printf '%s\\n' $name \\"\\$@\\"; }"; export -f $name; done
scontrol() { echo node1; }
srun() { "${@:2}"; }
"""


def unknown(what, words):
    if words:
        what = what.relative_to(NOTEBOOKS) if isinstance(what, Path) and what.is_relative_to(NOTEBOOKS) else what
        raise ValueError(f"{what} has unknown keys: {sorted(words)}")


def read_training(file, *words):
    """A YAML of `trl grpo`, and words of the command line that replace its: (script, training, model arguments)."""
    from trl.scripts import grpo

    try:
        *found, rest = grpo.make_parser(prog="trl grpo").parse_args_and_config(["--config", str(file), *words, *ON_A_CPU], return_remaining_strings=True)
    except TypeError as error:  # of a mapping inside, such as accelerator_config
        raise ValueError(f"{file} has unknown keys: {error}") from None
    unknown("The command line", set(rest) & {word for word in words if word.startswith("--")})
    unknown(file, [word for word in rest if word.startswith("--")])
    return found[:3]


def read_machines(file):
    """A YAML of accelerate, also what stands inside `fsdp_config` and `deepspeed_config`, where accelerate itself does not look."""
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import launch_command_parser

    config = load_config_from_file(str(file))
    known = {action.dest for action in launch_command_parser()._actions}
    unknown(file, (set(config.fsdp_config) | set(config.deepspeed_config)) - known)
    return config


def read_server(file, *words):
    """A YAML of `trl vllm-serve`, and words of the command line that replace its."""
    from trl.scripts import vllm_serve

    found, rest = vllm_serve.make_parser(prog="trl vllm-serve").parse_args_and_config(["--config", str(file), *words], return_remaining_strings=True)
    unknown(file, [word for word in rest if word.startswith("--")])
    return found


def read_file(file):
    """A file of `launch/`, or a copy of one, by the parser that is its own; the scripts by a `dry_run`."""
    file = Path(file)
    if file.suffix == ".sh":
        return read_command(["bash", file, *(["2", "0", "10.0.0.1"] if file.stem == "hosts" else [])])
    return {"accelerate": read_machines, "launch": read_training}[file.parent.name](file) if file.stem != "vllm_server" else read_server(file)


def read_command(line):
    """A line of `trl grpo`, `trl vllm-serve` or `accelerate launch`, or of a script, words or a text, as the program reads it.

    `trl grpo` keeps what is TRL's and hands the rest on to `accelerate launch`; the files that a line names are read too.
    Returns the launcher's arguments, for the server its own; verl's are not read, for verl is not among the packages.
    """
    from accelerate.commands.launch import launch_command_parser
    from trl.scripts import grpo

    words = shlex.split(line) if isinstance(line, str) else [str(word) for word in line]
    first = next(place for place, word in enumerate(words) if "=" not in word)
    environment, program, words = dict(word.split("=", 1) for word in words[:first]), words[first], words[first + 1 :]
    if program in ("sbatch", "bash"):
        script = next(place for place, word in enumerate(words) if word.endswith(".sh"))
        found = read_command(dry_run(words[script], *words[script + 1 :], **environment))
        training = read_training(*trained_with(found.training_script_args))[1] if hasattr(found, "training_script_args") else None
        if training and training.use_vllm and training.vllm_mode == "server" and training.vllm_server_host in ("127.0.0.1", "localhost", "0.0.0.0"):
            raise ValueError(f"every GPU of {words[script]}'s hosts trains, none is left for a server: add --vllm_mode colocate, "
                             "or by --vllm_server_host the address of a host that does not train.")
        return found
    if program == "python":
        return words
    if (program, words[0]) == ("trl", "vllm-serve"):
        return read_server(*trained_with(words[1:]))
    if (program, words[0]) == ("accelerate", "launch"):
        rest, training = words[1:], []
    else:
        file, *others = trained_with(words[1:])
        *_, rest = grpo.make_parser(prog="trl grpo").parse_args_and_config(["--config", str(file), *others, *ON_A_CPU], return_remaining_strings=True)
        training = [str(SCRIPT), "--config", words[words.index("--config") + 1]]
        rest = ["--config_file" if word == "--accelerate_config" else word for word in rest]
    found, more = launch_command_parser().parse_known_args([*rest, *training])
    unknown(shlex.join([program, *words]), more)
    machines = read_machines(NOTEBOOKS / found.config_file)
    found.num_processes = found.num_processes or machines.num_processes
    read_training(*trained_with(found.training_script_args))
    return found


def against_plan(typed, choice, cards, memory):
    """What the parsers read of `typed` beside the plan's `Choice` for so many GPUs of `memory` bytes: a sentence.

    `typed`: commands of a terminal, an empty line between two; the last one trains. ValueError, with what to change, where they disagree.
    """
    if choice.way in ("does not fit", "QLoRA"):
        raise ValueError(f"The plan says: {choice.way}. No file of launch/ is for that.")
    for line in typed.strip().split("\n\n"):
        read = read_command(line.replace("\\\n", " "))
    trained = read_training(*trained_with(read.training_script_args))[1]
    trains, own = cards - choice.served, trained.per_device_train_batch_size * trained.gradient_accumulation_steps
    if read.num_processes != trains:
        raise ValueError(f"The plan lets {trains} of the {cards} GPUs train, the line starts {read.num_processes} processes: change --num_processes.")
    if trained.per_device_train_batch_size != choice.batch:
        raise ValueError(f"The plan trains {choice.batch} completions at a time, the line {trained.per_device_train_batch_size}: add "
                         f"--per_device_train_batch_size {choice.batch} --gradient_accumulation_steps {own // choice.batch}")
    if choice.served:
        return f"{choice.served} of the GPUs for the engine, {trains} train"
    needs, gets = choice.writing["engine"] / memory, trained.vllm_gpu_memory_utilization
    room = 1 - sum(choice.writing.values()) / memory + needs
    if not needs <= gets <= room:
        raise ValueError(f"The engine needs {needs:.2f} of a GPU and has room for {room:.2f}, the line gives it {gets:.2f}: change --vllm_gpu_memory_utilization.")
    return f"the engine needs {needs:.2f} of a GPU, gets {gets:.2f}, has room for {room:.2f}"


def trained_with(words):
    """The words of a training script, its YAML first and in notebooks/."""
    place = words.index("--config")
    return [NOTEBOOKS / words[place + 1], *words[:place], *words[place + 2 :]]


def dry_run(script, *arguments, **environment):
    """The line, a list of words, that a shell script of `launch/` would start on a cluster: its programs only say how they were called."""
    cluster = {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_NNODES": "2", "SLURM_NODEID": "1"}
    done = subprocess.run(["bash", "-c", f"{STAND_INS}source {shlex.quote(str(script))} {shlex.join(arguments)}"], cwd=NOTEBOOKS,
                          env=os.environ | cluster | environment, capture_output=True, text=True)
    if done.returncode or done.stderr:
        raise ValueError(f"{Path(script).name} fails: {done.stderr.strip()}")
    return done.stdout.splitlines()
