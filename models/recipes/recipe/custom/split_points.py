"""Split points of a traced network, and its partition at some of them.

The network is traced to a graph of plain tensor operations. It can be split behind an operation whose output is the only
tensor that later operations read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import fx, nn
from torch.export import Dim, ExportedProgram, export

aten = torch.ops.aten
BATCH = 2  # of the traced example; the traced graph accepts any batch size
SHALLOW = 8  # `auto` takes the last feature map at this stride or finer,
WORK_SHARE = 1 / 6  # or, without such maps, the first tokens behind this share of all multiply-accumulates


@dataclass(frozen=True)
class SplitPoint:
    """A place where the network can be split: behind the layer `name`."""

    name: str
    node: str
    shape: tuple[int, ...]  # [C,H,W] of a feature map, [T,D] of tokens
    macs: int  # multiply-accumulates of all operations up to here, one image
    side: int  # of the input image, pixels

    @property
    def stride(self) -> float:
        """Image pixels per position; of tokens, as if they were a square of patches."""
        return self.side / self.shape[2] if len(self.shape) == 3 else self.side / math.sqrt(self.shape[0])


def trace(net: nn.Module, side: int) -> ExportedProgram:
    """The network as functional tensor operations for square images of `side` pixels and any batch size."""
    image = torch.zeros(BATCH, 3, side, side)
    return export(net, (image,), dynamic_shapes=({0: Dim.DYNAMIC},)).run_decompositions({})


def is_tensor(node: fx.Node) -> bool:
    """Whether the node's value is a tensor (and not, for example, a batch size)."""
    return isinstance(node.meta.get("val"), torch.Tensor)


def image_of(traced: fx.GraphModule) -> fx.Node:
    """The graph's only input."""
    return next(node for node in traced.graph.nodes if node.op == "placeholder")


def size(value) -> int:
    """A dimension as a number; the free batch size counts as in the traced example."""
    return value if isinstance(value, int) else int(value.node.hint)


def find(traced: fx.GraphModule, side: int) -> tuple[list[SplitPoint], int]:
    """All split points at the end of a layer, in order, and the multiply-accumulates of the entire network."""
    nodes = list(traced.graph.nodes)
    place = {node: index for index, node in enumerate(nodes)}
    last_use = {node: max((place[user] for user in node.users), default=place[node]) for node in nodes}
    ends: dict[str, fx.Node] = {}
    for node in nodes:
        for path in paths(node):
            ends[path] = node
    reached: set[fx.Node] = set()
    live: set[fx.Node] = set()
    found, work = [], 0
    for index, node in enumerate(nodes):
        if node.op == "placeholder" or any(parent in reached for parent in node.all_input_nodes):
            reached.add(node)
            if is_tensor(node):
                live.add(node)
        work += macs(node)
        live = {other for other in live if last_use[other] > index}
        names = [path for path, end in ends.items() if end is node]
        if live == {node} and names and len(node.meta["val"].shape) in (3, 4):
            shape = tuple(node.meta["val"].shape[1:])
            if all(isinstance(d, int) for d in shape) and math.prod(shape[1:]) > 1:
                if found and (found[-1].shape, found[-1].macs) == (shape, work):
                    found.pop()  # the same layer before its normalisation or ReLU
                found.append(SplitPoint(min(names, key=len), node.name, shape, work, side))
    return found, work


def paths(node: fx.Node) -> list[str]:
    """Dotted paths of the modules that the node belongs to, outermost first."""
    return [path for path, _ in (node.meta.get("nn_module_stack") or {}).values() if path]


def macs(node: fx.Node) -> int:
    """Multiply-accumulates of the node for one image; 0 for operations without products."""
    if node.op != "call_function" or not is_tensor(node):
        return 0
    out = math.prod(size(d) for d in node.meta["val"].shape)
    shapes = [tuple(map(size, arg.meta["val"].shape)) for arg in node.all_input_nodes if is_tensor(arg)]
    target = node.target
    if target in (aten.conv2d.default, aten.convolution.default, aten.conv2d.padding):
        return out * math.prod(shapes[1][1:]) // BATCH
    if target == aten.linear.default:
        return out * shapes[1][1] // BATCH
    if target in (aten.addmm.default, aten.mm.default, aten.matmul.default, aten.bmm.default):
        return out * shapes[-1][-2] // BATCH
    if target == aten.scaled_dot_product_attention.default:
        return 2 * math.prod(shapes[0]) * shapes[1][-2] // BATCH
    return 0


def choose(found: list[SplitPoint], name: str, total: int) -> SplitPoint:
    """The split point that a user named, or the default where the name is `auto`."""
    if not found:
        raise SystemExit("this network has no split point: behind every layer, later ones read more than one tensor")
    if name != "auto":
        named = [point for point in found if point.name == name]
        if not named:
            raise SystemExit(f"--split {name} is no split point; these are: {', '.join(point.name for point in found)}")
        return named[0]
    maps = [point for point in found if len(point.shape) == 3 and point.stride <= SHALLOW]
    deep = [point for point in found if point.macs >= WORK_SHARE * total]
    return maps[-1] if maps else (deep or found)[0]


def deeper(found: list[SplitPoint], split: SplitPoint, total: int) -> tuple[SplitPoint, SplitPoint]:
    """Two split points behind `split` where features are matched too: half way through the remaining work, and the last one."""
    behind = [point for point in found if point.macs > split.macs]
    if len(behind) < 2:
        raise SystemExit(f"behind {split.name} there are fewer than two more split points for the loss: choose an earlier one")
    half = split.macs + (total - split.macs) / 2
    return min(behind[:-1], key=lambda point: abs(point.macs - half)), behind[-1]


def last_linear_input(traced: fx.GraphModule) -> fx.Node | None:
    """The input of the last linear layer; None if the network does not end with one."""
    answer = next(node for node in traced.graph.nodes if node.op == "output").args[0][0]
    if answer.target == aten.linear.default:
        return answer.args[0]
    return answer.args[1] if answer.target == aten.addmm.default else None


def partition(traced: fx.GraphModule, splits: list[fx.Node]) -> list[fx.GraphModule]:
    """The parts of the network between consecutive split nodes: the first starts at the image, the last ends at the answer."""
    answer = next(node for node in traced.graph.nodes if node.op == "output").args[0][0]
    starts = [image_of(traced), *splits]
    return [part(traced, start, end) for start, end in zip(starts, [*splits, answer], strict=True)]


def part(traced: fx.GraphModule, start: fx.Node, end: fx.Node) -> fx.GraphModule:
    """The operations that compute `end` from `start`, as a module with one argument."""
    image = image_of(traced)
    batch = str(image.meta["val"].shape[0])
    graph = fx.Graph()
    values = {start: graph.placeholder("x")}

    def is_batch_size(node: fx.Node) -> bool:
        """Whether the node is the batch size, which can be read from any tensor."""
        return not is_tensor(node) and str(node.meta.get("val")) == batch

    needed, todo = set(), [end]
    while todo:
        node = todo.pop()
        if node in values or node in needed:
            continue
        if node is image:
            raise SystemExit(f"{end.name} reads the image besides {start.name}: the network cannot be split there")
        needed.add(node)
        todo += [] if is_batch_size(node) else node.all_input_nodes
    for node in traced.graph.nodes:
        if node not in needed:
            continue
        if is_batch_size(node):
            values[node] = graph.call_function(aten.sym_size.int, (values[start], 0))
        else:
            values[node] = graph.node_copy(node, values.__getitem__)
    graph.output(values[end])
    return fx.GraphModule(traced, graph)
