"""Reference operations: index sets and attention states.

These functions are the specification. Anything faster is held equal to them by tests.
"""

from eventful.ops.attention import attend, merge, replace_keys
from eventful.ops.index import Index

__all__ = ["Index", "attend", "merge", "replace_keys"]
