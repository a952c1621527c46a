"""The three models of the paper (Ashkenazi and Treister, NeurIPS 2024, section 3): the mathematics, nothing else.

Shape letters: P partitions, B partitions in a call, N samples in a partition, D coordinate dimensions, C channels,
L local width, G global width, H hidden layers, K numbers in a row.

Every local network is one row of `local` `[P, K]`: weights `[out, in]` and biases `[out]` of its H + 2 linear layers,
one after the other (`row_layout`). A forward pass takes the rows to use, so selecting partitions is selecting rows.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, repeat

import torch
from torch import Tensor, nn

from lgsirens.system.schema import option

Layout = list[tuple[str, tuple[int, ...]]]

MODES = ("lg", "lc", "mlp")
AGGREGATIONS = ("fc", "fc_and_add")
LARGEST_WIDTH = 16_384
LARGEST_DEPTH = 64
LARGEST_WEIGHT = 1e9


@dataclass(frozen=True)
class ModelConfig:
    """What fixes the function class of one model; what is read from a file is held to the ranges of the fields.

    Attributes:
        mode: "lg" (Local-Global SIREN), "lc" (SIREN-per-Partition) or "mlp" (SIREN).
        dimensions: D, 1 to 3.
        channels: C.
        local_width: L, width of each local network.
        global_width: G, width of the shared network; 0 unless mode is "lg".
        hidden_layers: H, hidden layers after the first.
        w0: frequency factor of every sine.
        agg_type: "fc" (one aggregation layer on `[l, g]`) or "fc_and_add" (one layer on g per depth, added to l).
    """

    mode: str = option(choices=MODES)
    dimensions: int = option(least=1, most=3)
    channels: int = option(least=1)
    local_width: int = option(least=1, most=LARGEST_WIDTH)
    global_width: int = option(0, least=0, most=LARGEST_WIDTH)
    hidden_layers: int = option(3, least=0, most=LARGEST_DEPTH)
    w0: float = 30.0
    agg_type: str = option("fc", choices=AGGREGATIONS)


def row_layout(config: ModelConfig) -> Layout:
    """Names and shapes of the tensors packed into one row, in order."""
    widths = [config.dimensions] + [config.local_width] * (config.hidden_layers + 1) + [config.channels]
    return _layers("local", widths)


def shared_layout(config: ModelConfig) -> Layout:
    """Names and shapes of the shared network's tensors; empty unless mode is "lg"."""
    if config.mode != "lg":
        return []
    local, wide, depths = config.local_width, config.global_width, config.hidden_layers + 1
    layout = _layers("global", [config.dimensions] + [wide] * depths)
    if config.agg_type == "fc":
        return layout + _layers("aggregation", [local + wide, local])
    return layout + [entry for k in range(depths) for entry in _layers("aggregation", [wide, local], first=k)]


def parameter_counts(config: ModelConfig, partitions: int) -> tuple[int, int]:
    """Number of local parameters (P * K) and of shared ones."""
    return partitions * count(row_layout(config)), count(shared_layout(config))


def count(layout: Layout) -> int:
    """Number of parameters in a layout."""
    return sum(math.prod(shape) for _, shape in layout)


def are_sound(weights: Tensor, largest: float = LARGEST_WEIGHT) -> bool:
    """Whether weights are finite, and none so large that float32 could not hold what networks make of them."""
    return bool((weights.abs() <= largest).all())


def initial_bounds(layout: Layout, w0: float) -> list[float]:
    """SIREN's initialisation (Sitzmann et al. 2020, section 3.2): each tensor of a layout is drawn uniformly between
    minus and plus its bound.

    >>> initial_bounds([("local_0_weight", (8, 2)), ("local_0_bias", (8,))], w0=30.0)
    [0.5, 0.7071067811865475]
    """
    bounds: list[float] = []
    for depth, (_, (_, fan_in)) in enumerate(layout[::2]):
        # The first layer sees coordinates. Later ones see sines: this keeps their arguments at unit variance.
        bounds += [1 / fan_in if depth == 0 else math.sqrt(6 / fan_in) / w0, 1 / math.sqrt(fan_in)]
    return bounds


def build_model(config: ModelConfig, partitions: int, generator: torch.Generator | None = None) -> "SirenPerPartition":
    """The model of `config` for P partitions, initialised as SIREN if a generator is given, zero if not."""
    classes = {"lg": LocalGlobalSiren, "lc": SirenPerPartition, "mlp": Siren}
    return classes[config.mode](config, partitions, generator)


