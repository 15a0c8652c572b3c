"""Tables of names: what the parts of known blocks are called, and which families have such blocks.

Nothing here imports a library. A block's class says which family it is of (`FAMILIES`); what its
parts are called differs between releases of one library, so that is read off its children
(`layout_of`).
"""

from eventful.backbones.layouts.families import FAMILIES, FOLDED, GRIDS, TOKENS, Family
from eventful.backbones.layouts.names import Layout, layout_of
from eventful.backbones.layouts.refused import REFUSED

__all__ = ["FAMILIES", "FOLDED", "GRIDS", "REFUSED", "TOKENS", "Family", "Layout", "layout_of"]
