"""The launch files: each is read by the parser that will read it on a cluster, and a wrong key is found."""

import importlib
import json
import re
from pathlib import Path

import pytest
import yaml
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from trl.cli.commands.training import TrainingCommand

from grpo_kit.machine.sharding import Choice
from grpo_kit.training.launch_files import ON_A_CPU, against_plan, dry_run, read_command, read_file, read_server, read_training

NOTEBOOKS = Path(__file__).resolve().parents[1]
LAUNCH = NOTEBOOKS / "launch"
TRAININGS = sorted(set(LAUNCH.glob("*.yaml")) - {LAUNCH / "vllm_server.yaml"})
SCRIPTS, FILES = sorted(LAUNCH.glob("*.sh")), sorted(LAUNCH.rglob("*.yaml"))


def name_of(file):
    return str(file.relative_to(LAUNCH))


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_its_own_parser_takes_it_and_refuses_a_wrong_key(file, tmp_path):
    read_file(file)
    written = yaml.safe_load(file.read_text())
    for inside in [None, *(key for key, value in written.items() if isinstance(value, dict))]:
        wrong = yaml.safe_load(file.read_text())
        (wrong[inside] if inside else wrong)["no_such_key"] = 1
        copy = tmp_path / file.relative_to(NOTEBOOKS)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(yaml.safe_dump(wrong))
        with pytest.raises(ValueError, match="no_such_key"):
            read_file(copy)


@pytest.mark.parametrize("file", [*FILES, *SCRIPTS], ids=name_of)
def test_it_opens_with_when_to_take_it(file):
    first = next(line for line in file.read_text().splitlines() if not line.startswith("#!"))
    assert first.startswith("# ") and len(first) > 40


@pytest.mark.parametrize("file", TRAININGS, ids=name_of)
def test_the_rewards_of_a_training_can_be_imported_and_weighed(file):
    script, training_args, model_args = read_training(file)
    for path in script.reward_funcs:
        module, _, name = path.rpartition(".")
        assert callable(getattr(importlib.import_module(module), name))
    assert len(training_args.reward_weights) == len(script.reward_funcs)
    assert training_args.generation_batch_size % training_args.num_generations == 0
    if training_args.use_vllm and training_args.vllm_mode == "server":
        server = read_server(LAUNCH / "vllm_server.yaml")
        assert (server.model, server.port) == (model_args.model_name_or_path, training_args.vllm_server_port)
        assert server.max_model_len >= 256 + training_args.max_completion_length


def test_fsdp2_is_the_same_with_and_without_a_gpu():
    with_gpus, without = (yaml.safe_load((LAUNCH / "accelerate" / name).read_text()) for name in ("fsdp2.yaml", "processes_fsdp2.yaml"))
    assert with_gpus["fsdp_config"] == without["fsdp_config"] and with_gpus["distributed_type"] == without["distributed_type"]


def test_full_gradients_are_reduced_in_every_batch():
    assert read_training(LAUNCH / "full.yaml")[1].accelerator_config.gradient_accumulation_kwargs == {"sync_each_batch": True}


def test_under_slurm_each_host_starts_its_share():
    words = dry_run(LAUNCH / "slurm.sh", "--max_steps", "5")
    read = read_command(words)
    assert (read.num_machines, read.num_processes, read.machine_rank, read.main_process_ip) == (2, 16, 1, "node1")
    assert read.config_file == "launch/accelerate/one_host.yaml" and words[-2:] == ["--max_steps", "5"]
    others = dry_run(LAUNCH / "slurm.sh", CONFIG="launch/full.yaml", MACHINES="launch/accelerate/fsdp2.yaml")
    assert read_command(others).config_file == "launch/accelerate/fsdp2.yaml" and "launch/full.yaml" in others
    assert read.training_script == "launch/train.py"  # which goes on after a kill


