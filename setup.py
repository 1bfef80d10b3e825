"""Name what cffi makes: the C core and libpcap's declarations; all else is in pyproject.toml.

This file exists only because cffi takes its list of extensions by a keyword to `setup()`, which has
no form in pyproject.toml.
"""

from setuptools import setup

setup(cffi_modules=["xdpipe/core/build.py:ffi", "xdpipe/libpcap_build.py:ffi"])
