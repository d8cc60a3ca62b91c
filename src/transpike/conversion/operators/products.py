"""Lowers sums of products: of two activations (attention), or of one activation with constants beyond linear layers."""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.fx import Node

from transpike.conversion.form import Form
from transpike.conversion.lowering import UNSUPPORTED, Input, Lowering, Value, first_tensor
from transpike.conversion.operators.arithmetic import affine, combined
from transpike.conversion.operators.functions import call

__all__ = ["OPERATORS"]

_SAMPLES = "Z"


def einsum(to: Lowering, node: Node, equation: str, tensors: Sequence[Input], **_: Value) -> Value:
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != 2 or len(tensors) != 2:
        return UNSUPPORTED
    sizes = [to.forms[x].ndim if isinstance(x, str) else x.ndim for x in tensors if not isinstance(x, float)]
    spare = [letter for letter in string.ascii_letters if letter not in equation and letter != _SAMPLES]
    dots = [n - len(t.replace("...", "")) if "..." in t else 0 for t, n in zip(terms, sizes, strict=True)]
    wide = "".join(spare[: max(dots)])
    if not arrow:
        letters = sorted({c for term in terms for c in term if c.isalpha() and left.count(c) == 1})
        right = "..." * ("..." in left) + "".join(letters)
    terms = [t.replace("...", wide[len(wide) - n :]) for t, n in zip(terms, dots, strict=True)]
    return contracted(to, node, terms, right.replace("...", wide), tensors[0], tensors[1])


def contracted(
    to: Lowering, node: Node, terms: Sequence[str], result: str, a: Input, b: Input, *, value: Form | None = None
) -> Value:
    """Emit ``einsum`` over the model's own axes, named by letters."""
    names = [x for x in (a, b) if isinstance(x, str)]
    batch = {term[to.forms[x].axis] for term, x in zip(terms, (a, b), strict=True) if isinstance(x, str)}
    form = value or to.form(node.meta["val"], names)
    if len(batch) > 1 or form is None or result[form.axis] not in batch:
        return to.mixed(node, names)
    (letter,) = batch
    merged = form.copies > 1

    def graph(term: str) -> str:
        return _SAMPLES + (term if merged else term.replace(letter, ""))

    target = graph(result)
    if len(names) == 2:
        equation = f"{graph(terms[0])},{graph(terms[1])}->{target}"
        return to.emit(node, "product", names, value=form, args={"equation": equation})
    constant, own = (a, terms[0]) if isinstance(b, str) else (b, terms[1])
    other = terms[1] if isinstance(b, str) else terms[0]
    if not isinstance(constant, Tensor):
        return UNSUPPORTED
    if letter in own and not merged:
        constant = constant.squeeze(own.index(letter))
        own = own.replace(letter, "")
    term = graph(other)
    if len(own) == 2 and own[0] == term[-1] and target == term[:-1] + own[1] and own[1] not in term:
        return to.emit(node, "linear", names, value=form, tensors={"weight": constant.T})
    args = {"equation": f"{term},{own}->{target}"}
    return to.emit(node, "contraction", names, value=form, args=args, tensors={"weight": constant})


def matmul(to: Lowering, node: Node, input: Input, other: Input) -> Value:
    """Emit a matrix product. Broadcast axes of one may have any letter; vectors have one axis."""
    sizes = [to.forms[x].ndim if isinstance(x, str) else x.ndim for x in (input, other) if not isinstance(x, float)]
    if len(sizes) < 2:
        return UNSUPPORTED
    first, second = sizes
    wide = string.ascii_lowercase[: max(first, second, 2) - 2]
    rows, columns = ("R" * (first > 1), "C" * (second > 1))
    terms = [wide[len(wide) - max(first - 2, 0) :] * (first > 2) + rows + "K"]
    terms.append(wide[len(wide) - max(second - 2, 0) :] * (second > 2) + "K" + columns)
    return contracted(to, node, terms, wide + rows + columns, input, other)


def bmm(to: Lowering, node: Node, input: Input, mat2: Input) -> Value:
    return matmul(to, node, input, mat2)