def test_the_line_for_shares_over_two_hosts_is_taken_and_waits_for_no_server():
    chapter = "\n".join("".join(cell["source"]) for cell in json.loads((NOTEBOOKS / "14_scale_out.ipynb").read_text("utf-8"))["cells"])
    machines, config, more = re.search(r"\nMACHINES=(\S+) CONFIG=(\S+) sbatch --nodes=2 launch/slurm.sh \\\n +(.+)\n", chapter).groups()
    words = dry_run(LAUNCH / "slurm.sh", *more.split(), CONFIG=config, MACHINES=machines)
    assert read_command(words).num_processes == 16 and words[words.index("--vllm_mode") + 1] == "colocate"


def test_accelerate_reads_the_chapters_line_for_hybrid_shards(tmp_path):
    text = "".join("".join(cell["source"]) for cell in json.loads((NOTEBOOKS / "14_scale_out.ipynb").read_text("utf-8"))["cells"])
    file = tmp_path / "hybrid.yaml"
    file.write_text((NOTEBOOKS / "launch/accelerate/fsdp2.yaml").read_text() + re.search(r"`(parallelism_config: \{.*?\})`", text)[1])
    words = ["--config_file", str(file), "--num_machines", "2", "--num_processes", "16", "--machine_rank", "0", "--main_process_ip", "10.0.0.1", "x.py"]
    found, *_ = _validate_launch_command(launch_command_parser().parse_args(words))
    assert found.use_parallelism_config and (found.parallelism_config_dp_replicate_size, found.parallelism_config_dp_shard_size) == (2, 8)


def test_the_chapters_table_gives_for_each_colour_a_command_that_is_taken():
    text = "".join("".join(cell["source"]) for cell in json.loads((NOTEBOOKS / "14_scale_out.ipynb").read_text("utf-8"))["cells"])
    command = re.search(r"`(accelerate launch \S+ launch/accelerate/FILE .+)`", text)[1]
    for_all = re.search(r"share GPUs \(not green\) add `(.+?)`", text)[1]
    rows = re.findall(r"\| (\w[\w ]*): [\w+ ]+ \| `(.+?)` \| (?:`(.+?)`)?(?:; first `(.+)`)? ?\|", text)
    assert [row[0] for row in rows] == ["light blue", "blue", "purple", "green"]
    for colour, file, end, first in rows:
        processes = 6 if colour == "green" else 8
        assert read_command(f"{command.replace('FILE', file)} {end}").num_processes == processes
        everything = command.replace("FILE", file).replace("lora.yaml", "full.yaml")
        assert read_command(f"{everything} {end if colour == 'green' else f'{end} {for_all}'}").num_processes == processes
        assert not first or read_command(first).model == "Qwen/Qwen2.5-7B-Instruct"


def test_a_job_whose_gpus_all_train_needs_no_server_or_one_elsewhere():
    job = "MACHINES=launch/accelerate/fsdp2.yaml CONFIG=launch/full.yaml {} --max_steps 5"
    for script in ("sbatch --nodes=2 launch/slurm.sh", "bash launch/hosts.sh 2 0 10.0.0.1"):
        with pytest.raises(ValueError, match="none is left for a server"):
            read_command(job.format(script))
        assert read_command(job.format(script) + " --vllm_server_host 10.0.0.9").num_processes == 16


def test_the_number_of_processes_is_the_lines_or_the_files():
    line = "accelerate launch --config_file launch/accelerate/{} launch/train.py --config launch/lora.yaml"
    assert [read_command(line.format(file)).num_processes for file in ("one_gpu.yaml", "one_host.yaml", "one_host.yaml --num_processes 3")] == [1, 8, 3]


def test_trl_itself_starts_accelerate_so(monkeypatch):
    words = ("trl grpo --config launch/lora.yaml --accelerate_config launch/accelerate/one_host.yaml --num_machines 2 --num_processes 16 "
             "--machine_rank 1 --main_process_ip node1").split()
    monkeypatch.chdir(NOTEBOOKS)
    started = []
    monkeypatch.setattr("trl.cli.accelerate_launcher.launch_training_script", lambda **call: started.append(call))
    context = type("Context", (), {"argv_after": lambda self, name: [*words[2:], *ON_A_CPU]})()
    TrainingCommand("grpo").run(None, context)
    accelerate = launch_command_parser().parse_args([*started[0]["launch_args"], started[0]["script_name"], *started[0]["training_script_args"]])
    ours = read_command(words)
    for name in ("num_machines", "num_processes", "machine_rank", "main_process_ip", "config_file"):
        assert getattr(accelerate, name) == getattr(ours, name)


