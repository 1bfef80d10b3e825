"""The test VM: an image from Debian packages, run by QEMU with multi-queue zero-copy NICs."""
