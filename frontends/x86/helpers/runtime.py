"""The run-time's services that the x86 helpers use, under one roof."""

from tcg.runtime.access import ld_sized, load_as, st_sized, store_as, tlb_probe
from tcg.runtime.hooks import ask
from tcg.runtime.tlb import ram_hva, tlb_flush_all, tlb_flush_context, tlb_flush_page, tlb_flush_page_all, tlb_switch

__all__ = [
    "ask",
    "ld_sized",
    "load_as",
    "ram_hva",
    "st_sized",
    "store_as",
    "tlb_flush_all",
    "tlb_flush_context",
    "tlb_flush_page",
    "tlb_flush_page_all",
    "tlb_probe",
    "tlb_switch",
]
