"""Guest memory: RAM, physical address space, softmmu TLB contracts."""
