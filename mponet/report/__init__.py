"""A suite, a run or a folder of them as one page that needs no network.

Tables, curves, spectra, agreement and speed.

In the order of the flow: `sources.find` sees what a folder holds, `experiments.experiments` reads
it, the modules of charts and tables draw it, `write.report` puts the page together.
"""

from mponet.report.write import report as report
