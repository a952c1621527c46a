"""Networks as the published code keeps and evaluates them: a state_dict, and plain loops over it."""

import itertools

import torch

W0 = 30


def state_dict(mode, dimensions, channels, local, wide=0, partitions=1, hidden=3, agg_type="concat_and_fc", seed=0):
    """Random weights of SIREN's size under the published names and in the published shapes."""
    generator = torch.Generator().manual_seed(seed)
    state = {}

    def layer(name, fan_in, fan_out, local_networks=False, first=False):
        shape = (partitions, fan_in, fan_out) if local_networks else (fan_out, fan_in)
        bound = 1 / fan_in if first else (6 / fan_in) ** 0.5 / W0
        state[f"{name}.weight"] = (2 * torch.rand(shape, generator=generator) - 1) * bound
        bias = (partitions, fan_out) if local_networks else (fan_out,)
        state[f"{name}.bias"] = (2 * torch.rand(bias, generator=generator) - 1) / fan_in**0.5

    widths = [dimensions, *[local] * (hidden + 1), channels]
    for k, (a, b) in enumerate(itertools.pairwise(widths)):
        layer(f"net.net.{k}.0", a, b, mode != "mlp", k == 0)
    if mode == "lg":
        one = agg_type == "concat_and_fc"
        for k in range(hidden + 1):
            fan_in = wide if k else dimensions
            layer(f"net.global_net.{k}.0" if one else f"net.global_net.{k}.0.0", fan_in, wide, first=k == 0)
            if not one:
                layer(f"net.global_net.{k}.1.0", wide, local)
        if one:
            layer("net.agg_func.0", local + wide, local)
    return state


def evaluate(state, x, partition=0):
    """Values `[N, C]` of one partition at coordinates `[N, D]`."""

    def linear(name, h):
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        if weight.ndim == 3:
            return h @ weight[partition] + bias[partition]
        return h @ weight.T + bias

    def sine(name, h):
        return torch.sin(W0 * linear(name, h))

    layers = sum(name.startswith("net.net.") and name.endswith("bias") for name in state)
    g = h = x
    for k in range(layers - 1):
        h = sine(f"net.net.{k}.0", h)
        if "net.agg_func.0.weight" in state:
            g = sine(f"net.global_net.{k}.0", g)
            h = sine("net.agg_func.0", torch.cat([h, g], dim=-1))
        elif "net.global_net.0.0.0.weight" in state:
            g = sine(f"net.global_net.{k}.0.0", g)
            h = h + sine(f"net.global_net.{k}.1.0", g)
    return linear(f"net.net.{layers - 1}.0", h)


def decode(state, shape, grid, scale=1.0):
    """Values `[*shape, C]` of a whole signal; zero where no partition is (the tail of sizes that do not divide)."""
    axes = [scale * torch.linspace(-1, 1, size, dtype=torch.float64).float() for size in shape]
    tiles = [size // parts for size, parts in zip(shape, grid, strict=True)]
    channels = next(value.shape[-1] for name, value in reversed(state.items()) if is_last_bias(state, name))
    out = torch.zeros(*shape, channels)
    for number, ids in enumerate(itertools.product(*(range(parts) for parts in grid))):
        part = tuple(slice(k * t, (k + 1) * t) for k, t in zip(ids, tiles, strict=True))
        x = torch.cartesian_prod(*(axis[cut] for axis, cut in zip(axes, part, strict=True)))
        y = evaluate(state, x.reshape(-1, len(shape)), number)
        out[part] = y.reshape(*tiles, channels)
    return out


def is_last_bias(state, name):
    layers = sum(key.startswith("net.net.") and key.endswith("bias") for key in state)
    return name == f"net.net.{layers - 1}.0.bias"
