"""Algebraic rewrite rules, by family. Each row: name, algebra, left side, right side, optional guard.

Sides are op trees in prefix form. x, y, z: any operand (a letter always the same one); c, d: constants; 0, 1, ones,
min, max: literals of the operand type; `setcond.ltu` names a condition. An op tree of constants on the right is folded
when the rule applies. A constant operand of a commuting op stands second (the walk puts it there), and a left side
stands for its commuted variants too.

A rule replaces the outer op only, by at most one op, so it never makes worse code, even where inner values live on.
`tests/unit/tcg/opt/test_rules.py` proves every row over all 8-bit values against the interpreter's meanings.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

from tcg.ir.ops import OPS

Guard = Callable[[dict[str, int], int], bool]
VARIABLES = ("x", "y", "z")
CONSTANTS = ("c", "d")
LITERALS: dict[str, Callable[[int], int]] = {
    "0": lambda width: 0,
    "1": lambda width: 1,
    "ones": lambda width: (1 << width) - 1,
    "min": lambda width: 1 << (width - 1),
    "max": lambda width: (1 << (width - 1)) - 1,
}


@dataclass(frozen=True, slots=True)
class Tree:
    """An op over subtrees; cond: of a setcond."""

    op: str
    cond: str | None
    children: tuple["Tree | str", ...]


Node = Tree | str


@dataclass(frozen=True, slots=True)
class Rule:
    """left = right whenever guard(constants by letter, width) holds."""

    name: str
    algebra: str
    left: Tree
    right: Node
    guard: Guard | None = None


def parse_node(text: str) -> Node:
    """`add (add x c) d` or a leaf."""
    tokens = text.replace("(", " ( ").replace(")", " ) ").split()
    node, rest = _parse(["(", *tokens, ")"] if len(tokens) > 1 else tokens)
    assert not rest, text
    return node


def _parse(tokens: list[str]) -> tuple[Node, list[str]]:
    head, *rest = tokens
    if head != "(":
        assert head in (*VARIABLES, *CONSTANTS, *LITERALS), head
        return head, rest
    op, _, cond = rest[0].partition(".")
    children, rest = [], rest[1:]
    while rest[0] != ")":
        child, rest = _parse(rest)
        children.append(child)
    assert len(children) == OPS[op].ins, op
    return Tree(op, cond or None, tuple(children)), rest[1:]


def _is_constant(node: Node) -> bool:
    return isinstance(node, str) and node not in VARIABLES


def commuted(node: Node) -> list[Node]:
    """The tree and its variants under commuting ops whose second operand is no constant."""
    if isinstance(node, str):
        return [node]
    variants: list[Node] = []
    for children in product(*(commuted(child) for child in node.children)):
        variants.append(Tree(node.op, node.cond, children))
        if OPS[node.op].commutes and not _is_constant(children[1]) and children[0] != children[1]:
            variants.append(Tree(node.op, node.cond, (children[1], children[0])))
    return variants


def _power_of_two(constants: dict[str, int], width: int) -> bool:
    return constants["c"].bit_count() == 1


def _counts_add(constants: dict[str, int], width: int) -> bool:
    return constants["c"] % width + constants["d"] % width < width


_ROWS: tuple[tuple[str, str, str, str, Guard | None], ...] = (
    # --- sums
    ("add_zero", "x + 0 = x", "add x 0", "x", None),
    ("add_add", "(x + c) + d = x + (c + d)", "add (add x c) d", "add x (add c d)", None),
    ("add_sub", "(x - y) + y = x", "add (sub x y) y", "x", None),
    ("add_neg", "x + -y = x - y", "add x (neg y)", "sub x y", None),
    ("add_not", "x + ~x = -1", "add x (not x)", "ones", None),
    ("add_csub", "(c - x) + d = (c + d) - x", "add (sub c x) d", "sub (add c d) x", None),
    ("sub_zero", "x - 0 = x", "sub x 0", "x", None),
    ("sub_self", "x - x = 0", "sub x x", "0", None),
    ("zero_sub", "0 - x = -x", "sub 0 x", "neg x", None),
    ("sub_const", "x - c = x + -c", "sub x c", "add x (neg c)", None),
    ("sub_add", "(x + y) - y = x", "sub (add x y) y", "x", None),
    ("sub_neg", "x - -y = x + y", "sub x (neg y)", "add x y", None),
    ("sub_sub", "x - (x - y) = y", "sub x (sub x y)", "y", None),
    ("csub_add", "c - (x + d) = (c - d) - x", "sub c (add x d)", "sub (sub c d) x", None),
    ("csub_csub", "c - (d - x) = x + (c - d)", "sub c (sub d x)", "add x (sub c d)", None),
    ("neg_neg", "--x = x", "neg (neg x)", "x", None),
    ("neg_sub", "-(x - y) = y - x", "neg (sub x y)", "sub y x", None),
    ("neg_not", "-~x = x + 1", "neg (not x)", "add x 1", None),
    ("not_neg", "~-x = x - 1", "not (neg x)", "add x ones", None),
    ("not_add", "~(x - 1) = -x", "not (add x ones)", "neg x", None),
    # --- products and quotients
    ("mul_zero", "x * 0 = 0", "mul x 0", "0", None),
    ("mul_one", "x * 1 = x", "mul x 1", "x", None),
    ("mul_ones", "x * -1 = -x", "mul x ones", "neg x", None),
    ("mul_power", "x * 2^k = x << k", "mul x c", "shl x (ctz c)", _power_of_two),
    ("mulhu_zero", "high(x * 0) = 0", "mulhu x 0", "0", None),
    ("mulhu_one", "high(x * 1) = 0", "mulhu x 1", "0", None),
    ("mulhs_zero", "high(x * 0) = 0", "mulhs x 0", "0", None),
    ("divu_one", "x / 1 = x", "divu x 1", "x", None),
    ("divu_power", "x / 2^k = x >> k", "divu x c", "shr x (ctz c)", _power_of_two),
    ("remu_one", "x mod 1 = 0", "remu x 1", "0", None),
    ("remu_power", "x mod 2^k = x & (2^k - 1)", "remu x c", "and x (sub c 1)", _power_of_two),
    ("divs_one", "x / 1 = x", "divs x 1", "x", None),
    ("rems_one", "x mod 1 = 0", "rems x 1", "0", None),
    # --- Boolean algebra
    ("and_zero", "x & 0 = 0", "and x 0", "0", None),
    ("and_ones", "x & -1 = x", "and x ones", "x", None),
    ("and_self", "x & x = x", "and x x", "x", None),
    ("and_and", "(x & c) & d = x & (c & d)", "and (and x c) d", "and x (and c d)", None),
    ("and_same", "(x & y) & y = x & y", "and (and x y) y", "and x y", None),
    ("and_or", "(x | y) & x = x", "and (or x y) x", "x", None),
    ("and_own_not", "x & ~x = 0", "and x (not x)", "0", None),
    ("and_not", "x & ~y = andc(x, y)", "and x (not y)", "andc x y", None),
    ("or_zero", "x | 0 = x", "or x 0", "x", None),
    ("or_ones", "x | -1 = -1", "or x ones", "ones", None),
    ("or_self", "x | x = x", "or x x", "x", None),
    ("or_or", "(x | c) | d = x | (c | d)", "or (or x c) d", "or x (or c d)", None),
    ("or_same", "(x | y) | y = x | y", "or (or x y) y", "or x y", None),
    ("or_and", "(x & y) | x = x", "or (and x y) x", "x", None),
    ("or_not", "x | ~x = -1", "or x (not x)", "ones", None),
    ("xor_zero", "x ^ 0 = x", "xor x 0", "x", None),
    ("xor_self", "x ^ x = 0", "xor x x", "0", None),
    ("xor_ones", "x ^ -1 = ~x", "xor x ones", "not x", None),
    ("xor_xor", "(x ^ c) ^ d = x ^ (c ^ d)", "xor (xor x c) d", "xor x (xor c d)", None),
    ("xor_back", "(x ^ y) ^ y = x", "xor (xor x y) y", "x", None),
    ("xor_not", "~x ^ c = x ^ ~c", "xor (not x) c", "xor x (not c)", None),
    ("not_xor", "~(x ^ c) = x ^ ~c", "not (xor x c)", "xor x (not c)", None),
    ("not_not", "~~x = x", "not (not x)", "x", None),
    ("andc_const", "x & ~c", "andc x c", "and x (not c)", None),
    ("andc_self", "x & ~x = 0", "andc x x", "0", None),
    ("zero_andc", "0 & ~x = 0", "andc 0 x", "0", None),
    ("ones_andc", "-1 & ~x = ~x", "andc ones x", "not x", None),
    ("andc_not", "x & ~~y = x & y", "andc x (not y)", "and x y", None),
    # --- shifts and rotations (counts are modulo the width)
    *(
        row
        for shift in ("shl", "shr", "sar")
        for row in (
            (f"{shift}_zero", "x shifted by 0 = x", f"{shift} x 0", "x", None),
            (f"zero_{shift}", "0 shifted = 0", f"{shift} 0 x", "0", None),
            (f"{shift}_{shift}", "counts add", f"{shift} ({shift} x c) d", f"{shift} x (add c d)", _counts_add),
        )
    ),
    ("ones_sar", "-1 sar x = -1", "sar ones x", "ones", None),
    ("shl_shr", "(x >> c) << c clears low bits", "shl (shr x c) c", "and x (shl ones c)", None),
    ("shr_shl", "(x << c) >> c clears high bits", "shr (shl x c) c", "and x (shr ones c)", None),
    ("rotl_zero", "x rotated by 0 = x", "rotl x 0", "x", None),
    ("rotr_const", "right by c = left by -c", "rotr x c", "rotl x (neg c)", None),
    ("rotl_rotl", "counts add", "rotl (rotl x c) d", "rotl x (add c d)", None),
    ("rotr_rotl", "(x rotl y) rotr y = x", "rotr (rotl x y) y", "x", None),
    ("rotl_rotr", "(x rotr y) rotl y = x", "rotl (rotr x y) y", "x", None),
    ("bswap_bswap", "bytes reversed twice", "bswap (bswap x)", "x", None),
    # --- comparisons
    *((f"{cond}_self", f"x {cond} x", f"setcond.{cond} x x", "1", None) for cond in ("eq", "le", "ge", "leu", "geu")),
    *((f"{cond}_self", f"x {cond} x", f"setcond.{cond} x x", "0", None) for cond in ("ne", "lt", "gt", "ltu", "gtu")),
    ("ltu_zero", "nothing is below 0", "setcond.ltu x 0", "0", None),
    ("geu_zero", "all is at least 0", "setcond.geu x 0", "1", None),
    ("leu_zero", "x <= 0 = (x == 0)", "setcond.leu x 0", "setcond.eq x 0", None),
    ("gtu_zero", "x > 0 = (x != 0)", "setcond.gtu x 0", "setcond.ne x 0", None),
    ("ltu_one", "x < 1 = (x == 0)", "setcond.ltu x 1", "setcond.eq x 0", None),
    ("geu_one", "x >= 1 = (x != 0)", "setcond.geu x 1", "setcond.ne x 0", None),
    ("leu_ones", "all is at most the maximum", "setcond.leu x ones", "1", None),
    ("gtu_ones", "nothing is above the maximum", "setcond.gtu x ones", "0", None),
    ("geu_ones", "x >= max = (x == max)", "setcond.geu x ones", "setcond.eq x ones", None),
    ("ltu_ones", "x < max = (x != max)", "setcond.ltu x ones", "setcond.ne x ones", None),
    ("lt_min", "nothing is below the minimum", "setcond.lt x min", "0", None),
    ("ge_min", "all is at least the minimum", "setcond.ge x min", "1", None),
    ("le_max", "all is at most the maximum", "setcond.le x max", "1", None),
    ("gt_max", "nothing is above the maximum", "setcond.gt x max", "0", None),
    *(
        row
        for cond in ("eq", "ne")
        for row in (
            (f"{cond}_sub", "x - y vs 0 = x vs y", f"setcond.{cond} (sub x y) 0", f"setcond.{cond} x y", None),
            (f"{cond}_xor", "x ^ y vs 0 = x vs y", f"setcond.{cond} (xor x y) 0", f"setcond.{cond} x y", None),
            (f"{cond}_neg", "-x vs c = x vs -c", f"setcond.{cond} (neg x) c", f"setcond.{cond} x (neg c)", None),
            (f"{cond}_not", "~x vs c = x vs ~c", f"setcond.{cond} (not x) c", f"setcond.{cond} x (not c)", None),
            (f"{cond}_cadd", "x + c vs d", f"setcond.{cond} (add x c) d", f"setcond.{cond} x (sub d c)", None),
            (f"{cond}_cxor", "x ^ c vs d", f"setcond.{cond} (xor x c) d", f"setcond.{cond} x (xor d c)", None),
        )
    ),
    *(
        (f"not_{cond}", "the opposite condition", f"not (setcond.{cond} x y)", f"setcond.{opposite} x y", None)
        for pair in (("eq", "ne"), ("lt", "ge"), ("le", "gt"), ("ltu", "geu"), ("leu", "gtu"))
        for cond, opposite in (pair, pair[::-1])
    ),
    # --- selection (x is the i1)
    ("select_true", "1 ? y : z = y", "select 1 y z", "y", None),
    ("select_false", "0 ? y : z = z", "select 0 y z", "z", None),
    ("select_same", "x ? y : y = y", "select x y y", "y", None),
    ("select_not", "~x ? y : z = x ? z : y", "select (not x) y z", "select x z y", None),
)


def _rule(name: str, algebra: str, left: str, right: str, guard: Guard | None) -> Rule:
    tree = parse_node(left)
    assert isinstance(tree, Tree)
    return Rule(name, algebra, tree, parse_node(right), guard)


RULES: tuple[Rule, ...] = tuple(_rule(*row) for row in _ROWS)