def mv(to: Lowering, node: Node, input: Input, vec: Input) -> Value:
    return matmul(to, node, input, vec)


def addmm(
    to: Lowering, node: Node, input: Input, mat1: Input, mat2: Input, *, beta: float = 1, alpha: float = 1
) -> Value:
    if isinstance(input, str) or not isinstance(mat1, str):
        return _added(to, node, input, matmul(to, node, mat1, mat2), beta=beta, alpha=alpha)
    if isinstance(mat2, Tensor) and isinstance(input, Tensor) and input.ndim < 2:
        bias = (input * beta).expand(mat2.shape[1])
        return to.emit(node, "linear", [mat1], tensors={"weight": mat2.T * alpha, "bias": bias})
    return _added(to, node, input, matmul(to, node, mat1, mat2), beta=beta, alpha=alpha)


def baddbmm(
    to: Lowering, node: Node, input: Input, batch1: Input, batch2: Input, *, beta: float = 1, alpha: float = 1
) -> Value:
    return _added(to, node, input, matmul(to, node, batch1, batch2), beta=beta, alpha=alpha)


def _added(to: Lowering, node: Node, input: Input, product: Value, *, beta: float, alpha: float) -> Value:
    if isinstance(product, str) and alpha != 1:
        product = affine(to, node, product, scale=alpha)
    if not isinstance(product, str) or beta == 0:
        return product
    if isinstance(input, str):
        return combined(to, node, product, input, alpha=beta)
    return affine(to, node, product, shift=input * beta)


def attention(
    to: Lowering,
    node: Node,
    query: Input,
    key: Input,
    value: Input,
    attn_mask: Input | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    **_: Value,
) -> Value:
    """Emit two products, with a scale, a mask and a softmax between them."""
    if not (isinstance(query, str) and isinstance(key, str) and isinstance(value, str)) or _.get("enable_gqa"):
        return UNSUPPORTED
    form, other = to.forms[query], to.forms[key]
    if form.axis >= form.ndim - 2 or other.axis != form.axis or other.ndim != form.ndim:
        return to.mixed(node, [query, key])
    wide = string.ascii_lowercase[: form.ndim - 2]
    shape = (*form.shape[:-1], other.shape[-2])
    weights = Form(shape, form.axis, form.outer, form.inner)
    scores = contracted(to, node, [f"{wide}LE", f"{wide}SE"], f"{wide}LS", query, key, value=weights)
    if not isinstance(scores, str):
        return scores
    factor = 1 / math.sqrt(form.shape[-1]) if scale is None else scale
    mask = attn_mask
    if is_causal:
        device = first_tensor(node).device
        mask = torch.ones(shape[-2:], dtype=torch.bool, device=device).tril()
    if isinstance(mask, Tensor) and mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, -math.inf)
    shift = mask if isinstance(mask, Tensor) else None
    logits = affine(to, node, scores, form=weights, scale=factor, shift=shift)
    if isinstance(mask, str) and isinstance(logits, str):
        logits = combined(to, node, logits, mask, form=weights)
    if not isinstance(logits, str):
        return logits
    shares = call(to, node, "softmax.int", [logits, len(shape)], form=weights, part="softmax")
    whole = Form((*form.shape[:-1], to.forms[value].shape[-1]), form.axis, form.outer, form.inner)
    return contracted(to, node, [f"{wide}LS", f"{wide}SE"], f"{wide}LE", shares, value, value=whole)


def flash_attention(to: Lowering, node: Node, query: str, key: str, value: str, *args: Value, **how: Value) -> Value:
    """Emit the form of attention that in-place operations elsewhere produce. It returns the result and statistics."""
    result = attention(to, node, query, key, value, **how)  # type: ignore[arg-type]
    return [result, None]


OPERATORS: dict[str, Callable[..., Value]] = {
    "einsum": einsum,
    "matmul": matmul,
    "mm": bmm,
    "bmm": bmm,
    "mv": mv,
    "addmm": addmm,
    "baddbmm": baddbmm,
    "scaled_dot_product_attention": attention,
    "_scaled_dot_product_flash_attention_for_cpu": flash_attention,
}
