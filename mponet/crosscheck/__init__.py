"""Tests that the backends compute the same: equal parameters, equal batch, one process per backend.

`mponet.crosscheck.case` makes a task and writes it to files; `mponet.crosscheck.margin` keeps it
away from jumps, within the reach that `mponet.crosscheck.rounding` gives;
`mponet.crosscheck.process` starts `mponet.crosscheck.worker` for each backend;
`mponet.crosscheck.compare` compares the answers within `mponet.crosscheck.bounds`;
`mponet.crosscheck.table` prints reports.
"""

from mponet.crosscheck.check import crosscheck as crosscheck
from mponet.crosscheck.check import crosschecks as crosschecks
from mponet.crosscheck.compare import Comparison as Comparison
from mponet.crosscheck.compare import Report as Report
from mponet.crosscheck.table import markdown as markdown
