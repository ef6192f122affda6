"""The text form of a block: one op a line, exact round trip (parse(show(block)) has the same ops, types, attributes).

%0:i64 = ld [0x400]                     env place; with a hole: [0x0+$r0:i64{0,65535}@0x400..0x500]
%1:i64 = add %0, 5:i64                  constants carry their type; holes too: $imm:i32{lo,hi}
%2:i1 = setcond %1, %0 cond=ltu         attributes by name behind the inputs
brcond %2, L0 likely=-                  `label` and `ref` stand as operands, without their names
L0:                                     the op `label`
# comment to the end of the line
"""

import re

from tcg.ir.attributes import ATTRIBUTES, AttributeSyntax, parse_hole, parse_ref, show_hole
from tcg.ir.block import Block, Const, Hole, Label, Op, Operand, Temp
from tcg.ir.ops import OPS
from tcg.ir.types import TYPE_OF_LABEL

_BARE = ("label", "ref")


class IrSyntaxError(ValueError):
    """The text is no block; says which line and why."""


def show_operand(operand: Operand) -> str:
    if isinstance(operand, Temp):
        return f"%{operand.id}"
    if isinstance(operand, Hole):
        return show_hole(operand)
    return f"{operand.value if operand.value < 10 else hex(operand.value)}:{operand.type}"


def show_op(op: Op) -> str:
    """One op without its newline; wrong attributes print as Python shows them, so that a broken block can be seen."""
    if op.name == "label":
        return f"L{op.attrs['label'].id}:"
    words = [show_operand(operand) for operand in op.ins]
    words += [ATTRIBUTES[name].text(op.attrs[name]) for name in _BARE if name in op.attrs]
    text = f"{op.name} {', '.join(words)}".rstrip()
    for name in (*op.row.attrs, *(name for name in op.attrs if name not in op.row.attrs)):
        if name not in _BARE and name in op.attrs:
            value = op.attrs[name]
            text += f" {name}={ATTRIBUTES[name].text(value) if name in ATTRIBUTES else repr(value)}"
    outs = ", ".join(f"%{temp.id}:{temp.type}" for temp in op.outs)
    return f"{outs} = {text}" if outs else text


def show(block: Block) -> str:
    return "".join(show_op(op) + "\n" for op in block.ops)


_OUT = re.compile(r"%(\d+):(\w+)")
_ATTRIBUTE = re.compile(r"([a-z]+)=(\S+)")


class _Parser:
    def __init__(self) -> None:
        self.block = Block()
        self.temps: dict[int, Temp] = {}
        self.labels: dict[int, Label] = {}

    def label(self, text: str) -> Label:
        if re.fullmatch(r"L\d+", text) is None:
            raise AttributeSyntax(f"{text!r} is no label")
        number = int(text[1:])
        self.block.next_label = max(self.block.next_label, number + 1)
        return self.labels.setdefault(number, Label(number))

    def out(self, text: str) -> Temp:
        match = _OUT.fullmatch(text.strip())
        if match is None or match[2] not in TYPE_OF_LABEL:
            raise AttributeSyntax(f"{text!r} is no output")
        number = int(match[1])
        if number in self.temps:
            raise AttributeSyntax(f"%{number} is assigned twice")
        self.block.next_temp = max(self.block.next_temp, number + 1)
        self.temps[number] = Temp(TYPE_OF_LABEL[match[2]], number)
        return self.temps[number]

    def operand(self, text: str) -> Operand:
        if text.startswith("%"):
            if not text[1:].isdigit() or int(text[1:]) not in self.temps:
                raise AttributeSyntax(f"{text} is not assigned above")
            return self.temps[int(text[1:])]
        if text.startswith("$"):
            return parse_hole(text)
        value, _, label = text.partition(":")
        if label not in TYPE_OF_LABEL:
            raise AttributeSyntax(f"{text!r} is no operand")
        type_, number = TYPE_OF_LABEL[label], int(value, 0)
        if not 0 <= number <= type_.mask:
            raise AttributeSyntax(f"{value} does not fit {label}")
        return Const(type_, number)

    def line(self, text: str) -> None:
        if text.endswith(":") and text.startswith("L"):
            self.block.append("label", (), (), label=self.label(text[:-1]))
            return
        outs_text, equals, rest = text.partition(" = ")
        if not equals:
            outs_text, rest = "", text
        name, *words = rest.split()
        if name not in OPS:
            raise AttributeSyntax(f"there is no op {name!r}")
        attrs, ins = {}, []
        for word in words:
            word = word.removesuffix(",")
            match = _ATTRIBUTE.fullmatch(word)
            if match is not None:
                if match[1] not in OPS[name].attrs:
                    raise AttributeSyntax(f"{name} has no attribute {match[1]!r}")
                attrs[match[1]] = ATTRIBUTES[match[1]].parse(match[2])
            elif word.startswith("["):
                attrs["ref"] = parse_ref(word)
            elif word.startswith("L"):
                attrs["label"] = self.label(word)
            else:
                ins.append(self.operand(word))
        outs = [self.out(part) for part in outs_text.split(",")] if outs_text else []
        self.block.append(name, outs, ins, **attrs)


def parse(text: str) -> Block:
    """The block that `text` shows; IrSyntaxError tells the line. The result is not verified."""
    parser = _Parser()
    for number, line in enumerate(text.splitlines(), 1):
        code = line.partition("#")[0].strip()
        if code:
            try:
                parser.line(code)
            except (ValueError, KeyError) as error:
                raise IrSyntaxError(f"line {number}: {line.strip()}: {error}") from error
    return parser.block
