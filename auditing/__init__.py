"""`audit` measures whether a model reads only what its masks allow, and reports what else it reads.

`expected_masks.py`: the masks that should hold, and those that the model ran under. `reachability.py`: what they allow
through all layers, computed slowly and simply. `measure.py`: what the model does read. `diagnosis.py`: what explains
the difference. `report.py` and `wording.py`: the report.
"""

from .audit import audit
from .report import AuditReport, Leak, LeakError, Relation

__all__ = ["AuditReport", "Leak", "LeakError", "Relation", "audit"]
