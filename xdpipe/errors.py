"""The errors that xdpipe raises for bad set-up; bad packets are counted, never raised."""


class XdpipeError(Exception):
    """Say in one line what failed, on what, and the likely cure.

    The command line prints the message and exits with 1, without a traceback.
    """


class ChainError(XdpipeError):
    """A chain that cannot work, with the cure."""


class CodeError(XdpipeError):
    """Code of a user's that does not compile; the message begins with file and line."""
