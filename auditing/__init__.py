"""Does a model read only what its masks allow? `audit` measures it, and says where not.

`declaration.py`: what should hold. `allowed.py`: what that allows, composed over layers, slowly and obviously.
`measure.py`: what the model reads indeed. `report.py`, `figures.py`: the difference. `diagnosis.py`: where it is from.
"""

from .audit import audit
from .report import AuditReport, Leak, LeakError, Relation

__all__ = ["AuditReport", "Leak", "LeakError", "Relation", "audit"]
