"""Proof that the backends compute the same: same parameters, same batch, every backend in a process of its own.

In the order of the flow: `case` makes the task and writes it to files, `margin` keeps it away from
jumps, as far as `rounding` reaches; `worker` is what runs in each process; `process` starts them;
`compare` holds their answers against one another and `bounds`; `table` sums reports up.
"""

from mponet.crosscheck.check import crosscheck as crosscheck
from mponet.crosscheck.check import crosschecks as crosschecks
from mponet.crosscheck.compare import Comparison as Comparison
from mponet.crosscheck.compare import Report as Report
from mponet.crosscheck.table import markdown as markdown
