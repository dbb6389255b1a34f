"""The version of the distribution, for pip, programs and servers."""

__version__ = "0.2.200"  # clients pin >=0.2.5,<0.3: stay below 0.3
