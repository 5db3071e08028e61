"""Where a network can be cut, and the pieces.

The network is traced to a graph of plain tensor operations. After an operation whose output is the only tensor that
anything later reads, the network can be cut: one tensor carries everything.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import fx, nn
from torch.export import Dim, ExportedProgram, export

aten = torch.ops.aten
BATCH = 2  # of the traced example; the batch stays free
SHALLOW = 8  # `auto` takes the last map at this stride or finer,
SHARE = 1 / 6  # or, of a network without such maps, the first tokens behind this share of the work


@dataclass(frozen=True)
class SplitPoint:
    """A place to cut: behind the layer `name`."""

    name: str
    node: str
    shape: tuple[int, ...]  # [C,H,W] of a map, [T,D] of tokens
    macs: int  # of everything before it, one image
    side: int

    @property
    def stride(self) -> float:
        return self.side / self.shape[2] if len(self.shape) == 3 else self.side / math.sqrt(self.shape[0])


def trace(net: nn.Module, side: int) -> ExportedProgram:
    """The network as functional tensor operations, batch size free."""
    image = torch.zeros(BATCH, 3, side, side)
    return export(net, (image,), dynamic_shapes=({0: Dim.DYNAMIC},)).run_decompositions({})


def is_tensor(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), torch.Tensor)


def image_of(whole: fx.GraphModule) -> fx.Node:
    return next(node for node in whole.graph.nodes if node.op == "placeholder")


def size(value) -> int:
    """A dimension, the free batch as the example had it."""
    return value if isinstance(value, int) else int(value.node.hint)


def points(whole: fx.GraphModule, side: int) -> tuple[list[SplitPoint], int]:
    """Every cut that lies at the end of a layer, in order, and the work of the whole network."""
    nodes = list(whole.graph.nodes)
    place = {node: index for index, node in enumerate(nodes)}
    last_use = {node: max((place[user] for user in node.users), default=place[node]) for node in nodes}
    ends: dict[str, fx.Node] = {}
    for node in nodes:
        for path in paths(node):
            ends[path] = node
    reached: set[fx.Node] = set()
    open_: set[fx.Node] = set()
    found, work = [], 0
    for index, node in enumerate(nodes):
        if node.op == "placeholder" or any(parent in reached for parent in node.all_input_nodes):
            reached.add(node)
            if is_tensor(node):
                open_.add(node)
        work += macs(node)
        open_ = {held for held in open_ if last_use[held] > index}
        names = [path for path, end in ends.items() if end is node]
        if open_ == {node} and names and len(node.meta["val"].shape) in (3, 4):
            shape = tuple(node.meta["val"].shape[1:])
            if all(isinstance(d, int) for d in shape) and math.prod(shape[1:]) > 1:
                if found and (found[-1].shape, found[-1].macs) == (shape, work):
                    found.pop()  # before the norm or the ReLU of the same layer
                found.append(SplitPoint(min(names, key=len), node.name, shape, work, side))
    return found, work


def paths(node: fx.Node) -> list[str]:
    """The modules a node belongs to, as dotted paths."""
    return [path for path, _ in (node.meta.get("nn_module_stack") or {}).values() if path]


def macs(node: fx.Node) -> int:
    """Multiply-accumulates of one image."""
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
    """The point a user named, or the one `auto` stands for."""
    if not found:
        raise SystemExit("no layer of this network ends where a single tensor carries everything: it cannot be cut")
    if name != "auto":
        named = [point for point in found if point.name == name]
        if not named:
            raise SystemExit(f"--split {name} is no place to cut; these are: {', '.join(point.name for point in found)}")
        return named[0]
    maps = [point for point in found if len(point.shape) == 3 and point.stride <= SHALLOW]
    deep = [point for point in found if point.macs >= SHARE * total]
    return maps[-1] if maps else (deep or found)[0]


def deeper(found: list[SplitPoint], split: SplitPoint, total: int) -> tuple[SplitPoint, SplitPoint]:
    """Two places behind the split where features are matched too: half way through the rest, and the last."""
    behind = [point for point in found if point.macs > split.macs]
    if len(behind) < 2:
        raise SystemExit(f"behind {split.name} there are not two more places to match features: split earlier")
    half = split.macs + (total - split.macs) / 2
    return min(behind[:-1], key=lambda point: abs(point.macs - half)), behind[-1]


def last_linear(whole: fx.GraphModule) -> fx.Node | None:
    """What the last linear layer reads, if the network ends with one."""
    answer = next(node for node in whole.graph.nodes if node.op == "output").args[0][0]
    if answer.target == aten.linear.default:
        return answer.args[0]
    return answer.args[1] if answer.target == aten.addmm.default else None


def pieces(whole: fx.GraphModule, cuts: list[fx.Node]) -> list[fx.GraphModule]:
    """The network between consecutive cuts, the first from the image, the last to the answer."""
    answer = next(node for node in whole.graph.nodes if node.op == "output").args[0][0]
    starts = [image_of(whole), *cuts]
    return [piece(whole, start, end) for start, end in zip(starts, [*cuts, answer], strict=True)]


def piece(whole: fx.GraphModule, start: fx.Node, end: fx.Node) -> fx.GraphModule:
    """Everything `end` needs once `start` is known; its argument is `start`."""
    image = image_of(whole)
    batch = str(image.meta["val"].shape[0])
    graph = fx.Graph()
    known = {start: graph.placeholder("x")}

    def counts(node: fx.Node) -> bool:
        """Whether this is the batch size, which any tensor tells."""
        return not is_tensor(node) and str(node.meta.get("val")) == batch

    needed, todo = set(), [end]
    while todo:
        node = todo.pop()
        if node in known or node in needed:
            continue
        if node is image:
            raise SystemExit(f"{end.name} needs the image itself besides {start.name}: it cannot be cut there")
        needed.add(node)
        todo += [] if counts(node) else node.all_input_nodes
    for node in whole.graph.nodes:
        if node not in needed:
            continue
        if counts(node):
            known[node] = graph.call_function(aten.sym_size.int, (known[start], 0))
        else:
            known[node] = graph.node_copy(node, known.__getitem__)
    graph.output(known[end])
    return fx.GraphModule(whole, graph)
