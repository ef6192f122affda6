"""Guest files: an unmodified Debian kernel and small initramfs images, made from Debian's own packages.

``python -m tcg.cli.guestfiles --out guest`` is the entry point; ``archive`` fetches packages through apt (no root),
``initramfs`` writes an image, ``images`` says what each image holds. Nothing here is needed to run the emulator.
"""
