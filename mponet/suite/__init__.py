"""The paper's experiments: networks, normal and MPO, over seeds, in one folder that a killed suite continues from.

In the order of the flow: `plan` gives the `Suite` behind a command line, its `Suite.cells` are the trainings;
`run_suite` trains those that are not finished; `report` makes the table beside the published figures.  In the folder::

    suite.json                             what the suite is
    suite.lock                             locked while a process is at work
    <network>-<variant>[-D<bond>]-seed<N>  one run folder per cell, see `mponet.run`; failed.json in it if it broke
    tables.md, tables.csv, tables.json     the table, written after every cell

The state of a cell is read from its run folder and kept nowhere else.
"""

from mponet.suite.cells import Cell as Cell
from mponet.suite.cells import Suite as Suite
from mponet.suite.cells import plan as plan
from mponet.suite.execute import Observer as Observer
from mponet.suite.execute import run_suite as run_suite
from mponet.suite.folder import read as read
from mponet.suite.state import State as State
from mponet.suite.state import states as states
from mponet.suite.table import Row as Row
from mponet.suite.table import report as report
