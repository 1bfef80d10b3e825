"""The C core, built by cffi: rings, the batch, the loop and the native stages."""
