"""Is the gradient of shares (FSDP2) that of whole copies (DDP)? Two processes without a GPU: torchrun --nproc-per-node 2 launch/shares.py"""

import sys

sys.modules |= dict.fromkeys(("vllm", "torchao", "bitsandbytes"))  # transformers would import them; nothing here uses them

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from transformers import AutoModelForCausalLM

torch.set_num_threads(1)
dist.init_process_group("gloo")
rank, processes = dist.get_rank(), dist.get_world_size()
tokens = torch.randint(3, 200, (4 * processes, 48), generator=torch.Generator().manual_seed(3407))[4 * rank : 4 * rank + 4]  # its own four texts


def trained(shared):
    """Gradients, and weights after an AdamW step, {name: whole tensor}; and how many numbers this process held of the weights."""
    model = AutoModelForCausalLM.from_pretrained("../data/tiny-model", dtype=torch.float32)
    if shared:
        mesh = init_device_mesh("cpu", (processes,))
        for part in [*model.model.layers, model]:
            fully_shard(part, mesh=mesh)
    wrapped = model if shared else DistributedDataParallel(model)
    wrapped(input_ids=tokens, labels=tokens).loss.backward()
    gradients = {name: whole(weight.grad).clone() for name, weight in model.named_parameters()}
    torch.optim.AdamW(model.parameters(), lr=1e-3).step()
    held = sum(getattr(weight, "to_local", lambda: weight)().numel() for weight in model.parameters())
    return gradients, {name: whole(weight).detach().clone() for name, weight in model.named_parameters()}, held


def whole(tensor):
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def differ(one, other):
    return (sum((other[name] - tensor).square().sum() for name, tensor in one.items()) / sum(tensor.square().sum() for tensor in one.values())).sqrt().item()


copies, shares = trained(shared=False), trained(shared=True)
if rank == 0:
    print(f"numbers of the weights that rank 0 holds: {copies[2]:,} as a copy, {shares[2]:,} as a share")
    print(f"of their length differ: the gradients by {differ(copies[0], shares[0]):.0e}, the weights after a step of AdamW by {differ(copies[1], shares[1]):.0e}")
dist.destroy_process_group()