class SirenPerPartition(nn.Module):
    """`lc`: P independent SIRENs (Sitzmann et al. 2020), one row of `local` each, no shared network."""

    def __init__(self, config: ModelConfig, partitions: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self.layout = row_layout(config)
        new = partial(torch.zeros, dtype=torch.float32, device="cpu")  # as files have them, whatever the defaults
        self.local = nn.Parameter(new(partitions, count(self.layout)))
        self.shared = nn.ParameterDict({name: new(shape) for name, shape in shared_layout(config)})
        if generator is not None:
            self._initialise(generator)

    def forward(
        self,
        x: Tensor,
        rows: Tensor | None = None,
        x_local: Tensor | None = None,
        shared_features: Iterable[Tensor | None] | None = None,
    ) -> Tensor:
        """Evaluate B local networks on N coordinates each.

        Args:
            x: `[B, N, D]` network coordinates that the shared network sees; `[1, N, D]` if all blocks have the same, of
                which it is then evaluated once.
            rows: `[B, K]`, the rows to use; all P rows when None.
            x_local: `[B, N, D]` or `[1, N, D]`, what the local networks see instead of `x`, if that is something else.
            shared_features: what the method of that name gives for `x`, where they are known already.

        Returns:
            `[B, N, C]`, nominally in [-1, 1].
        """
        *hidden, last, last_bias = self.unpack(self.local if rows is None else rows)
        return torch.baddbmm(last_bias, last, self.features(hidden, x, x_local, shared_features)).mT

    def features(
        self,
        hidden: list[Tensor],
        x: Tensor,
        x_local: Tensor | None = None,
        shared_features: Iterable[Tensor | None] | None = None,
    ) -> Tensor:
        """What the output layers see, `[B, L, N]`, of B unpacked rows without output layers; the rest as `forward`
        takes it."""
        # w0 (W h + b) = (w0 W) h + w0 b, and weights are few.
        layers = [weight * self.config.w0 for weight in hidden]
        # Features run along rows from here on, [B, F, N]: a matrix product of a wide, contiguous sample axis is the
        # faster one, and a bias is added by the product itself.
        h = (x if x_local is None else x_local).mT.expand(len(layers[0]), -1, -1)
        for k, shared in enumerate(self.shared_features(x) if shared_features is None else shared_features):
            h = self._aggregate(self._sine(layers[2 * k], layers[2 * k + 1], h), shared)
        return h

    def shared_features(self, x: Tensor) -> Iterator[Tensor | None]:
        """What the shared network, if there is one, contributes at each depth to coordinates `[B, N, D]`: `[B, L, N]`;
        constants as long as it does not move."""
        return repeat(None, self.config.hidden_layers + 1)

    def unpack(self, rows: Tensor) -> list[Tensor]:
        """Views of rows `[B, K]` as weights `[B, out, in]` and biases `[B, out, 1]`, alternating."""
        parts = torch.split(rows, [math.prod(shape) for _, shape in self.layout], dim=1)
        shapes = [shape if len(shape) == 2 else (*shape, 1) for _, shape in self.layout]
        return [part.view(-1, *shape) for part, shape in zip(parts, shapes, strict=True)]

    def _sine(self, weight: Tensor, bias: Tensor, h: Tensor) -> Tensor:
        """sin(W h + b) for features `[B, in, N]`, weights `[B, out, in]` and biases `[B, out, 1]` times w0."""
        return torch.baddbmm(bias, weight, h).sin()

    def _aggregate(self, local: Tensor, shared: Tensor | None) -> Tensor:
        """Local and shared features of one depth, `[B, L, N]` each, to `[B, L, N]`."""
        return local

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator) -> None:
        """The shared network first, then the rows."""
        shared = shared_layout(self.config)
        parts = (shared, [self.shared[name] for name, _ in shared]), (self.layout, self.unpack(self.local))
        for layout, tensors in parts:
            for tensor, bound in zip(tensors, initial_bounds(layout, self.config.w0), strict=True):
                tensor.uniform_(-bound, bound, generator=generator)


class Siren(SirenPerPartition):
    """`mlp`: one SIREN for the whole signal, which is `lc` with one partition."""

    def __init__(self, config: ModelConfig, partitions: int = 1, generator: torch.Generator | None = None) -> None:
        if partitions != 1:
            raise ValueError(f"a SIREN is one partition, not {partitions}")
        super().__init__(config, 1, generator)


class LocalGlobalSiren(SirenPerPartition):
    """`lg`: local networks whose every depth is aggregated with that of one shared network (paper, section 3.2).

    Per depth k: g_k = sin(w0 (Wg_k g_{k-1} + bg_k)), l_k = sin(w0 (Wl_k h_{k-1} + bl_k)), and
    h_k = sin(w0 (Wa [l_k, g_k] + ba)) ("fc", one Wa for all depths) or h_k = l_k + sin(w0 (Wf_k g_k + bf_k))
    ("fc_and_add"); y = Wl_out h_H + bl_out. The g_k never depend on the l_k.
    """

    def shared_features(self, x: Tensor) -> Iterator[Tensor | None]:
        """Per depth w0 (Wa_g g_k + ba) ("fc") or sin(w0 (Wf_k g_k + bf_k)) ("fc_and_add"), `[B, L, N]`."""
        g, width = x.mT, self.config.local_width
        for k in range(self.config.hidden_layers + 1):
            g = self._sine(*self._shared_layer(f"global_{k}", len(g)), g)
            if self.config.agg_type == "fc_and_add":
                yield self._sine(*self._shared_layer(f"aggregation_{k}", len(g)), g)
            else:
                weight, bias = self._shared_layer("aggregation_0", len(g))
                yield torch.baddbmm(bias, weight[..., width:], g)

    def _aggregate(self, local: Tensor, shared: Tensor | None) -> Tensor:
        assert shared is not None
        if self.config.agg_type == "fc_and_add":
            return local + shared
        # Wa [l, g] = Wa_l l + Wa_g g: two products instead of a concatenated copy of both.
        weight, _ = self._shared_layer("aggregation_0", len(local))
        return torch.baddbmm(shared, weight[..., : self.config.local_width], local).sin()

    def _shared_layer(self, name: str, blocks: int) -> tuple[Tensor, Tensor]:
        """One layer's weights and biases times w0, the same for every block."""
        weight, bias = self.shared[f"{name}_weight"] * self.config.w0, self.shared[f"{name}_bias"] * self.config.w0
        return weight.expand(blocks, -1, -1), bias[:, None].expand(blocks, -1, -1)


def _layers(prefix: str, widths: list[int], first: int = 0) -> Layout:
    layout: Layout = []
    for k, (fan_in, fan_out) in enumerate(pairwise(widths), start=first):
        layout += [(f"{prefix}_{k}_weight", (fan_out, fan_in)), (f"{prefix}_{k}_bias", (fan_out,))]
    return layout