def test_accelerate_takes_the_line_for_hosts_and_another_file_of_machines():
    options = read_command(dry_run(LAUNCH / "hosts.sh", "2", "1", "10.0.0.1", "--max_steps", "5"))
    assert (options.num_machines, options.machine_rank, options.main_process_ip, options.num_processes) == (2, 1, "10.0.0.1", 16)
    assert options.training_script == "launch/train.py" and options.training_script_args[-2:] == ["--max_steps", "5"]
    shares = read_command(dry_run(LAUNCH / "hosts.sh", "3", "0", "10.0.0.1", MACHINES="launch/accelerate/fsdp2.yaml", GPUS="4"))
    assert (shares.config_file, shares.num_processes) == ("launch/accelerate/fsdp2.yaml", 12)


@pytest.mark.parametrize("line, word", [
    ("trl grpo --config launch/lora.yaml --accelerate_config launch/accelerate/one_host.yaml --num_procesess 2", "--num_procesess"),
    ("trl grpo --config launch/lora.yaml --accelerate_config launch/accelerate/one_host.yaml --max_completion_lenght 9", "--max_completion_lenght"),
    ("accelerate launch --config_file launch/accelerate/one_host.yaml launch/train.py --config launch/lora.yaml --max_stepz 5", "--max_stepz"),
])
def test_a_wrong_word_of_a_command_is_found(line, word):
    with pytest.raises(ValueError, match=f"unknown keys: .*{word}"):
        read_command(line)


def test_the_line_for_two_gpus_is_taken():
    read = read_command("accelerate launch --config_file launch/accelerate/one_host.yaml --num_processes 2 "
                        "launch/train.py --config launch/lora.yaml --max_steps 5 --output_dir outputs/14_scale_out/gpus")
    assert read.num_processes == 2 and read.training_script == "launch/train.py"


LINE = ("accelerate launch --config_file launch/accelerate/fsdp2.yaml --num_processes {} \\\n    launch/train.py --config launch/full.yaml "
        "--vllm_mode colocate --vllm_enable_sleep_mode true --vllm_gpu_memory_utilization {}")


@pytest.mark.parametrize("processes, share, choice, said", [
    (2, 0.25, Choice("FSDP", {}, {"engine": 20e9, "weights, moments": 30e9}, batch=8), "needs 0.20 of a GPU, gets 0.25, has room for 0.70"),
    (2, 0.25, Choice("FSDP", {}, {"engine": 20e9}, batch=4), "add --per_device_train_batch_size 4 --gradient_accumulation_steps 8"),
    (3, 0.25, Choice("FSDP", {}, {"engine": 20e9}, batch=8), "2 of the 2 GPUs train, the line starts 3 processes"),
    (2, 0.10, Choice("FSDP", {}, {"engine": 20e9}, batch=8), "needs 0.20 of a GPU and has room for 1.00, the line gives it 0.10"),
    (1, 0.25, Choice("disaggregated", {}, {"engine": 20e9}, served=1, batch=8), "1 of the GPUs for the engine, 1 train"),
    (2, 0.25, Choice("QLoRA", {}, {}), "The plan says: QLoRA"),
])
def test_a_line_is_held_against_the_plan(processes, share, choice, said):
    try:
        answer = against_plan(LINE.format(processes, share), choice, 2, 100e9)
        assert "needs 0.20 of a GPU, gets" in said or "for the engine" in said
    except ValueError as error:
        answer = str(error)
        assert "gets" not in said and "for the engine" not in said
    assert said in answer


def test_a_script_that_fails_says_so(tmp_path):
    (tmp_path / "x.sh").write_text("no_such_program\n")
    with pytest.raises(ValueError, match="x.sh fails: .*no_such_program"):
        dry_run(tmp_path / "x.sh")


def test_the_line_for_verl_names_what_exists():
    words = dry_run(LAUNCH / "verl.sh")
    assert words[:3] == ["python", "-m", "verl.trainer.main_ppo"]
    settings = dict(word.split("=", 1) for word in words[3:])
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
