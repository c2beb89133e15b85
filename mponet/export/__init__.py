"""Networks as files that run elsewhere: which formats there are, and how a file is checked.

Framework-free.  Each adapter has the function ``export``, as ``mponet_torch.export``.
"""

from mponet.export.checked import TOLERANCE as TOLERANCE
from mponet.export.checked import Exported as Exported
from mponet.export.checked import Exporter as Exporter
from mponet.export.checked import write_checked as write_checked
from mponet.export.formats import FORMATS as FORMATS
from mponet.export.formats import Format as Format
from mponet.export.formats import format_for as format_for
