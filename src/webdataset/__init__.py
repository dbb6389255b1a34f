"""Training data in plain tar shards."""

__version__ = "0.2.200"  # clients pin >=0.2.5,<0.3: stay below 0.3
