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


def built(shared):
    model = AutoModelForCausalLM.from_pretrained("../data/tiny-model", dtype=torch.float32)
    if shared:
        mesh = init_device_mesh("cpu", (processes,))
        for part in [*model.model.layers, model]:
            fully_shard(part, mesh=mesh)
    return model


def trained(shared):
    """Gradients, and weights after an AdamW step, {name: whole tensor}; how many numbers this process held of the weights, and of
    the gradients once they are set to zero."""
    model = built(shared)
    wrapped = model if shared else DistributedDataParallel(model)
    wrapped(input_ids=tokens, labels=tokens).loss.backward()
    gradients = {name: whole(weight.grad).clone() for name, weight in model.named_parameters()}
    torch.optim.AdamW(model.parameters(), lr=1e-3).step()
    weights = {name: whole(weight).detach().clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    return gradients, weights, here(model.parameters()), here(weight.grad for weight in model.parameters())


def kept(sync_each_batch):
    """How many numbers of gradients this process holds after the first of several batches."""
    model = built(shared=True)
    model.set_requires_gradient_sync(sync_each_batch)  # what accelerate does for every batch but a step's last
    model(input_ids=tokens, labels=tokens).loss.backward()
    groups = [part._get_fsdp_state()._fsdp_param_group for part in (model, *model.model.layers)]  # torch shows whole gradients nowhere else
    unreduced = [weight._unsharded_param.grad for group in groups for weight in group.fsdp_params]
    return here(weight.grad for weight in model.parameters()) + here(unreduced)


def here(tensors):
    """How many numbers of the tensors this process holds; None is none."""
    return sum(getattr(tensor, "to_local", lambda: tensor)().numel() for tensor in tensors if tensor is not None)


def whole(tensor):
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def differ(one, other):
    return (sum((other[name] - tensor).square().sum() for name, tensor in one.items()) / sum(tensor.square().sum() for tensor in one.values())).sqrt().item()


copies, shares = trained(shared=False), trained(shared=True)
whole_until_last, shared_at_once = kept(sync_each_batch=False), kept(sync_each_batch=True)
if rank == 0:
    print(f"numbers of the weights that rank 0 holds: {copies[2]:,} as a copy, {shares[2]:,} as a share")
    print(f"of their length differ: the gradients by {differ(copies[0], shares[0]):.0e}, the weights after a step of AdamW by {differ(copies[1], shares[1]):.0e}")
    print(f"of the gradients, as shares, after the first of several batches: {whole_until_last:,}; with sync_each_batch: {shared_at_once:,}")
    print(f"of the gradients after zero_grad(): {shares[3]:,}")
dist.destroy_process_group()
