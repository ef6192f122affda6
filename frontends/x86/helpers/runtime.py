"""The run-time's services that the x86 helpers use, under one roof."""

from tcg.runtime.hooks import ask
from tcg.runtime.memory import external
from tcg.runtime.tlb import ram_hva, tlb_flush_all, tlb_flush_context, tlb_flush_page, tlb_flush_page_all, tlb_switch

__all__ = [
    "ask",
    "ram_hva",
    "softmmu_load",
    "softmmu_store",
    "tlb_flush_all",
    "tlb_flush_context",
    "tlb_flush_page",
    "tlb_flush_page_all",
    "tlb_switch",
]


@external("softmmu_load")
def softmmu_load(env: int, gva: int, size: int, mmu_idx: int) -> int:
    """Zero-extended guest load of 1, 2, 4 or 8 bytes as `mmu_idx`; a fault is left in env (exception = 1), result 0."""
    return 0


@external("softmmu_store")
def softmmu_store(env: int, gva: int, size: int, value: int, mmu_idx: int) -> None:
    """Guest store of 1, 2, 4 or 8 bytes as `mmu_idx`; a fault is left in env and nothing is stored."""
