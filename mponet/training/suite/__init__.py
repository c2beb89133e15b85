"""The paper's experiments.

Networks, dense and MPO, over seeds, in one folder that a killed suite continues from.

In the order of the flow: `plan` makes the `Suite` of a command line, its `Suite.trainings` are the
trainings; `run_suite` trains those that are not finished; `report` compares them with the
published figures.  In the folder::

    suite.json                             what the suite is
    suite.lock                             locked while a process is at work, or shared by workers
    <network>-<variant>[-D<bond>]-seed<N>  one run folder per training; failed.json if it broke,
                                           claim-<n> while a worker trains it
    tables.md, tables.csv, tables.json     the table, written after every training

The state of a training is read from its run folder and kept nowhere else.
"""

from mponet.training.suite.execute import Observer as Observer
from mponet.training.suite.execute import run_suite as run_suite
from mponet.training.suite.folder import read as read
from mponet.training.suite.settings import Suite as Suite
from mponet.training.suite.settings import Training as Training
from mponet.training.suite.settings import plan as plan
from mponet.training.suite.state import State as State
from mponet.training.suite.state import states as states
from mponet.training.suite.table import Row as Row
from mponet.training.suite.table import report as report
from mponet.training.suite.worker import work as work
