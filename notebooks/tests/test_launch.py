"""The launch files: each is read by the parser that will read it on a cluster, and a wrong key is found."""

import importlib
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from torch.distributed.run import get_args_parser
from trl.cli.commands.training import TrainingCommand
from trl.scripts import grpo, vllm_serve

NOTEBOOKS = Path(__file__).resolve().parents[1]
LAUNCH = NOTEBOOKS / "launch"
TRAININGS = sorted(set(LAUNCH.glob("*.yaml")) - {LAUNCH / "vllm_server.yaml"})
MACHINES = sorted((LAUNCH / "accelerate").glob("*.yaml"))
SCRIPTS = sorted(LAUNCH.glob("*.sh"))
ON_THIS_CPU = ["--use_cpu", "true", "--bf16", "false"]


def read_training(file):
    """A YAML by the parser of `trl grpo`: its dataclasses. ValueError for a key that it does not know."""
    parser = grpo.make_parser(prog="trl grpo")
    return parser.parse_args_and_config(["--config", str(file), *ON_THIS_CPU])


def read_machines(file):
    """A YAML by accelerate's own reader, and the keys inside it by the options of `accelerate launch`. ValueError for an unknown one."""
    config = load_config_from_file(str(file))
    known = {action.dest for action in launch_command_parser()._actions}
    inside = set(config.fsdp_config) | set(config.deepspeed_config)
    if unknown := inside - known:
        raise ValueError(f"{file} has unknown keys: {sorted(unknown)}")
    return config


def read_server(file):
    found, more = vllm_serve.make_parser(prog="trl vllm-serve").parse_args_and_config(["--config", str(file)], return_remaining_strings=True)
    if more:
        raise ValueError(f"{file} has unknown keys: {more}")
    return found


READERS = {file: read_training for file in TRAININGS} | {file: read_machines for file in MACHINES} | {LAUNCH / "vllm_server.yaml": read_server}


def name_of(file):
    return str(file.relative_to(LAUNCH))


@pytest.mark.parametrize("file", READERS, ids=name_of)
def test_its_own_parser_takes_it_and_refuses_a_wrong_key(file, tmp_path):
    READERS[file](file)
    written = yaml.safe_load(file.read_text())
    for inside in [None, *(key for key, value in written.items() if isinstance(value, dict))]:
        wrong = yaml.safe_load(file.read_text())
        (wrong[inside] if inside else wrong)["no_such_key"] = 1
        copy = tmp_path / file.name
        copy.write_text(yaml.safe_dump(wrong))
        with pytest.raises(ValueError, match="no_such_key"):
            READERS[file](copy)


@pytest.mark.parametrize("file", [*READERS, *SCRIPTS], ids=name_of)
def test_it_opens_with_when_to_take_it(file):
    first = next(line for line in file.read_text().splitlines() if not line.startswith("#!"))
    assert first.startswith("# ") and len(first) > 40


@pytest.mark.parametrize("file", TRAININGS, ids=name_of)
def test_the_rewards_of_a_training_can_be_imported_and_weighed(file):
    script, training_args, model_args, _ = read_training(file)
    for path in script.reward_funcs:
        module, _, name = path.rpartition(".")
        assert callable(getattr(importlib.import_module(module), name))
    assert len(training_args.reward_weights) == len(script.reward_funcs)
    assert training_args.generation_batch_size % training_args.num_generations == 0
    if training_args.use_vllm and training_args.vllm_mode == "server":
        server = read_server(LAUNCH / "vllm_server.yaml")
        assert (server.model, server.port) == (model_args.model_name_or_path, training_args.vllm_server_port)
        assert server.max_model_len >= 256 + training_args.max_completion_length


def said(script, tmp_path, *arguments, **environment):
    """The words of the launcher that a script starts at last, by stand-ins for the cluster's commands."""
    launcher = "#!/bin/bash\nprintf '%s\\n' \"$@\"\n"
    stand_ins = {"trl": launcher, "torchrun": launcher, "python": launcher, "scontrol": "#!/bin/bash\necho node1\n",
                 "srun": "#!/bin/bash\n\"${@:2}\"\n"}
    for name, text in stand_ins.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(stat.S_IRWXU)
    variables = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_NNODES": "2", "SLURM_NODEID": "1"}
    done = subprocess.run(["bash", script, *arguments], cwd=NOTEBOOKS, env=os.environ | variables | environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return done.stdout.splitlines()


def test_under_slurm_each_host_starts_its_share(tmp_path, monkeypatch):
    words = said(LAUNCH / "slurm.sh", tmp_path)
    assert words[0] == "grpo"
    monkeypatch.chdir(NOTEBOOKS)
    started = []
    monkeypatch.setattr("trl.cli.accelerate_launcher.launch_training_script", lambda **call: started.append(call))
    context = type("Context", (), {"argv_after": lambda self, name: [*words[1:], *ON_THIS_CPU]})()
    TrainingCommand("grpo").run(None, context)
    accelerate = launch_command_parser().parse_args([*started[0]["launch_args"], started[0]["script_name"], *started[0]["training_script_args"]])
    assert (accelerate.num_machines, accelerate.num_processes, accelerate.machine_rank, accelerate.main_process_ip) == (2, 16, 1, "node1")
    assert accelerate.config_file == "launch/accelerate/one_host.yaml" and accelerate.training_script_args[:2] == ["--config", "launch/lora.yaml"]


def test_torchrun_takes_the_line_for_hosts(tmp_path):
    options = get_args_parser().parse_args(said(LAUNCH / "hosts.sh", tmp_path, "2", "1", "10.0.0.1", "--max_steps", "5"))
    assert (options.nnodes, options.node_rank, options.master_addr, options.nproc_per_node) == ("2", 1, "10.0.0.1", "8")
    assert options.training_script == "launch/train.py" and options.training_script_args[-2:] == ["--max_steps", "5"]


def test_the_line_for_verl_names_what_exists(tmp_path):
    words = said(LAUNCH / "verl.sh", tmp_path)
    assert words[:2] == ["-m", "verl.trainer.main_ppo"]
    settings = dict(word.split("=", 1) for word in words[2:])
    module = importlib.import_module(settings["reward.custom_reward_function.path"].removeprefix("pkg://"))
    assert callable(getattr(module, settings["reward.custom_reward_function.name"]))
    sampled = int(settings["data.train_batch_size"]) * int(settings["actor_rollout_ref.rollout.n"])
    assert sampled % (int(settings["trainer.n_gpus_per_node"]) * int(settings["actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu"])) == 0


def test_the_plain_log_probabilities_are_those_of_the_logits():
    import torch

    code = (LAUNCH / "train.py").read_text().partition("class PlainLogProbs")[2].partition("\n\n\n")[0]
    scope = {"torch": torch}
    exec(f"class PlainLogProbs{code}", scope)  # the script itself begins a training's imports
    torch.manual_seed(0)
    hidden, weight, targets = torch.randn(5, 8), torch.randn(11, 8), torch.tensor([0, 3, 10, 3, 7])
    logits = hidden @ weight.T / 0.7
    log_probs, entropy, *rest = scope["PlainLogProbs"].apply(hidden, weight, None, targets, 0.7, 4, None, 1.0, ("entropy",))
    assert torch.allclose(log_probs, -torch.nn.functional.cross_entropy(logits, targets, reduction="none"), atol=1e-6)
    assert torch.allclose(entropy, torch.distributions.Categorical(logits=logits).entropy(), atol=1e-6) and rest == [None] * 3
