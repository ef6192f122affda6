"""The x86 guest's native helpers: system instructions, exceptions, paging, string bodies, state images.

MODULES and HOOKS are what a tcg.runtime.registry.Recipe needs to build them into the run-time object.
"""

MODULES = tuple(
    f"frontends.x86.helpers.{name}"
    for name in (
        "flags",
        "paging",
        "mode",
        "descriptors",
        "segments",
        "descriptor_checks",
        "delivery",
        "delivery32",
        "exceptions",
        "transfers",
        "returns",
        "syscalls",
        "contexts",
        "control",
        "privileged",
        "msr",
        "ports",
        "strings",
        "string_scans",
        "string_ports",
        "fpu",
        "fpu_images",
        "xsave",
        "bits",
        "simd",
        "x87_host",
        "x87",
        "simd_fallback",
    )
)
HOOKS = {
    "guest_translate": "x86_translate",
    "guest_deliver": "x86_deliver",
    "guest_take_interrupt": "x86_take_interrupt",
    "guest_step": "x86_step",
}
SOURCES = (
    *(f"frontends.x86.helpers.{name}" for name in ("env", "access", "runtime")),
    *("frontends.x86.state", "frontends.x86.flags", "frontends.x86.cpuid"),
)
