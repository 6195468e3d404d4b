import math
from dataclasses import dataclass, field
from typing import Any
from steering.errors import SteeringError
def check_multiplier(v):
    v=float(v)
    if not math.isfinite(v) or abs(v)>100: raise SteeringError("bad multiplier")
    return v
@dataclass(eq=False)
class SteeringVector:
    directions: dict
    name: str = ""
    behavior: str = ""
    description: str = ""
    model_id: str = ""
    model_fingerprint: str = ""
    method: dict[str, Any] = field(default_factory=dict)
    pairs: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    @property
    def layers(self): return tuple(sorted(self.directions))
    @property
    def norm(self): return float(sum((d.norm()**2 for d in self.directions.values()))**.5)
    def check_fits(self,*a): pass
