"""Fuzzing of the native stages by clang's libFuzzer: `./dev fuzz`; targets.py has the table."""
