"""The pinned numbers: what an exploration of each kind comes to. A change of a rule shows here, and wants a look."""

from __future__ import annotations

# machine, blocking, how much may meet on one path -> states, edges, depth
PINS = {
    ("discrete", "normal", 0): (190, 536, 18),
    ("discrete", "children", 0): (26, 63, 10),
    ("discrete", "dependencies", 0): (26, 63, 10),
    ("continuous", "normal", 0): (141, 430, 16),
    ("continuous", "children", 0): (53, 134, 12),
    ("continuous", "dependencies", 0): (91, 259, 14),
    ("recomputing", "normal", 0): (141, 430, 16),
    ("recomputing", "children", 0): (53, 134, 12),
    ("recomputing", "dependencies", 0): (91, 259, 14),
    ("discrete", "normal", 1): (10402, 37130, 25),
    ("discrete", "children", 1): (742, 2433, 16),
    ("discrete", "dependencies", 1): (702, 2327, 16),
    ("continuous", "normal", 1): (8074, 30010, 22),
    ("continuous", "children", 1): (1482, 5134, 18),
    ("continuous", "dependencies", 1): (3515, 12776, 20),
    ("recomputing", "normal", 1): (8074, 30010, 22),
    ("recomputing", "children", 1): (1482, 5134, 18),
    ("recomputing", "dependencies", 1): (3515, 12776, 20),
    ("discrete", "children", 2): (12802, 49094, 19),
    ("discrete", "dependencies", 2): (11285, 43855, 19),
    ("continuous", "children", 2): (26551, 107052, 21),
}
